"""What a run of a claim leaves behind, and the one rule that turns it into a verdict.

A *contract* compares an observed number with a bound. It plays one of four roles:

==================  =====================================================================
``statement``       what the statement says, under its hypotheses: must hold
``correction``      the correct form of a statement that is false as it stands: must hold
``control``         the same contract for a broken object: must *fail* (negative control)
``counterexample``  the statement without one of its hypotheses: must *fail*, at a witness
==================  =====================================================================

The verdict follows from them by `Evidence.verdict`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class Verdict(StrEnum):
    """How a claim came out."""

    VERIFIED = "verified"
    REFUTED = "refuted"
    NEEDS_HYPOTHESES = "needs hypotheses"
    FAILED = "failed"
    ERROR = "error"


class Role(StrEnum):
    """What a contract is there for; see the module's table."""

    STATEMENT = "statement"
    CORRECTION = "correction"
    CONTROL = "control"
    COUNTEREXAMPLE = "counterexample"


@dataclass(frozen=True)
class Contract:
    """One comparison: ``observed relation bound``, with ``relation`` "≤" or "≥".

    A control may carry the value it is ``predicted`` to fail with; if it fails with another one,
    it failed for the wrong reason and does not count.
    """

    name: str
    role: Role
    observed: float
    relation: str
    bound: float
    reason: str = ""
    predicted: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the comparison is true; never for NaN."""
        if self.relation == "≤":
            return self.observed <= self.bound
        return self.observed >= self.bound

    @property
    def margin(self) -> float:
        """How much of what is allowed was used: at most 1 exactly when the contract holds."""
        used, allowed = self.observed, self.bound
        if self.relation == "≥":
            used, allowed = allowed, used
        if math.isnan(used) or math.isnan(allowed):
            return math.nan
        if not self.holds:
            return max(used / allowed, math.nextafter(1.0, 2.0)) if allowed > 0 else math.inf
        if used <= 0 or math.isinf(allowed):
            return 0.0
        return min(used / allowed, 1.0)

    @property
    def as_it_should(self) -> bool:
        """Holds where it must hold; fails, and for the predicted reason, where it must fail."""
        if self.role in (Role.STATEMENT, Role.CORRECTION):
            return self.holds
        if self.holds or math.isnan(self.observed) or math.isnan(self.bound):
            return False
        return self.predicted is None or math.isclose(
            self.observed, self.predicted, rel_tol=1e-6, abs_tol=1e-12
        )


@dataclass(frozen=True)
class Hypothesis:
    """A hypothesis of a claim; ``holds`` is None where the run could not check it."""

    text: str
    holds: bool | None = None
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """Rows that people would rather look at; every cell is text."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """An inline SVG with its text alternative."""

    title: str
    alt: str
    svg: str


@dataclass
class Evidence:
    """All that a run recorded about one claim."""

    hypotheses: list[Hypothesis] = field(default_factory=list)
    contracts: list[Contract] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def of(self, *roles: Role) -> list[Contract]:
        """The contracts that play one of ``roles``."""
        return [c for c in self.contracts if c.role in roles]

    @property
    def worst_margin(self) -> float:
        """The largest margin over the contracts that must hold; NaN if there is none."""
        margins = [c.margin for c in self.of(Role.STATEMENT, Role.CORRECTION)]
        if not margins or any(math.isnan(m) for m in margins):
            return math.nan
        return max(margins)

    def objections(self) -> list[str]:
        """Why this evidence carries no verdict; empty if it carries one."""
        found = [f"hypothesis not met: {h.text}" for h in self.hypotheses if h.holds is False]
        if not self.of(Role.CONTROL):
            found.append("no negative control was recorded")
        if not self.of(Role.STATEMENT, Role.COUNTEREXAMPLE):
            found.append("no contract was recorded")
        return found + [_objection(c) for c in self.contracts if not c.as_it_should]

    def verdict(self) -> Verdict:
        """The one rule.

        Any objection: *failed*. Else, by what there is evidence of: the statement's contracts
        hold and nothing breaks them, *verified*; they hold, and a counterexample breaks them
        where a hypothesis is dropped, *needs hypotheses*; a counterexample alone, *refuted*.
        """
        if self.objections():
            return Verdict.FAILED
        broken = bool(self.of(Role.COUNTEREXAMPLE))
        if not self.of(Role.STATEMENT):
            return Verdict.REFUTED
        return Verdict.NEEDS_HYPOTHESES if broken else Verdict.VERIFIED


def _objection(contract: Contract) -> str:
    said = f"{contract.observed:.3g} {contract.relation} {contract.bound:.3g}"
    if contract.role in (Role.STATEMENT, Role.CORRECTION):
        return f"contract broken: {contract.name}: {said} is false"
    if contract.holds:
        return f"{contract.role} passes but must fail: {contract.name}: {said}"
    if contract.predicted is None:
        return f"{contract.role} is not a number: {contract.name}"
    return (
        f"{contract.role} fails for the wrong reason: {contract.name}: "
        f"{contract.observed:.9g} where {contract.predicted:.9g} was predicted"
    )


def encode(evidence: Evidence) -> dict:
    """Evidence as JSON types; non-finite numbers become the strings that ``float`` reads."""
    return {
        "hypotheses": [vars(h) for h in evidence.hypotheses],
        "contracts": [
            {k: _number_out(v) for k, v in vars(c).items()} | {"role": c.role.value}
            for c in evidence.contracts
        ],
        "tables": [vars(t) for t in evidence.tables],
        "figures": [vars(f) for f in evidence.figures],
        "notes": list(evidence.notes),
    }


def decode(data: dict) -> Evidence:
    """The inverse of `encode`."""
    return Evidence(
        [Hypothesis(**h) for h in data["hypotheses"]],
        [_contract_in(c) for c in data["contracts"]],
        [Table(**t) for t in data["tables"]],
        [Figure(**f) for f in data["figures"]],
        _strings(data["notes"]),
    )


def _number_out(value: object) -> object:
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def _contract_in(data: dict) -> Contract:
    predicted = data["predicted"]
    return Contract(
        name=data["name"],
        role=Role(data["role"]),
        observed=float(data["observed"]),
        relation=data["relation"],
        bound=float(data["bound"]),
        reason=data["reason"],
        predicted=None if predicted is None else float(predicted),
    )


def _strings(values: Iterable[object]) -> list[str]:
    return [str(v) for v in values]
