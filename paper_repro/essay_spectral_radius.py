"""The claim that the spectral radius of the composed operator decides stable depth."""

from typing import Any

import numpy as np
from scipy.optimize import root_scalar

import measattn as ma
from measattn import dynamics as dyn
from measattn.plot import ACCENTS, INK
from measattn.plot.style import house_style, logarithmic
from paper_repro import stacks
from paper_repro.claim import TOLERANCE, Bench, claim
from paper_repro.evidence import Verdict
from paper_repro.jacobians import in_ball

TOKENS = 8
NUDGE = 1e-3
"""How far from a fixed point the stack is started."""


@claim(
    id="essay-spectral-radius",
    group="C",
    title="The spectral radius decides whether depth is stable: near a fixed point of one layer",
    formulas=[
        r"X^*=F(X^*),\quad J=DF(X^*),\qquad\rho(J)\leq\Vert J\Vert\leq\tau",
        r"\rho(J)<1\ \Rightarrow\ \limsup|X_t-X^*|^{1/t}\leq\rho(J),\qquad"
        r"\rho(J)>1\ \Rightarrow\ X^*\mathrm{\ repels}",
        r"F(\pm r)=\pm\left(u+vr\tanh\kappa r^2\right)",
    ],
    statement=r"For a layer that is repeated, with its input injected, the spectral radius of its "
    r"Jacobian at a fixed point is the rate near it, and above one the point repels; also where "
    r"no constant below one exists. The claim says more: two opposite tokens have two fixed points "
    r"that attract and one between them that does not, so a radius below one says nothing of "
    r"starts far away; layers of radius zero that differ multiply to one of radius four; and a "
    r"radius of ½ allows a growth of a thousand on the way.",
    source="an essay on functional analysis and attention; rates near fixed points are "
    "Ostrowski's theorem, the order of the constants is C5 of docs/theory-dynamics",
    hypotheses={
        "fixed": r"the Jacobian is that at a fixed point",
        "near": r"the start is near it",
        "shared": r"all layers are one layer",
    },
    expected=Verdict.NEEDS_HYPOTHESES,
    cost=(4, 6),
)
def spectral(bench: Bench) -> None:
    """Rates near fixed points, a map with three of them, layers that differ, transients."""
    bench.check("shared", True, "by construction")
    rates(bench)
    bistable(bench)
    unlike(bench)
    transient(bench)


def rates(bench: Bench) -> None:
    """The rate of the library's stack near an equilibrium against the radius there."""
    rows, errors, radii, above, moved, pictures = [], [], [], [], [], []
    for trial in range(5 if bench.quick else 40):
        # the scores of every other layer are too strong for a proof
        score = 0.2 if trial % 2 == 0 else 3.0
        block = stacks.random_block(bench.rng, 2, score=score, value=bench.rng.uniform(0.5, 0.8))
        u = 0.3 * in_ball(bench.rng, TOKENS, 2)
        x = u
        for _ in range(600):
            x = u + block(x)
        moved.append(stacks.row_norms(u + block(x) - x).max())
        J = stacks.jacobian_of(x, block)
        layer = dyn.Injected(block.layer, u)
        errors.append(
            np.abs(np.asarray(stacks.differentiated(x, layer)).reshape(J.shape) - J).max()
        )
        rho, tau = stacks.spectral_radius(J), stacks.claimed(layer, ma.EmpiricalMeasure(x), 2)
        radii.append(abs(dyn.spectrum(layer, ma.EmpiricalMeasure(x), 1).radius / rho - 1))
        start = ma.EmpiricalMeasure(x + NUDGE * in_ball(bench.rng, TOKENS, 2))
        path = dyn.iterate(layer, start, 64, distances=False, keep="all")
        far = np.array([np.linalg.norm(np.asarray(mu.points) - x) for mu in path])
        # the share of the slowest direction: where eigenvalues are complex lengths swing
        values, vectors = np.linalg.eig(J.T)
        slowest = vectors[:, np.argmax(np.abs(values))]
        share = [abs(slowest @ (np.asarray(mu.points) - x).ravel()) for mu in path]
        rate = dyn.fit_rate(share, 1e-12)
        rows.append([score, rho, rate.value, np.linalg.norm(J, 2), tau])
        above.append(max(rho / np.linalg.norm(J, 2), np.linalg.norm(J, 2) / tau))
        pictures.append((far, rho))
    bench.check("fixed", max(moved) < 1e-13, f"moves of at most {max(moved):.1g}")
    bench.check("near", True, f"within {NUDGE:g}")
    bench.at_most("Jacobians of the library at fixed points against NumPy", max(errors), 1e-12)
    bench.at_most("the library's spectral radius against NumPy, relative", max(radii), 1e-7)
    bench.at_most(r"fitted rate of the slowest direction against $\rho(J)$, relative",
                  max(abs(row[2] / row[1] - 1) for row in rows), 1e-3)  # fmt: skip
    bench.at_most(r"$\rho(J)$ over $\Vert J\Vert$, and that over τ where it is proved",
                  max(above), 1 + TOLERANCE)  # fmt: skip
    bench.control(
        r"the rate near a fixed point is $\Vert J\Vert$, within 1 %",
        max(abs(row[2] / row[3] - 1) for row in rows),
        0.01,
        "the norm bounds one step; the radius is the rate of many.",
    )
    bench.table(
        "Random layers with inputs, at their fixed points",
        ["‖A‖", r"radius of J", "fitted rate", "‖J‖", "τ, proved"],
        rows[:6],
        "Where τ is ∞ no contraction is proved, and the stack converges near the point all the "
        "same.",
    )
    bench.figure(
        picture(pictures[:4], *curve()),
        "Left: the distance to a fixed point (dots) and the power of the spectral radius there "
        "(dashed). Right: two opposite tokens, where the next layer puts them; fixed points are on "
        "the diagonal",
        "Dots follow the dashed lines; the curve on the right crosses the diagonal three times",
    )


KAPPA, VALUE, INPUT = 6.0, 0.9, 0.1


def scalar(r: Any) -> Any:
    """Two opposite tokens ±r with inputs ±u: where r goes."""
    return INPUT + VALUE * r * np.tanh(KAPPA * r * r)


def crossings() -> list[float]:
    """The fixed points of the scalar map, by bisection between changes of sign."""
    grid = np.linspace(0, 2, 400)
    gap = scalar(grid) - grid
    at = np.flatnonzero(gap[:-1] * gap[1:] < 0)
    found = [
        root_scalar(lambda r: scalar(r) - r, bracket=(grid[i], grid[i + 1]), xtol=1e-15) for i in at
    ]
    return [float(each.root) for each in found]


def curve() -> tuple[Any, Any, list[float]]:
    """What the figure shows of it."""
    r = np.linspace(0, 1.5, 300)
    return r, scalar(r), crossings()


def bistable(bench: Bench) -> None:
    """Three fixed points: two that attract nearby starts, one that repels."""
    block = stacks.Block(KAPPA * np.eye(1), VALUE * np.eye(1), np.zeros(1))
    signs = np.array([[-1.0], [1.0]])
    layer = dyn.Injected(block.layer, INPUT * signs)
    low, middle, high = crossings()
    radii = [
        stacks.spectral_radius(stacks.jacobian_of(r * signs, block)) for r in (low, middle, high)
    ]

    def end(r: float) -> float:
        path = dyn.iterate(layer, ma.EmpiricalMeasure(r * signs), 512, distances=False)
        return float(np.asarray(path[-1].points)[1, 0])

    bench.at_most("two tokens: spectral radius at the outer fixed points", max(radii[::2]), 1.0)
    bench.at_least("two tokens: spectral radius at the middle one", radii[1], 1.0)
    bench.close("starts near the outer ones go there", [end(low + 0.02), end(high - 0.05)],
                [low, high], tolerance=1e-9)  # fmt: skip
    bench.close("starts beside the middle one go to the outer ones",
                [end(middle - 1e-6), end(middle + 1e-6)], [low, high], tolerance=1e-9)  # fmt: skip
    bench.counterexample(
        "a start far from the first fixed point, whose radius is below one: distance in the end",
        abs(end(high + 0.1) - low),
        1e-6,
        "it goes to another fixed point: the radius speaks of starts nearby.",
        predicted=high - low,
    )
    bench.control(
        "this layer: a rate below one is claimed",
        stacks.claimed(layer, ma.EmpiricalMeasure(high * signs), np.inf),
        1.0,
        "it has several fixed points; the library must refuse to prove a rate.",
    )
    bench.control(
        "the middle fixed point attracts: distance after 512 layers from 10⁻⁶ beside it",
        abs(end(middle + 1e-6) - middle),
        1e-6,
        "its radius is above one.",
        predicted=high - middle,
    )


def unlike(bench: Bench) -> None:
    """Two layers of radius zero in turn: one token grows by 4 in every pair."""
    up, down = np.array([[0, 2.0], [0, 0]]), np.array([[0, 0], [2.0, 0]])
    blocks = [stacks.Block(np.zeros((2, 2)), V, np.zeros(2)) for V in (up, down)]
    start = ma.EmpiricalMeasure(np.tile([0.0, 1.0], (2, 1)))
    pair = ma.Stack(tuple(block.layer for block in blocks))
    x = np.asarray(dyn.iterate(pair, start, 8, distances=False)[-1].points)
    each = max(
        stacks.spectral_radius(stacks.jacobian_of(np.zeros((2, 2)), block)) for block in blocks
    )
    bench.at_most("spectral radius of each of two nilpotent layers", each, 1e-12)
    bench.counterexample(
        "sixteen layers, each of radius zero: length of a token over the first",
        stacks.row_norms(x).max(),
        1.0,
        "radii do not multiply where layers differ.",
        predicted=4.0**8,
    )


def transient(bench: Bench) -> None:
    """A radius of ½ and a large norm: what a stack of few layers does."""
    V = np.array([[0.5, 1000.0], [0.0, 0.5]])
    block = stacks.Block(np.zeros((2, 2)), V, np.zeros(2))
    start = ma.EmpiricalMeasure(np.tile([0.0, 1.0], (2, 1)))
    path = dyn.iterate(block.layer, start, 60, distances=False).radius
    bench.counterexample(
        "a layer of radius ½, repeated: the largest length of a token over the first",
        path.max() / path[0],
        1.0,
        "the matrix is far from normal: it stretches before it shrinks.",
        predicted=max(np.linalg.norm(np.linalg.matrix_power(V, t)[:, 1]) for t in range(61)),
    )
    bench.at_most("sixty layers of it: length of the token over the first", path[-1] / path[0],
                  1e-10)  # fmt: skip


@house_style
def picture(pictures: Any, r: Any, image: Any, fixed: list[float]) -> Any:
    """Rates, and the map of two opposite tokens."""
    figure, (left, right) = stacks.panels("Near a fixed point", "Two opposite tokens")
    for colour, (far, rho) in zip(ACCENTS, pictures, strict=False):
        t = np.arange(len(far))
        shown = far > 1e-13
        left.plot(t[shown], far[shown], "o", color=colour, markersize=2.5, label=f"ρ = {rho:.2f}")
        half = min(10, shown.sum() - 1)
        line = far[half] * rho ** (t - half)
        left.plot(t[line > 1e-13], line[line > 1e-13], "--", color=colour, linewidth=1)
    logarithmic(left.yaxis)
    left.set(xlabel="layer", ylabel="distance")
    left.legend(fontsize=7)
    right.plot(r, r, color=INK, linewidth=0.8, alpha=0.6)
    right.plot(r, image, color=ACCENTS[0])
    for k, at in enumerate(fixed):
        face = "none" if k % 2 else ACCENTS[1]
        right.plot(at, at, "o", color=ACCENTS[1], markerfacecolor=face, markersize=7, zorder=4,
                   label="repels" if k % 2 else "attracts" if k == 0 else None)  # fmt: skip
    right.set(xlabel="r", ylabel="r after a layer")
    right.legend(fontsize=8)
    return figure
