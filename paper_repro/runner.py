"""Run claims one after the other, write each result down at once, end with a report.

Exit status: 0 if every chosen claim came out as expected, 1 if not, 2 for a wrong call.
"""

import datetime
import difflib
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from paper_repro.claim import Bench, Claim
from paper_repro.evidence import Verdict
from paper_repro.ledger import Ledger, Result, stamp
from paper_repro.report import check_texts, write_report

COLOURS = {
    Verdict.VERIFIED: "green",
    Verdict.REFUTED: "magenta",
    Verdict.NEEDS_HYPOTHESES: "yellow",
    Verdict.FAILED: "bold red",
    Verdict.ERROR: "bold red",
}


def run(
    claims: Sequence[Claim],
    ids: Sequence[str] = (),
    *,
    quick: bool = False,
    out: Path = Path("build/repro"),
    fresh: bool = False,
    seed: int = 0,
    sources: tuple[Path, ...] = (),
    console: Console | None = None,
) -> int:
    """Run the claims named by ``ids`` (all if none), report, and return the exit status."""
    console = console or Console()
    unknown = unknown_ids(claims, ids)
    if unknown:
        console.print("\n".join(unknown), markup=False, highlight=False)
        return 2
    chosen = [c for c in claims if not ids or c.id in ids]
    mark = stamp(quick=quick, seed=seed, sources=sources)
    try:
        ledger = Ledger(out / "results.jsonl", mark, fresh=fresh)
    except BlockingIOError as error:
        console.print(str(error), markup=False, highlight=False)
        return 2
    try:
        _run_missing(chosen, ledger, mark, quick=quick, seed=seed, console=console)
        report = write_report(out / "report.html", claims, ledger.results, mark)
    finally:
        ledger.close()
    console.print(_summary(chosen, ledger.results))
    missed = [c.id for c in chosen if not ledger.results[c.id].as_expected]
    for id in missed:
        _explain(ledger.results[id], console)
    console.print(
        f"{len(chosen) - len(missed)} of {len(chosen)} statements came out as expected",
        style="bold red" if missed else "bold green",
        highlight=False,
    )
    console.print(str(report.resolve()), markup=False, highlight=False, soft_wrap=True)
    return 1 if missed else 0


def unknown_ids(claims: Sequence[Claim], ids: Sequence[str]) -> list[str]:
    """A message for each id that no claim has, with near matches."""
    known = [c.id for c in claims]
    messages = []
    for id in ids:
        if id in known:
            continue
        near = difflib.get_close_matches(id, known, n=3, cutoff=0.4)
        near += [k for k in known if id and id in k and k not in near][:3]
        hint = f"; did you mean {' or '.join(near)}?" if near else "; --list shows them all"
        messages.append(f"no statement has the id {id!r}{hint}")
    return messages


def run_claim(claim: Claim, bench: Bench, mark: dict[str, Any]) -> Result:
    """Run one claim; an exception, or a formula that cannot be shown, makes it an *error*."""
    start = time.perf_counter()
    trace = ""
    try:
        claim.test(bench)
        check_texts(claim, bench.evidence())
        verdict = bench.evidence().verdict()
    except Exception:
        verdict, trace = Verdict.ERROR, traceback.format_exc()
    return Result(
        id=claim.id,
        verdict=verdict,
        expected=claim.expected,
        seconds=round(time.perf_counter() - start, 3),
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        stamp=mark,
        evidence=bench.evidence(),
        traceback=trace,
    )


def _run_missing(
    chosen: Sequence[Claim],
    ledger: Ledger,
    mark: dict[str, Any],
    *,
    quick: bool,
    seed: int,
    console: Console,
) -> None:
    missing = [c for c in chosen if c.id not in ledger.results]
    if len(missing) < len(chosen):
        console.print(
            f"{len(chosen) - len(missing)} results taken from {ledger.path} "
            "(same sources, versions, mode and seed); --fresh runs them again",
            highlight=False,
        )
    columns = (
        TextColumn("{task.fields[done]} of {task.fields[all]}"), BarColumn(bar_width=24),
        TimeElapsedColumn(), TextColumn("[dim]{task.fields[doing]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        total = sum(c.cost[not quick] for c in missing)
        task = progress.add_task("", total=total, done=0, all=len(missing), doing="")
        for done, claim in enumerate(missing):
            doing = escape(claim.id)
            progress.update(task, done=done, doing=doing)

            def say(text: str, doing: str = doing) -> None:
                progress.update(task, doing=f"{doing}: {escape(text)}")

            bench = Bench(claim, quick=quick, seed=seed, progress=say)
            result = run_claim(claim, bench, mark)
            ledger.append(result)
            progress.advance(task, claim.cost[not quick])
            progress.console.print(_line(result), highlight=False)


def _line(result: Result) -> str:
    sign = "[green]✓[/]" if result.as_expected else "[bold red]✗[/]"
    colour = COLOURS[result.verdict]
    return (
        f"{sign} {escape(result.id):<26} [{colour}]{result.verdict:<17}[/] "
        f"margin {result.evidence.worst_margin:<9.2g} {result.seconds:6.1f} s"
    )


def _summary(chosen: Sequence[Claim], results: dict[str, Result]) -> Table:
    table = Table(highlight=False)
    for name in ("statement", "verdict", "worst margin", "seconds"):
        table.add_column(name, no_wrap=True)
    for claim in chosen:
        result = results[claim.id]
        verdict = f"[{COLOURS[result.verdict]}]{result.verdict}[/]"
        if not result.as_expected:
            verdict += f" (expected {result.expected})"
        margin = f"{result.evidence.worst_margin:.2g}"
        table.add_row(claim.id, verdict, margin, f"{result.seconds:.1f}")
    return table


def _explain(result: Result, console: Console) -> None:
    console.print(f"{result.id}: {result.verdict}, expected {result.expected}", style="bold red")
    reasons = [result.traceback.rstrip()] if result.traceback else result.evidence.objections()
    for reason in reasons:
        console.print(f"  {reason}", markup=False, highlight=False)
