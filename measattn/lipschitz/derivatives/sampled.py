r"""Layers without closed form: blocks of the Jacobian by jvp and vjp, for atoms that are named."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from measattn.kernel import moved
from measattn.lipschitz.norms.lanczos import AbstractLinearMap
from measattn.lipschitz.norms.problem import unit
from measattn.measure import EmpiricalMeasure, measure
from measattn.points import state, with_state

AT_ONCE = 8
"""Derivatives that are taken in one sweep."""

STARTS = 32
"""Directions that the power method starts from."""


class Sampled(AbstractLinearMap):
    r"""$\Omega^{1/2}J\Omega^{-1/2}$ of any layer at a measure.

    Args:
        layer: in float64.
        mu: the measure.
        weights: of its atoms (n,), positive.
    """

    def __init__(self, layer: Any, mu: EmpiricalMeasure, weights: NDArray):
        with jax.enable_x64(True):
            self._x = jnp.asarray(state(mu.points))
            self._root = jnp.asarray(np.sqrt(weights))

            def f(x: Array) -> Array:
                law = measure(with_state(mu.points, x), mu.log_weights)
                return state(moved(layer, law, None))

            self._jvp = jax.jit(lambda x, u: jax.jvp(f, (x,), (u,))[1])
            self._vjp = jax.jit(lambda x, w: jax.vjp(f, x)[1](w)[0])
            self._outputs = jax.eval_shape(f, self._x).shape
        self.shape = int(np.prod(self._outputs)), int(np.prod(self._x.shape))

    def push(self, x: NDArray) -> NDArray:
        with jax.enable_x64(True):
            u = jnp.asarray(x).reshape(self._x.shape) / self._root[:, None]
            return np.asarray(self._jvp(self._x, u) * self._root[:, None]).reshape(-1)

    def pull(self, y: NDArray) -> NDArray:
        with jax.enable_x64(True):
            w = jnp.asarray(y).reshape(self._outputs) * self._root[:, None]
            return np.asarray(self._vjp(self._x, w) / self._root[:, None]).reshape(-1)

    def column(self, atom: int) -> Float[NDArray, "n v d"]:
        """All blocks through which an atom reaches outputs."""
        return self._blocks(self._jvp, atom, self._x.shape).transpose(1, 2, 0)

    def row(self, output: int) -> Float[NDArray, "n d v"]:
        """All blocks, transposed, through which atoms reach an output."""
        return self._blocks(self._vjp, output, self._outputs).transpose(1, 2, 0)

    def _blocks(self, derivative: Any, k: int, shape: tuple[int, ...]) -> NDArray:
        """What the derivative makes of each direction at point k, (directions, n, ...)."""

        def one(u: Array) -> Array:
            return derivative(self._x, jnp.zeros(shape, u.dtype).at[k].set(u))

        with jax.enable_x64(True):
            axes = jnp.eye(shape[1], dtype=self._x.dtype)
            return np.asarray(jax.lax.map(one, axes, batch_size=AT_ONCE))


def largest(matrices: Float[NDArray, "m v d"], rng: np.random.Generator) -> tuple[float, NDArray]:
    r"""The largest $\sum_t|N_tu|$ that the power method finds, and its u (d,)."""
    m, v, d = matrices.shape
    flat = matrices.reshape(m * v, d)
    u = unit(rng.normal(size=(STARTS, d)))
    for _ in range(200):
        images = (u @ flat.T).reshape(-1, m, v)
        lengths = np.linalg.norm(images, axis=2, keepdims=True)
        pulled = (images / np.where(lengths > 0, lengths, 1)).reshape(-1, m * v) @ flat
        further = np.where(np.linalg.norm(pulled, axis=1, keepdims=True) > 0, unit(pulled), u)
        still = np.abs(further - u).max() < 1e-12
        u = further
        if still:
            break
    values = np.linalg.norm((u @ flat.T).reshape(-1, m, v), axis=2).sum(axis=1)
    best = int(np.argmax(values))
    return float(values[best]), u[best]
