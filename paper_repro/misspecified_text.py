"""Real text with wrong tokens or matrices, at the attention of each layer of two transformers.

Weights, scores and the predictions are computed in NumPy; what is observed comes from measattn.
"""

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import measattn as ma
from measattn import plot
from measattn.lipschitz import Ball, bound
from measattn.wasserstein import w1
from paper_repro import oracles
from paper_repro.claim import Bench
from paper_repro.proposition9 import (
    SHA256,
    TEXT,
    bert_scores,
    llama_scores,
    loaded,
    windows_of,
)

SHIFT = 1e-2
"""Shifted tokens move by this part of the radius of the cloud."""


class Site(NamedTuple):
    """The attention of one layer, and what enters it: the text, and another text."""

    attention: ma.MultiHead
    law: ma.EmpiricalMeasure
    other: ma.EmpiricalMeasure


def sites(model: Any, laws: list[ma.EmpiricalMeasure]) -> Iterator[Site]:
    """Layer by layer, both texts run through the model as they are."""
    step = jax.jit(lambda mu, layer: mu @ layer)
    layer: Any
    for layer in model.layers:
        attention: Any = layer.layers[0].layer
        before = laws
        if isinstance(attention, ma.Stack):
            norm, attention = attention.layers
            before = [step(mu, norm) for mu in laws]
        yield Site(attention, before[0], before[1])
        laws = [step(mu, layer) for mu in laws]


@jax.jit
def outputs(law: ma.EmpiricalMeasure, attention: ma.MultiHead) -> jax.Array:
    """The output at each atom (n, d)."""
    return ma.states(law @ attention).points


def scores_of(attention: Any, x: np.ndarray, scores: Any) -> np.ndarray:
    """(h, n, n): of queries and keys, -∞ where a row does not see a key."""
    heads = jax.tree.map(np.asarray, attention.heads)
    return np.array([scores(heads, x, h) for h in range(attention.count)])


def factors(attention: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """The head's part of the output map, and its value map."""
    values = np.asarray(attention.heads.value.weight, np.float64)
    parts = np.split(np.asarray(attention.output.weight, np.float64), len(values), axis=1)
    return list(zip(parts, values, strict=True))


def norm(left: np.ndarray, right: np.ndarray) -> float:
    """The norm of a product of a tall and a wide matrix, from their small Gram matrices."""
    sizes, axes = np.linalg.eigh(right @ right.T)
    root = axes * np.sqrt(np.maximum(sizes, 0))
    return float(np.linalg.eigvalsh(root.T @ (left.T @ left) @ root)[-1] ** 0.5)


def spread(scores: np.ndarray, *more: np.ndarray) -> np.ndarray:
    """(h, n): the oscillation of each row over the keys that it sees."""
    everything = np.stack([scores, *more])
    high = everything.max(axis=(0, 3))
    return high - np.where(np.isfinite(everything), everything, np.inf).min(axis=(0, 3))


class Found(NamedTuple):
    """One change at one site."""

    change: str
    output: float
    """The largest share of the predicted displacement of an output that is observed."""
    observed: float
    """W1 of the laws of the outputs."""
    predicted: float


def diameter(points: np.ndarray) -> float:
    """The largest distance."""
    return float(oracles.distances(points, points).max())


def one_token(
    site: Site, scores: Any, norms: np.ndarray, place: int, before: np.ndarray
) -> Iterator[Found]:
    """The token at one place is replaced by another text's, dropped, or repeated."""
    x, y = (np.asarray(ma.states(m).points) for m in (site.law, site.other))
    n, z = len(x), x.copy()
    z[place] = y[place]
    known, swapped = (scores_of(site.attention, points, scores) for points in (x, z))
    far = diameter(np.vstack([x, z[place]]))
    sees = np.isfinite(known[0, :, place])
    keys = np.isfinite(known[0]).sum(axis=1)
    others = np.arange(n) != place
    omega = spread(known, swapped)
    with np.errstate(over="ignore"):
        replaced = 1 / (1 + (keys - 1) * np.exp(-omega))
    weight = oracles.softmax(known)[:, :, place]
    fewer, more = (np.where(others, 1.0, factor) for factor in (0.0, 2.0))
    laws = {
        "replaced": (with_states(site.law, z), replaced * sees),
        "dropped": (weighted(site.law, fewer), weight),
        "repeated": (weighted(site.law, more), np.tanh(np.log(2) / 4) * np.outer(np.ones(1), sees)),
    }
    for change, (law, shares) in laws.items():
        after = np.asarray(outputs(law, site.attention))
        predicted = far * (norms @ np.broadcast_to(shares, (len(norms), n)))
        moved = np.linalg.norm(after - before, axis=1)
        used = np.divide(moved, predicted, out=np.zeros(n), where=(predicted > 0) & others)
        assert np.all(moved[others & (predicted == 0)] < 1e-9)
        mass = predicted[others].sum() / n + far * norms.sum() / n
        yield Found(change, used.max(), distance(site.law, before, law, after), mass)


def with_states(law: ma.EmpiricalMeasure, x: np.ndarray) -> ma.EmpiricalMeasure:
    """The same law with other states at the same positions."""
    points = law.points
    moved = ma.Token(points.position, x) if isinstance(points, ma.Token) else x
    return ma.EmpiricalMeasure(moved, law.log_weights)


def weighted(law: ma.EmpiricalMeasure, factors: np.ndarray) -> ma.EmpiricalMeasure:
    """The same points with weights in these proportions."""
    with np.errstate(divide="ignore"):
        return ma.EmpiricalMeasure(law.points, law.log_weights + np.log(factors))


def distance(
    mu: ma.EmpiricalMeasure, at_mu: np.ndarray, nu: ma.EmpiricalMeasure, at_nu: np.ndarray
) -> float:
    """W1 of the laws of the outputs, certified from above."""
    return w1(ma.weighted(at_mu, mu.weights), ma.weighted(at_nu, nu.weights)).upper


def all_tokens(
    bench: Bench, site: Site, scores: Any, norms: np.ndarray, before: np.ndarray
) -> Iterator[Found]:
    """All matrices of the heads are rounded; all tokens are shifted."""
    x = np.asarray(ma.states(site.law).points)
    rough: Any = jax.tree.map(
        lambda a: a.astype(jnp.bfloat16).astype(a.dtype) if a.ndim == 3 else a, site.attention.heads
    )
    rounded = eqx.tree_at(lambda attention: attention.heads, site.attention, rough)
    one, two = (scores_of(each, x, scores) for each in (site.attention, rounded))
    seen = np.isfinite(one)
    gap = np.where(seen, np.where(seen, one, 0) - np.where(seen, two, 0), -np.inf)
    pairs = list(zip(factors(site.attention), factors(rounded), strict=True))
    values = sum(norm(part, value - rough) for (part, value), (_, rough) in pairs)
    predicted = diameter(x) / 4 * (norms @ spread(gap)) + values * np.linalg.norm(x, axis=1).max()
    after = np.asarray(outputs(site.law, rounded))
    used = (np.linalg.norm(after - before, axis=1) / predicted).max()
    yield Found("rounded", used, distance(site.law, before, site.law, after), predicted.mean())
    if isinstance(site.law.points, ma.Token):
        return
    centre = x.mean(axis=0)
    shift = SHIFT * np.linalg.norm(x - centre, axis=1).max()
    noise = bench.rng.normal(size=x.shape)
    z = x + shift * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    constant = largest_shift(site.attention, centre, (1 + 1 / SHIFT) * shift)
    law = with_states(site.law, z)
    after = np.asarray(outputs(law, site.attention))
    used = np.linalg.norm(after - before, axis=1).max() / (constant * shift)
    yield Found("shifted", used, distance(site.law, before, law, after), constant * shift)


def largest_shift(attention: Any, centre: np.ndarray, radius: float) -> float:
    """The constant of B2 for p = ∞ on a ball, summed over heads: ‖V‖(1 + κR² + ℓR)."""
    a, total = attention.heads.potential, 0.0
    for h, pair in enumerate(factors(attention)):
        query, key = (np.asarray(f.weight[h], np.float64) for f in (a.query, a.key))
        scale = float(a.scale[h])
        kappa = scale * norm(key.T, query)
        tilt = key.T @ (query @ centre + np.asarray(a.query.bias[h], np.float64))
        ell = kappa * radius + scale * float(np.linalg.norm(tilt))
        total += norm(*pair) * (1 + kappa * radius**2 + ell * radius)
    return total


CHANGES = ("replaced", "dropped", "repeated", "rounded", "shifted")
STATEMENTS = {
    "replaced": "E2: a token replaced", "dropped": "E5: a token dropped",
    "repeated": "A2: a token repeated", "rounded": "E3: matrices rounded to 8 bits",
    "shifted": f"E1: all tokens shifted by {SHIFT:.0%} of the radius",
}  # fmt: skip


def through_layers(bench: Bench) -> None:
    """Both models: predicted and observed displacements at the attention of each layer."""
    data = TEXT.read_bytes()
    bench.check("text", hashlib.sha256(data).hexdigest() == SHA256, SHA256[:12])
    size, places, stride = (32, 1, 15) if bench.quick else (64, 3, 1)
    models = ((ma.pretrained.minilm, bert_scores), (ma.pretrained.smollm2, llama_scores))
    for load, scores in models:
        bench.progress("loading")
        model = loaded(load)
        laws = windows_of(model, data.decode(), size, 2)
        found: dict[int, list[Found]] = {}
        for i, site in enumerate(sites(model, laws)):
            if model.causal and i % stride and i + 1 < len(model.layers):
                continue
            bench.progress(f"{model.name}, layer {i}")
            before = np.asarray(outputs(site.law, site.attention))
            norms = np.array([norm(*pair) for pair in factors(site.attention)])
            found[i] = list(all_tokens(bench, site, scores, norms, before))
            for place in np.linspace(size // 4, size - 2, places).astype(int):
                found[i] += one_token(site, scores, norms, place, before)
        report(bench, model, found, size)
    if not bench.quick:  # all theorems for twelve heads take a while
        bench.close(
            "MiniLM, layer 0: the library's constant for p = inf", *constants(), tolerance=1e-8
        )


def constants() -> tuple[float, float]:
    """The constant of a shift of all tokens in a unit ball: the library's, and NumPy's."""
    layer: Any = loaded(ma.pretrained.minilm).layers[0]
    attention = layer.layers[0].layer
    centre = np.full(attention.output.weight.shape[0], 0.01)
    found = bound(attention, Ball(1.0, centre), np.inf)
    return found.value, largest_shift(attention, centre, 1.0)


def report(bench: Bench, model: Any, found: dict[int, list[Found]], size: int) -> None:
    """Contracts, a table of shares, and the figure of both distances layer by layer."""
    changes = [name for name in CHANGES if any(f.change == name for f in found[0])]
    worst = {name: [max(f.output for f in row if f.change == name) for row in found.values()]
             for name in changes}  # fmt: skip
    law = {name: [max(f.observed / f.predicted for f in row if f.change == name)
                  for row in found.values()] for name in changes}  # fmt: skip
    for name in changes:
        what = f"{model.name}, {STATEMENTS[name]}"
        bench.at_most(f"{what}: outputs over their bounds", max(worst[name]), 1.0)
        bench.at_most(f"{what}: W1 of the outputs over its bound", max(law[name]), 1.0)
    bench.table(
        f"{model.name}: the largest share of the predicted displacement that an output uses",
        ["layer", *changes],
        [[i, *(worst[name][k] for name in changes)] for k, i in enumerate(found)],
        f"{size} tokens; the change is made where the text enters the attention of the layer.",
    )
    ends = {}
    for name in changes:
        rows = [max((f for f in row if f.change == name), key=lambda f: f.observed)
                for row in found.values()]  # fmt: skip
        ends[name] = [f.observed for f in rows], [f.predicted for f in rows]
    bench.figure(
        plot.growth(
            list(found),
            ends,
            names=("layer", "$W_1$ of the outputs"),
            kinds=("observed", "predicted"),
        ),
        f"{model.name}: how far the law of the outputs of each attention moves, observed (dots) "
        "and predicted (dashed, of the same colour)",
        "For each change a line of dots, layer by layer, and a dashed line above it",
    )
