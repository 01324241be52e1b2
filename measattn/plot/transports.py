"""Figures of optimal transport: plans, potentials, and brackets that close."""

from typing import TYPE_CHECKING, Any

import numpy as np

from measattn.checks import positive, whole
from measattn.measure import EmpiricalMeasure
from measattn.plot.atoms import areas, arrays, check_labels, dots, legend, plane
from measattn.plot.style import (
    ACCENTS,
    INK,
    PAPER,
    SEQUENTIAL,
    canvas,
    colour_bar,
    house_style,
    logarithmic,
)
from measattn.wasserstein import Plan, Solution
from measattn.wasserstein.support import check_supports

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDEST_ARC = 2.4
"""Width, in points, of the arc that carries the most mass."""

FINEST_GAP = 1e-13
"""Relative gaps below this are rounding, and drawn here."""


@house_style
def transport(
    solution: Any,
    mu: EmpiricalMeasure,
    nu: EmpiricalMeasure,
    ax: "Axes | None" = None,
    *,
    labels: tuple[str, str] = ("source", "target"),
    arcs: int = 2000,
) -> "Figure":
    r"""A transport plan between $\mu$ and $\nu$: an arc for each pair that exchanges mass.

    The width of an arc is its mass. Above dimension 2 both clouds are projected to the principal
    axes of $\tfrac12(\mu + \nu)$, so drawn lengths are shorter than those that are paid for. In
    dimension 1 the quantile functions are drawn instead: the plan that pairs them is optimal for
    every p, and for p = 1 the area between them is the distance.

    Args:
        solution: of `wasserstein.w1` or `wasserstein.wp` between ``mu`` and ``nu``.
        mu: the source; of tokens, the states are drawn.
        nu: the target.
        ax: axes to draw into; a new figure by default.
        labels: of the two clouds, for the legend.
        arcs: the most arcs drawn, the heaviest ones, from 0 on; a title says what is left out.

    Raises:
        ValueError: the solution is one between other measures (it knows their points; that of
            `wasserstein.solve` knows their numbers of atoms alone), or ``arcs`` is no count.
    """
    arcs = whole("arcs", arcs)
    check_labels(labels)
    (x, wx), (y, wy) = _clouds(solution, mu, nu, "plan")
    figure, axes = canvas(ax)
    if x.shape[1] == 1:
        _quantiles(axes, (x[:, 0], wx), (y[:, 0], wy), labels, area=solution.p == 1)
        return figure
    projected, names = plane(np.vstack([x, y]), np.concatenate([wx, wy]) / 2)
    x, y = projected(x), projected(y)
    drawn = _heaviest(solution.plan, arcs)
    if len(drawn.mass):
        _arcs(axes, x[drawn.rows], y[drawn.cols], drawn.mass)
    dots(axes, x, wx, ACCENTS[0], labels[0])
    dots(axes, y, wy, ACCENTS[1], labels[1])
    axes.set(xlabel=names[0], ylabel=names[1])
    axes.set_aspect("equal", adjustable="datalim")
    if len(drawn.mass) < len(solution.plan.mass):
        share = drawn.mass.sum() / solution.plan.mass.sum()
        axes.set_title(
            f"the heaviest {arcs} of {len(solution.plan.mass)} arcs, {share:.0%} of mass"
        )
    legend(axes)
    return figure


@house_style
def potential(
    solution: Solution,
    mu: EmpiricalMeasure,
    nu: EmpiricalMeasure,
    ax: "Axes | None" = None,
    *,
    labels: tuple[str, str] = ("source", "target"),
) -> "Figure":
    r"""Kantorovich potentials at the atoms: u at those of $\mu$, -v at those of $\nu$.

    For p = 1 both are values of one 1-Lipschitz function f, and $W_1 = \mu(f) - \nu(f)$: mass goes
    down its slope. Those of `wasserstein.conditional` are one function at each position, and their
    heights at different positions are not to be compared. The constant that is free is chosen such
    that the mean over $\tfrac12(\mu + \nu)$ is 0. In dimension 1 the potential is the height, above
    it is the colour of a dot, in the plane of `plot.transport`.

    Args:
        solution: of `wasserstein.w1` or `wasserstein.wp` between ``mu`` and ``nu``.
        mu: the source, drawn as discs.
        nu: the target, drawn as diamonds.
        ax: axes to draw into; a new figure by default.
        labels: of the two clouds, for the legend.

    Raises:
        ValueError: the potentials are those of other measures, as for `plot.transport`.
    """
    check_labels(labels)
    (x, wx), (y, wy) = _clouds(solution, mu, nu, "potentials")
    u, v = solution.potentials
    middle = (wx @ u - wy @ v) / 2
    heights = (u - middle, -v - middle)
    figure, axes = canvas(ax)
    if x.shape[1] == 1:
        for points, weights, height, colour, label, marker in zip(
            (x, y), (wx, wy), heights, ACCENTS[:2], labels, "oD", strict=True
        ):
            at = np.column_stack([points[:, 0], height])
            dots(axes, at, weights, colour, label, marker)
        axes.set(xlabel="state", ylabel="potential")
        legend(axes)
        return figure
    projected, names = plane(np.vstack([x, y]), np.concatenate([wx, wy]) / 2)
    least, largest = (pick([pick(height) for height in heights]) for pick in (np.min, np.max))
    for points, weights, height, marker, label in zip(
        (x, y), (wx, wy), heights, "oD", labels, strict=True
    ):
        at = projected(points)
        image = axes.scatter(
            at[:, 0], at[:, 1], s=areas(weights), c=height, cmap=SEQUENTIAL, vmin=least,
            vmax=largest, marker=marker, edgecolors=PAPER, linewidths=0.5, label=label, zorder=3,
        )  # fmt: skip
    axes.set(xlabel=names[0], ylabel=names[1])
    axes.set_aspect("equal", adjustable="datalim")
    colour_bar(image).set_label("potential")
    legend(axes, colour=INK)
    return figure


@house_style
def bracket(solution: Any, ax: "Axes | None" = None, *, tol: float | None = None) -> "Figure":
    r"""How the certified bracket closed, round by round, on a logarithmic axis.

    Of every round the best bounds so far are drawn, as they lie above and below the final value:
    $\overline W/W - 1$ from plans and $1 - \underline W/W$ from potentials, with their sum, the
    relative gap. Gaps below 1e-13 are rounding, and drawn there.

    Args:
        solution: of a solver that has rounds, `wasserstein.ColumnGeneration`.
        ax: axes to draw into; a new figure by default.
        tol: the relative gap that was asked for, drawn as a dashed line.

    Raises:
        ValueError: the solution has no rounds, or a ``tol`` that has no place on the axis.
    """
    _check_solution(solution, "trace")
    asked = None if tol is None else positive("tol", tol)
    if not solution.trace:
        raise ValueError(
            f"the solution has no rounds to draw, its solver was {solution.solver}: pass "
            "solver=ColumnGeneration() to wasserstein.w1"
        )
    lower = np.maximum.accumulate([step.lower for step in solution.trace])
    upper = np.minimum.accumulate([step.upper for step in solution.trace])
    rounds = np.arange(1, len(lower) + 1)
    above, below = upper / solution.value - 1, 1 - lower / solution.value
    figure, axes = canvas(ax)
    sides = [np.maximum(side, FINEST_GAP) for side in (above, below, above + below)]
    axes.fill_between(rounds, FINEST_GAP, sides[2], color=INK, alpha=0.08, linewidth=0)
    axes.plot(rounds, sides[2], ".-", color=INK, linewidth=1.0, label="relative gap")
    axes.plot(rounds, sides[0], "o-", color=ACCENTS[1], label="plan: above by")
    axes.plot(rounds, sides[1], "o-", color=ACCENTS[0], label="potentials: below by")
    if asked is not None:
        axes.axhline(asked, linestyle="--", color=ACCENTS[2], label="asked for")
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    logarithmic(axes.yaxis)
    axes.set(ylim=(FINEST_GAP / 2, None), xlim=(0.5, len(rounds) + 0.5))
    axes.set(xlabel="round", ylabel=f"relative to W{solution.p:g} = {solution.value:.4g}")
    # above the axes, because the curves may be anywhere in them
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2)
    return figure


def _clouds(
    solution: Any, mu: EmpiricalMeasure, nu: EmpiricalMeasure, part: str
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Points and weights of both measures, if the solution is theirs and has a certain part."""
    _check_solution(solution, part)
    clouds = arrays(mu), arrays(nu, "nu")
    check_supports(solution, mu, nu)
    return clouds


def _check_solution(solution: object, part: str) -> None:
    if not hasattr(solution, part):
        article = "" if part.endswith("s") else "a "
        raise ValueError(
            f"solution must be one with {article}{part}, as wasserstein.w1 and wp return it, got a "
            f"{type(solution).__name__}"
        )


def _heaviest(plan: Plan, count: int) -> Plan:
    """The arcs of most mass, the lightest of them first."""
    order = np.argsort(plan.mass, kind="stable")[max(len(plan.mass) - count, 0) :]
    return Plan(plan.rows[order], plan.cols[order], plan.mass[order])


def _arcs(axes: "Axes", start: np.ndarray, end: np.ndarray, mass: np.ndarray) -> None:
    from matplotlib.collections import LineCollection

    crowd = mass.sum() ** 2 / (mass**2).sum()
    widths = WIDEST_ARC * mass / mass.max() / max(1.0, np.sqrt(crowd / 10.0))
    lines = LineCollection(
        list(np.stack([start, end], axis=1)), linewidths=np.maximum(widths, 0.15), colors=INK,
        alpha=0.4, zorder=2, capstyle="round",
    )  # fmt: skip
    axes.add_collection(lines)


def _quantiles(
    axes: "Axes",
    source: tuple[np.ndarray, np.ndarray],
    target: tuple[np.ndarray, np.ndarray],
    labels: tuple[str, str],
    *,
    area: bool,
) -> None:
    """Both quantile functions as steps, and what lies between them."""
    levels, heights = [], []
    for points, weights in (source, target):
        order = np.argsort(points, kind="stable")
        levels.append(np.cumsum(weights[order]) / weights.sum())
        heights.append(points[order])
    both = np.union1d(*levels)
    at = [
        height[np.minimum(np.searchsorted(level, both), len(height) - 1)]
        for level, height in zip(levels, heights, strict=True)
    ]
    edges = np.concatenate([[0.0], both])
    low, high = (np.append(values, values[-1]) for values in at)
    axes.fill_between(
        edges, low, high, step="post", color=INK, alpha=0.12, linewidth=0,
        label="area: the distance" if area else "paired",
    )  # fmt: skip
    for values, colour, label in zip((low, high), ACCENTS[:2], labels, strict=True):
        axes.step(edges, values, where="post", color=colour, label=label)
    axes.set(xlabel="share of the mass", ylabel="state")
    axes.legend()
