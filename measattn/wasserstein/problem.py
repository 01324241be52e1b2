r"""The Kantorovich problem between two empirical measures, brought to its smallest form.

$$ W_p(\mu,\nu)^p = \min_{\pi\in\Pi(a,b)} \sum_{ij} \pi_{ij} |x_i - y_j|^p $$

Atoms without mass are left out, equal atoms are merged, lengths are measured in a power of two near
the diameter. For p = 1 the mass that both measures have at equal points is cancelled: with a metric
as the cost $W_1$ depends on $\mu - \nu$ alone, and what is left keeps its digits. Source: derived
in docs/theory.md, G5.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import ScalarLike

from measattn.checks import host_array, host_number, traced
from measattn.digits import order_name
from measattn.measure import EmpiricalMeasure, need_measure
from measattn.points import Pair, Token, kind
from measattn.wasserstein import tiles
from measattn.wasserstein.ground import (
    AbstractGround,
    Euclidean,
    Index,
    Matrix,
    Table,
    Vector,
)
from measattn.wasserstein.masses import common_mass, difference, merged
from measattn.wasserstein.metric import Metric, check_metric
from measattn.wasserstein.support import Support

LARGEST_POINT = 1e305
"""Coordinates beyond this are refused."""

LARGEST_COST = 1e300
"""Entries of a matrix of costs beyond this are refused: sums of them overflow."""

LARGEST_DENSE = 2**27
"""More entries than this (1 GiB) are not held as a matrix of costs."""


@dataclass(frozen=True, eq=False, repr=False)
class Problem:
    """Masses to be moved at given costs.

    Attributes:
        a: masses of the sources (n,), positive.
        b: masses of the targets (m,), positive, with the sum of ``a`` up to rounding.
        ground: the costs (n, m).
        p: the order: the distance is the p-th root of the cost.
        blur: what rounding of the masses may have changed the least cost by.
    """

    a: Vector
    b: Vector
    ground: AbstractGround
    p: float | int = 1.0
    blur: float = 0.0

    def __post_init__(self):
        shapes = [mass.shape if isinstance(mass, np.ndarray) else None for mass in (self.a, self.b)]
        ground = self.ground
        if not isinstance(ground, AbstractGround) or [(n,) for n in ground.shape] != shapes:
            raise ValueError(
                "a Problem holds arrays of masses (n,) and (m,) and a ground of their costs, got "
                f"shapes {shapes[0]} and {shapes[1]} and a {type(ground).__name__}: make it of a "
                "matrix of costs with transport_problem(cost, a, b)"
            )

    def __repr__(self) -> str:
        return f"Problem(p={order_name(self.p)}, mass {self.a.sum():.6g}, ground={self.ground!r})"

    @cached_property
    def cost(self) -> Matrix:
        """The matrix of costs (n, m).

        Raises:
            ValueError: it would have more than `LARGEST_DENSE` entries.
        """
        n, m = self.ground.shape
        if n * m > LARGEST_DENSE:
            raise ValueError(
                f"the matrix of costs would have {n}·{m} entries, more than {LARGEST_DENSE}: use "
                "ColumnGeneration(), which holds few of them, or leave the choice to Auto()"
            )
        return self.ground.block(slice(None), slice(None))

    @cached_property
    def uniform(self) -> bool:
        """Whether both measures have the same number of atoms, all of one mass."""
        n = len(self.a)
        mean = self.a.sum() / max(n, 1)
        return n == len(self.b) and bool(
            np.allclose(self.a, mean, rtol=1e-12, atol=0)
            and np.allclose(self.b, mean, rtol=1e-12, atol=0)
        )


def transport_problem(cost: Any, a: Any = None, b: Any = None, *, p: ScalarLike = 1) -> Problem:
    """The problem with a given matrix of costs.

    Args:
        cost: costs (n, m), finite and not negative; the p-th powers of distances.
        a: masses of the sources (n,); uniform by default.
        b: masses of the targets (m,), with the same sum.
        p: the order; the distance is the p-th root of the least cost.

    Raises:
        ValueError: NaN, infinite, complex or negative entries, lengths or sums that do not match.
    """
    if traced(cost, a, b):
        raise ValueError(
            "cost, a and b must be concrete, and got traced values: an exact solver runs on the "
            "host; under jit, grad and vmap use wasserstein.distance(mu, nu)"
        )
    cost = host_array("cost", cost)
    if cost.ndim != 2 or cost.size == 0:
        raise ValueError(f"cost must be a matrix (n, m), got an array of shape {cost.shape}")
    if not np.all(np.isfinite(cost) & (cost >= 0)):
        raise ValueError(
            "cost must be finite and not negative, got an entry that is not; for a forbidden pair "
            "give a cost somewhat above the sum of the others"
        )
    if cost.max() > LARGEST_COST:
        raise ValueError(
            f"cost must be below {LARGEST_COST:.0e}, got {cost.max():.3g}: scale it down"
        )
    masses = [_masses(*item) for item in (("a", a, cost.shape[0]), ("b", b, cost.shape[1]))]
    total, other = math.fsum(masses[0]), math.fsum(masses[1])
    # what was normalised in float32 sums to one in float32 only
    eps = max(_eps(a), _eps(b))
    if abs(total - other) > 64 * eps * total:
        raise ValueError(
            f"a and b must have the same sum, got {total!r} and {other!r}: normalise both, or "
            "add an atom for what is created or destroyed"
        )
    masses[1] = masses[1] * (total / other)
    for name, mass in zip("ab", masses, strict=True):
        if not mass.all():
            raise ValueError(
                f"{name} must be positive, got {np.count_nonzero(mass == 0)} atoms without mass: "
                "leave them out of the matrix"
            )
    return Problem(masses[0], masses[1], Table(cost), check_order(p))


def _eps(masses: Any) -> float:
    dtype = getattr(masses, "dtype", None)
    narrow = dtype is not None and np.dtype(dtype).kind == "f" and np.dtype(dtype).itemsize < 8
    return float(np.finfo(np.dtype(dtype) if narrow else np.float64).eps)


def _masses(name: str, masses: Any, n: int) -> Vector:
    masses = np.full(n, 1 / n) if masses is None else host_array(name, masses)
    if masses.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one for each atom, got {masses.shape}")
    if not np.all(np.isfinite(masses) & (masses >= 0)) or not masses.any():
        raise ValueError(
            f"{name} must be finite and not negative, with a positive sum, got entries from "
            f"{masses.min()} to {masses.max()}: drop or repair the others"
        )
    return masses


def check_order(p: Any) -> float:
    """The order p of a distance, if it is a finite number of at least 1."""
    order = host_number(p)
    if order is None or not 1 <= order < math.inf:
        if order == math.inf:  # also a whole number beyond all floats
            raise ValueError("p must be a finite number of at least 1, got inf: see w_inf")
        hint = "; under jit the order has to be known: name it in static_argnames"
        raise ValueError(f"p must be a number of at least 1, got {p!r}{hint * traced(p)}")
    return order


@dataclass(frozen=True, eq=False)
class Posed:
    """A problem in its smallest form, and the way back to the atoms as they were given.

    Attributes:
        problem: the reduced problem, lengths in units.
        unit: one unit of length.
        whole: the ground cost between all atoms.
        a: masses of all sources.
        b: masses of all targets.
        site_a: for each source the merged atom it belongs to; -1 without mass.
        site_b: likewise for the targets.
        first_a: for each merged atom one of its sources.
        first_b: likewise.
        left_a: the merged atoms that the reduced problem has as sources.
        left_b: likewise its targets.
        common: the cancelled mass: sources, targets (merged atoms) and masses.
        supports: how many atoms there are, and of `pose_measures` where they lie.
    """

    problem: Problem
    unit: float
    whole: AbstractGround
    a: Vector
    b: Vector
    site_a: Index
    site_b: Index
    first_a: Index
    first_b: Index
    left_a: Index
    left_b: Index
    common: tuple[Index, Index, Vector]
    supports: tuple[Support, Support]


def pose(a: Vector, b: Vector, ground: AbstractGround, p: float | int, unit: float = 1.0) -> Posed:
    """Merge equal atoms, cancel common mass where that is allowed, drop what has no mass."""
    merged_a = merged(a, getattr(ground, "x", None), ground)
    merged_b = merged(b, getattr(ground, "y", None), ground)
    mass_a, mass_b, rounded = merged_a.mass, merged_b.mass, merged_a.rounded + merged_b.rounded
    common = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    if p == 1 and isinstance(ground, Euclidean):
        common = common_mass(merged_a.points, mass_a, merged_b.points, mass_b)
        for mass, at in ((mass_a, common[0]), (mass_b, common[1])):
            mass[at], lost = difference(mass[at], common[2])
            rounded += lost
    left_a, left_b = np.flatnonzero(mass_a > 0), np.flatnonzero(mass_b > 0)
    reduced = ground.restrict(merged_a.first[left_a], merged_b.first[left_b])
    # mass that rounding made or lost would have to move no farther than the largest distance
    blur = 1.001 * rounded * ground.largest if rounded else 0.0
    return Posed(
        Problem(mass_a[left_a], mass_b[left_b], reduced, p, blur),
        unit,
        ground,
        a,
        b,
        merged_a.site,
        merged_b.site,
        merged_a.first,
        merged_b.first,
        left_a,
        left_b,
        common,
        (Support(len(a)), Support(len(b))),
    )


def pose_points(
    x: Matrix, a: Vector, y: Matrix, b: Vector, p: float | int, *, run: tiles.Tiles
) -> Posed:
    """The problem between weighted points of R^d with the Euclidean distance.

    Raises:
        ValueError: NaN or infinite points or weights, no mass, or different dimensions.
    """
    x, y, unit = common_space(x, y)
    return pose(normalised("mu", a), normalised("nu", b), Euclidean(x, y, p, run), p, unit)


def common_space(x: Matrix, y: Matrix) -> tuple[Matrix, Matrix, float]:
    """Points in units of a power of two near their diameter, and the unit.

    Scaling by powers of two is exact, and keeps squares from overflowing.

    Raises:
        ValueError: NaN, infinite or too large points, or different dimensions.
    """
    same_dimension(x.shape[1], y.shape[1])
    for name, points in (("mu", x), ("nu", y)):
        if not np.all(np.isfinite(points)):
            raise ValueError(f"{name} has NaN or infinite points: drop or repair these rows")
    size = max(float(np.abs(x).max()), float(np.abs(y).max()))
    if size > LARGEST_POINT:
        raise ValueError(
            f"points must be below {LARGEST_POINT:.0e}, got {size:.3g}, which leaves no room for "
            "distances in float64: scale both measures down"
        )
    coarse = _power_of_two(size)
    x, y = x / coarse, y / coarse
    fine = _power_of_two(Euclidean(x, y, 1.0, tiles.on_the_host).diameter)
    return x / fine, y / fine, coarse * fine


def same_dimension(d: int, e: int) -> None:
    """Refuse measures on R^d and R^e for different d and e.

    Raises:
        ValueError: they differ.
    """
    if d != e:
        raise ValueError(
            f"mu and nu must live on one space, got dimensions {d} and {e}: map one of them into "
            "the space of the other with pushforward(f, mu)"
        )


def normalised(name: str, weights: Vector) -> Vector:
    """Weights (n,) divided by their sum, exactly rounded: it does not depend on their order.

    Raises:
        ValueError: NaN, infinite or negative weights, or no mass; ``name`` is whose they are.
    """
    if not np.all(np.isfinite(weights) & (weights >= 0)) or not weights.any():
        raise ValueError(f"{name} has weights that are NaN, infinite or negative, or no mass")
    return weights / math.fsum(weights)


def _power_of_two(size: float) -> float:
    return 2.0 ** math.frexp(size)[1] if size > 0 else 1.0


def pose_measures(mu: Any, nu: Any, *, p: float | int = 1.0, metric: Any = None) -> Posed:
    """The transport problem between two measures.

    Raises:
        ValueError: no measures, traced values, batches, tokens or pairs without a metric of their
            own, or spaces of different dimension.
    """
    a, b = weights("mu", mu), weights("nu", nu)
    if metric is None:
        posed = pose_points(states("mu", mu), a, states("nu", nu), b, p, run=tiles.compiled)
    else:
        check_metric(metric, mu.points, nu.points)
        ground = Metric(metric, mu.points, nu.points, p)
        posed = pose(normalised("mu", a), normalised("nu", b), ground, p)
    return replace(posed, supports=(Support.of(mu), Support.of(nu)))


def one_measure(name: str, mu: Any) -> None:
    """Refuse what is no measure, or many.

    Raises:
        ValueError: either.
    """
    need_measure(name, mu)
    if mu.log_weights.ndim != 1:
        raise ValueError(
            f"{name} is a batch of measures: compare one at a time, or use "
            "jax.vmap(wasserstein.distance)"
        )


def weights(name: str, mu: Any) -> Vector:
    """The weights of a measure, in float64.

    Raises:
        ValueError: no measure, traced values, or a batch.
    """
    need_measure(name, mu)
    if traced(mu):
        raise ValueError(
            f"{name} has traced values, and an exact solver runs on the host: under jit, grad and "
            "vmap use wasserstein.distance(mu, nu)"
        )
    one_measure(name, mu)
    return np.exp(np.asarray(mu.log_weights, np.float64))


def on_space(name: str, mu: EmpiricalMeasure) -> None:
    """Refuse a measure that is not one on R^d.

    Raises:
        ValueError: tokens or pairs.
    """
    if isinstance(mu.points, (Token, Pair)):
        raise ValueError(
            f"{name} is a measure on {kind(mu.points)}, on which no distance is agreed: take the "
            f"law of the states, states({name}), compare position by position with "
            "wasserstein.conditional(mu, nu), or give w1 or wp a metric of two points"
        )


def states(name: str, mu: EmpiricalMeasure) -> Matrix:
    """The points of a measure on R^d, in float64.

    Raises:
        ValueError: tokens or pairs.
    """
    on_space(name, mu)
    return np.asarray(mu.points, np.float64)
