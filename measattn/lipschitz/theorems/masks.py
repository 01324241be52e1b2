r"""Masks: a bound in the position-wise norm.

Source: M1 of docs/theory-lipschitz.md.
"""

import math

from measattn.lipschitz.results import Hypothesis
from measattn.lipschitz.theorems.base import (
    UP,
    Case,
    Theorem,
    bilinear,
    bounded,
    equal_atoms,
    need,
    own_keys,
    power,
)


def _m1(case: Case) -> tuple[float, tuple[Hypothesis, ...]]:
    checked = (bilinear(case), own_keys(case), bounded(case))
    head = case.head
    kind = "causal" if head.causal and head.allowed is None else "a condition of one's own"
    checked += (
        need(head.masked, "a mask, as it is about positions", kind * head.masked or "none"),
    )
    fine = head.of_positions
    looks = "positions" if fine else "one that may look at states, where layers jump"
    checked += (need(fine, "a mask that looks at positions alone", looks),)
    # attention refuses to average over no key
    checked += (Hypothesis("a key in every row", True, "the layer is defined on no other tokens"),)
    mass = 1.0
    if not math.isinf(case.p):
        checked += (equal_atoms(case),)
        n = case.atoms or 1
        mass = float(n)
        if head.causal and head.allowed is None:
            spread = power(2 * case.slope * case.radius, 1)
            mass = min(mass, spread * (1 + math.log(n)) * UP)
        mass = mass ** (1 / case.p) * UP
    query = case.kappa * case.radius**2
    inner = 1 + case.factor * case.slope * case.radius
    return case.value * (query + mass * inner) * UP, checked


M1 = Theorem(
    "M1",
    "‖V‖[κR² + c*^(1/p) (1 + c_p ℓR)], c* <= n, causal: min(n, e^(2ℓR)(1 + log n)); position-wise",
    "docs/theory-lipschitz.md, M1",
    True,
    _m1,
)
