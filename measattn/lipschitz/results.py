"""What questions about Lipschitz constants return: each number says how far it can be trusted."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from numpy.typing import NDArray

from measattn.digits import order_name, printed
from measattn.lipschitz.domains import AbstractDomain
from measattn.lipschitz.moves import Moves
from measattn.measure import EmpiricalMeasure

VACUOUS = "vacuous, beyond float64: take a smaller domain, or lipschitz.local at one measure"
"""What is said of an upper bound that is infinite."""


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
        atoms: the measures that it is about have this many equal atoms; None if any may.
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
    atoms: int | None = None

    def __repr__(self) -> str:
        kind = "certified" if self.proved else "quoted"
        name = f"Lip(W{order_name(self.p)})"
        vacuous = "" if math.isfinite(self.value) else f"; {VACUOUS}"
        value = printed(self.value, 1)
        where = f"on {self.domain}{among(self.atoms)}"
        return f"{name} <= {value} {where} ({self.theorem}, {kind}{vacuous})"


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
        where = f"on {self.domain}{among(self.atoms)}"
        return f"{name} >= {printed(self.value, -1)} {where} ({kind}; {self.found})"


class Move(NamedTuple):
    r"""What a local constant is attained by.

    Attributes:
        atom: p = 1: the number of the atom that moves; p = ∞: that of the output that is watched;
            None for p = 2, where all atoms move, and for a point that is no atom.
        point: where that atom is (d,); the points of all atoms with mass (n, d) for p = 2.
        direction: p = 1: the unit vector u along which it moves (d,); p = ∞: the unit vector w
            along which the output is watched (v,): atom j moves along $J_{ij}^\top w$; p = 2: the
            displacements of all atoms with mass (n, d), with $\sum_i\omega_i|\varepsilon_i|^2 = 1$.
    """

    atom: int | None
    point: NDArray
    direction: NDArray


@dataclass(frozen=True)
class LocalConstant:
    """The Lipschitz constant of a layer near one measure, from both sides.

    Attributes:
        value: attained by ``witness`` in the limit of small steps; an allowance for the rounding of
            float64 is taken off.
        upper: certified for the class ``moves``, that allowance included; infinite where nothing is
            certified.
        p: the order of the metric.
        moves: which measures compete: `Whole`, `Split` or `Anywhere`.
        metric: $W_p$, or the position-wise metric of masked layers.
        witness: what moves, and in which direction.
        probability: with which ``upper`` holds: 1 if it is deterministic.
        how: what each number is, and how it was found, in full sentences.
    """

    value: float
    upper: float
    p: float
    moves: Moves
    metric: str
    witness: Move = field(repr=False)
    probability: float = 1.0
    how: str = field(default="", repr=False)

    @property
    def ratio(self) -> float:
        """Upper over value; infinite if nothing is attained or certified."""
        return self.upper / self.value if self.value > 0 else math.inf

    def __repr__(self) -> str:
        upper = "nothing certified above"
        if math.isfinite(self.upper):
            trust = "certified"
            if self.probability < 1:
                trust = f"certified with probability 1 - {1 - self.probability:.0e}"
            upper = f"<= {printed(self.upper, 1)} ({trust})"
        name = f"local Lip({self.metric}), {self.moves}"
        return f"{name}: >= {printed(self.value, -1)} (attained), {upper}"


def metric_name(masked: bool, p: float) -> str:
    """What a metric is called: W1, W2, W_inf, or the position-wise one of masked layers."""
    name = "W_inf" if math.isinf(p) else f"W{order_name(p)}"
    return f"{name}, position-wise" if masked else name


def among(atoms: int | None) -> str:
    """Of which measures a constant is, where not of all."""
    return "" if atoms is None else f" among {atoms} equal atom{'s' * (atoms > 1)}"
