"""What a long run shows: the certified bracket, closing."""

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import NamedTuple

from measattn.digits import order_name, printed
from measattn.wasserstein import Bracket, Solution

PATIENCE = 2.0
"""Seconds after which a run counts as long."""


class Round(NamedTuple):
    """A bracket and the seconds after which it was certified."""

    seconds: float
    bracket: Bracket


class Run:
    """A solver at work in a thread of its own, so that Ctrl-C is heard at once.

    Attributes:
        p: the order of the distance.
        rounds: what has been certified so far.
    """

    def __init__(self, solve: Callable[[Callable[[Bracket], None]], Solution], p: float):
        self.p = p
        self.rounds: list[Round] = []
        self.outcome: Future[Solution] = Future()
        self._began = time.perf_counter()
        threading.Thread(target=self._work, args=(solve,), daemon=True).start()

    def _work(self, solve: Callable) -> None:
        try:
            self.outcome.set_result(
                solve(lambda bracket: self.rounds.append(Round(self.seconds, bracket)))
            )
        except BaseException as error:
            self.outcome.set_exception(error)

    @property
    def seconds(self) -> float:
        """The seconds since it began."""
        return time.perf_counter() - self._began

    def ended(self, timeout: float) -> bool:
        """Whether it has ended, after waiting for that up to ``timeout`` seconds."""
        try:
            self.outcome.exception(timeout)
        except NotYet:
            return False
        return True

    def line(self, number: int, seconds: float) -> str:
        """What is known after round ``number``, counted from 1; 0 for before the first."""
        if number == 0:
            return f"{seconds:.1f} s, before round 1"
        lower, upper, _ = self.rounds[number - 1].bracket
        gap = (upper - lower) / upper if upper > 0 else 0.0
        return (
            f"{seconds:.1f} s, round {number}: {printed(lower, -1, 9)} <= W{order_name(self.p)} "
            f"<= {printed(upper, 1, 9)}, relative gap {gap:.1e}"
        )


def followed(solve: Callable[[Callable[[Bracket], None]], Solution], p: float) -> Solution:
    """The solution of ``solve(watch)``; what happens meanwhile is shown on stderr.

    Raises:
        KeyboardInterrupt: with what was certified by then.
    """
    run = Run(solve, p)
    try:
        if not run.ended(PATIENCE):
            (_live if sys.stderr.isatty() else _lines)(run)
    except KeyboardInterrupt:
        known = run.line(len(run.rounds), run.seconds)
        raise KeyboardInterrupt(f"after {known}") from None
    return run.outcome.result()


def _lines(run: Run) -> None:
    """One plain line a round, for logs."""
    shown, ended = 0, False
    while not ended:
        ended = run.ended(0.2)
        while shown < len(run.rounds):
            shown += 1
            print(run.line(shown, run.rounds[shown - 1].seconds), file=sys.stderr, flush=True)


def _live(run: Run) -> None:
    """One line that changes in place and is gone at the end, for terminals."""
    try:
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner
        from rich.text import Text
    except ModuleNotFoundError:
        return _lines(run)
    spinner = Spinner("dots")
    console = Console(stderr=True)
    # refreshed from here alone: a thread of its own would go on after Ctrl-C
    with Live(spinner, console=console, transient=True, auto_refresh=False) as live:
        while not run.ended(0.1):
            line = run.line(len(run.rounds), run.seconds)
            spinner.update(text=Text(line, no_wrap=True, overflow="ellipsis"))
            live.refresh()
