"""Figures of one measure, and of a measure before and after a layer."""

from typing import TYPE_CHECKING

import numpy as np

from measattn.measure import EmpiricalMeasure, states
from measattn.plot.style import ACCENTS, INK, PAPER, canvas, house_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LARGEST_DOT = 130.0
"""Area, in square points, of the heaviest atom."""

LEGEND_DOT = 28.0
"""Area of the dots in a legend."""


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
    points, weights = _arrays(mu)
    figure, axes = canvas(ax)
    if points.shape[1] == 1:
        _stems(axes, points[:, 0], weights, colour, label)
    else:
        plane, names = _plane(points, weights)
        _dots(axes, plane(points), weights, colour, label)
        axes.set(xlabel=names[0], ylabel=names[1])
        axes.set_aspect("equal", adjustable="datalim")
    if label is not None:
        _legend(axes)
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
    (x, wx), (y, wy) = _arrays(mu), _arrays(nu)
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
        plane, names = _plane(np.vstack([x, y]), np.concatenate([wx, wy]) / 2)
        x, y = plane(x), plane(y)
        axes.set(xlabel=names[0], ylabel=names[1])
        axes.set_aspect("equal", adjustable="datalim")
    if len(x) == len(y):
        step = y - x
        axes.quiver(
            x[:, 0], x[:, 1], step[:, 0], step[:, 1],
            angles="xy", scale_units="xy", scale=1, color=INK, alpha=0.45,
            width=0.003, headwidth=4, headlength=5, zorder=2,
        )  # fmt: skip
    _dots(axes, x, wx, ACCENTS[0], labels[0])
    _dots(axes, y, wy, ACCENTS[1], labels[1])
    _legend(axes)
    return figure


def _arrays(mu: EmpiricalMeasure) -> tuple[np.ndarray, np.ndarray]:
    mu = states(mu)
    return np.asarray(mu.points, np.float64), np.asarray(mu.weights, np.float64)


def _stems(
    axes: "Axes", points: np.ndarray, weights: np.ndarray, colour: str, label: str | None
) -> None:
    axes.vlines(points, 0.0, weights, color=colour, linewidth=1.2)
    axes.plot(points, weights, "o", color=colour, markeredgecolor=PAPER, label=label)
    drawn = axes.get_ylim()[1] if axes.lines[:-1] else 0.0
    axes.set(xlabel="state", ylabel="weight", ylim=(0.0, max(drawn, 1.08 * weights.max())))


def _dots(
    axes: "Axes", points: np.ndarray, weights: np.ndarray, colour: str, label: str | None
) -> None:
    # many dots of one size would hide one another, a few heavy ones do not
    crowd = weights.sum() ** 2 / (weights**2).sum()
    area = LARGEST_DOT * weights / weights.max() / max(1.0, crowd / 12.0)
    axes.scatter(
        points[:, 0], points[:, 1], s=np.maximum(area, 4.0), color=colour, alpha=0.85,
        edgecolors=PAPER, linewidths=0.5, label=label, zorder=3,
    )  # fmt: skip


def _legend(axes: "Axes") -> None:
    for handle in axes.legend(loc="best").legend_handles:
        resize = getattr(handle, "set_sizes", None)
        if resize is not None:
            resize([LEGEND_DOT])


def _plane(points: np.ndarray, weights: np.ndarray) -> tuple:
    """The projection to draw in, and the names of its axes."""
    if points.shape[1] == 2:
        return (lambda p: p), ("first coordinate", "second coordinate")
    centre = weights @ points
    scaled = np.sqrt(weights)[:, None] * (points - centre)
    _, singular, axes = np.linalg.svd(scaled, full_matrices=False)
    axes = axes[:2] if len(axes) > 1 else np.vstack([axes, np.zeros_like(axes)])
    singular = np.append(singular, 0.0)
    total = float(np.sum(singular**2)) or 1.0
    shares = 100.0 * singular[:2] ** 2 / total
    names = tuple(
        f"{which} principal axis ({share:.0f}% of variance)"
        for which, share in zip(("first", "second"), shares, strict=True)
    )
    return (lambda p: (p - centre) @ axes.T), names
