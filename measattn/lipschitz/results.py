"""What questions about Lipschitz constants return: each number says how far it can be trusted."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from numpy.typing import NDArray

from measattn.lipschitz.domains import AbstractDomain
from measattn.measure import EmpiricalMeasure


@dataclass(frozen=True)
class Whole:
    """Atoms move whole, their weights stay."""


@dataclass(frozen=True)
class Split:
    """A part of an atom may move."""


@dataclass(frozen=True)
class Anywhere:
    """A little mass may sit anywhere in the domain, and move."""

    domain: AbstractDomain


Moves = Whole | Split | Anywhere


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
        return (
            f"Lip(W{_order(self.p)}) <= {self.value:.6g} on {self.domain} ({self.theorem}, {kind})"
        )


@dataclass(frozen=True)
class LocalConstant:
    r"""The Lipschitz constant at one measure, from both sides.

    Attributes:
        value: attained, by moving ``atom`` in ``direction``.
        upper: certified, or infinite where no certificate is known.
        atom: the number of the atom that moves; None where all move (p = 2) or a new one does.
        point: where it is, (d,).
        direction: a unit vector (d,), for p = 2 a displacement of all atoms (n, d), for p = inf a
            covector of the output of ``atom``.
        p: the order of the metric.
        moves: the class of moves that compete.
        probability: the probability that ``upper`` fails, over the random start of the method;
            0 for a proof.
        method: how ``upper`` was found.
    """

    value: float
    upper: float
    atom: int | None
    point: NDArray | None = field(repr=False)
    direction: NDArray = field(repr=False)
    p: float
    moves: Moves
    probability: float = 0.0
    method: str = ""

    def __repr__(self) -> str:
        end = f"certified <= {self.upper:.9g}" if math.isfinite(self.upper) else "no certificate"
        if self.probability:
            end += f" with probability 1 - {self.probability:.0e}"
        who = "" if self.atom is None else f", atom {self.atom}"
        return (
            f"local Lip(W{_order(self.p)}, {type(self.moves).__name__}) >= {self.value:.9g}, {end}"
            f"{who}"
        )


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
        return f"Lip(W{_order(self.p)}) >= {self.value:.6g} on {self.domain} ({kind}; {self.found})"


@dataclass(frozen=True)
class Bracket:
    """A Lipschitz constant on a domain from both sides.

    Attributes:
        lower: attained by two measures.
        upper: certified by a theorem.
        estimate: what attains ``lower``.
        bound: what proves ``upper``.
    """

    lower: float
    upper: float
    estimate: Estimate = field(repr=False)
    bound: Bound = field(repr=False)

    def __repr__(self) -> str:
        return (
            f"Lip(W{_order(self.bound.p)}) in [{self.lower:.6g}, {self.upper:.6g}] on "
            f"{self.bound.domain} (ratio {self.upper / self.lower:.4g}; {self.bound.theorem})"
        )


def _order(p: float) -> str:
    return "inf" if math.isinf(p) else f"{p:g}"
