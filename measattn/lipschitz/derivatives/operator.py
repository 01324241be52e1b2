r"""The derivative of a layer as a linear map $\Omega^{1/2}J\Omega^{-1/2}$ of displacements.

$$ (J\varepsilon)_i = K_i\varepsilon_i + \Psi_i\sum_hV_h\Bigl[\sum_jP_{ij}z_j
   + \sum_jP_{ij}\langle g_{ij},z_j\rangle(y_j-\bar y_i)\Bigr], \qquad z_j = \Phi_j\varepsilon_j, $$

$O(n^2d)$ for a product, and the transpose by JAX.
Source: B7 of docs/theory.md.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from measattn.lipschitz.derivatives.parts import Parts
from measattn.lipschitz.norms.lanczos import AbstractLinearMap


class Head(NamedTuple):
    """What a product with the derivative of one head takes."""

    p: Float[Array, "n n"]
    keys: Float[Array, "n e"]
    means: Float[Array, "n e"]
    slopes: Float[Array, "n e"]
    tilts: Float[Array, "n e"] | None
    value: Float[Array, "v e"]


class Operator(AbstractLinearMap):
    r"""$\Omega^{1/2}J\Omega^{-1/2}$ of a layer at a measure, on vectors (n·d,).

    Args:
        parts: the derivative.
        weights: of the atoms (n,), positive.
    """

    def __init__(self, parts: Parts, weights: NDArray):
        n, v, d = parts.own.shape
        self.shape = n * v, n * d
        with jax.enable_x64(True):
            root = jnp.asarray(np.sqrt(weights))
            heads = tuple(
                Head(*(_array(a) for a in (h.p, h.keys, h.means, h.slopes, h.tilts, h.value)))
                for h in parts.mixing
            )
            own, after, before = map(_array, (parts.own, parts.after, parts.before))

            def push(arrays: Any, flat: Array) -> Array:
                heads, own, after, before, root = arrays
                return _push(heads, own, after, before, root, flat.reshape(n, d)).reshape(-1)

            arrays = heads, own, after, before, root
            self._push = jax.jit(push)
            self._pull = jax.jit(
                lambda arrays, y: jax.linear_transpose(
                    lambda x: push(arrays, x), jnp.zeros(n * d, y.dtype)
                )(y)[0]
            )
            self._arrays = arrays

    def push(self, x: NDArray) -> NDArray:
        """The product with a vector (n·d,)."""
        with jax.enable_x64(True):
            return np.asarray(self._push(self._arrays, jnp.asarray(x)))

    def pull(self, y: NDArray) -> NDArray:
        """The product of the transpose with a vector (n·v,)."""
        with jax.enable_x64(True):
            return np.asarray(self._pull(self._arrays, jnp.asarray(y)))


def _array(a: NDArray | None) -> Any:
    return None if a is None else jnp.asarray(a)


def _push(
    heads: tuple[Head, ...],
    own: Array,
    after: Array | None,
    before: Array | None,
    root: Array,
    moves: Array,
) -> Float[Array, "n v"]:
    moves = moves / root[:, None]
    z = moves if before is None else jnp.einsum("ned,nd->ne", before, moves)
    mixed = 0.0
    for h in heads:
        change = jnp.matmul(h.slopes, z.T)
        if h.tilts is not None:
            change += jnp.sum(h.tilts * z, axis=1)[None, :]
        change = h.p * change
        means = jnp.sum(change, axis=1)[:, None] * h.means
        moved = jnp.matmul(h.p, z) + jnp.matmul(change, h.keys) - means
        mixed += jnp.matmul(moved, h.value.T)
    if after is not None and heads:
        mixed = jnp.einsum("nve,ne->nv", after, mixed)
    return root[:, None] * (jnp.einsum("nvd,nd->nv", own, moves) + mixed)
