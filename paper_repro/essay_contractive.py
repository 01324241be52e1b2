"""The claim that softmax makes attention contractive, and what is contractive."""

import jax
import numpy as np

import measattn as ma
from measattn import plot
from measattn.lipschitz import Ball, bound
from measattn.wasserstein import w1
from paper_repro import jacobians, oracles
from paper_repro.claim import TOLERANCE, Bench, claim
from paper_repro.evidence import Role, Verdict


@claim(
    id="essay-contractive",
    group="C",
    title="Softmax makes attention contractive: no",
    formulas=[
        r"\mathrm{Lip}_{W_p}(\mathrm{Att})<1\quad\mathrm{?}",
        r"D_{t+1}\leq\Vert V\Vert\,D_t\tanh\frac{\kappa D_t^2}{4}\leq\frac{\Vert V\Vert\kappa}{4}"
        r"D_t^3",
        r"\tau<1\ \Rightarrow\ W_1(\mathrm{Att}\,\mu,\mathrm{Att}\,\nu)\leq\tau\,W_1(\mu,\nu)",
    ],
    statement=r"Attention with $V=I$ leaves every Dirac mass where it is, so its constant is at "
    r"least one (C3); among three tokens it multiplies distances by $\frac{2}{3}M^2$; on the ball "
    r"of radius $R$ with $A=-\kappa I$ by $e^{2\kappa R^2}(1+2\kappa R^2)$ (B4). What contracts: "
    r"softmax as a map of its logits (by ½), the spread within one sequence (C4), and attention "
    r"between sequences where one of the proved constants $\tau$ is below one.",
    source="an essay on functional analysis and attention; C3 and C4 are proved in docs/theory, "
    "B3 and B4 in docs/theory-lipschitz",
    hypotheses={"softmax": "weights are a softmax of scores"},
    expected=Verdict.REFUTED,
    cost=(2, 5),
)
def contractive(bench: Bench) -> None:
    """Three witnesses; then the correct forms."""
    bench.check("softmax", True, "by construction")
    witnesses(bench)
    spreads(bench)
    small_constants(bench)


image = jax.jit(lambda mu, layer: mu @ layer)


def quotient(layer: ma.SelfAttention, *pair: ma.EmpiricalMeasure) -> float:
    """The certified quotient of W1."""
    mu, nu = pair
    return w1(image(mu, layer), image(nu, layer)).lower / w1(mu, nu).upper


def witnesses(bench: Bench) -> None:
    """A contraction would bring each of these pairs nearer."""
    layer = ma.SelfAttention(ma.DotProduct(1.0))
    bench.counterexample(
        "two Dirac masses, V = I: quotient of W1 against a constant below one",
        quotient(layer, ma.dirac([0.3, 0.1]), ma.dirac([-0.5, 0.4])),
        0.99,
        "each stays where it is.",
        predicted=1.0,
    )
    step = 1e-5
    x = np.array([[-3.0], [0.0], [3.0]])
    moved = x + np.array([[0], [step], [0]])
    got = quotient(layer, ma.EmpiricalMeasure(x), ma.EmpiricalMeasure(moved))
    bench.counterexample(
        "tokens -3, 0, 3 of which the middle one moves: quotient of W1",
        got,
        1.0,
        r"the softmax turns towards the side to which the query moves: $\frac{2}{3}M^2$.",
    )
    repelling, mass = ma.SelfAttention(ma.DotProduct(-1.0)), 1e-4 * np.exp(-2.0)
    pair = [ma.weighted(np.array([[1.0, 0], [-1 + h, 0]]), np.array([1 - mass, mass]))
            for h in (0, 1e-4)]  # fmt: skip
    bench.counterexample(
        r"$A=-I$ on the unit ball, a light mass opposite a heavy one: quotient of W1",
        quotient(repelling, *pair),
        1.0,
        r"the heavy one looks at the light one: $e^2(1+2)=22.2$ in the limit.",
    )


def spreads(bench: Bench) -> None:
    """C4: the diameter of the tokens, layer by layer; a causal mask as the control."""
    worst, rows = [], []
    for trial in range(10 if bench.quick else 100):
        A, V = bench.rng.normal(size=(2, 3, 3))
        A, V = A / np.linalg.norm(A, 2), V / np.linalg.norm(V, 2)
        x = jacobians.in_ball(bench.rng, 12, 3)
        for layer in range(4):
            before = diameter(x)
            x = oracles.softmax(x @ A.T @ x.T) @ x @ V.T
            bound_there = before * np.tanh(before**2 / 4)
            if bound_there > 1e-10:  # below, the rounding of the tokens is seen
                worst.append(diameter(x) / bound_there)
                if trial == 0:
                    rows.append([layer + 1, before, diameter(x), bound_there])
    bench.at_most("C4: diameter after a layer over its bound, four layers", max(worst),
                  1 + TOLERANCE, role=Role.CORRECTION)  # fmt: skip
    bench.table("C4: the diameter of twelve tokens, ‖V‖ = κ = 1, until it is rounding",
                ["layer", "before", "after", "bound"], rows)  # fmt: skip
    bench.figure(
        plot.curve([r[0] for r in rows], [r[2] for r in rows], bound={"C4": [r[3] for r in rows]},
                   fit=False, names=("layer", "diameter of the tokens")),
        "C4: the spread within one sequence collapses; dashed, the bound from the layer before",
        "The diameter falls faster and faster, below the dashed line",
    )  # fmt: skip
    # small scores under a causal mask: the first token stays, the second comes half the way
    ends = np.array([[-0.5, 0, 0], [0.5, 0, 0]])
    after = oracles.softmax(ends @ ends.T + oracles.causal(2)) @ ends
    bench.control(
        "C4 under a causal mask",
        diameter(after) / np.tanh(0.25),
        1.0,
        "rows see different keys.",
        predicted=(1 / (1 + np.exp(-0.5))) / np.tanh(0.25),
    )


def diameter(x: np.ndarray) -> float:
    """The largest distance."""
    return float(oracles.distances(x, x).max())


def small_constants(bench: Bench) -> None:
    """Values that are small enough: a proved constant below one, and pairs that obey it."""
    ratios, constants = [], []
    for _ in range(8 if bench.quick else 100):
        A, V = bench.rng.normal(size=(2, 2, 2))
        layer = ma.SelfAttention(ma.Bilinear(0.5 * A / np.linalg.norm(A, 2), np.eye(2)), V)
        size = bound(layer, Ball(1.0)).value
        layer = ma.SelfAttention(layer.potential, 0.9 * V / size)
        tau = bound(layer, Ball(1.0)).value
        pair = [ma.EmpiricalMeasure(jacobians.in_ball(bench.rng, 8, 2)) for _ in "mn"]
        ratios.append(w1(*(image(m, layer) for m in pair)).upper / (tau * w1(*pair).lower))
        constants.append(tau)
    bench.at_most("values scaled until τ = 0.9: quotient over τ", max(ratios), 1.0,
                  role=Role.CORRECTION)  # fmt: skip
    bench.at_most("and τ is below one", max(constants), 0.9 + 1e-6, role=Role.CORRECTION)
    logits = bench.rng.normal(size=(2, 500, 6))
    after = np.linalg.norm(oracles.softmax(logits[0]) - oracles.softmax(logits[1]), axis=1)
    bench.at_most("softmax as a map of its logits: quotient over ½",
                  (2 * after / np.linalg.norm(logits[0] - logits[1], axis=1)).max(), 1.0,
                  role=Role.CORRECTION)  # fmt: skip
