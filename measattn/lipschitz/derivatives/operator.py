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

    p: Any  # (n n)
    keys: Any  # (n e)
    means: Any  # (n e)
    slopes: Any  # (n e)
    tilts: Any  # (n e)
    value: Any  # (v e)


class Arrays(NamedTuple):
    """What a product with the whole derivative takes."""

    heads: tuple[Head, ...]
    own: Any
    after: Any
    before: Any
    root: Any


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
            heads = tuple(
                Head(*(_array(a) for a in (h.p, h.keys, h.means, h.slopes, h.tilts, h.value)))
                for h in parts.mixing
            )
            around = (_array(a) for a in (parts.own, parts.after, parts.before, np.sqrt(weights)))
            self._arrays = Arrays(heads, *around)

    def push(self, x: NDArray) -> NDArray:
        with jax.enable_x64(True):
            return np.asarray(_push(self._arrays, jnp.asarray(x)))

    def pull(self, y: NDArray) -> NDArray:
        with jax.enable_x64(True):
            return np.asarray(_pull(self._arrays, jnp.asarray(y)))


def _array(a: NDArray | None) -> Any:
    return None if a is None else jnp.asarray(a)


@jax.jit
def _push(arrays: Arrays, flat: Float[Array, " N"]) -> Float[Array, " M"]:
    heads, own, after, before, root = arrays
    moves = flat.reshape(len(root), -1) / root[:, None]
    z = moves if before is None else jnp.einsum("ned,nd->ne", before, moves)
    mixed: Any = 0.0
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
    return (root[:, None] * (jnp.einsum("nvd,nd->nv", own, moves) + mixed)).reshape(-1)


@jax.jit
def _pull(arrays: Arrays, flat: Float[Array, " M"]) -> Float[Array, " N"]:
    n, _, d = arrays.own.shape
    like = jax.ShapeDtypeStruct((n * d,), flat.dtype)
    return jax.linear_transpose(lambda x: _push(arrays, x), like)(flat)[0]
