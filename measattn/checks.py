"""The one way in which the library refuses a value.

What is known while Python runs (ranks, lengths, a concrete array) is refused with a ``ValueError``.
What is known only when the compiled program runs is refused there, in the same words, through
`equinox.error_if`. A check that nothing depends on is dropped by the compiler, so `ensure` returns
its object with *every* leaf bound to the check.
"""

from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

T = TypeVar("T")


def ensure(ok: Bool[Array, "..."] | bool, value: T, message: str) -> T:
    """Return ``value`` if all of ``ok`` is true.

    Args:
        ok: the condition, concrete or traced; all its entries must hold.
        value: a pytree, given back with all its array leaves bound to the check.
        message: names the argument, the value and the remedy.

    Raises:
        ValueError: ``ok`` is concrete and false.
        RuntimeError: ``ok`` is traced and false when the compiled program runs.
    """
    holds = jnp.all(jnp.asarray(ok))
    if not isinstance(holds, jax.core.Tracer):
        if not bool(holds):
            raise ValueError(message)
        return value
    arrays, rest = eqx.partition(value, eqx.is_array)
    return eqx.combine(eqx.error_if(arrays, ~holds, message), rest)


def finite(name: str, array: Array, value: T, remedy: str) -> T:
    """Return ``value`` if ``array`` (called ``name`` in the message) has no NaN and no infinity."""
    ok = jnp.all(jnp.isfinite(array))
    if not isinstance(ok, jax.core.Tracer) and not bool(ok):
        bad = int(jnp.sum(~jnp.isfinite(array)))
        raise ValueError(f"{name} has {bad} entries that are NaN or infinite: {remedy}")
    return ensure(ok, value, f"{name} has entries that are NaN or infinite: {remedy}")
