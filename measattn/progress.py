"""A bar for the long runs that take ``watch=``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any


@contextmanager
def progress(what: str = "") -> Iterator[Callable[..., None]]:
    """A bar on stderr, or below a notebook's cell, to be given to any ``watch=``.

    ``with ma.progress("search") as watch: lipschitz.search(layer, ball, key=key, watch=watch)``

    It is gone at the end, and shows how many steps were made, of how many where that is known, the
    seconds so far, and the last number or bracket that was reported.

    Args:
        what: what is written before the bar.

    Raises:
        ModuleNotFoundError: rich is not installed; it comes with ``measattn[repro]``.
    """
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "progress bars need rich: pip install 'measattn[repro]', or give watch= a function"
        ) from None
    console = Console(stderr=True)
    if console.is_jupyter:  # rich asks for ipywidgets there; one line of plain output needs none
        console = Console(stderr=True, force_jupyter=False, force_terminal=True, width=90)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[made]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[seen]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None, made="", seen="")
        calls = 0

        def watch(*reported: Any) -> None:
            nonlocal calls
            calls += 1
            step, steps, seen = _read(reported, calls)
            made = f"{step}" if steps is None else f"{step}/{steps}"
            bar.update(task, completed=step, total=steps, made=made, seen=seen)

        yield watch


def _read(reported: tuple, calls: int) -> tuple[int, int | None, str]:
    """The step, the number of all steps, and in words the rest, of what a run reports."""
    if len(reported) == 1:  # a bracket of a distance, once a round
        return calls, None, f"[{reported[0][0]:.9g}, {reported[0][1]:.9g}]"
    step, steps, *rest = reported
    return step, steps, ", ".join(f"{x:.6g}" for x in rest if isinstance(x, Real))
