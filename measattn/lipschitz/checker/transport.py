r"""Distances from both sides, by what is stored: a plan from above, potentials from below.

A plan with the right marginals costs at least $W_p^p$; what its marginals miss is charged with the
largest cost. Potentials with $u_i + v_j \le |x_i - y_j|^p$ are worth at most $W_p^p$; v must be the
c-transform of u, the largest, and is computed again.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .report import Rejected

UNIT = 2.0**-53
TINY = 2.0**-1070
"""More than a power or a product loses where it leaves the normal numbers."""


NEAREST = 1e-250
"""Lengths below this lose digits."""


class Above(NamedTuple):
    """The cost of a plan as the length of a mean, and an upper bound of the distance."""

    value: float
    upper: float


class Below(NamedTuple):
    """A lower bound of the distance, before it by how much rounding was allowed for.

    Attributes:
        value: of the potentials.
        lower: certified.
        difference: by how much the stored v is not the c-transform of u, in units of costs.
        resolution: a difference of this size is rounding.
    """

    value: float
    lower: float
    difference: float
    resolution: float


def distances(x: NDArray, y: NDArray) -> NDArray:
    """|x_i - y_j| by differences (n, m)."""
    return np.stack([lengths(y - row) for row in x])


def lengths(vectors: NDArray) -> NDArray:
    """Euclidean lengths (n,), in units of the largest entry, so that no square is lost."""
    unit = np.abs(vectors).max(axis=1)
    unit = np.where(unit > 0, unit, 1.0)
    return unit * np.linalg.norm(vectors / unit[:, None], axis=1)


def relative(dimension: int, p: float) -> float:
    """The relative error of a computed |x - y|^p."""
    return (dimension / 2 + 8) * p * UNIT


def root(cost: float, p: float, side: int) -> float:
    """The p-th root from above (+1) or below (-1); the exponent is rounded, too."""
    if p == 1 or cost == 0:
        return cost
    return cost ** (1 / p) * (1 + side * (4 + abs(math.log(cost)) / p) * UNIT)


def above(
    x: NDArray, y: NDArray, weights: NDArray, plan: tuple[NDArray, NDArray, NDArray], p: float
) -> Above:
    """What a plan between two measures of the same weights shows.

    Raises:
        Rejected: atoms that do not exist, negative mass, or marginals that are not the weights.
    """
    rows, cols, mass = plan
    n = len(weights)
    if len(rows) == 0 or min(rows.min(), cols.min()) < 0 or max(rows.max(), cols.max()) >= n:
        raise Rejected(f"the plan has no arcs, or joins atoms that are not among the {n}")
    if np.any(mass < 0):
        raise Rejected("the plan moves negative mass")
    defect = math.fsum(
        abs(math.fsum([*mass[side == i], -weights[i]])) for side in (rows, cols) for i in range(n)
    )
    if defect > 1e-9:
        raise Rejected(f"the marginals of the plan miss the weights by {defect:.3g}")
    long = lengths(x[rows] - y[cols])
    if math.isinf(p):
        # masses are multiples of 1/n, so by Hall's theorem half a multiple may be missing
        if defect > 0.5 / n:
            raise Rejected(f"the marginals of the plan miss the weights by {defect:.3g}")
        value = float(long[mass > 0].max())
        return Above(value, value * (1 + relative(x.shape[1], 1.0)))
    if long.max() < NEAREST:
        raise Rejected(f"the measures must be {NEAREST} apart or more to be told apart")
    top = float(distances(x, y).max())
    value = math.fsum(mass * (long / top) ** p)
    upper = value * (1 + relative(x.shape[1], p) + 4 * UNIT) + 1.001 * defect
    upper += (len(mass) + 4) * TINY
    return Above(top * value ** (1 / p), top * root(upper, p, 1))


def below(
    x: NDArray, y: NDArray, weights: NDArray, potentials: tuple[float, NDArray, NDArray], p: float
) -> Below:
    """What potentials between two measures of the same weights show, for p below infinity.

    They come with the unit of length that their costs are measured in: powers of small distances
    would leave float64.
    """
    unit, u, v = potentials
    cost = (distances(x, y) / unit) ** p
    # a constant moved from u to v changes the size of the terms alone
    middle = u.max() / 2 + u.min() / 2
    scale = float(cost.max()) + float(np.abs(u).max())
    u = u - middle
    best = (cost - u[:, None]).min(axis=0)
    difference = float(np.abs(v + middle - best).max())
    value = math.fsum([*(weights * u), *(weights * best)])
    sizes = math.fsum(weights * (np.abs(u) + np.abs(best)))
    heights = math.fsum(weights * np.abs(best)) + math.fsum(weights) * float(np.abs(u).max())
    rounding = 8 * UNIT * sizes + (relative(x.shape[1], p) + 4 * UNIT) * heights
    rounding += (2 * len(u) + 4) * TINY
    lower = unit * root(max(value - rounding, 0.0), p, -1)
    resolution = (64 + p) * UNIT * scale
    return Below(unit * max(value, 0.0) ** (1 / p), lower, difference, resolution)


def below_everywhere(x: NDArray, y: NDArray, sources: NDArray) -> Below:
    """What sources of equal mass that have to go far show, for p = infinity.

    k sources need k targets, so one of them goes at least to the k-th nearest of all targets.

    Raises:
        Rejected: sources that do not exist, or occur twice.
    """
    n = len(x)
    if not 0 < len(sources) == len(np.unique(sources)) or min(sources) < 0 or max(sources) >= n:
        raise Rejected(f"the blocking sources must be different atoms among the {n}")
    nearest = np.sort(distances(x[sources], y).min(axis=0))
    value = float(nearest[len(sources) - 1])
    return Below(value, value * (1 - relative(x.shape[1], 1.0)), 0.0, 0.0)
