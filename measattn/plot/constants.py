"""Lipschitz constants from both sides: what is attained and what is certified."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from measattn.plot.style import ACCENTS, INK, PAPER, canvas, house_style, logarithmic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDEST = 12.0
"""Of a figure of many bars, in inches."""

MOST_LABELS = 36
"""Below bars."""

BESIDE = 3
"""With more curves than this the legend stands beside the axes."""


@house_style
def two_sided(
    attained: Any,
    certified: Any,
    labels: Sequence[str] | None = None,
    ax: "Axes | None" = None,
    *,
    names: tuple[str, str] = ("head", "local Lipschitz constant"),
    log: bool = False,
) -> "Figure":
    """One bar for each constant up to what is attained, and a line at what is certified.

    Args:
        attained: lower ends (n,), not negative.
        certified: upper ends (n,); where infinite, a dotted arrow says so.
        labels: below the bars; their numbers, from 0, by default. Of many every second, or third,
            is written.
        ax: axes to draw into; a new figure by default.
        names: labels of the axes.
        log: draw lengths on a logarithmic axis.

    Raises:
        ValueError: lists of unequal lengths, zeros with ``log``, an upper end below the lower one.
    """
    low, high = np.asarray(attained, np.float64), np.asarray(certified, np.float64)
    if low.ndim != 1 or low.shape != high.shape or not low.size:
        raise ValueError(
            f"attained and certified must be two equally long lists, got {low.shape} and "
            f"{high.shape}"
        )
    if not np.all((low >= 0) & (low <= high)):
        raise ValueError(f"certified must be at least attained, got {high} and {low}")
    if log and not low.min() > 0:
        raise ValueError(f"attained must be positive to be drawn with log=True, got {low.min()}")
    figure, axes = canvas(ax, width=min(max(3.6, 1.6 + 0.34 * len(low)), WIDEST))
    places, known = np.arange(len(low)), np.isfinite(high)
    top = np.where(known, high, low)
    base = low.min() / 2 if log else 0.0
    ceiling = top.max() * (top.max() / base) ** 0.15 if log else 1.18 * max(top.max(), 1e-300)
    axes.set(xlabel=names[0], ylabel=names[1], ylim=(base, ceiling))
    if log:
        logarithmic(axes.yaxis)
    axes.bar(places, low - base, 0.66, bottom=base, color=ACCENTS[0], label="attained")
    axes.bar(places[known], (high - low)[known], 0.66, bottom=low[known], color=ACCENTS[0],
             alpha=0.3)  # fmt: skip
    axes.hlines(top[known], places[known] - 0.33, places[known] + 0.33, INK, linewidth=1.0,
                label="certified")  # fmt: skip
    if not known.all():
        open_ends = places[~known]
        axes.vlines(open_ends, low[~known], ceiling, INK, linewidth=1.0, linestyle=":")
        axes.plot(open_ends, np.full(len(open_ends), ceiling), "^", color=INK, markersize=5,
                  clip_on=False, label="no upper end")  # fmt: skip
    every = -(-len(low) // MOST_LABELS)
    texts = [str(k) for k in places] if labels is None else list(labels)
    axes.set_xticks(places[::every], texts[::every])
    axes.grid(visible=False, axis="x")
    ncols = 3 if figure.get_size_inches()[0] > 5 else 1
    handles, texts = axes.get_legend_handles_labels()
    order = np.argsort(texts)
    axes.legend(
        [handles[k] for k in order], [texts[k] for k in order], ncols=ncols, loc="upper left"
    )
    return figure


@house_style
def growth(
    x: Any,
    curves: "Mapping[str, tuple[Any, Any]]",
    ax: "Axes | None" = None,
    *,
    names: tuple[str, str] = ("n", "Lipschitz constant"),
    kinds: tuple[str, str] = ("attained", "certified"),
    power: bool = False,
    reference: "Mapping[str, Any] | None" = None,
) -> "Figure":
    """How constants grow: lines through what is attained, dashed lines at what is certified.

    Args:
        x: abscissas in order, at least two; positive with ``power``.
        curves: by name, the attained and the certified values at each x; None in place of the
            latter where nothing is certified.
        ax: axes to draw into; a new figure by default.
        names: labels of the axes.
        kinds: what the lines and the dashed lines are.
        power: whether the abscissa is logarithmic, so that powers are straight lines.
        reference: other functions of x by name, drawn dotted.

    Raises:
        ValueError: values that are not positive, or lists of unequal lengths. An upper end below
            the lower one is drawn: a figure is where one sees that a bound fails.
    """
    x = np.asarray(x, np.float64)
    if x.ndim != 1 or len(x) < 2 or not np.all(np.diff(x) > 0) or (power and x[0] <= 0):
        kind = "positive numbers" if power else "numbers"
        raise ValueError(f"x must be at least two {kind} in order, got {x}")
    figure, axes = canvas(ax)
    axes.set(xlabel=names[0], ylabel=names[1])
    again = len(curves) > len(ACCENTS)
    for k, (name, (attained, certified)) in enumerate(curves.items()):
        colour, low = ACCENTS[k % len(ACCENTS)], _values(name, attained, x)
        # the colours again with another mark
        mark = "os^Dv*"[k // len(ACCENTS) % 6]
        axes.plot(x, low, f"{mark}-", color=colour, markersize=4, label=name)
        if certified is not None:
            high = _values(name, certified, x)
            if len(curves) == 1:  # bands would hide one another
                axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
            told = {"marker": mark, "markersize": 4, "markerfacecolor": PAPER} if again else {}
            axes.plot(x, high, "--", color=colour, linewidth=1.0, **told)
    if any(certified is not None for _, certified in curves.values()):
        axes.plot([], [], "--", color=INK, linewidth=1.0, label=kinds[1])
    for name, values in (reference or {}).items():
        axes.plot(x, _values(name, values, x), ":", color=INK, linewidth=1.0, label=name)
    logarithmic(axes.yaxis)
    if power:
        logarithmic(axes.xaxis)
        if np.diff(np.log(x)).min() > 0.07 * np.log(x[-1] / x[0]):  # room for each
            axes.set_xticks(x, [f"{value:g}" for value in x])
            axes.set_xticks([], minor=True)
    few = len(curves) + len(reference or {}) <= BESIDE
    axes.legend(**({} if few else {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}))
    return figure


def _values(name: str, values: Any, x: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.shape != x.shape or not np.all((values > 0) & np.isfinite(values)):
        raise ValueError(
            f"{name!r} must have one positive number for each of the {len(x)} abscissas, got "
            f"{values}"
        )
    return values
