"""Heat maps of Markov kernels."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from measattn.measure import EmpiricalMeasure
from measattn.plot.style import SEQUENTIAL, canvas, colour_bar, house_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@house_style
def weights(
    matrix: Any,
    ax: "Axes | None" = None,
    *,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
) -> "Figure":
    r"""The heat map of a stochastic matrix $P_{ij}$, one row for each query.

    Args:
        matrix: (m, n), rows that sum to one.
        ax: axes to draw into; a new figure by default.
        rows: names of the queries, such as tokens.
        columns: names of the keys.

    Raises:
        ValueError: not a matrix, or the wrong number of names.
    """
    p = np.asarray(matrix, np.float64)
    if p.ndim != 2:
        raise ValueError(f"matrix must have two axes (queries, keys), got shape {p.shape}")
    for name, given, size in (("rows", rows, p.shape[0]), ("columns", columns, p.shape[1])):
        if given is not None and len(given) != size:
            raise ValueError(f"{name} must name all {size}, got {len(given)} names")
    figure, axes = canvas(ax, 4.6, 3.6)
    image = axes.imshow(
        p, cmap=SEQUENTIAL, vmin=0.0, vmax=max(p.max(), 1e-300), aspect="auto",
        interpolation="nearest",
    )  # fmt: skip
    axes.grid(False)
    axes.set(xlabel="key", ylabel="query")
    from matplotlib.ticker import MaxNLocator

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    if columns is not None:
        axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right")
    if rows is not None:
        axes.set_yticks(range(len(rows)), rows)
    colour_bar(image).set_label("weight")
    return figure


@house_style
def kernel(
    K: Callable[[Any], EmpiricalMeasure],
    mu: EmpiricalMeasure,
    ax: "Axes | None" = None,
    *,
    labels: Sequence[str] | None = None,
) -> "Figure":
    r"""The heat map of the rows $K(x_i, \cdot)$ of a Markov kernel at the atoms of $\mu$.

    Args:
        K: a kernel whose rows share their atoms, such as a `SoftmatchKernel`.
        mu: the measure whose atoms are the queries.
        ax: axes to draw into; a new figure by default.
        labels: names of the atoms of ``mu``, such as tokens; of the columns too if they are as
            many.
    """
    p = np.asarray(jax.vmap(lambda x: K(x).weights)(mu.points))
    columns = labels if labels is not None and len(labels) == p.shape[1] else None
    figure = weights(p, ax, rows=labels, columns=columns)
    axes = figure.axes[0] if ax is None else ax
    axes.set(xlabel="atom of $K(x,\\cdot)$", ylabel="x")
    return figure
