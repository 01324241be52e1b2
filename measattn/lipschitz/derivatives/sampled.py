r"""Layers without closed form: blocks of the Jacobian by jvp and vjp, for atoms that are named."""

import math
from typing import Any

import equinox as eqx
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

    layer: Any
    mu: EmpiricalMeasure
    x: Array
    root: Array
    shape: tuple[int, int] = eqx.field(static=True)

    def __init__(self, layer: Any, mu: EmpiricalMeasure, weights: NDArray):
        self.layer, self.mu = layer, mu
        with jax.enable_x64(True):
            self.x, self.root = jnp.asarray(state(mu.points)), jnp.asarray(np.sqrt(weights))
            outputs = eqx.filter_eval_shape(self._outputs, self.x).shape
        self.shape = math.prod(outputs), math.prod(self.x.shape)

    def push(self, x: Float[Array, " N"]) -> Float[Array, " M"]:
        u = x.reshape(self.x.shape) / self.root[:, None]
        return (self._along(u) * self.root[:, None]).reshape(-1)

    def pull(self, y: Float[Array, " M"]) -> Float[Array, " N"]:
        w = y.reshape(len(self.root), -1) * self.root[:, None]
        return (self._against(w) / self.root[:, None]).reshape(-1)

    def _outputs(self, x: Array) -> Array:
        law = measure(with_state(self.mu.points, x), self.mu.log_weights)
        return state(moved(self.layer, law, None))

    def _along(self, u: Array) -> Array:
        return jax.jvp(self._outputs, (self.x,), (u,))[1]

    def _against(self, w: Array) -> Array:
        return jax.vjp(self._outputs, self.x)[1](w)[0]

    def column(self, atom: int) -> Float[NDArray, "n v d"]:
        """All blocks through which an atom reaches outputs."""
        return self._blocks(False, atom)

    def row(self, output: int) -> Float[NDArray, "n d v"]:
        """All blocks, transposed, through which atoms reach an output."""
        return self._blocks(True, output)

    def _blocks(self, against: bool, k: int) -> NDArray:
        with jax.enable_x64(True):
            return np.asarray(_blocks(self, against, jnp.asarray(k))).transpose(1, 2, 0)


# compiled once for layers of one structure and so many atoms
@eqx.filter_jit
def _blocks(matrix: Sampled, against: bool, k: Array) -> Array:
    """What the derivative makes of each direction at point k, (directions, n, ...)."""
    n = len(matrix.root)
    width = matrix.shape[0 if against else 1] // n
    derivative = matrix._against if against else matrix._along

    def one(u: Array) -> Array:
        return derivative(jnp.zeros((n, width), u.dtype).at[k].set(u))

    return jax.lax.map(one, jnp.eye(width, dtype=matrix.x.dtype), batch_size=AT_ONCE)


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
