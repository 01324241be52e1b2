"""Definition 8 and Proposition 9 of [VBT20]: the composition implements attention."""

import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import measattn as ma
from measattn import plot
from paper_repro import oracles
from paper_repro.claim import Bench, claim, relative_error
from paper_repro.definitions import similarities

TEXT = Path(__file__).parent / "data" / "topics.txt"
SHA256 = "2cea1393d4828f7da1597b1b2d9bf56c84f17d879688f6ddf8faea6e9219eb26"


@claim(
    id="def8-attention-kernel",
    group="A",
    title="The attention kernel: softmatch, then look-up, then projection",
    formulas=[
        r"A(q,{\cdot})=\Pi\Bigl[\Psi_{G(q,{\cdot})}\bigl(m(K)\bigr)\,L\Bigr]",
        r"=\delta_{\mathrm{Attention}(q,K,V)}",
    ],
    statement=r"The composition of the three maps is a Markov kernel whose values are Dirac "
    r"masses at the output of attention, for every similarity and for weighted keys. The order "
    r"matters: the projection comes last.",
    source="Definition 8 of [VBT20], as reconstructed in docs/theory",
    hypotheses={"distinct": "the keys are distinct, or equal keys get their conditional law"},
    cost=(5, 5),
)
def attention_kernel(bench: Bench) -> None:
    """The composition for seven similarities; projecting before the look-up as the control."""
    rng, n, m, d = bench.rng, 8, 30, 4
    q, k = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    v, omega = np.sin(2 * k[:, :2]), rng.dirichlet(np.ones(m))
    keys = ma.weighted(k, omega)
    queries = ma.EmpiricalMeasure(q)
    bench.check("distinct", len(np.unique(k, axis=0)) == m)

    @jax.jit
    def both(queries, composed, direct):
        return (queries @ composed).points, (queries @ direct).points

    rows = []
    for name, potential, score in similarities(rng, d):
        composed = ma.moment_projection(
            ma.SoftmatchKernel(potential, keys) @ ma.LookupKernel(keys, v)
        )
        got, direct = both(queries, composed, ma.AttentionKernel(potential, keys, v))
        want = oracles.attention(q, k, v, score, omega)
        rows.append([name, relative_error(got, want), relative_error(direct, want)])
    bench.at_most("composition, worst relative error", max(r[1] for r in rows), 1e-12)
    bench.at_most("AttentionKernel, worst relative error", max(r[2] for r in rows), 1e-12)
    bench.table("Seven similarities", ["similarity", "composition", "AttentionKernel"], rows)

    scale = ma.DotProduct(d**-0.5)
    A = ma.moment_projection(ma.SoftmatchKernel(scale, keys) @ ma.LookupKernel(keys, v))
    row = A(jnp.asarray(q[0]))
    bench.close(r"$A(q,{\cdot})$ is one atom of mass one", row.weights, np.ones(1))
    mean_key = ma.moment_projection(ma.SoftmatchKernel(scale, keys))
    bench.refuses(
        "projecting first leaves a point that is no key",
        lambda: ma.LookupKernel(keys, v)(mean_key(jnp.asarray(q[0])).points[0]),
        "no key",
    )
    weights = oracles.softmax(oracles.dot(d**-0.5)(q, k), omega)
    bench.control_close(
        "the value at the mean key, against the mean value",
        (queries @ A).points,
        np.sin(2 * (weights @ k)[:, :2]),
        weights @ v,
        "the projection does not commute with a look-up that is not affine.",
    )
    cloud = ma.EmpiricalMeasure(rng.normal(size=(40, 2)))
    T = ma.AttentionKernel(ma.DotProduct(1.0), cloud, cloud.points)
    bench.figure(
        plot.law(cloud, cloud @ T, labels=("queries", "outputs")),
        r"Forty queries in the plane and where $A$ sends them, the keys and values being the "
        "queries themselves",
        "Arrows from forty points of a cloud to means of the cloud that lie on their side of it",
    )


@jax.jit
def compose(heads: ma.SelfAttention, mu: ma.EmpiricalMeasure) -> tuple[jax.Array, jax.Array]:
    """Softmatch, look-up, projection for each of the stacked heads; and AttentionKernel."""

    def one(head: ma.SelfAttention) -> tuple[jax.Array, jax.Array]:
        values = jax.vmap(head.value)(ma.states(mu).points)
        attend = ma.SoftmatchKernel(head.potential, mu) @ ma.LookupKernel(mu, values)
        direct = ma.AttentionKernel(head.potential, mu, values)
        return ma.moment_projection(attend).send(mu.points), direct.send(mu.points)

    return jax.lax.map(one, heads)


def affine(x: np.ndarray, f: Any, head: int) -> np.ndarray:
    """Rows of x through the stacked affine map of that head."""
    out = x @ np.asarray(f.weight[head], np.float64).T
    return out if f.bias is None else out + np.asarray(f.bias[head], np.float64)


def bert_scores(heads: ma.SelfAttention, x: np.ndarray, h: int) -> np.ndarray:
    """Scaled dot products of the affine queries and keys of head h."""
    a: Any = heads.potential
    return affine(x, a.query, h) @ affine(x, a.key, h).T * float(a.scale[h])


def llama_scores(heads: ma.SelfAttention, x: np.ndarray, h: int) -> np.ndarray:
    """The same with rotary positions and the causal mask."""
    causal: Any = heads.potential
    a, positions = causal.potential, np.arange(len(x))
    q = oracles.rotate(affine(x, a.query, h), positions, float(a.base[h]))
    k = oracles.rotate(affine(x, a.key, h), positions, float(a.base[h]))
    return q @ k.T * float(a.scale[h]) + oracles.causal(len(x))


def attentions(
    model: Any, mu: ma.EmpiricalMeasure
) -> Iterator[tuple[ma.SelfAttention, ma.EmpiricalMeasure]]:
    """The stacked heads of each layer, and the law that enters them."""
    step = jax.jit(lambda mu, layer: mu @ layer)
    for layer in model.layers:
        attention, before = layer.layers[0].layer, mu
        if isinstance(attention, ma.Stack):
            norm, attention = attention.layers
            before = mu @ norm
        heads: Any = attention
        yield heads.heads, before
        mu = step(mu, layer)


def check_model(
    bench: Bench, model: Any, scores: Any, windows: list[ma.EmpiricalMeasure]
) -> np.ndarray:
    """Worst error (layer, head) of both forms over windows of text."""
    errors = np.zeros(())
    for number, mu in enumerate(windows):
        rows = []
        for i, (heads, law) in enumerate(attentions(model, mu)):
            bench.progress(f"{model.name}, window {number + 1} of {len(windows)}, layer {i}")
            bench.check("distinct", ma.compact(law).size == law.size)
            got = [np.asarray(g) for g in compose(heads, law)]
            x = np.asarray(ma.states(law).points)
            row = []
            for h in range(got[0].shape[0]):
                want = oracles.softmax(scores(heads, x, h)) @ affine(x, heads.value, h)
                row.append(max(relative_error(g[h], want) for g in got))
            rows.append(row)
        errors = np.maximum(errors, rows)
    return errors


@functools.cache
def loaded(load: Callable[[], Any]) -> Any:
    """The model, read once for all claims."""
    return load()


def windows_of(model: Any, text: str, size: int, count: int) -> list[ma.EmpiricalMeasure]:
    """That many laws of ``size`` tokens each, from places spread over the text."""
    length = 8 * size  # characters, more than enough for the tokens
    starts = np.linspace(0, len(text) - length, count).astype(int)
    return [
        model.embed(model.ids(text[start : start + length])[:size], dtype=jnp.float64)
        for start in starts
    ]


@claim(
    id="prop9-attention",
    group="A",
    title="Proposition 9: the composition is attention, in every head of two transformers",
    formulas=[
        r"\Pi\Bigl[\Psi_{G(q,{\cdot})}(m(K))\,L\Bigr]=\delta_{\mathrm{Attention}(q,K,V)}",
        r"G(x,y)=\exp\frac{\langle W_Qx+b_Q,\,W_Ky+b_K\rangle}{\sqrt{d_k}},"
        r"\qquad v(y)=W_Vy+b_V",
    ],
    statement=r"On real text, for every head of every layer of all-MiniLM-L6-v2 (6 layers of 12 "
    r"heads) and SmolLM2-135M (30 layers of 9 heads, causal mask and rotary positions, "
    r"dequantised Q4_1 weights), the composed kernel agrees to rounding with a softmax attention "
    r"written in NumPy. Keys are the tokens themselves, so that no two keys differ only in the "
    r"last digit (B8).",
    source="Proposition 9 of [VBT20], as reconstructed in docs/theory",
    hypotheses={
        "text": "the text is the committed excerpt (sha256)",
        "distinct": "no two keys of a layer are equal (bit for bit, positions included)",
    },
    cost=(30, 200),
)
def proposition(bench: Bench) -> None:
    """Both models on windows of the excerpt; wrong temperature and no positions as controls."""
    data = TEXT.read_bytes()
    bench.check("text", hashlib.sha256(data).hexdigest() == SHA256, SHA256[:12])
    text = data.decode()
    # tokens in a window, windows; quick mode leaves out neither heads nor layers
    sizes = {"bert": (128, 1), "llama": (128, 1)}
    if not bench.quick:
        sizes = {"bert": (512, 8), "llama": (512, 2)}
    models = ((ma.pretrained.minilm, bert_scores), (ma.pretrained.smollm2, llama_scores))
    for load, scores in models:
        bench.progress("loading")
        model = loaded(load)
        name, (size, count) = model.name, sizes[model.family]
        windows = windows_of(model, text, size, count)
        errors = check_model(bench, model, scores, windows)
        bench.at_most(f"{name}: worst relative error of {errors.size} heads", errors.max(), 1e-12)
        bench.figure(
            plot.errors_by_layer(errors, 1e-12),
            f"{name}: the error of every head, composition of kernels against NumPy",
            f"Errors of all heads of {len(errors)} layers, all below the tolerance 1e-12",
        )
        bench.table(
            f"{name}: worst error of each layer over {count * size:,} tokens of text",
            ["layer", "worst head", "worst relative error", "median over heads"],
            [[i, int(row.argmax()), row.max(), np.median(row)] for i, row in enumerate(errors)],
            f"{count} × {size} tokens; relative to the largest output of the head; float64.",
        )
        control(bench, model, scores, windows[0])


def control(bench: Bench, model: Any, scores: Any, mu: ma.EmpiricalMeasure) -> None:
    """The first layer against attention at the wrong temperature, or without positions."""
    heads, law = next(attentions(model, mu))
    got = np.asarray(compose(heads, law)[0])
    x = np.asarray(ma.states(law).points)
    values = affine(x, heads.value, 0)
    true = scores(heads, x, 0)
    if model.causal:
        causal: Any = heads.potential
        a = causal.potential
        q, k = (affine(x, f, 0) for f in (a.query, a.key))
        broken = q @ k.T * float(a.scale[0]) + oracles.causal(len(x))
        what, why = "without rotary positions", "scores depend on the distance of the tokens."
    else:
        broken = true * np.sqrt(values.shape[1])
        what, why = r"without the factor $1/\sqrt{d_k}$", "the softmax is at another temperature."
    bench.control_close(
        f"{model.name}, head 0 of layer 0, {what}",
        got[0],
        oracles.softmax(broken) @ values,
        oracles.softmax(true) @ values,
        why,
    )
