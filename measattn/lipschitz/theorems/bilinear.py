r"""Any score on a ball: B1 for $W_1$, B3 for every order.

Source: B1, B2 and B3 of docs/theory-lipschitz.md.
"""

import math

from measattn.lipschitz.forms import Dot
from measattn.lipschitz.results import Hypothesis
from measattn.lipschitz.theorems.base import (
    UP,
    Case,
    Theorem,
    bilinear,
    bounded,
    need,
    order,
    own_keys,
    power,
    unmasked,
)
from measattn.lipschitz.theorems.theta import theta

Answer = tuple[float, tuple[Hypothesis, ...]]


def _b1(case: Case) -> Answer:
    checked = (order(case, 1), own_keys(case), unmasked(case), bounded(case))
    d = case.diameter
    if isinstance(case.head.score, Dot):
        query, slope = case.kappa * d * d / 4, case.slope
        spread = slope * d
    else:
        inverse = UP / case.gauss.sigma**2
        query, slope, spread = inverse * d * d / 4, inverse * d, inverse * d * d / 2
    return case.value * (query + power(spread, 1) * (1 + slope * d)) * UP, checked


def _b3(case: Case) -> Answer:
    checked = (bilinear(case), own_keys(case), unmasked(case), bounded(case))
    score, r = case.dot, case.radius
    square = score.matrix.shape[0] == score.matrix.shape[1]
    checked += (need(square, "queries and keys of one dimension", f"A {score.matrix.shape}"),)
    mass = 1.0
    if not math.isinf(case.p):
        mass = power(theta(score.matrix, score.shift, r), 1 / case.p)
        if case.atoms is not None:
            mass = min(mass, case.atoms ** (1 / case.p) * UP)
            checked += (Hypothesis("equal atoms, for min(n, exp theta)", True, str(case.atoms)),)
    query = case.kappa * r * r
    return case.value * (query + mass * (1 + case.factor * case.slope * r)) * UP, checked


B1 = Theorem(
    "B1",
    r"‖V‖[κD²/4 + e^ω(1 + ℓD)]",
    "docs/theory-lipschitz.md, B1",
    True,
    _b1,
)

B3 = Theorem(
    "B3",
    r"‖V‖[κR² + min(n, e^θ)^(1/p) (1 + c_p ℓR)]",
    "docs/theory-lipschitz.md, B2, B3 and H1",
    True,
    _b3,
)
