r"""Domains: where measures live whose Lipschitz constants are asked for.

A theorem about a domain sees little of it: the smallest ball it knows of around it, its diameter,
whether it is convex. A search has to stay in it, and a measure has to lie in it. All numbers are
NumPy float64; projections work on JAX arrays.
"""

import abc
import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from measattn.checks import positive, whole
from measattn.measure import EmpiricalMeasure
from measattn.points import state

ROUNDING = 1e-12
"""Points may lie outside by this part of the size of a domain: projections round."""

UPWARDS = 1 + 2.0**-48
"""What a computed radius is enlarged by, so that it is no smaller than the true one."""


def _numbers(domain: Any) -> tuple[tuple, tuple]:
    return tuple(vars(domain).values()), tuple(vars(domain))


def _with_numbers(cls: type, names: tuple, numbers: Any) -> Any:
    domain = object.__new__(cls)
    vars(domain).update(zip(names, numbers, strict=True))  # traced ones cannot be checked
    return domain


class AbstractDomain(abc.ABC):
    """A closed subset E of R^d.

    Attributes:
        radius: the radius R of a ball around ``centre`` that holds E; infinite if there is none.
        centre: the centre of that ball (d,); None is the origin, in any dimension.
        diameter: the supremum D of |x - y| over E.
        convex: whether E holds the segments between its points.
    """

    radius: float
    centre: Any
    diameter: float
    convex: bool

    def __init_subclass__(cls, **keywords: Any):
        """Every domain is a pytree of its numbers, so that searches compile once for all sizes."""
        super().__init_subclass__(**keywords)
        jax.tree_util.register_pytree_node(cls, _numbers, partial(_with_numbers, cls))

    @abc.abstractmethod
    def excess(self, x: NDArray) -> NDArray:
        """How far points (n, d) lie outside: 0 within E, positive elsewhere."""

    @abc.abstractmethod
    def project(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """The nearest point of E."""

    def along(self, x: Float[Array, " d"], move: Float[Array, " d"]) -> Float[Array, " d"]:
        """The part of a small displacement of a point x of E that does not lead out of it at once.

        All of it where E has an inside, as the point itself may be moved there a little.
        """
        return move

    def check(self, mu: EmpiricalMeasure) -> None:
        """Refuse a measure that charges points outside of E.

        Raises:
            ValueError: the measure has mass outside; the message says how much and how far.
        """
        x, weights = np.asarray(state(mu.points), np.float64), np.exp(np.float64(mu.log_weights))
        excess = np.where(weights > 0, self.excess(x), 0.0)
        out = excess > ROUNDING * max(np.abs(x).max(), 1e-300)
        if out.any():
            raise ValueError(
                f"mu must lie in the domain {self}, but {weights[out].sum():.3g} of its mass lies "
                f"outside, up to {excess.max():.3g} away: enlarge the domain, or project the points"
            )


@dataclass(frozen=True)
class Ball(AbstractDomain):
    r"""$\{x : |x - \text{centre}| \le \text{radius}\}$.

    Args:
        radius: R > 0.
        centre: (d,); the origin of any R^d if None.
    """

    radius: float
    centre: Any = None
    diameter: float = field(init=False, repr=False)
    convex: bool = field(default=True, init=False, repr=False)

    def __post_init__(self):
        _set(self, "radius", positive("radius", self.radius, "1.0"))
        _set(self, "centre", _vector("centre", self.centre))
        _set(self, "diameter", 2 * self.radius)

    def excess(self, x: NDArray) -> NDArray:
        return np.maximum(np.linalg.norm(x - _or_origin(self.centre), axis=1) - self.radius, 0)

    def project(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        shift = x - _or_origin(self.centre)
        square = jnp.sum(shift * shift)
        inside = square <= self.radius**2
        scale = self.radius / jnp.sqrt(jnp.where(inside, 1, square))
        return _or_origin(self.centre) + jnp.where(inside, shift, scale * shift)


@dataclass(frozen=True)
class Sphere(AbstractDomain):
    r"""$\{x : |x - \text{centre}| = \text{radius}\}$, with the distance of the space around it.

    Args:
        radius: R > 0.
        centre: (d,); the origin of any R^d if None.
    """

    radius: float
    centre: Any = None
    diameter: float = field(init=False, repr=False)
    convex: bool = field(default=False, init=False, repr=False)

    def __post_init__(self):
        _set(self, "radius", positive("radius", self.radius, "1.0"))
        _set(self, "centre", _vector("centre", self.centre))
        _set(self, "diameter", 2 * self.radius)

    def excess(self, x: NDArray) -> NDArray:
        return np.abs(np.linalg.norm(x - _or_origin(self.centre), axis=1) - self.radius)

    def project(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        shift = x - _or_origin(self.centre)
        square = jnp.sum(shift * shift)
        # the centre has no nearest point: take the first axis
        pole = jnp.zeros_like(x).at[0].set(self.radius)
        scaled = self.radius / jnp.sqrt(jnp.where(square > 0, square, 1)) * shift
        return _or_origin(self.centre) + jnp.where(square > 0, scaled, pole)

    def along(self, x: Float[Array, " d"], move: Float[Array, " d"]) -> Float[Array, " d"]:
        """What is tangent to the sphere."""
        normal = (x - _or_origin(self.centre)) / self.radius
        return move - jnp.sum(move * normal) * normal


@dataclass(frozen=True)
class Box(AbstractDomain):
    r"""$\{x : \text{low} \le x \le \text{high}\}$, coordinate by coordinate.

    Args:
        low: (d,).
        high: (d,), above ``low``.
    """

    low: Any
    high: Any
    radius: float = field(init=False, repr=False)
    centre: Any = field(init=False, repr=False)
    diameter: float = field(init=False, repr=False)
    convex: bool = field(default=True, init=False, repr=False)

    def __post_init__(self):
        low, high = _vector("low", self.low), _vector("high", self.high)
        if low is None or high is None or low.shape != high.shape or not np.all(low < high):
            raise ValueError(
                f"low and high must be vectors of one length with low < high, got {self.low!r} and "
                f"{self.high!r}"
            )
        _set(self, "low", low)
        _set(self, "high", high)
        _set(self, "centre", (low + high) / 2)
        _set(self, "diameter", float(np.linalg.norm(high - low)) * UPWARDS)
        # the centre has been rounded
        shifted = float(np.linalg.norm(np.spacing(np.abs(self.centre))))
        _set(self, "radius", (self.diameter / 2 + shifted) * UPWARDS)

    def excess(self, x: NDArray) -> NDArray:
        return np.linalg.norm(x - np.clip(x, self.low, self.high), axis=1)

    def project(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        return jnp.clip(x, self.low, self.high)


@dataclass(frozen=True)
class Simplex(AbstractDomain):
    r"""$\{x \ge 0 : \sum_k x_k = 1\}$ in R^d: measures on it are laws of distributions.

    Args:
        dimension: d, at least 2.
    """

    dimension: int
    radius: float = field(init=False, repr=False)
    centre: Any = field(init=False, repr=False)
    diameter: float = field(default=math.sqrt(2) * UPWARDS, init=False, repr=False)
    convex: bool = field(default=True, init=False, repr=False)

    def __post_init__(self):
        d = whole("dimension", self.dimension, 2)
        _set(self, "centre", np.full(d, 1 / d))
        _set(self, "radius", math.sqrt(1 - 1 / d) * UPWARDS)

    def excess(self, x: NDArray) -> NDArray:
        return np.abs(x.sum(axis=1) - 1) + np.maximum(-x, 0).sum(axis=1)

    def project(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        # Held, Wolfe and Crowder: the threshold at which the positive parts sum to one
        ordered = jnp.sort(x)[::-1]
        above = (jnp.cumsum(ordered) - 1) / jnp.arange(1, len(x) + 1)
        return jnp.maximum(x - jnp.max(above), 0)


@dataclass(frozen=True)
class Everywhere(AbstractDomain):
    r"""All of R^d, with what is known of the measures instead of a bound on their support.

    Args:
        second_moment: at most $\int|x|^2\,d\mu$, if that is known.
        local_mass: a pair (r, m): every ball of radius r about a point of the support has at
            least the mass m, if that is known.
        atoms: the number of their atoms, of equal weight, if that is known.
    """

    second_moment: float | None = None
    local_mass: tuple[float, float] | None = None
    atoms: int | None = None
    radius: float = field(default=math.inf, init=False, repr=False)
    centre: None = field(default=None, init=False, repr=False)
    diameter: float = field(default=math.inf, init=False, repr=False)
    convex: bool = field(default=True, init=False, repr=False)

    def __post_init__(self):
        if self.second_moment is not None:
            _set(self, "second_moment", positive("second_moment", self.second_moment, "4.0"))
        if self.atoms is not None:
            _set(self, "atoms", whole("atoms", self.atoms, 1))
        if self.local_mass is not None:
            r, m = self.local_mass
            if not (0 <= r < math.inf and 0 < m <= 1):
                raise ValueError(
                    f"local_mass must be a radius of at least 0 and a mass in (0, 1], got {r}, {m}"
                )

    def excess(self, x: NDArray) -> NDArray:
        return np.zeros(len(x))

    def project(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        return x


def _vector(name: str, value: Any) -> NDArray | None:
    if value is None:
        return None
    vector = np.asarray(value, np.float64)
    if vector.ndim != 1 or not np.all(np.isfinite(vector)):
        raise ValueError(f"{name} must be a vector of finite numbers, got {value!r}")
    return vector


def _or_origin(centre: Any) -> Any:
    return 0.0 if centre is None else centre


def _set(domain: Any, name: str, value: Any) -> None:
    object.__setattr__(domain, name, value)  # the dataclass is frozen
