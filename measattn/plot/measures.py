"""Figures of one measure, and of a measure before and after a layer."""

from typing import TYPE_CHECKING, Any

import numpy as np

from measattn.measure import EmpiricalMeasure
from measattn.plot.atoms import arrays, check_labels, dots, legend, plane
from measattn.plot.style import ACCENTS, INK, PAPER, canvas, house_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


HEAD = {"headwidth": 4, "headlength": 5}
"""Of arrows, in widths of their shafts."""


@house_style
def measure(
    mu: EmpiricalMeasure,
    ax: "Axes | None" = None,
    *,
    colour: str = ACCENTS[0],
    label: str | None = None,
) -> "Figure":
    r"""The atoms of $\mu = \sum_i \omega_i\delta_{x_i}$; the area of a dot is its weight.

    In dimension 1 a stem of height $\omega_i$ stands at $x_i$; in dimension 2 atoms lie where they
    are; above, they are projected to the first two principal axes, which the labels say, with the
    share of variance that each explains.

    Args:
        mu: a measure; of tokens, the states are drawn.
        ax: axes to draw into; a new figure by default.
        colour: of the atoms.
        label: for the legend.
    """
    points, weights = arrays(mu)
    figure, axes = canvas(ax)
    if points.shape[1] == 1:
        _stems(axes, points[:, 0], weights, colour, label)
    else:
        projected, names = plane(points, weights)
        dots(axes, projected(points), weights, colour, label)
        axes.set(xlabel=names[0], ylabel=names[1])
        axes.set_aspect("equal", adjustable="datalim")
    if label is not None:
        legend(axes)
    return figure


@house_style
def law(
    mu: EmpiricalMeasure,
    nu: EmpiricalMeasure,
    ax: "Axes | None" = None,
    *,
    labels: tuple[str, str] = ("before", "after"),
) -> "Figure":
    r"""A law before and after a layer: $\mu = \sum_i\omega_i\delta_{x_i}$ and $\nu = \mu T$.

    Arrows go from atom i to atom i, where a Dirac-valued kernel takes it; they are left out where
    the numbers of atoms differ. Above dimension 2 both are projected to the principal axes of
    $\tfrac12(\mu + \nu)$.

    Raises:
        ValueError: the two laws live in different dimensions.
    """
    check_labels(labels)
    (x, wx), (y, wy) = arrays(mu), arrays(nu, "nu")
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"both laws must have the same dimension, got {x.shape[1]} and {y.shape[1]}: "
            "draw them with plot.measure instead"
        )
    figure, axes = canvas(ax)
    if x.shape[1] == 1:
        x, y = (np.column_stack([p[:, 0], np.full(len(p), h)]) for p, h in ((x, 1.0), (y, 0.0)))
        axes.set(xlabel="state", yticks=[1.0, 0.0], yticklabels=labels, ylim=(-0.35, 1.35))
    else:
        projected, names = plane(np.vstack([x, y]), np.concatenate([wx, wy]) / 2)
        x, y = projected(x), projected(y)
        axes.set(xlabel=names[0], ylabel=names[1])
        axes.set_aspect("equal", adjustable="datalim")
    if len(x) == len(y):
        step = y - x
        # heads of arrows that all end in one place would cover the atoms there
        met = np.ptp(y, axis=0).max() < 0.05 * np.ptp(x, axis=0).max()
        head: Any = {"headwidth": 1, "headlength": 0, "headaxislength": 0} if met else HEAD
        axes.quiver(
            x[:, 0], x[:, 1], step[:, 0], step[:, 1],
            angles="xy", scale_units="xy", scale=1, color=INK, alpha=0.45,
            width=0.003, zorder=2, **head,
        )  # fmt: skip
    dots(axes, x, wx, ACCENTS[0], labels[0])
    dots(axes, y, wy, ACCENTS[1], labels[1])
    legend(axes)
    return figure


def _stems(
    axes: "Axes", points: np.ndarray, weights: np.ndarray, colour: str, label: str | None
) -> None:
    axes.vlines(points, 0.0, weights, color=colour, linewidth=1.2)
    axes.plot(points, weights, "o", color=colour, markeredgecolor=PAPER, label=label)
    drawn = axes.get_ylim()[1] if axes.lines[:-1] else 0.0
    axes.set(xlabel="state", ylabel="weight", ylim=(0.0, max(drawn, 1.08 * weights.max())))
