"""What questions about Lipschitz constants return: each number says how far it can be trusted."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from measattn.lipschitz.domains import AbstractDomain
from measattn.measure import EmpiricalMeasure


class Hypothesis(NamedTuple):
    """What a theorem asks for, and what was found: ``holds`` was checked, not assumed."""

    text: str
    holds: bool
    found: str


@dataclass(frozen=True)
class Bound:
    """An upper bound of a Lipschitz constant on a domain.

    Attributes:
        value: the bound.
        theorem: the name of the theorem, as in docs/theory-lipschitz.md or the literature.
        statement: its formula.
        source: where its proof is.
        proved: whether that proof is in docs/theory-lipschitz.md; only then the bound is certified.
        hypotheses: what it asks for, each checked.
        p: the order of the metric.
        domain: where the measures live.
        metric: its name: $W_p$, or the position-wise one for masked layers.
    """

    value: float
    theorem: str
    statement: str
    source: str
    proved: bool
    hypotheses: tuple[Hypothesis, ...]
    p: float
    domain: AbstractDomain
    metric: str

    def __repr__(self) -> str:
        kind = "certified" if self.proved else "quoted"
        name = f"Lip(W{order_name(self.p)})"
        return f"{name} <= {self.value:.6g} on {self.domain} ({self.theorem}, {kind})"


class Witness(NamedTuple):
    """Two measures, and the distances between them before and after the layer."""

    mu: EmpiricalMeasure
    nu: EmpiricalMeasure
    before: float
    after: float


@dataclass(frozen=True)
class Estimate:
    """What a search found: the constant is at least ``value``, attained by the witness.

    Attributes:
        value: certified from below: the quotient of a lower bound of the distance after the layer
            and an upper bound of the one before it.
        witness: the two measures.
        p: the order of the metric.
        domain: where they live.
        starts: how many starts were tried.
        found: how it was found, and whether the ascent was of use, in full sentences.
        local: the local constant, in floating point, that the witness comes from: an estimate.
        atoms: the measures that compete have this many equal atoms; None if any may.
        exact: whether the outputs of the layer were known to their last digit; if not, their
            rounding was assumed, and the value is no certificate.
    """

    value: float
    witness: Witness = field(repr=False)
    p: float
    domain: AbstractDomain
    starts: int
    found: str
    local: float = math.nan
    atoms: int | None = None
    exact: bool = True

    def __repr__(self) -> str:
        kind = "attained" if self.exact else "attained up to the rounding of the layer"
        name = f"Lip(W{order_name(self.p)})"
        return f"{name} >= {self.value:.6g} on {self.domain} ({kind}; {self.found})"


def order_name(p: float) -> str:
    """How an order is written: 1, 2, inf."""
    return "inf" if math.isinf(p) else f"{p:g}"
