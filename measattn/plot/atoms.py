"""How the atoms of a measure are drawn: in which plane, how large, and with which legend."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from measattn.measure import EmpiricalMeasure, need_measure, states
from measattn.plot.style import PAPER

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LARGEST_DOT = 130.0
"""Area, in square points, of the heaviest atom."""

LEGEND_DOT = 28.0
"""Area of the dots in a legend."""


def arrays(mu: EmpiricalMeasure, name: str = "mu") -> tuple[np.ndarray, np.ndarray]:
    """States (n, d) and weights (n,) in NumPy's double precision.

    Raises:
        ValueError: ``mu`` is no measure; ``name`` is the argument.
    """
    need_measure(name, mu)
    mu = states(mu)
    return np.asarray(mu.points, np.float64), np.asarray(mu.weights, np.float64)


def check_labels(labels: object) -> None:
    """Refuse what does not name two clouds.

    Raises:
        ValueError: not a tuple or list of two.
    """
    if not isinstance(labels, (tuple, list)) or len(labels) != 2:
        raise ValueError(f'labels must be two, such as ("before", "after"), got {labels!r}')


def plane(
    points: np.ndarray, weights: np.ndarray
) -> tuple[Callable[[np.ndarray], np.ndarray], tuple[str, str]]:
    """The projection to draw in, and the names of its axes: principal axes above dimension 2."""
    if points.shape[1] == 2:
        return (lambda p: p), ("first coordinate", "second coordinate")
    centre = weights @ points
    scaled = np.sqrt(weights)[:, None] * (points - centre)
    _, singular, axes = np.linalg.svd(scaled, full_matrices=False)
    axes = axes[:2] if len(axes) > 1 else np.vstack([axes, np.zeros_like(axes)])
    singular = np.append(singular, 0.0)
    total = float(np.sum(singular**2)) or 1.0
    first, second = 100.0 * singular[:2] ** 2 / total
    names = (
        f"first principal axis ({first:.0f}% of variance)",
        f"second principal axis ({second:.0f}% of variance)",
    )
    return (lambda p: (p - centre) @ axes.T), names


def areas(weights: np.ndarray) -> np.ndarray:
    """The area of each dot, proportional to its weight unless it would vanish."""
    # many dots of one size would hide one another, a few heavy ones do not
    crowd = weights.sum() ** 2 / (weights**2).sum()
    return np.maximum(LARGEST_DOT * weights / weights.max() / max(1.0, crowd / 12.0), 4.0)


def dots(
    axes: "Axes",
    points: np.ndarray,
    weights: np.ndarray,
    colour: Any,
    label: str | None,
    marker: str = "o",
) -> None:
    """The atoms (n, 2) of a measure as dots."""
    axes.scatter(
        points[:, 0], points[:, 1], s=areas(weights), color=colour, alpha=0.85,
        marker=marker, edgecolors=PAPER, linewidths=0.5, label=label, zorder=3,
    )  # fmt: skip


def legend(axes: "Axes", colour: str | None = None) -> None:
    """A legend whose dots have one size, and one colour where colours mean something else."""
    from matplotlib.collections import PathCollection

    for handle in axes.legend(loc="best").legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([LEGEND_DOT])
            if colour is not None:
                handle.set_array(None)
                handle.set_facecolor(colour)
