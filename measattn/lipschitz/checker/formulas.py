r"""The theorems, evaluated once more: is a claimed bound of one head what its theorem proves?

$\kappa=\|A\|$, $t=\kappa R^2$, $\ell=\kappa R+|c|$, $\gamma=R|c|$, $c_p=2^{(2/p-1)_+}$, V the value
map, c the shift of the score about the centre of the ball. Proofs: docs/theory-lipschitz.md.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from scipy.special import lambertw

from . import maxima
from .domains import Region
from .outputs import Head
from .report import Rejected

ROUNDING = 1e-12
"""What the numbers of this file may be off, relative; claims are inflated by more."""

EXCESS = 1e-6
"""How far above its formula a claim may be, relative to it and its logarithm."""


class Question(NamedTuple):
    """What a bound is about: a head on measures in a region, an order, a number of equal atoms."""

    head: Head
    region: Region
    p: float
    atoms: int | None

    @property
    def value(self) -> float:
        """‖V‖."""
        return _norm(self.head.value)

    @property
    def matrix(self) -> NDArray:
        """A, of a score that has it."""
        if self.head.matrix is None:
            raise Rejected("needs a score <Ax + c, y>")
        return self.head.matrix

    @property
    def shift(self) -> NDArray:
        """c, the score taken about the centre of the ball: exactly, as both parts may cancel."""
        centre = self.region.centre
        if not np.any(centre):
            return self.head.shift
        terms = zip(self.head.shift, self.matrix, strict=True)
        exact = [
            Fraction(float(c))
            + sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(row, centre, strict=True))
            for c, row in terms
        ]
        return np.array([float(c) for c in exact])

    @property
    def tilt(self) -> float:
        """|c|."""
        return _norm(self.shift[:, None])

    @property
    def inverse(self) -> float:
        """1/σ², of a Gaussian score."""
        if self.head.sigma is None:
            raise Rejected("needs a Gaussian score")
        return 1 / self.head.sigma**2

    @property
    def factor(self) -> float:
        """$c_p$."""
        return 2.0 ** max(2 / self.p - 1, 0.0)

    def need(self, holds: bool, text: str) -> None:
        """Reject the claim unless a hypothesis holds."""
        if not holds:
            raise Rejected(f"needs {text}")

    def of_laws(self) -> tuple[float, float]:
        """R and D, for theorems about self-attention on bounded domains."""
        self.need(self.head.keys is None, "self-attention")
        self.need(math.isfinite(self.region.radius), "a bounded domain")
        return self.region.radius, self.region.diameter


def _norm(matrix: NDArray) -> float:
    size = float(np.abs(matrix).max())
    return size * float(np.linalg.svd(matrix / size, compute_uv=False)[0]) if size else 0.0


def _b1(q: Question) -> float:
    r, d = q.of_laws()
    q.need(q.p == 1, "p = 1")
    if q.head.sigma is not None:
        k = q.inverse
        return q.value * (k * d * d / 4 + math.exp(k * d * d / 2) * (1 + k * d * d))
    k = _norm(q.matrix)
    slope = k * r + q.tilt
    return q.value * (k * d * d / 4 + math.exp(slope * d) * (1 + slope * d))


def _b3(q: Question) -> float:
    r, _ = q.of_laws()
    k = _norm(q.matrix)
    q.need(q.matrix.shape[0] == q.matrix.shape[1], "queries and keys of one dimension")
    mass = 0.0
    if math.isfinite(q.p):
        mass = theta(q.matrix, q.shift, r)
        mass = mass if q.atoms is None else min(mass, math.log(q.atoms))
        mass /= q.p
    return q.value * (k * r * r + math.exp(mass) * (1 + q.factor * (k * r + q.tilt) * r))


def theta(matrix: NDArray, shift: NDArray, radius: float) -> float:
    r"""$\theta_R(A, c)$ from above (H5): a minimum over λ and, for each of them, over ν."""
    size, length = _norm(matrix), _norm(shift[:, None])
    simple = 2 * radius * (radius * size + length)
    if size * radius <= 1e-8 * length:
        return simple
    c = shift / radius

    def half(logarithm: float) -> float:
        multiplier = math.exp(logarithm)
        form = matrix.T @ matrix / (2 * multiplier) - (matrix + matrix.T) / 2
        values, vectors = np.linalg.eigh(form)
        h = vectors.T @ (matrix.T @ c / multiplier - c)
        rounding = 1e-14 * len(matrix) * (size + size**2 / multiplier)
        found = multiplier / 2 + float(c @ c) / (2 * multiplier) + _over_ball(values, h)
        return found * (1 + 1e-13) + rounding

    # convex in the multiplier, often with a kink at the minimum: golden sections find it
    low, high = math.log(size) - 12, math.log(size + length / radius) + 3
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(90):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if half(left) <= half(right) else (left, high)
    return min(radius**2 * half(low), radius**2 * half(high), simple)


def _over_ball(values: NDArray, h: NDArray) -> float:
    """The maximum of a quadratic form with these eigenvalues and a linear one on the unit ball."""
    top = max(float(values[-1]), 0.0)
    below, most = 0.0, float(np.linalg.norm(h)) / 2
    if most == 0:
        return top
    for _ in range(100):
        middle = (below + most) / 2
        steep = np.linalg.norm(h / (top - values + middle)) > 2
        below, most = (middle, most) if steep else (below, middle)
    return top + most + float(np.sum(h**2 / (top - values + most))) / 4


def _b6(q: Question) -> float:
    if q.head.keys is None:
        raise Rejected("needs a fixed memory")
    points = q.head.keys[0]
    if len(points) <= 4096:
        d = float(pdist(points).max(initial=0.0))
    else:  # no larger than this
        d = 2 * float(np.linalg.norm(points - points.mean(axis=0), axis=1).max())
    k = _norm(q.matrix) if q.head.sigma is None else q.inverse
    return q.value * k * d * d / 4


def _f1(q: Question) -> float:
    q.need(q.head.keys is None, "self-attention")
    q.need(q.head.sigma is not None, "a Gaussian score")
    q.need(q.p in (2, math.inf) and q.atoms is not None, "p = 2 or infinity, and equal atoms")
    n = q.atoms or 1
    two, all_ = (float(lambertw((m - 1) / math.e).real) for m in (2, n))
    if math.isinf(q.p):
        return q.value * (1 + 4 * all_)
    return q.value * (math.sqrt(n) + math.sqrt(8 * all_ * (all_ + two * n)))


def _f3(q: Question) -> float:
    r, _ = q.of_laws()
    s = r * r * q.inverse
    if math.isinf(q.p):
        return q.value * (1 + 3 * s)
    mass = (4 / 3) ** (len(q.region.centre) / (2 * q.p))
    rest = 1 + 2 * q.factor * s
    if q.p == 1:
        rest = min(rest, 1 + 4 / math.sqrt(3) * math.sqrt(s))
    return q.value * (s + mass * rest)


def _positive(q: Question) -> tuple[float, float]:
    """T and γ, for theorems about symmetric positive semi-definite A and p = 1."""
    r, _ = q.of_laws()
    a = q.matrix
    q.need(q.p == 1, "p = 1")
    q.need(a.shape[0] == a.shape[1] and bool(np.all(a == a.T)), "a symmetric A")
    k = _norm(a)
    q.need(float(np.linalg.eigvalsh(a)[0]) >= -1e-14 * len(a) * k, "A positive semi-definite")
    return k * r * r, r * q.tilt


def _h2(q: Question) -> float:
    t, g = _positive(q)
    return q.value * (
        t + math.exp(t / 4 + 2 * g) * (1 + 2 * g + 2 * min(t, math.sqrt(t + t * t / 4)))
    )


def _castin(q: Question) -> float:
    r, _ = q.of_laws()
    q.need(q.p == 2 and q.tilt == 0, "p = 2 and c = 0")
    return _norm(q.matrix) * r * r


def _castin_root(q: Question) -> float:
    t = _castin(q)
    q.need(q.atoms is not None, "a number of equal atoms")
    n = q.atoms or 1
    return q.value * math.sqrt(3 * (t * t * (4 * n + 1) + n))


def _castin_mean_field(q: Question) -> float:
    t = _castin(q)
    return q.value * (1 + 3 * t) * math.exp(2 * t)


CLOSED: dict[str, Callable[[Question], float]] = {
    "B1": _b1,
    "B3": _b3,
    "B6": _b6,
    "F1": _f1,
    "F3": _f3,
    "H2": _h2,
    "Castin √n": _castin_root,
    "Castin mean-field": _castin_mean_field,
}


class Found(NamedTuple):
    """A bound as recomputed, how far above it a claim may be, and whether the claim is proved."""

    value: float
    excess: float
    proved: bool


def check(theorem: str, question: Question, claimed: float) -> Found:
    """Whether a theorem proves what is claimed of one head.

    Raises:
        Rejected: a theorem that is not known here, or whose hypotheses do not hold.
    """
    if theorem in CLOSED:
        try:
            value = CLOSED[theorem](question)
        except OverflowError:
            raise Rejected("its value overflows") from None
        # an exponent that is off by a part of itself changes its exponential by as many parts
        value *= 1 + ROUNDING * (1 + math.log(max(value, 1.0)))
        excess = EXCESS * value * (1 + math.log(max(value, 1.0)))
        return Found(value, excess, claimed >= value)
    if theorem not in {"H4", "H6"}:
        known = ", ".join([*CLOSED, "H4", "H6"])
        raise Rejected(f"the theorem {theorem!r} is not known here; these are: {known}")
    problem, t = _maximum_h4(question) if theorem == "H4" else _maximum_h6(question)
    if question.value == 0:
        return Found(0.0, EXCESS, claimed >= 0)
    # the claim is ‖V‖(t + N): no value of the maximand may exceed that N
    room = claimed / (question.value * (1 + ROUNDING)) - t * (1 + ROUNDING)
    level = math.log(room) - ROUNDING * (1 + abs(math.log(room))) if room > 0 else -math.inf
    top, proved = maxima.stays_below(problem, level)
    value = question.value * (t + math.exp(top))
    return Found(value, problem.slack * value, proved)


def _maximum_h4(question: Question) -> tuple[maxima.Problem, float]:
    t, g = _positive(question)
    matrix = question.matrix
    identity = bool(np.all(matrix == matrix[0, 0] * np.eye(len(matrix))))
    return maxima.h4(t, g, identity), t


def _maximum_h6(question: Question) -> tuple[maxima.Problem, float]:
    radius, _ = question.of_laws()
    matrix = question.matrix
    question.need(question.p == 1, "p = 1")
    question.need(matrix.shape[0] == matrix.shape[1], "queries and keys of one dimension")
    t = _norm(matrix) * radius**2
    cap = theta(matrix, question.shift, radius)
    return maxima.h6(radius**2 * matrix, cap, radius * question.tilt), t
