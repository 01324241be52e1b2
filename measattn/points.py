"""Points of the spaces on which measures live.

A point is an array (d,), a `Token` (a state at a position) or a `Pair` (a key and its value).
Potentials see the whole point; every other map sees and replaces the state alone, through `state`
and `with_state`, so that residuals, norms and value maps leave positions be.
"""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree, Shaped

from measattn.checks import ensure, float_array, traced

T = TypeVar("T")


def _convert(name: str):
    """Convert what users write; leave tracers and the objects of tree transformations alone."""

    def convert(a: Any) -> Any:
        foreign = hasattr(a, "__dlpack__") and not isinstance(a, jax.Array)
        return float_array(name, a) if foreign or isinstance(a, (list, tuple, float, int)) else a

    return convert


class Token(eqx.Module):
    """A point with a position: what causal masks and positional encodings look at."""

    position: Shaped[jax.Array, "*n"] = eqx.field(converter=_convert("position"))
    state: Shaped[jax.Array, "*n d"] = eqx.field(converter=_convert("state"))


class Pair(eqx.Module):
    """A key with its value: a point of the joint law that the look-up kernel disintegrates."""

    key: PyTree = eqx.field(converter=_convert("key"))
    value: PyTree = eqx.field(converter=_convert("value"))


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


def need_token(point: PyTree, who: str) -> None:
    """Refuse a point that has no position.

    Raises:
        ValueError: the point is no token; ``who`` needs its position.
    """
    if not isinstance(point, Token):
        raise ValueError(
            f"{who} needs tokens with positions, got points that are {kind(point)}: "
            "make points with Token(position, state)"
        )


def kind(points: PyTree) -> str:
    """What points are called: arrays, tokens or pairs."""
    return {Token: "tokens", Pair: "pairs"}.get(type(points), "arrays")


def as_points(points: PyTree, name: str = "points") -> PyTree:
    """Convert to arrays of floats with a common leading axis of points.

    Raises:
        ValueError: a leaf has the wrong rank, lengths differ, or there are no points.
    """
    points = _ranked(points, name)
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(points)}
    if len(lengths) != 1:
        raise ValueError(
            f"all parts of the {name} must have the same number of rows, got {sorted(lengths)}"
        )
    if lengths == {0} or state(points).shape[-1] == 0:
        raise ValueError(
            f"a measure needs at least one point of dimension one, got {name} of shape "
            f"{state(points).shape}"
        )
    return points


def finite(points: PyTree, value: T, name: str = "points") -> T:
    """Return ``value`` if the points have no NaN and no infinity.

    Raises:
        ValueError: they have; ``value`` is what is made of them, and is bound to the check.
    """
    leaves = jax.tree.leaves(points)
    xp = jnp if traced(leaves) else np
    ok = [xp.all(xp.isfinite(leaf)) for leaf in leaves]
    message = (
        f"{name} must be finite, got entries that are NaN or infinite: drop or repair these rows"
    )
    narrow = {str(leaf.dtype) for leaf in leaves if leaf.dtype.itemsize < 8}
    if xp is np and narrow and any(np.isinf(leaf).any() for leaf in leaves):
        message += f"; what overflowed {narrow.pop()} needs the option jax_enable_x64 of JAX"
    return ensure(xp.stack(ok), value, message)


def _ranked(points: PyTree, name: str) -> PyTree:
    match points:
        case Token():
            position = float_array(f"position of {name}", points.position, 1)
            return Token(position, float_array(f"state of {name}", points.state, 2))
        case Pair():
            return Pair(_ranked(points.key, "keys"), _ranked(points.value, "values"))
        case eqx.Module() | dict():
            raise ValueError(
                f"{name} must be an array (n, d), tokens or pairs, got a {type(points).__name__}"
            )
    points = float_array(name, points)
    if points.ndim != 2:
        raise ValueError(
            f"{name} must be an array (n, d), got shape {points.shape}; for n points on the line "
            "pass points[:, None], for a single point use dirac(x)"
        )
    return points


def moved_points(points: PyTree, who: str) -> PyTree:
    """What a map made of a block of points, if that is a block of points again.

    Raises:
        ValueError: the map returned a number, a matrix, or something that is no array.
    """
    new = state(points)
    if not isinstance(new, jax.Array) or new.ndim != 2:
        got = new.shape[1:] if isinstance(new, jax.Array) else type(new).__name__
        raise ValueError(
            f"{who} must return a point (e,), got {got}; of one coordinate return x[:1], a vector"
        )
    return points


def one_row(x: PyTree) -> PyTree:
    """A point as a block of length one."""
    if isinstance(x, (list, tuple)):
        x = float_array("a point (d,)", x, 1)
    return jax.tree.map(lambda a: float_array("a point", a)[None], x)


def row_numbers(n: int) -> Shaped[jax.Array, " n"]:
    """0, …, n-1 as positions; never in half precision, which cannot count to 3000."""
    return jnp.arange(n, dtype=jnp.float32)
