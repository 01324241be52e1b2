"""The one tolerance of the core's tests, from the dtype, and points of that dtype."""

import jax
import jax.numpy as jnp
import numpy as np

X64 = bool(jax.config.jax_enable_x64)
DTYPES = [jnp.float32, jnp.float64] if X64 else [jnp.float32]
ROUNDINGS = 512
"""Roundings that an answer may be off by: a few dozen operations, with a margin."""


def assert_close(got, expected, scale=None):
    """Assert that ``got`` is ``expected`` up to rounding in the dtype of ``got``.

    The error allowed is relative to the largest entry of ``expected``, or to ``scale`` where the
    answer is a difference of larger numbers.
    """
    got, expected = np.asarray(got), np.asarray(expected, np.float64)
    if got.shape != expected.shape:
        raise AssertionError(f"shape {got.shape} is not {expected.shape}")
    if scale is None:
        scale = np.abs(expected).max(initial=0.0)
    allowed = ROUNDINGS * float(jnp.finfo(got.dtype).eps) * float(scale)
    error = np.abs(got.astype(np.float64) - expected).max(initial=0.0)
    if not error <= allowed:
        raise AssertionError(f"off by {error:.3g}, allowed {allowed:.3g}\n{got}\n{expected}")


def normal(seed, *shape):
    """Standard normal numbers in JAX's default dtype."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def uniform(seed, *shape):
    """Numbers between 0.1 and 1.1 in JAX's default dtype."""
    return jnp.asarray(0.1 + np.random.default_rng(seed).random(shape))


def float64(a):
    """The same numbers in NumPy's float64, for the oracles."""
    return np.asarray(a, np.float64)
