r"""Symmetric, positive semi-definite scores: sharper constants for $W_1$ on balls.

With $t=\kappa R^2$, $\gamma=R|c|$, $\ell'=t+\gamma$ the bound is $\|V\|(t+N)$. Source: H2 and H4 of
docs/theory-lipschitz.md.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from measattn.lipschitz.results import Hypothesis
from measattn.lipschitz.theorems.base import (
    Case,
    Theorem,
    bilinear,
    bounded,
    moderate,
    need,
    order,
    own_keys,
    power,
    unmasked,
)

GRID = 2**21
"""The most points of the grid of H4."""

Answer = tuple[float, tuple[Hypothesis, ...]]


def _checked(case: Case) -> tuple[Hypothesis, ...]:
    checked = (order(case, 1), bilinear(case), own_keys(case), unmasked(case), bounded(case))
    matrix = case.dot.matrix
    square = matrix.shape[0] == matrix.shape[1]
    symmetric = square and bool(np.array_equal(matrix, matrix.T))
    checked += (need(symmetric, "a symmetric A", "one that is not"),)
    least = float(np.linalg.eigvalsh(matrix)[0])
    # an eigenvalue of 0 comes out a little negative
    rounding = 4 * len(matrix) * np.finfo(float).eps * float(np.linalg.norm(matrix, 2))
    return (*checked, need(least >= -rounding, "A positive semi-definite", f"{least:.3g} in it"))


def _multiple_of_the_identity(case: Case) -> bool:
    matrix = case.dot.matrix
    return bool(np.array_equal(matrix, matrix[0, 0] * np.eye(len(matrix))))


def _sizes(case: Case) -> tuple[float, float]:
    return case.kappa * case.radius**2, case.radius * case.tilt


def _rounded(case: Case, value: float) -> float:
    # where the exponent is negative, the inflated norm has made it too small
    t, _ = _sizes(case)
    return case.value * value * (1 + 1e-9 * (1 + t))


def _h2(case: Case) -> Answer:
    checked = _checked(case)
    t, tilt = _sizes(case)
    inner = 1 + 2 * tilt + 2 * min(t, math.sqrt(t + t * t / 4))
    return _rounded(case, t + power(t / 4 + 2 * tilt, 1) * inner), checked


def _h4(case: Case) -> Answer:
    checked = _checked(case)
    t, tilt = _sizes(case)
    checked += (moderate(t + tilt),)
    return _rounded(case, t + _maximum_h4(t, tilt, _multiple_of_the_identity(case))), checked


@lru_cache(maxsize=256)
def _maximum_h4(t: float, tilt: float, identity: bool) -> float:
    """The maximum over D of H4 from above, by a grid and the Lipschitz constant."""
    reach = t + tilt
    if reach == 0:
        return 1.0
    slope = 3 * t + tilt + 1
    cells = int(min(GRID, max(1000, math.ceil(1e5 * slope))))
    distance = (np.arange(cells) + 0.5) * (2 / cells)
    exponent = t * _alpha(distance, identity) + tilt * distance
    m = 1 + reach * distance
    root = np.sqrt(m * m + 4 * reach * reach)
    delta = 2 * reach / (m + root)
    top = float(np.max(exponent - delta**2 / 2 + np.log((m + root) / 2)))
    return power(top + slope / cells + 1e-12 * (1 + abs(top)), 1)


def _alpha(distance: NDArray, identity: bool) -> NDArray:
    near = distance * (1 - distance)
    if identity:
        return near
    far = np.where(distance <= 1, 0.25, distance * (2 - distance) / 4)
    return np.where(distance <= 0.5, near, far)


H2 = Theorem(
    "H2",
    "‖V‖[t + e^(t/4 + 2γ)(1 + 2γ + 2 min(t, √(t + t²/4)))]",
    "docs/theory-lipschitz.md, H2",
    True,
    _h2,
)

H4 = Theorem(
    "H4",
    "‖V‖[t + max_D e^(tα(D) + γD - δ²/2)(1 + ℓ'(D + δ))]",
    "docs/theory-lipschitz.md, H4",
    True,
    _h4,
)
