r"""Gaussian scores: on balls for all measures, on all of R^d for a number of atoms.

Source: F1 and F3 of docs/theory-lipschitz.md.
"""

import math

from scipy.special import lambertw

from measattn.lipschitz.results import Hypothesis
from measattn.lipschitz.theorems.base import (
    UP,
    Case,
    Theorem,
    bounded,
    equal_atoms,
    gaussian,
    need,
    order,
    own_keys,
    unmasked,
)

Answer = tuple[float, tuple[Hypothesis, ...]]


def _f3(case: Case) -> Answer:
    checked = (gaussian(case), own_keys(case), unmasked(case), bounded(case))
    ratio = case.radius / case.gauss.sigma * UP
    if math.isinf(case.p):
        return case.value * (1 + 3 * ratio**2) * UP, checked
    dimension = case.head.value.shape[1]
    mass = (4 / 3) ** (dimension / (2 * case.p)) * UP
    bound = ratio**2 + mass * (1 + 2 * case.factor * ratio**2)
    if case.p == 1:
        bound = min(bound, ratio**2 + mass * (1 + 4 / math.sqrt(3) * ratio))
    return case.value * bound * UP, checked


def _f1(case: Case) -> Answer:
    checked = (gaussian(case), own_keys(case), order(case, 2, math.inf), equal_atoms(case))
    checked += (need(case.head.allowed is None, "that each row sees its own key", "a mask"),)
    n = case.atoms or 1
    one, all_ = (float(lambertw((k - 1) / math.e).real) * UP for k in (2, n))
    if math.isinf(case.p):
        return case.value * (1 + 4 * all_) * UP, checked
    return case.value * (math.sqrt(n) + math.sqrt(8 * all_**2 + 8 * one * n * all_)) * UP, checked


F1 = Theorem(
    "F1",
    "p = ∞: ‖V‖(1 + 4Λ); p = 2: ‖V‖(√n + √(8Λ² + 8Λ₂nΛ)), Λ = W₀((n-1)/e)",
    "docs/theory-lipschitz.md, F1",
    True,
    _f1,
)

F3 = Theorem(
    "F3",
    "‖V‖[R²/σ² + (4/3)^(d/2p) (1 + 2c_p R²/σ²)], for p = 1 also with 1 + (4/√3)R/σ",
    "docs/theory-lipschitz.md, F3 and H2",
    True,
    _f3,
)
