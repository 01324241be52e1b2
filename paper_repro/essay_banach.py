"""Banach's theorem for a stack of layers, and the error bounds that come with it."""

from typing import Any, NamedTuple

import numpy as np
import optimistix as optx
from scipy.optimize import root

import measattn as ma
from measattn import dynamics as dyn
from measattn.plot import ACCENTS, INK
from measattn.plot.style import house_style, logarithmic
from paper_repro import stacks
from paper_repro.claim import Bench, claim
from paper_repro.evidence import Verdict
from paper_repro.jacobians import in_ball

TOKENS, TOLERANCE = 8, 1e-10
STACK = optx.FixedPointIteration(rtol=0.0, atol=TOLERANCE)
"""The stack itself, one layer after the other."""


@claim(
    id="essay-banach",
    group="C",
    title="Banach's theorem gives a stack its fixed point and explicit error bounds: if τ < 1",
    formulas=[
        r"|X_t-X^*|\leq\frac{\tau^t}{1-\tau}\,|X_0-X_1|,\qquad|X_t-X^*|\leq"
        r"\frac{|X_t-X_{t+1}|}{1-\tau}",
        r"t\geq\frac{\log\frac{|X_0-X_1|}{(1-\tau)\,\varepsilon}}{\log\frac{1}{\tau}}"
        r"\quad\Rightarrow\quad|X_t-X^*|\leq\varepsilon",
    ],
    statement=r"A stack that shares its weights, with its input injected, is iterated. Where a "
    r"constant $\tau<1$ is proved the bound before the run says how many layers are enough, and "
    r"the bound after it how far the limit is; both are checked against a root finder, for the "
    r"stack, for Anderson's method and for runs cut short. The second is attained. Nothing of "
    r"this holds of attention as such: it may go round, grow, or have many fixed points. "
    r"Convergence of nonlinear layers in operator norm has no meaning.",
    source="an essay on functional analysis and attention; C1 and C5 are proved in "
    "docs/theory-dynamics",
    hypotheses={
        "tau": r"a constant $\tau<1$ is proved on a ball that the stack maps into itself",
        "shared": r"all layers are one layer",
    },
    expected=Verdict.NEEDS_HYPOTHESES,
    cost=(4, 8),
)
def banach(bench: Bench) -> None:
    """Bounds before and after a run; then layers without a constant below one."""
    bench.check("shared", True, "by construction")
    bounds(bench)
    attained(bench)
    without(bench)


class Problem(NamedTuple):
    """A layer, its inputs, where to start, and the constant in the norm of the largest move."""

    block: stacks.Block
    u: np.ndarray
    start: np.ndarray
    tau: float


def problem(bench: Bench) -> Problem:
    """A random one on the unit disc."""
    q = bench.rng.uniform(0.7, 0.95)
    block = stacks.random_block(bench.rng, 2, score=(q / 0.6 - 1) / 2, value=0.6)
    u = in_ball(bench.rng, TOKENS, 2)
    u *= 0.4 / stacks.row_norms(u).max()
    start = in_ball(bench.rng, TOKENS, 2)
    proof = dyn.contraction(dyn.Injected(block.layer, u), ma.EmpiricalMeasure(start), np.inf)
    bench.check("tau", proof.value < 1, "each layer, by the catalogue")
    return Problem(block, u, start, proof.value)


def orbit(case: Problem, layers: int) -> np.ndarray:
    """X_0, X_1, …, in NumPy."""
    x = [case.start]
    for _ in range(layers):
        x.append(case.u + case.block(x[-1]))
    return np.array(x)


def root_of(case: Problem) -> np.ndarray:
    """The equilibrium by SciPy's hybrid Newton method, polished by the layer."""
    shape = case.u.shape
    found = root(lambda x: x - (case.u + case.block(x.reshape(shape))).ravel(), case.u.ravel())
    return orbit(case._replace(start=found.x.reshape(shape)), 60)[-1]


def bounds(bench: Bench) -> None:
    """Both bounds on random stacks, runs of the library at three tolerances, one that is cut."""
    before, after, told, enough = [], [], [], []
    drawn: Any = None
    for trial in range(4 if bench.quick else 40):
        case = problem(bench)
        block, u, tau = case.block, case.u, case.tau
        x, exact = orbit(case, 40), root_of(case)
        far = stacks.row_norms(x - exact).max(axis=1)
        moves = stacks.row_norms(np.diff(x, axis=0)).max(axis=1)
        shown = far[:-1] > 1e-12
        before.append((far[:-1] / (tau ** np.arange(40) / (1 - tau) * moves[0]))[shown].max())
        after.append((far[:-1][shown] * (1 - tau) / moves[shown]).max())
        for tolerance in (1e-2, 1e-5, 1e-9):
            layers = int(np.ceil(np.log(moves[0] / ((1 - tau) * tolerance)) / -np.log(tau)))
            enough.append(stacks.row_norms(orbit(case, layers)[-1] - exact).max() / tolerance)
        runs = [dyn.equilibrium(block.layer, u, TOLERANCE, solver=each) for each in (None, STACK)]
        cut = dyn.equilibrium(block.layer, u, TOLERANCE, solver=STACK, steps=16)
        for found in (*runs, cut):
            told.append(_mean(np.asarray(found.measure.points) - exact, found) / found.error)
        if trial == 0:
            drawn = x, exact, moves / (1 - tau), tau
            bench.control(
                "a run that is cut after sixteen layers: it says that it has converged",
                stacks.concluded(cut),
                1.0,
                "its last move is far above its tolerance.",
                relation="≥",
                predicted=0.0,
            )
    bench.at_most("distance to the limit over the bound before the run", max(before), 1.0)
    bench.at_most("distance to the limit over the bound after the run", max(after), 1.0)
    bench.at_most("distance after the number of layers that are enough, over the tolerance",
                  max(enough), 1.0)  # fmt: skip
    bench.at_most("runs of the library: distance to the limit over the certified one", max(told),
                  1.0)  # fmt: skip
    bench.figure(
        funnel(*drawn),
        "One coordinate of three tokens in depth. Shaded, where the limit must lie by the bound "
        "after each layer; dotted, the limit",
        "Three curves run into dotted lines that the shaded funnels around them always hold",
    )


def _mean(moves: np.ndarray, found: dyn.FixedPoint) -> float:
    """The size of moves in the norm of the proof."""
    assert found.contraction is not None
    lengths = stacks.row_norms(moves)
    if np.isinf(found.contraction.p):
        return float(lengths.max())
    return float(np.mean(lengths**found.contraction.p) ** (1 / found.contraction.p))


@house_style
def funnel(x: Any, exact: Any, error: Any, tau: float) -> Any:
    """The first coordinate of the tokens that move most, each with its certified funnel."""
    figure, (left, right) = stacks.panels(f"Certified funnel, τ = {tau:.2f}", "Its width")
    # at the start the funnel is so wide that nothing else would be seen
    t = np.arange(1, 11)
    chosen = np.argsort(exact[:, 0])[[0, TOKENS // 2, -1]]
    for colour, i in zip(ACCENTS, chosen, strict=False):
        path = x[t, i, 0]
        left.fill_between(t, path - error[t], path + error[t], color=colour,
                          alpha=0.2, linewidth=0)  # fmt: skip
        left.plot(t, path, "o-", color=colour, markersize=3)
        left.axhline(exact[i, 0], color=INK, linestyle=":", linewidth=0.9)
    far = stacks.row_norms(x - exact).max(axis=1)[:-1]
    shown = far > 1e-14
    right.plot(np.arange(len(far))[shown], error[shown], "--", color=ACCENTS[1], label="certified")
    right.plot(np.arange(len(far))[shown], far[shown], "o-", color=ACCENTS[0], markersize=3,
               label="distance to the limit")  # fmt: skip
    left.set(xlabel="layer", ylabel="first coordinate", xticks=t)
    logarithmic(right.yaxis)
    right.set(xlabel="layer", ylabel="largest distance")
    right.legend(fontsize=8)
    return figure


def attained(bench: Bench) -> None:
    """V = qI without scores: the bound after the run is attained; without 1/(1-τ) it is false."""
    q = 0.95
    block = stacks.Block(np.zeros((2, 2)), q * np.eye(2), np.zeros(2))
    mu = ma.EmpiricalMeasure(np.tile([0.6, 0.8], (TOKENS, 1)))
    found = dyn.fixed_point(block.layer, mu, 1e-3)
    away = float(stacks.row_norms(np.asarray(found.measure.points)).max())
    bench.close("V = 0.95 I: certified distance and distance", found.error, away, tolerance=1e-8)
    assert found.residual is not None
    bench.control(
        "V = 0.95 I: the limit is as near as the last move is short",
        away / found.residual.value,
        1.0,
        "moves add up: the factor is 1/(1-τ).",
        predicted=1 / (1 - q),
    )


def without(bench: Bench) -> None:
    """No constant below one: a cycle, growth, many fixed points; and what the library says."""
    x = np.tile([0.6, 0.8], (TOKENS, 1))
    ends = {}
    for name, size in {"V = -I": -1.0, "V = 2 I": 2.0, "V = I": 1.0}.items():
        block = stacks.Block(np.eye(2), size * np.eye(2), np.zeros(2))
        ends[name] = dyn.fixed_point(block.layer, ma.EmpiricalMeasure(x), steps=2048)
        bench.control(
            f"{name}: a rate below one is claimed",
            stacks.claimed(block.layer, ma.EmpiricalMeasure(x), np.inf),
            1.0,
            "there is no constant below one; the library must refuse to prove a rate.",
        )
    bench.counterexample(
        "V = -I, one point: the last move is within the tolerance",
        ends["V = -I"].residuals[-1],
        1e-10,
        f"the point flips for ever; the library reports a {ends['V = -I'].verdict}.",
        predicted=2.0,
    )
    bench.counterexample(
        "V = 2 I, one point: coordinates stay below a million",
        np.abs(np.asarray(ends["V = 2 I"].measure.points)).max(),
        1e6,
        f"it doubles in every layer; the library reports that it {ends['V = 2 I'].verdict}.",
    )
    block = stacks.Block(np.eye(2), np.eye(2), np.zeros(2))
    other = dyn.fixed_point(block.layer, ma.EmpiricalMeasure(0.5 * x))
    apart = np.asarray(ends["V = I"].measure.points) - np.asarray(other.measure.points)
    bench.counterexample(
        "V = I: two fixed points at a distance",
        stacks.row_norms(apart).max(),
        1e-9,
        "every point is one: the theorem's uniqueness fails.",
        predicted=0.5,
    )
    bench.note(
        "Layers that do not share weights have no fixed point to go to; what converges then are "
        "products of attention matrices, to matrices of rank one (row dong-rank-collapse)."
    )
