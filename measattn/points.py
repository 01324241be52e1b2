"""Points of the spaces on which measures live.

A point is an array (d,), a `Token` (a state at a position) or a `Pair` (a key and its value).
Potentials see the whole point; every other map sees and replaces the state alone, through `state`
and `with_state`, so that residuals, norms and value maps leave positions be.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from measattn.checks import finite


class Token(eqx.Module):
    """A point with a position: what causal masks and positional encodings look at."""

    position: Float[Array, "*n"]
    state: Float[Array, "*n d"]


class Pair(eqx.Module):
    """A key with its value: a point of the joint law that the look-up kernel disintegrates."""

    key: PyTree
    value: PyTree


def state(point: PyTree) -> PyTree:
    """The state of a point: the array itself, a token's state, the value of a pair."""
    match point:
        case Token():
            return point.state
        case Pair():
            return state(point.value)
        case _:
            return point


def with_state(point: PyTree, new: PyTree) -> PyTree:
    """The point with its state replaced; its position or key stays."""
    match point:
        case Token():
            return Token(point.position, new)
        case Pair():
            return Pair(point.key, with_state(point.value, new))
        case _:
            return new


def count(points: PyTree) -> int:
    """The number n of points."""
    return jax.tree.leaves(points)[0].shape[0]


def as_points(points: PyTree) -> PyTree:
    """Convert to a pytree of finite float arrays with a common leading axis of points.

    Raises:
        ValueError: a leaf has the wrong rank, lengths differ, there are no points, or an entry is
            NaN or infinite.
    """
    if not isinstance(points, eqx.Module):
        points = as_float_array(points)
        if points.ndim != 2:
            raise ValueError(
                f"points must be an array (n, d), got shape {points.shape}; for n points on the "
                "line pass points[:, None], for a single point use dirac(x)"
            )
    points = jax.tree.map(as_float_array, points)
    lengths = {leaf.shape[:1] for leaf in jax.tree.leaves(points)}
    if len(lengths) != 1 or lengths == {()}:
        raise ValueError(
            f"all parts of the points must have the same number of rows, got {sorted(lengths)}"
        )
    if lengths == {(0,)} or state(points).shape[-1] == 0:
        raise ValueError(
            f"a measure needs at least one point of dimension one, got {state(points).shape}"
        )
    for leaf in jax.tree.leaves(points):
        points = finite("points", leaf, points, "drop or repair these rows")
    return points


def as_float_array(a: Any) -> Array:
    """Convert lists, NumPy, JAX and DLPack arrays to a JAX array of floats; integers too."""
    if hasattr(a, "__dlpack__") and not isinstance(a, (np.ndarray, np.generic, jax.Array)):
        a = jnp.from_dlpack(a)  # torch and other libraries' tensors
    try:
        a = jnp.asarray(a)
    except (TypeError, ValueError) as error:
        raise ValueError(f"points must be numbers in rows of equal length: {error}") from None
    if jnp.issubdtype(a.dtype, jnp.complexfloating):
        raise ValueError(f"points must be real, got dtype {a.dtype}")
    return a if jnp.issubdtype(a.dtype, jnp.floating) else a.astype(float)
