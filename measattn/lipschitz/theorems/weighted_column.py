r"""Any score $\langle Ax+c,y\rangle$ on a ball, for $W_1$: the weighted column mass N of H3.

The bound is $\|V\|(t+N)$, $\log N$ at most a maximum over two numbers,

$$ \max_{D\le2,\ D-1\le m\le1}\bigl[e(D,m)+\min\{H(\chi(D,m)),\log(1+2\ell')\}\bigr], $$

with $t=\kappa R^2$, $\gamma=R|c|$, $\ell'=t+\gamma$. Source: H3 and H6 of docs/theory-lipschitz.md.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from measattn.lipschitz.results import Hypothesis
from measattn.lipschitz.theorems.base import (
    UP,
    Case,
    Theorem,
    bilinear,
    bounded,
    moderate,
    need,
    norm,
    order,
    own_keys,
    power,
    unmasked,
)
from measattn.lipschitz.theorems.span import within_span
from measattn.lipschitz.theorems.theta import theta

TOLERANCE = 2e-4
"""What branch and bound leaves open of the logarithm of N, times 1 + ℓ'."""

BOXES = 2**20
"""With more boxes than this what is open stays open, and is counted."""

MULTIPLIERS = np.concatenate([[0.0], 2.0 ** (np.arange(-24, 9) / 4)])
"""The ν that are tried, as multiples of κ: every ν gives a bound."""


class Exponent(NamedTuple):
    r"""Bounds of $\langle A\bar\pi+c,w\rangle$ for $|w|=D$, $|\bar\pi|=m$, both in units of R.

    Attributes:
        norms: $R^2\|A-2\nu I\|$, one for each ν.
        multipliers: $R^2\nu$.
        cap: $\theta_R(A,c)$.
    """

    norms: NDArray
    multipliers: NDArray
    cap: float


def _h6(case: Case) -> tuple[float, tuple[Hypothesis, ...]]:
    checked = (order(case, 1), bilinear(case), own_keys(case), unmasked(case), bounded(case))
    matrix = case.dot.matrix
    square = matrix.shape[0] == matrix.shape[1]
    checked += (need(square, "queries and keys of one dimension", f"A {matrix.shape}"),)
    t, tilt = case.kappa * case.radius**2, case.radius * case.tilt
    checked += (moderate(t + tilt),)
    bounds = exponent(matrix, case.dot.shift, case.radius)
    top = _maximum(bounds, t, tilt) if t + tilt > 0 else 0.0
    # where the exponent is negative, the inflated norm has made it too small
    return case.value * (t + power(top, 1)) * (1 + 1e-9 * (1 + t)), checked


def exponent(matrix: NDArray, shift: NDArray, radius: float) -> Exponent:
    """What bounds the exponent of H6, for each multiplier."""
    size = norm(matrix)
    nus = MULTIPLIERS * size
    inner, _, lost = within_span(matrix)
    # outside of the span it is 2ν, as on the half of the span where A is 0;
    # the difference itself has been rounded
    norms = np.array([norm(inner - 2 * nu * np.eye(len(inner))) for nu in nus])
    norms += lost + 1e-14 * (size + nus)
    cap = theta(matrix, shift, radius)
    return Exponent(norms * radius**2 * UP, nus * radius**2, cap)


def _maximum(bounds: Exponent, t: float, tilt: float) -> float:
    """The maximum over (D, m) from above, by branch and bound."""
    tolerance, half = TOLERANCE * (1 + t + tilt), np.array([[1 / 32], [1 / 32]])
    axes = (np.arange(k) / 16 + 1 / 32 for k in (32, 16))
    boxes = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")])
    corners = np.array([[-0.5, -0.5, 0.5, 0.5], [-0.5, 0.5, -0.5, 0.5]])
    best = -math.inf
    while True:
        best = max(best, float(_above(boxes, 0 * half, bounds, t, tilt).max()))
        above = _above(boxes, half, bounds, t, tilt)
        is_open = above > best + tolerance
        top = max(best + tolerance, float(above.max()))
        if not is_open.any() or 4 * is_open.sum() > BOXES:
            return top + 1e-12 * (1 + abs(top))
        half = half / 2
        boxes = (boxes[:, is_open, None] + 2 * half[:, :, None] * corners[:, None]).reshape(2, -1)


def _above(boxes: NDArray, half: NDArray, bounds: Exponent, t: float, tilt: float) -> NDArray:
    """H6's maximand, from above on boxes: each of its parts is monotone in D and in m."""
    (least_d, least_m), (d, m) = boxes - half, boxes + half
    inner = np.minimum(2 * m * d, 1 - least_d**2 - least_m**2)
    rise = np.full(d.shape, bounds.cap)
    swing = tilt * d  # what the shift adds
    for size, nu in zip(bounds.norms, bounds.multipliers, strict=True):
        rise = np.minimum(rise, size * m * d + nu * inner + swing)
    reach = t + tilt
    root = _chi(reach * d, (t * m + tilt) / reach)
    top = rise + np.minimum(_log_and_shift(root, reach), math.log1p(2 * reach))
    return np.where(m >= least_d - 1, top, -math.inf)  # y would be outside of the ball


def _chi(s: NDArray, share: NDArray) -> NDArray:
    r"""$\chi$ of H6, with $s = \ell'D$ and $\sigma$."""
    middle = np.sqrt((1 + s * s) * (1 + share * share))
    return np.where(s <= share, 1 + s * share, np.where(s * share <= 1, middle, s + share))


def _log_and_shift(chi: NDArray, reach: float) -> NDArray:
    r"""$H(\chi) = \max_\delta[\log(\chi+\ell'\delta)-\frac12\delta^2]$."""
    root = np.sqrt(chi * chi + 4 * reach * reach)
    delta = 2 * reach / (chi + root)
    return np.log((chi + root) / 2) - delta**2 / 2


H6 = Theorem(
    "H6",
    "‖V‖[t + max_{D,m} e^(e(D,m)) min(e^H(χ), 1 + 2ℓ')]",
    "docs/theory-lipschitz.md, H3 and H6",
    True,
    _h6,
)
