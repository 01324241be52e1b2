"""Bounds of the literature, for comparison.

Those of Castin, Ablin and Peyré follow from B5 and B2 (L3 of docs/theory-lipschitz.md); that of
Kim, Papamakarios and Mnih is quoted, and never the ground of a certificate.
"""

import math

from scipy.special import lambertw

from measattn.lipschitz.results import Hypothesis
from measattn.lipschitz.theorems.base import (
    UP,
    Case,
    Theorem,
    bilinear,
    bounded,
    equal_atoms,
    gaussian,
    need,
    order,
    own_keys,
    power,
    unmasked,
)

Answer = tuple[float, tuple[Hypothesis, ...]]


def _linear(case: Case) -> tuple[Hypothesis, ...]:
    checked = (order(case, 2), bilinear(case), own_keys(case), unmasked(case), bounded(case))
    return (*checked, need(case.tilt == 0, "c = 0", f"|c| = {case.tilt:.3g}"))


def _root(case: Case) -> Answer:
    checked = (*_linear(case), equal_atoms(case))
    t, n = case.kappa * case.radius**2, case.atoms or 1
    return case.value * math.sqrt(3 * (t * t * (4 * n + 1) + n)) * UP, checked


def _mean_field(case: Case) -> Answer:
    checked = _linear(case)
    t = case.kappa * case.radius**2
    return case.value * (1 + 3 * t) * power(2 * t, 1) * UP, checked


def _kim(case: Case) -> Answer:
    checked = (gaussian(case), own_keys(case), unmasked(case), order(case, 2), equal_atoms(case))
    n = case.atoms or 1
    # with W = I and one head; the scale of the scores cancels against that of the values
    inverse = float(lambertw((n - 1) / math.e).real)
    return case.value * math.sqrt(n) * (4 * inverse + 1), checked


CASTIN_ROOT = Theorem(
    "Castin √n",
    "√3 ‖V‖ √(κ²R⁴(4n + 1) + n)",
    "arXiv 2312.14820, Theorem 3.3; docs/theory-lipschitz.md, L3",
    True,
    _root,
)

CASTIN_MEAN_FIELD = Theorem(
    "Castin mean-field",
    "‖V‖(1 + 3κR²)e^(2κR²)",
    "arXiv 2312.14820; docs/theory-lipschitz.md, L3",
    True,
    _mean_field,
)

KIM = Theorem(
    "Kim L2",
    "√n ‖V‖(4φ⁻¹(n - 1) + 1), φ(x) = x e^(x + 1)",
    "arXiv 2006.04710, Theorem 3.2, recalled",
    False,
    _kim,
)
