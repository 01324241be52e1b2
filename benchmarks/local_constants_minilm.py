"""Local constants of the heads and blocks of MiniLM at a real text, in every order.

Atoms move whole. Each result is written to build/local_constants_minilm.jsonl at once, and a run
goes on where the last one stopped; ``--fresh`` begins anew. ``--large`` takes all 72 heads and 6
blocks at 128 and 512 tokens, forty minutes; without it, the fourth layer at 128. ``--table``
prints what is stored, in Markdown.

Run: ``python benchmarks/local_constants_minilm.py [--large] [--fresh] [--table]``
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from report import Row, about

from measattn import EmpiricalMeasure, pretrained
from measattn.cli.heads import alone, inner_attention
from measattn.lipschitz import local

ROOT = Path(__file__).resolve().parent.parent
TEXT = ROOT / "paper_repro" / "data" / "topics.txt"
STORE = ROOT / "build" / "local_constants_minilm.jsonl"
ORDERS = (1.0, 2.0, math.inf)
BLOCK = -1
"""In place of the number of a head: the whole block."""
SMALL, LARGE, LAYER = 128, 512, 3


class Task(NamedTuple):
    """A layer at the first n tokens of the text; ``head`` is BLOCK for the block."""

    n: int
    layer: int
    head: int
    p: float

    def __str__(self) -> str:
        what = "block" if self.head == BLOCK else f"head {self.head}"
        return f"n = {self.n}, layer {self.layer}, {what}, p = {self.p:g}"


def tasks(large: bool, layers: int, heads: int) -> list[Task]:
    """What takes longest last: blocks after heads, and p = 2 after the other orders."""
    chosen = range(layers) if large else (LAYER,)
    return [
        Task(n, layer, head, p)
        for n in ((SMALL, LARGE) if large else (SMALL,))
        for orders in ((1.0, math.inf), (2.0,))
        for some in (range(heads), (BLOCK,))
        for layer in chosen
        for head in some
        for p in orders
    ]


def stored() -> dict[Task, dict[str, Any]]:
    """The results so far; a line that a kill cut short is left out."""
    found = {}
    for line in STORE.read_text().splitlines() if STORE.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[Task(row["n"], row["layer"], row["head"], float(row["p"]))] = row
    return found


def laws(model: Any, n: int) -> list[EmpiricalMeasure]:
    """What enters each layer, of the first n tokens of the text."""
    found = [model.embed(model.ids(TEXT.read_text())[:n], np.float64)]
    for layer in model.layers[:-1]:
        found.append(found[-1] @ layer)
    return found


def measure(model: Any, law: EmpiricalMeasure, task: Task) -> dict[str, Any]:
    """One constant, and what it took: seconds by the clock and of all cores together."""
    layer = model.layers[task.layer]
    if task.head != BLOCK:
        inner = inner_attention(layer, law)
        if inner is None:
            raise ValueError(f"layer {task.layer} of {model.name} has no attention")
        layer, law = alone(inner[0], task.head), inner[1]
    start, busy = time.perf_counter(), time.process_time()
    found = local(layer, law, task.p)
    return task._asdict() | {
        "p": str(task.p),
        "attained": found.value,
        "certified": found.upper,
        "probability": found.probability,
        "seconds": time.perf_counter() - start,
        "busy": time.process_time() - busy,
    }


def sweep(model: Any, todo: list[Task]) -> None:
    """Measure and store what is left to do, with a bar."""
    from rich.progress import Progress

    entering: dict[int, list[EmpiricalMeasure]] = {}
    STORE.parent.mkdir(exist_ok=True)
    with STORE.open("a") as file, Progress() as progress:
        bar = progress.add_task("constants", total=len(todo))
        for task in todo:
            progress.update(bar, description=str(task))
            if task.n not in entering:
                entering[task.n] = laws(model, task.n)
            row = measure(model, entering[task.n][task.layer], task)
            file.write("\n" * (file.tell() > 0 and not _ended()) + json.dumps(row) + "\n")
            file.flush()
            progress.advance(bar)


def _ended() -> bool:
    """Whether the last line in the store is whole."""
    return STORE.read_bytes().endswith(b"\n")


def rows(done: dict[Task, dict[str, Any]], asked: list[Task]) -> Iterator[Row]:
    """How many there are, how near both ends are, and the time."""
    yield Row("constants", len(done), f"of {len(asked)}", at_least=len(asked))
    for n, p, blocks in sorted({(t.n, t.p, t.head == BLOCK) for t in done}):
        found = [r for t, r in done.items() if (t.n, t.p, t.head == BLOCK) == (n, p, blocks)]
        ratios = [row["certified"] / row["attained"] for row in found]
        seconds = statistics.median(row["seconds"] for row in found)
        busy = statistics.median(row["busy"] for row in found)
        what = f"{'blocks' if blocks else 'heads'}, n = {n}, p = {p:g}: upper over value"
        note = f"{len(found)}; {seconds:.3g} s each, {busy:.3g} s of all cores; worst below"
        yield Row(f"{what}, median", statistics.median(ratios), note)
        yield Row(f"{what}, worst", max(ratios), at_most=1.1)
    yield Row("minutes", sum(row["seconds"] for row in done.values()) / 60)


def table(done: dict[Task, dict[str, Any]]) -> None:
    """Markdown: what is attained by layer, and how far at most the certified end is above it."""
    print("| n | layer | heads, p = 1 | p = 2 | p = ∞ | block, p = 1 | p = 2 | p = ∞ |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for n, layer in sorted({(task.n, task.layer) for task in done}):
        cells = [_heads(done, n, layer, p) for p in ORDERS]
        cells += [_block(done.get(Task(n, layer, BLOCK, p))) for p in ORDERS]
        print(f"| {n} | {layer} | {' | '.join(cells)} |")


def _heads(done: dict[Task, dict[str, Any]], n: int, layer: int, p: float) -> str:
    found = [r for t, r in done.items() if t[:2] == (n, layer) and t.p == p and t.head != BLOCK]
    if not found:
        return ""
    values = [row["attained"] for row in found]
    worst = max(row["certified"] / row["attained"] for row in found)
    return f"{min(values):.3g} to {max(values):.3g} ({worst:.4f})"


def _block(row: dict[str, Any] | None) -> str:
    return (
        "" if row is None else f"{row['attained']:.4g} ({row['certified'] / row['attained']:.4f})"
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--large", action="store_true", help="all layers, at 128 and 512 tokens")
    parser.add_argument("--fresh", action="store_true", help="forget stored results")
    parser.add_argument("--table", action="store_true", help="print stored results only")
    options = parser.parse_args()
    if options.fresh:
        STORE.unlink(missing_ok=True)
    if options.table:
        table(stored())
        return 0
    print("\n".join(f"{name}: {value}" for name, value in about().items()), flush=True)
    model = pretrained.minilm()
    asked = tasks(options.large, len(model.layers), 12)
    done = stored()
    sweep(model, [task for task in asked if task not in done])
    done = {task: row for task, row in stored().items() if task in asked}
    found = list(rows(done, asked))
    print(*found, sep="\n")
    return int(any(row.verdict == "FALLS SHORT" for row in found))


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    sys.exit(main())
