"""What a claim is, and the bench on which it runs."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paper_repro.evidence import Contract, Evidence, Figure, Hypothesis, Role, Table, Verdict
from paper_repro.numbers import number

TOLERANCE = 1e-12
"""Relative error that float64 rounding is allowed, where a claim states no other."""


@dataclass(frozen=True)
class Claim:
    """A statement and the function that puts it to the test.

    ``formulas`` is display LaTeX; ``statement``, ``source`` and the texts of ``hypotheses`` are
    prose with inline LaTeX between dollar signs. ``cost`` is the seconds (quick, full) to expect.
    """

    id: str
    group: str
    title: str
    formulas: tuple[str, ...]
    statement: str
    source: str
    hypotheses: Mapping[str, str]
    expected: Verdict
    cost: tuple[float, float]
    test: Callable[["Bench"], None]


def claim(
    *,
    id: str,
    group: str,
    title: str,
    formulas: Sequence[str],
    statement: str,
    source: str,
    hypotheses: Mapping[str, str],
    expected: Verdict = Verdict.VERIFIED,
    cost: tuple[float, float] = (2.0, 5.0),
) -> Callable[[Callable[["Bench"], None]], Claim]:
    """Turn a test function into a `Claim`."""

    def declare(test: Callable[[Bench], None]) -> Claim:
        return Claim(
            id, group, title, tuple(formulas), statement, source, dict(hypotheses),
            Verdict(expected), cost, test,
        )  # fmt: skip

    return declare


class Bench:
    """Where a claim runs: it hands out seeded randomness and writes down the evidence."""

    def __init__(
        self,
        claim: Claim,
        *,
        quick: bool,
        seed: int,
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.quick = quick
        self.progress = progress
        self._texts = claim.hypotheses
        self._entropy = (seed, zlib.crc32(claim.id.encode()))
        self.rng = np.random.default_rng(self._entropy)
        self._evidence = Evidence()
        self._checked: dict[str, Hypothesis] = {}

    @property
    def key(self) -> Any:
        """A JAX key of this claim's own; the same at every access."""
        import jax

        return jax.random.fold_in(jax.random.key(self._entropy[0]), self._entropy[1])

    def evidence(self) -> Evidence:
        """The evidence so far; hypotheses that were not checked are listed as assumed."""
        self._evidence.hypotheses = [
            self._checked.get(name, Hypothesis(text)) for name, text in self._texts.items()
        ]
        return self._evidence

    def check(self, name: str, holds: Any, detail: str = "") -> None:
        """Record whether the hypothesis ``name`` holds for the objects of this run."""
        if name not in self._texts:
            raise KeyError(f"the claim declares no hypothesis {name!r}: {sorted(self._texts)}")
        before = self._checked.get(name)
        both = bool(holds) and (before is None or bool(before.holds))
        self._checked[name] = Hypothesis(self._texts[name], both, detail)

    def at_most(self, name: str, observed: Any, bound: Any, *, role: Role = Role.STATEMENT) -> None:
        """Contract: ``observed`` ≤ ``bound``."""
        self._add(name, role, observed, "≤", bound)

    def at_least(
        self, name: str, observed: Any, bound: Any, *, role: Role = Role.STATEMENT
    ) -> None:
        """Contract: ``observed`` ≥ ``bound``."""
        self._add(name, role, observed, "≥", bound)

    def close(
        self,
        name: str,
        got: Any,
        want: Any,
        *,
        tolerance: float = TOLERANCE,
        role: Role = Role.STATEMENT,
    ) -> None:
        """Contract: the relative error of ``got`` against the oracle's ``want`` is tolerable."""
        self._add(name, role, relative_error(got, want), "≤", tolerance)

    def refuses(self, name: str, call: Callable[[], Any], *words: str) -> None:
        """Contract: ``call`` raises a ValueError that mentions each of ``words``."""
        missing = 1.0
        try:
            call()
        except ValueError as error:
            missing = float(sum(word not in str(error) for word in words))
        self._add(f"{name} (words missing from the refusal)", Role.STATEMENT, missing, "≤", 0.0)

    def control(
        self,
        name: str,
        observed: Any,
        bound: Any,
        reason: str,
        *,
        relation: str = "≤",
        predicted: Any = None,
    ) -> None:
        """Negative control: ``observed relation bound`` must be false, because of ``reason``."""
        self._add(name, Role.CONTROL, observed, relation, bound, reason, predicted)

    def control_close(
        self,
        name: str,
        got: Any,
        broken: Any,
        true: Any,
        reason: str,
        *,
        tolerance: float = TOLERANCE,
    ) -> None:
        """Negative control: ``got`` must miss a ``broken`` oracle by as much as the true one."""
        predicted = relative_error(true, broken)
        self.control(name, relative_error(got, broken), tolerance, reason, predicted=predicted)

    def counterexample(
        self,
        name: str,
        observed: Any,
        bound: Any,
        reason: str,
        *,
        relation: str = "≤",
        predicted: Any = None,
    ) -> None:
        """Witness at which the statement's own contract is false without a hypothesis."""
        self._add(name, Role.COUNTEREXAMPLE, observed, relation, bound, reason, predicted)

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], note: str = ""
    ) -> None:
        """A table; numbers are written with three significant digits."""
        cells = [[_cell(value) for value in row] for row in rows]
        self._evidence.tables.append(Table(title, list(columns), cells, note))

    def figure(self, figure: Any, title: str, alt: str) -> None:
        """A matplotlib figure, kept as inline SVG; ``alt`` says what is to be seen in it."""
        from paper_repro.figure import inline_svg

        self._evidence.figures.append(Figure(title, alt, inline_svg(figure)))

    def note(self, text: str) -> None:
        """A remark for the reader of the report."""
        self._evidence.notes.append(text)

    def _add(
        self,
        name: str,
        role: Role,
        observed: Any,
        relation: str,
        bound: Any,
        reason: str = "",
        predicted: Any = None,
    ) -> None:
        foreseen = None if predicted is None else float(predicted)
        self._evidence.contracts.append(
            Contract(name, role, float(observed), relation, float(bound), reason, foreseen)
        )


def relative_error(got: Any, want: Any) -> float:
    """max|got − want| / max|want|, or max|got| where ``want`` vanishes; shapes must agree."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got.shape != want.shape:
        raise ValueError(f"shapes differ: got {got.shape}, the oracle has {want.shape}")
    if got.size == 0:
        raise ValueError("nothing to compare: the arrays are empty")
    scale = float(np.max(np.abs(want)))
    return float(np.max(np.abs(got - want))) / (scale if scale > 0 else 1.0)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{int(value):,}"
    return number(float(value), digits=3)
