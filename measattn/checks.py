"""The one way in which the library converts and refuses values.

What is known while Python runs (ranks, lengths, a concrete array) is refused with a ``ValueError``.
What is known only when the compiled program runs is refused there, in the same words, through
`equinox.error_if`. A check that nothing depends on is dropped by the compiler, so `ensure` returns
its object with *every* leaf bound to the check.
"""

import math
from contextlib import nullcontext
from numbers import Real
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

T = TypeVar("T")


def ensure(ok: Any, value: T, message: str) -> T:
    """Return ``value`` if all of ``ok`` is true.

    Args:
        ok: the condition, booleans concrete or traced; all its entries must hold.
        value: a pytree, given back with all its array leaves bound to the check.
        message: names the argument, the value and the remedy.

    Raises:
        ValueError: ``ok`` is concrete and false.
        RuntimeError: ``ok`` is traced and false when the compiled program runs.
    """
    if not traced(ok):
        # NumPy, because under jit even jnp.all of a concrete array is traced
        if not np.all(np.asarray(ok)):
            raise ValueError(message)
        return value
    arrays, rest = eqx.partition(value, eqx.is_array)
    return eqx.combine(eqx.error_if(arrays, ~jnp.all(ok), message), rest)


def traced(*values: Any) -> bool:
    """Whether any array in these pytrees is traced, so that its value is not known yet."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(values))


def float_array(name: str, a: Any, ndim: int | None = None) -> Float[Array, "..."]:
    """Convert lists, NumPy, JAX and DLPack arrays to a JAX array of floats; integers too.

    Raises:
        ValueError: ragged rows, words, complex numbers, or not ``ndim`` axes.
    """
    if hasattr(a, "__dlpack__") and not isinstance(a, (np.ndarray, np.generic, jax.Array)):
        a = jnp.from_dlpack(a)  # torch and other libraries' tensors
    try:
        # under jit too, what is concrete stays concrete and can be checked now
        with nullcontext() if traced(a) else jax.ensure_compile_time_eval():
            a = jnp.asarray(a)
            if not jnp.issubdtype(a.dtype, jnp.inexact):
                a = a.astype(float)
            # no weak types: they would compile everything a second time
            a = jax.lax.convert_element_type(a, a.dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be numbers in rows of equal length: {error}") from None
    if jnp.issubdtype(a.dtype, jnp.complexfloating):
        raise ValueError(f"{name} must be real, got dtype {a.dtype}")
    if ndim is not None and a.ndim != ndim:
        wanted = ("a number", "a vector", "a matrix")[ndim]
        raise ValueError(f"{name} must be {wanted}, got an array of shape {a.shape}")
    return a


def host_array(name: str, a: Any, ndim: int | None = None) -> np.ndarray:
    """Convert what is concrete to a NumPy array in float64, for what is computed on the host.

    Raises:
        ValueError: traced values, ragged rows, words, complex numbers, or not ``ndim`` axes.
    """
    if traced(a):
        raise ValueError(
            f"{name} must be concrete, got a traced value: this is computed on the host, so call "
            "it outside jit, grad and vmap"
        )
    try:
        a = np.asarray(a)
        if a.dtype.kind in "cUS":
            raise TypeError(f"got dtype {a.dtype}")
        a = a.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be real numbers in rows of equal length: {error}") from None
    if ndim is not None and a.ndim != ndim:
        wanted = ("a number", "a vector", "a matrix")[ndim]
        raise ValueError(f"{name} must be {wanted}, got an array of shape {a.shape}")
    return a


def host_number(value: Any) -> float | None:
    """The float that a concrete real number is, a NumPy or JAX scalar too; None for all else.

    Infinite for whole numbers and fractions beyond all floats.
    """
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        real = jnp.issubdtype(value.dtype, np.floating) or jnp.issubdtype(value.dtype, np.integer)
        return None if traced(value) or value.ndim or not real else float(value)
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if abs(value) == value else -math.inf


def whole(name: str, value: Any, least: int = 0, most: int | None = None) -> int:
    """A count or a number of something, as an int; NumPy and JAX scalars and 3.0 are 3.

    Args:
        name: of the argument.
        value: what was given.
        least: the least number allowed.
        most: the largest; none by default.

    Raises:
        ValueError: a fraction, NaN, a boolean, a traced value, what is no number, or out of range.
    """
    known = host_number(value)
    if known is not None and known.is_integer():
        count = int(value)  # not of the float, which may have rounded it
        if count >= least and (most is None or count <= most):
            return count
    span = f"of at least {least}" if most is None else f"from {least} to {most}"
    hint = "; under jit it has to be known: name it in static_argnames" if traced(value) else ""
    raise ValueError(f"{name} must be a whole number {span}, got {value!r}{hint}")


def positive(name: str, value: Any, example: str = "1e-9") -> float:
    """A positive and finite number that is known while Python runs, as a float.

    Raises:
        ValueError: it is none; the message shows the example.
    """
    known = host_number(value)
    if known is None or not 0 < known < math.inf:
        hint = "; it is used on the host: call this outside jit, grad and vmap"
        raise ValueError(
            f"{name} must be positive and finite, such as {example}, got {value!r}"
            f"{hint * traced(value)}"
        )
    return known


def metric_order(p: Any) -> float:
    """The order p of a metric on measures, at least 1; infinity is one.

    Raises:
        ValueError: it is none.
    """
    known = host_number(p)
    if known is None or not known >= 1:
        raise ValueError(f"p must be a number of at least 1, or infinity, got {p!r}")
    return known


def callback(name: str, value: Any, of: str) -> None:
    """Refuse what cannot be called on the way; None stands for no one who watches.

    Raises:
        ValueError: it is no function; ``of`` says of what it should be one.
    """
    if not (value is None or callable(value)):
        raise ValueError(f"{name} must be a function of {of}, such as print, got {value!r}")


def number(name: str, value: Any, *, positive: bool = False) -> Float[Array, ""]:
    """A number that users vary, as an array: a static one would recompile for every value.

    Raises:
        ValueError: not one real number, NaN, infinite, or not above 0 where ``positive``.
    """
    out = float_array(name, value, 0)
    if not positive:
        return out
    got = "" if traced(out) else f", got {out}"
    message = f"{name} must be positive and finite; for a limit at 0 pass a small number{got}"
    xp = jnp if traced(out) else np
    return ensure(xp.isfinite(out) & xp.greater(out, 0), out, message)
