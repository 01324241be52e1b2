"""Rates, margins and errors."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from measattn.plot.style import ACCENTS, INK, PAPER, canvas, house_style, logarithmic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@house_style
def curve(
    x: Any,
    y: Any,
    ax: "Axes | None" = None,
    *,
    spread: Any = None,
    bound: Mapping[str, Any] | None = None,
    names: tuple[str, str] = ("n", "error"),
    fit: bool = True,
) -> "Figure":
    r"""A rate on logarithmic axes, with the least-squares slope of $\log y$ against $\log x$.

    Without ``fit`` any function, its points joined, over a linear abscissa; zeros are left out.

    Args:
        x: abscissas, at least two different ones; positive with ``fit``.
        y: ordinates, positive; without ``fit`` some may be 0.
        ax: axes to draw into; a new figure by default.
        spread: standard errors of y, drawn as bars.
        bound: proved bounds at each x, by name, drawn as dashed lines.
        names: labels of the axes.
        fit: whether y is a power of x, to be fitted.

    Raises:
        ValueError: entries that are not positive, or of unequal number.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.shape != y.shape or x.ndim != 1 or len(np.unique(x)) < 2:
        raise ValueError(f"x and y must be two equally long lists, got {x.shape} and {y.shape}")
    if fit and min(x.min(), y.min()) <= 0:
        raise ValueError(
            "x and y must be positive to be drawn on logarithmic axes; with fit=False x is linear, "
            "and zeros of y are left out"
        )
    if not (np.isfinite(x).all() and (y >= 0).all() and (y > 0).any()):
        raise ValueError(
            f"x must be finite and y at least 0 and somewhere positive, got y from {y.min()} to "
            f"{y.max()}"
        )
    y = np.where(y > 0, y, np.nan)
    figure, axes = canvas(ax)
    axes.set(xlabel=names[0], ylabel=names[1])
    dots: Any = {"color": ACCENTS[0], "markeredgecolor": PAPER, "capsize": 2, "zorder": 3}
    if fit:
        axes.errorbar(x, y, spread, fmt="o", **dots)
        slope, offset = np.polyfit(np.log(x), np.log(y), 1)
        label = f"fitted slope {slope:.3f}".replace("-", "−")
        axes.plot(x, np.exp(offset) * x**slope, color=ACCENTS[0], alpha=0.6, label=label)
        logarithmic(axes.xaxis)
    else:
        axes.errorbar(x, y, spread, fmt="o-", label=names[1], **dots)
    logarithmic(axes.yaxis)
    for k, (name, values) in enumerate((bound or {}).items()):
        axes.plot(x, np.asarray(values), "--", color=ACCENTS[(1 + k) % len(ACCENTS)], label=name)
    axes.legend()
    return figure


@house_style
def margins(values: Mapping[str, float], ax: "Axes | None" = None) -> "Figure":
    r"""How much of what is allowed was used, observed/allowed; up to 1 all is well.

    Args:
        values: name and margin of each contract; margins below $10^{-6}$ are drawn there.
        ax: axes to draw into; a new figure by default.
    """
    figure, axes = canvas(ax, height=0.8 + 0.24 * len(values))
    lengths = np.maximum(np.asarray(list(values.values()), np.float64), 1e-6)
    colours = [ACCENTS[0] if length <= 1 else ACCENTS[1] for length in lengths]
    axes.barh(range(len(lengths)), lengths, left=1e-7, color=colours, height=0.6)
    axes.set_yticks(range(len(lengths)), list(values))
    axes.axvline(1.0, color=INK, linewidth=1.0)
    logarithmic(axes.xaxis)
    axes.set(xlim=(1e-7, None), xlabel="margin: observed / allowed (log)")
    axes.invert_yaxis()
    return figure


@house_style
def errors_by_layer(
    errors: Any,
    tolerance: float | None = None,
    ax: "Axes | None" = None,
    *,
    name: str = "relative error",
    labels: tuple[str, str] = ("worst head", "tolerance"),
) -> "Figure":
    r"""The error of every head (dots) and the worst of each layer (line), on a logarithmic axis.

    Args:
        errors: one row a layer, one entry a head; a matrix, or rows of unlike lengths.
        tolerance: what is allowed, drawn as a dashed line.
        ax: axes to draw into; a new figure by default.
        name: label of the vertical axis.
        labels: of the two lines, where the entries are no heads.
    """
    rows = [np.maximum(np.asarray(row, np.float64), np.finfo(np.float64).tiny) for row in errors]
    if not rows or any(row.size == 0 for row in rows):
        raise ValueError("errors must hold at least one head in each of at least one layer")
    figure, axes = canvas(ax)
    for layer, row in enumerate(rows):
        axes.plot(np.full(row.size, layer), row, "o", color=ACCENTS[0], alpha=0.35, markersize=3)
    worst = [row.max() for row in rows]
    axes.plot(range(len(rows)), worst, color=ACCENTS[0], label=labels[0])
    if tolerance is not None:
        axes.axhline(tolerance, linestyle="--", color=ACCENTS[1], label=labels[1])
    axes.set(xlabel="layer", ylabel=name)
    logarithmic(axes.yaxis)
    axes.legend()
    return figure
