"""What a theorem is: a formula that asks for its hypotheses before it says a number."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from measattn.digits import order_name
from measattn.lipschitz.forms import Dot, Gauss, Head
from measattn.lipschitz.results import Hypothesis

UP = 1 + 1e-10
"""Norms and eigenvalues of float64 are inflated by this factor."""


class Inapplicable(Exception):
    """A theorem does not speak of this head, domain or order; the message says why."""


@dataclass(frozen=True)
class Case:
    """One head on measures in a ball about the origin.

    Attributes:
        head: the head, on points measured from the centre of the domain.
        radius: R of the ball; infinite if there is none.
        diameter: D of the domain, at most 2R.
        p: the order of $W_p$.
        atoms: the measures have this many atoms of equal weight; None if they may be any.
    """

    head: Head
    radius: float
    diameter: float
    p: float
    atoms: int | None

    @property
    def dot(self) -> Dot:
        """The bilinear score; `Inapplicable` for another."""
        score = self.head.score
        if isinstance(score, Dot):
            return score
        raise Inapplicable("needs a score <Ax + c, y>; found a Gaussian one")

    @property
    def gauss(self) -> Gauss:
        """The Gaussian score; `Inapplicable` for another."""
        score = self.head.score
        if isinstance(score, Gauss):
            return score
        raise Inapplicable("needs a Gaussian score; found <Ax + c, y>")

    @property
    def value(self) -> float:
        """‖V‖, from above."""
        return norm(self.head.value)

    @property
    def kappa(self) -> float:
        """κ = ‖A‖ of a bilinear score, from above."""
        return norm(self.dot.matrix)

    @property
    def tilt(self) -> float:
        """|c| of a bilinear score, from above."""
        return norm(self.dot.shift[:, None])

    @property
    def slope(self) -> float:
        """ℓ = κR + |c|, a bound of the gradient of a bilinear score in the key."""
        return self.kappa * self.radius + self.tilt

    @property
    def factor(self) -> float:
        r"""$c_p = 2^{(2/p-1)_+}$."""
        return 2.0 ** max(2 / self.p - 1, 0)


@dataclass(frozen=True)
class Theorem:
    """An upper bound of the Lipschitz constant of one head.

    Attributes:
        name: as in the documentation.
        statement: its formula.
        source: where it is proved, or quoted from.
        proved: whether docs/theory-lipschitz.md proves it.
        evaluate: the value and the hypotheses that were checked; raises `Inapplicable`.
    """

    name: str
    statement: str
    source: str
    proved: bool
    evaluate: Callable[[Case], tuple[float, tuple[Hypothesis, ...]]]


def need(holds: Any, text: str, found: str) -> Hypothesis:
    """A hypothesis that was checked.

    Raises:
        Inapplicable: it does not hold.
    """
    if not holds:
        raise Inapplicable(f"needs {text}; found {found}")
    return Hypothesis(text, True, found)


def norm(matrix: NDArray) -> float:
    """The spectral norm, from above."""
    size = float(np.abs(matrix).max(initial=0.0))
    if not math.isfinite(size):
        return math.inf
    # in units of the largest entry, so that no square is lost
    return size * float(np.linalg.norm(matrix / size, 2)) * UP if size else 0.0


def power(base: float | int, exponent: float | int) -> float:
    """exp(base)^exponent as a float, infinite where it overflows."""
    size = base * exponent
    return math.exp(size) * UP if size < 700 else math.inf


def bilinear(case: Case) -> Hypothesis:
    """The score is ⟨Ax + c, y⟩."""
    return Hypothesis("a score <Ax + c, y>", True, f"A of shape {case.dot.matrix.shape}")


def gaussian(case: Case) -> Hypothesis:
    """The score is Gaussian."""
    return Hypothesis("a Gaussian score", True, f"sigma = {case.gauss.sigma:g}")


def own_keys(case: Case) -> Hypothesis:
    """Queries and keys have one law."""
    found = "self-attention" if case.head.memory is None else "a fixed memory"
    return need(case.head.memory is None, "self-attention", found)


def unmasked(case: Case) -> Hypothesis:
    """Every query sees all keys."""
    found = "a mask" if case.head.masked else "no mask"
    return need(not case.head.masked, "no mask, as it is about laws", found)


def bounded(case: Case) -> Hypothesis:
    """The domain lies in a ball."""
    return need(math.isfinite(case.radius), "a bounded domain", f"radius {case.radius:g}")


def moderate(size: float) -> Hypothesis:
    """Scores are so small that maxima over them can be computed."""
    return need(size < 1e100, "scores below 1e100", f"scores up to {size:.3g}")


def order(case: Case, *orders: float | int) -> Hypothesis:
    """The order is one of these."""
    names = " or ".join(map(order_name, orders))
    return need(case.p in orders, f"p = {names}", f"p = {order_name(case.p)}")


def equal_atoms(case: Case) -> Hypothesis:
    """The number of equal atoms is given."""
    found = "any measures" if case.atoms is None else f"{case.atoms} equal atoms"
    return need(case.atoms is not None, "a number of equal atoms, atoms=", found)
