"""What a stack of layers does to a law, layer by layer."""

from typing import TYPE_CHECKING, Any

import numpy as np

from measattn.dynamics import Trajectory
from measattn.plot.style import ACCENTS, house_style, logarithmic, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@house_style
def trajectory(path: Trajectory) -> "Figure":
    """The distances, the size and the shape of the measures of a path, over its steps.

    Panels: W1 of each step, and to the reference if there is one, shaded where brackets are wide;
    diameter and radius; the effective numbers of clusters and of dimensions; the mean cosine
    between tokens. What the path did not record is left out, and so are zeros on logarithmic axes.

    Args:
        path: of `dynamics.iterate` or `dynamics.through`.

    Raises:
        ValueError: a path without steps, or that recorded nothing.
    """
    if path.steps == 0:
        raise ValueError("path must have steps to be drawn, got one of none")
    shown = [draw for draw, known in (
        (_distances, len(path.w1) or len(path.reference.w1)),
        (_sizes, len(path.diameter)),
        (_counts, len(path.clusters)),
        (_cosine, len(path.cosine)),
    ) if known]  # fmt: skip
    if not shown:
        raise ValueError(
            "path recorded neither distances nor observables: iterate with distances=True or "
            "observe=True"
        )
    from matplotlib.ticker import MaxNLocator

    figure, every = panels(len(shown))
    for axes, draw in zip(every, shown, strict=True):
        draw(axes, path)
        axes.set(xlabel="step", xlim=(0, path.steps))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _distances(axes: "Axes", path: Trajectory) -> None:
    steps = np.arange(path.steps + 1)
    if len(path.w1):
        _bracketed(axes, steps[1:], path.w1, path.lower, path.upper, ACCENTS[0], "of a step")
    away = path.reference
    if len(away.w1):
        _bracketed(axes, steps, away.w1, away.lower, away.upper, ACCENTS[1], "to the reference")
    axes.set_title("distance W1")
    _logarithmic(axes)


def _bracketed(
    axes: "Axes", x: Any, value: Any, lower: Any, upper: Any, colour: str, label: str
) -> None:
    low, high = _positive(lower), _positive(upper)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, _positive(value), color=colour, label=label)


def _sizes(axes: "Axes", path: Trajectory) -> None:
    steps = np.arange(len(path.diameter))
    axes.plot(steps, _positive(path.diameter), color=ACCENTS[0], label="diameter")
    axes.plot(steps, _positive(path.radius), color=ACCENTS[1], label="radius")
    axes.set_title("size of the cloud")
    _logarithmic(axes)


def _counts(axes: "Axes", path: Trajectory) -> None:
    steps = np.arange(len(path.clusters))
    axes.plot(steps, path.clusters, color=ACCENTS[0], label="clusters")
    axes.plot(steps, path.rank, color=ACCENTS[1], label="dimensions")
    axes.set_title("effective number of")
    axes.set_ylim(0, 1.12 * max(np.nanmax(path.clusters), np.nanmax(path.rank), 1.0))
    axes.legend()


def _cosine(axes: "Axes", path: Trajectory) -> None:
    axes.plot(np.arange(len(path.cosine)), path.cosine, color=ACCENTS[0])
    axes.set_title("mean cosine between tokens")


def _positive(values: Any) -> np.ndarray:
    values = np.asarray(values, np.float64)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _logarithmic(axes: "Axes") -> None:
    shown = np.concatenate([np.asarray(line.get_ydata(), np.float64) for line in axes.lines])
    shown = shown[np.isfinite(shown)]
    if not shown.size:  # all is 0: on a linear axis
        for line in axes.lines:
            line.set_ydata(np.zeros_like(line.get_xdata(), np.float64))
        axes.set_ylim(-0.05, 1)
    else:
        logarithmic(axes.yaxis)
    axes.legend()
