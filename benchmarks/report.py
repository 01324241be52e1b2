"""What a benchmark prints and stores: numbers beside what is required of them."""

import argparse
import datetime
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """One measured number beside what is required of it, if anything is."""

    what: str
    measured: float
    note: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def verdict(self) -> str:
        """Whether the requirement is met."""
        if self.at_least is None and self.at_most is None:
            return ""
        low = self.at_least is None or self.measured >= self.at_least
        high = self.at_most is None or self.measured <= self.at_most
        return "PASS" if low and high else "FALLS SHORT"

    def __str__(self) -> str:
        sign, bound = (">=", self.at_least) if self.at_least is not None else ("<=", self.at_most)
        required = "" if bound is None else f"{sign} {bound:g}"
        line = (
            f"  {self.what:48s}{self.measured:10.3g}  {required:10s}{self.verdict:12s} {self.note}"
        )
        return line.rstrip()


def about() -> dict[str, str]:
    """The date, the machine and the versions, which absolute seconds mean nothing without."""
    packages = ("measattn", "jax", "numpy", "scipy", "POT")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GB",
        "versions": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages),
    }


def run_cases(cases: Sequence[Callable[[], Iterable[Row]]], title: str) -> None:
    """Run the cases that the command line names and print their rows; exit with 1 if one fails."""
    every = {case.__name__: case for case in cases}
    parser = argparse.ArgumentParser(description=title.split("\n")[0])
    parser.add_argument("case", nargs="*", help=", ".join(every))
    options = parser.parse_args()
    if unknown := sorted(set(options.case) - every.keys()):
        parser.error(f"there is no case {', '.join(unknown)}; there are {', '.join(every)}")
    print("\n".join(f"{name}: {value}" for name, value in about().items()))
    short = 0
    for name in options.case or every:
        print(f"\n{name}. {every[name].__doc__}", flush=True)
        for row in every[name]():
            print(row, flush=True)
            short += row.verdict == "FALLS SHORT"
    print(f"\n{short} requirements fall short")
    sys.exit(bool(short))


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    if file.exists():
        for line in file.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
