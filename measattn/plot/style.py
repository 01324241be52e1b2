"""The house style: colours that colour-blind readers tell apart, thin axes, no decoration."""

import functools
import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#24292f"
"""Colour of text and axes."""

PAPER = "#fefefd"
"""Colour of the background and of the rims of markers."""

ACCENTS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""The colours of Okabe and Ito (2008), in the order of use."""

SEQUENTIAL = "cividis"
"""Colour map of heat maps: even in lightness, and the same to all eyes."""

RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "grid.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 6.0,
    "lines.markeredgewidth": 0.6,
}


P = ParamSpec("P")
T = TypeVar("T")


def house_style(draw: Callable[P, T]) -> Callable[P, T]:
    """Draw under the house style, whatever the caller's own settings are, and restore those.

    Raises:
        ModuleNotFoundError: matplotlib is missing; it comes with the extra ``measattn[repro]``.
    """

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            import matplotlib as mpl
            from cycler import cycler
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "figures need matplotlib: pip install 'measattn[repro]'", name=error.name
            ) from error
        settings: Any = RC | {"axes.prop_cycle": cycler(color=ACCENTS)}
        with mpl.rc_context(settings):
            return draw(*args, **kwargs)

    return drawn


def canvas(ax: "Axes | None", width: float = 5.2, height: float = 3.2) -> "tuple[Figure, Axes]":
    """A figure and its axes, or those that the caller gave.

    Raises:
        ValueError: ``ax`` is something else.
    """
    if ax is not None:
        from matplotlib.axes import Axes

        if not isinstance(ax, Axes):
            raise ValueError(
                "ax must be the axes of a figure, one of those that plt.subplots() or "
                f"figure.add_subplot() returns, got a {type(ax).__name__}: leave it out for a new "
                "figure"
            )
        return ax.get_figure(root=True), ax  # type: ignore[return-value]
    from matplotlib.figure import Figure

    _show_in_notebooks()
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def panels(count: int) -> "tuple[Figure, list[Axes]]":
    """A figure of up to two panels a row."""
    from matplotlib.figure import Figure

    _show_in_notebooks()
    columns, rows = min(count, 2), -(-count // 2)
    figure = Figure(figsize=(3.8 * columns, 2.5 * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, k + 1) for k in range(count)]


def _show_in_notebooks() -> None:
    # A Figure made without pyplot has no global state to leak, but Jupyter draws it only once its
    # formatter is registered.
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    if shell is not None:
        from IPython.core.pylabtools import select_figure_formats

        select_figure_formats(shell, {"png"})


def logarithmic(ruler: Any) -> None:
    """Make an axis, such as ``axes.xaxis``, logarithmic, with ticks to read over any range.

    Below two decades ticks within them are named, too. Numbers are plain from 0.001 to 10,000 and
    powers of ten where the axis goes beyond, never both.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator

    def ends() -> tuple[float, float]:
        low, high = sorted(ruler.get_view_interval())
        return max(low, 1e-320), max(high, 1e-320)

    def written(value: float, _place: Any) -> str:
        low, high = ends()
        if low >= 0.9e-3 and high <= 2e4:
            return f"{value:g}"
        power = math.floor(math.log10(value) + 1e-9) if value > 0 else 0
        first = value / 10.0**power
        return f"$10^{{{power}}}$" if abs(first - 1) < 1e-9 else f"${first:g}\\cdot10^{{{power}}}$"

    def between(value: float, place: Any) -> str:
        low, high = ends()
        decades = math.log10(high / low)
        first = value / 10.0 ** math.floor(math.log10(value) + 1e-9) if value > 0 else 0
        named = decades < 0.7 or (decades < 2 and min(abs(first - 2), abs(first - 5)) < 1e-9)
        return written(value, place) if named else ""

    ruler.axes.set(**{f"{ruler.axis_name}scale": "log"})
    ruler.set_major_locator(LogLocator(numticks=8))
    ruler.set_minor_locator(LogLocator(subs=tuple(range(2, 10)), numticks=8))
    ruler.set_major_formatter(FuncFormatter(written))
    ruler.set_minor_formatter(FuncFormatter(between))


def colour_bar(image: Any) -> Any:
    """A colour bar that belongs to ``image``, as thin as the rest of the style."""
    bar = image.axes.get_figure(root=True).colorbar(image, ax=image.axes, fraction=0.04, pad=0.02)
    bar.outline.set_linewidth(0.0)
    bar.ax.tick_params(length=2, colors=INK)
    return bar
