"""Lipschitz constants from both sides: what is attained and what is certified."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from measattn.plot.style import ACCENTS, INK, canvas, house_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@house_style
def two_sided(
    attained: Any,
    certified: Any,
    labels: Sequence[str] | None = None,
    ax: "Axes | None" = None,
    *,
    names: tuple[str, str] = ("head", "local Lipschitz constant"),
) -> "Figure":
    """One bar for each constant up to what is attained, and a line at what is certified.

    Args:
        attained: lower ends (n,), not negative.
        certified: upper ends (n,); where infinite, nothing is drawn above.
        labels: below the bars; their numbers, from 0, by default.
        ax: axes to draw into; a new figure by default.
        names: labels of the axes.

    Raises:
        ValueError: lists of unequal lengths, or an upper end below the lower one.
    """
    low, high = np.asarray(attained, np.float64), np.asarray(certified, np.float64)
    if low.ndim != 1 or low.shape != high.shape or not low.size:
        raise ValueError(
            f"attained and certified must be two equally long lists, got {low.shape} and "
            f"{high.shape}"
        )
    _check_order(low, high)
    figure, axes = canvas(ax, width=max(3.6, 1.6 + 0.34 * len(low)))
    places = np.arange(len(low))
    known = np.isfinite(high)
    axes.bar(places, low, 0.66, color=ACCENTS[0], label="attained")
    axes.bar(
        places[known],
        (high - low)[known],
        0.66,
        bottom=low[known],
        color=ACCENTS[0],
        alpha=0.3,
    )
    top = np.where(known, high, low)
    axes.hlines(
        top[known], places[known] - 0.33, places[known] + 0.33, INK, linewidth=1.0,
        label="certified",
    )  # fmt: skip
    axes.set_xticks(places, [str(k) for k in places] if labels is None else list(labels))
    axes.grid(visible=False, axis="x")
    axes.set(xlabel=names[0], ylabel=names[1], ylim=(0, 1.18 * max(float(top.max()), 1e-300)))
    handles, texts = axes.get_legend_handles_labels()
    order = np.argsort(texts)
    axes.legend([handles[k] for k in order], [texts[k] for k in order], ncols=2, loc="upper left")
    return figure


@house_style
def growth(
    x: Any,
    curves: "Mapping[str, tuple[Any, Any]]",
    ax: "Axes | None" = None,
    *,
    names: tuple[str, str] = ("n", "Lipschitz constant"),
    power: bool = False,
    reference: "Mapping[str, Any] | None" = None,
) -> "Figure":
    """How constants grow: lines through what is attained, shaded up to what is certified.

    Args:
        x: abscissas, positive, in order, at least two.
        curves: by name, the attained and the certified values at each x; None in place of the
            latter where nothing is certified.
        ax: axes to draw into; a new figure by default.
        names: labels of the axes.
        power: whether the abscissa is logarithmic, so that powers are straight lines.
        reference: other functions of x by name, drawn dotted.

    Raises:
        ValueError: values that are not positive, lists of unequal lengths, or an upper end below
            the lower one.
    """
    x = np.asarray(x, np.float64)
    if x.ndim != 1 or len(x) < 2 or not np.all(np.diff(x) > 0) or x[0] <= 0:
        raise ValueError(f"x must be at least two positive numbers in order, got {x}")
    figure, axes = canvas(ax)
    axes.set(xscale="log" if power else "linear", yscale="log", xlabel=names[0], ylabel=names[1])
    shown = []
    for k, (name, (attained, certified)) in enumerate(curves.items()):
        colour, low = ACCENTS[k % len(ACCENTS)], _values(name, attained, x)
        axes.plot(x, low, "o-", color=colour, markersize=4, label=name)
        shown.append(low)
        if certified is not None:
            high = _values(name, certified, x)
            _check_order(low, high)
            axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
            axes.plot(x, high, "--", color=colour, linewidth=1.0)
            shown.append(high)
    for name, values in (reference or {}).items():
        axes.plot(x, _values(name, values, x), ":", color=INK, linewidth=1.0, label=name)
    every = np.concatenate(shown)
    if power:
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.minorticks_off()
    if every.max() < 1e4 * every.min():
        axes.yaxis.set_major_formatter("{x:g}")
    # within a decade few ticks are powers of ten; beyond it the others would crowd
    axes.yaxis.set_minor_formatter("{x:g}" if every.max() < 10 * every.min() else "")
    axes.legend()
    return figure


def _values(name: str, values: Any, x: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.shape != x.shape or not np.all((values > 0) & np.isfinite(values)):
        raise ValueError(
            f"{name!r} must have one positive number for each of the {len(x)} abscissas, got "
            f"{values}"
        )
    return values


def _check_order(low: np.ndarray, high: np.ndarray) -> None:
    if not np.all((low >= 0) & (low <= high)):
        raise ValueError(f"certified must be at least attained, got {high} and {low}")
