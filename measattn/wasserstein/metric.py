"""Ground costs of a metric of one's own, a JAX function of two points."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from numpy.typing import NDArray

from measattn.wasserstein.ground import UNIT, AbstractGround, Index, Matrix, Vector, slices

UNTRACEABLE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
"""What JAX raises where a function needs the value of a traced array."""


@dataclass(frozen=True, eq=False, repr=False)
class Metric(AbstractGround):
    """$f(x_i, y_j)^p$ for a JAX function f of two points, compiled and evaluated in float64.

    Attributes:
        f: the metric: not negative, finite.
        x: source points, an array or a pytree with leading axis n.
        y: target points.
        p: the exponent.
    """

    f: Callable
    x: Any
    y: Any
    p: float | int
    relative: float = 8 * UNIT

    @property
    def shape(self) -> tuple[int, int]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The numbers (n, m) of atoms."""
        return _length(self.x), _length(self.y)

    @cached_property
    def largest(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """An upper bound of all costs."""
        n = self.shape[0]
        rows = slices(n, max(1, 2**22 // self.shape[1]))
        return max(float(self.block(part, slice(None)).max()) for part in rows)

    def block(self, rows: Any, cols: Any) -> Matrix:
        return self._values(_table, _take(self.x, rows), _take(self.y, cols))

    def arcs(self, rows: Index, cols: Index) -> Vector:
        return self._values(_pairwise, _take(self.x, rows), _take(self.y, cols))

    def _values(self, over: Callable, x: Any, y: Any) -> NDArray:
        with jax.enable_x64(True):
            values = np.asarray(over(self.f, x, y)).astype(np.float64, copy=False)
        ok = np.isfinite(values) & (values >= 0)
        if not np.all(ok):
            raise ValueError(
                f"metric must be finite and not negative, got {values[~ok][0]}; where it is "
                "rounding that goes below 0, take jnp.maximum(..., 0)"
            )
        return values if self.p == 1 else values**self.p

    def restrict(self, rows: Index, cols: Index) -> "Metric":
        return replace(self, x=_take(self.x, rows), y=_take(self.y, cols))

    @cached_property
    def transposed(self) -> "Metric":
        return replace(self, f=_Swapped(self.f), x=self.y, y=self.x)


def check_metric(metric: Any, x: PyTree, y: PyTree) -> None:
    """Refuse what is no metric between points of x and points of y, by tracing it at one pair.

    Args:
        metric: the function.
        x: points with a leading axis.
        y: other points.

    Raises:
        ValueError: no function of two such points, or one whose value is not a real number.
    """
    if not callable(metric):
        raise ValueError(f"metric must be a function of two points, got {metric!r}")
    with jax.enable_x64(True):
        pair = [jax.tree.map(_one, points) for points in (x, y)]
        try:
            value = jax.eval_shape(metric, *pair)
        except UNTRACEABLE as error:
            raise ValueError(
                "metric must be a JAX function of two points, which it sees traced: write it with "
                "jax.numpy, jnp.linalg.norm for np.linalg.norm and jnp.where for if"
            ) from error
        except Exception as error:
            raise ValueError(
                "metric must be a function of two points, called as metric(x, y) with x = "
                f"{_shown(pair[0])} of mu and y = {_shown(pair[1])} of nu: "
                f"write it for such a pair, got {type(error).__name__}: {error}"
            ) from error
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    scalar = isinstance(value, jax.ShapeDtypeStruct) and value.shape == ()
    if not scalar or not any(jnp.issubdtype(value.dtype, kind) for kind in kinds):
        raise ValueError(
            "metric must map two points to one real number: return a scalar, such as the jnp.sum "
            f"of an array, got {_shown(value)}"
        )


def _one(leaf: Any) -> jax.ShapeDtypeStruct:
    """One of many points, as a metric sees it."""
    return jax.ShapeDtypeStruct(leaf.shape[1:], np.float64)


def _shown(point: Any) -> str:
    return eqx.tree_pformat(point, width=1000, struct_as_array=True)


@dataclass(frozen=True)
class _Swapped:
    """The metric with its arguments exchanged; equal metrics stay equal, and compile once."""

    f: Callable

    def __call__(self, x: Any, y: Any) -> Any:
        return self.f(y, x)


@eqx.filter_jit
def _table(f: Callable, x: Any, y: Any) -> Any:
    return jax.vmap(lambda a: jax.vmap(lambda b: f(a, b))(y))(x)


@eqx.filter_jit
def _pairwise(f: Callable, x: Any, y: Any) -> Any:
    return jax.vmap(f)(x, y)


def _take(points: Any, index: Any) -> Any:
    with jax.enable_x64(True):
        return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)[index]), points)


def _length(points: Any) -> int:
    return jax.tree.leaves(points)[0].shape[0]
