r"""The largest singular value of a linear map, attained, and certified but for a small probability.

Lanczos on $J^\top J$ from a random start, with full re-orthogonalisation, until ``chance`` bounds
the largest eigenvalue as closely as is asked for.

Source: G4 of docs/theory-lipschitz.md.
"""

import abc
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float
from threadpoolctl import threadpool_limits

from measattn.lipschitz.norms.chance import excludes, highest, least_share, steps_enough
from measattn.lipschitz.norms.cholesky import cholesky_norm
from measattn.lipschitz.norms.problem import UNIT, UP
from measattn.lipschitz.norms.spectral import SpectralNorm

DENSE = 1024
"""Up to so many columns a matrix is formed, and its norm certified without chance."""

ROWS = 8
"""A vector is made orthogonal to so many others at a time."""

FIRST = 32
"""For so many steps there is room at the beginning; more is made when needed."""


class AbstractLinearMap(eqx.Module):
    """A matrix J that is known by its products.

    Attributes:
        shape: its rows and columns.
    """

    shape: eqx.AbstractVar[tuple[int, int]]

    @abc.abstractmethod
    def push(self, x: Float[Array, " N"]) -> Float[Array, " M"]:
        """$Jx$."""

    @abc.abstractmethod
    def pull(self, y: Float[Array, " M"]) -> Float[Array, " N"]:
        r"""$J^\top y$."""


class Krylov(NamedTuple):
    """The orthonormal basis so far, rows that are not yet there being 0, and the matrix in it."""

    basis: Any  # (capacity, N)
    diagonal: Any  # (capacity,)
    beside: Any  # (capacity,)


def spectral_norm(
    matrix: AbstractLinearMap,
    rng: np.random.Generator,
    ratio: float = 1.00095,
    probability: float = 1e-10,
) -> SpectralNorm:
    r"""The spectral norm: of small matrices certified, of large ones by Lanczos.

    Args:
        matrix: J.
        rng: where the random start comes from.
        ratio: of the upper end and the value.
        probability: with which the upper end may fail.

    Raises:
        ValueError: J has entries that are NaN or infinite.
    """
    if matrix.shape[1] > DENSE:
        return lanczos(matrix, rng, ratio, probability)
    with jax.enable_x64(True):
        return cholesky_norm(np.asarray(_formed(matrix)))


def lanczos(
    matrix: AbstractLinearMap, rng: np.random.Generator, ratio: float, probability: float
) -> SpectralNorm:
    r"""The spectral norm of J by Lanczos on $J^\top J$."""
    size = matrix.shape[1]
    share = least_share(size, probability)
    most = min(steps_enough(size, ratio, probability), size)
    # idle threads of LAPACK, which finds Ritz values between steps, would keep those of XLA waiting
    with threadpool_limits(limits=1, user_api="blas"), jax.enable_x64(True):
        start = rng.normal(size=size)
        start /= np.linalg.norm(start)
        image = _image(matrix, jnp.asarray(start))
        unit = jnp.max(jnp.abs(image))  # in which J is measured: squares could underflow
        if unit == 0:
            return SpectralNorm(0.0, 0.0, start, probability, 1)
        space = _room(Krylov(start[None], np.zeros(1), np.zeros(1)), min(FIRST, most + 1))
        key = jax.random.key(int(rng.integers(2**32)))
        for k in range(1, most + 1):
            if k == len(space.basis):
                space = _room(space, min(2 * k, most + 1))
            space = _extended((matrix, unit, key), space, jnp.asarray(k - 1))
            # copies: the arrays are given away in the next step
            diagonal, beside = (np.array(a)[:k] for a in (space.diagonal, space.beside))
            if not np.isfinite(diagonal).all():
                raise ValueError(
                    "the Jacobian of the layer at this measure has entries that are NaN or infinite"
                )
            values, vectors = scipy.linalg.eigh_tridiagonal(
                diagonal, beside[:-1], select="i", select_range=(k - 1, k - 1)
            )
            top = float(values[0])
            if excludes(diagonal, beside, top * ratio**2, share):
                break
        combined = np.pad(vectors[:, 0], (0, len(space.basis) - k))
        direction = jnp.matmul(jnp.asarray(combined), space.basis)
        direction /= jnp.linalg.norm(direction)
        value = float(jnp.linalg.norm(_image(matrix, direction) / unit))
    # what the perturbations in _extended may add, twice
    top = max(highest(diagonal, beside, top, share), value**2) * (1 + 8 * size * UNIT)
    scale = float(unit)
    return SpectralNorm(
        value * scale, math.sqrt(top) * UP * scale, np.asarray(direction), probability, k
    )


def _room(space: Krylov, capacity: int) -> Krylov:
    """With rows for more steps; the number of rows is rounded up, since each is compiled anew."""
    rows = -(-capacity // ROWS) * ROWS - len(space.basis)
    return Krylov(*(jnp.pad(a, [(0, rows)] + [(0, 0)] * (a.ndim - 1)) for a in space))


@eqx.filter_jit
def _formed(matrix: AbstractLinearMap) -> Float[Array, "M N"]:
    """All columns, a few at a time."""
    return jax.lax.map(matrix.push, jnp.eye(matrix.shape[1]), batch_size=ROWS).T


@eqx.filter_jit
def _image(matrix: AbstractLinearMap, x: Array) -> Array:
    return matrix.push(x)


@eqx.filter_jit(donate="all-except-first")
def _extended(given: tuple[AbstractLinearMap, Array, Array], space: Krylov, k: Array) -> Krylov:
    """One more coefficient of both kinds, and the next vector where there is room for it."""
    matrix, unit, key = given
    basis, diagonal, beside = space
    v = basis[k]
    image = matrix.pull(matrix.push(v) / unit) / unit
    alpha = jnp.vdot(v, image)
    diagonal = diagonal.at[k].set(alpha)
    image = image - alpha * v - jnp.where(k > 0, beside[k - 1], 0) * basis[k - 1]
    image, length = _orthogonalised(image, basis, k)
    # below this the rest is rounding: the space is invariant as far as float64 sees. A random
    # vector goes on from there, as if a perturbation of that size led to it.
    least = matrix.shape[1] * UNIT * jnp.max(jnp.abs(diagonal))

    def another() -> tuple[Array, Array]:
        return _orthogonalised(jax.random.normal(jax.random.fold_in(key, k), v.shape), basis, k)

    image, scale = jax.lax.cond(length <= least, another, lambda: (image, length))
    beside = beside.at[k].set(jnp.maximum(length, least))
    return Krylov(basis.at[k + 1].set(image / scale, mode="drop"), diagonal, beside)


def _orthogonalised(image: Array, basis: Array, k: Array) -> tuple[Array, Array]:
    """A vector without its part in the space of the rows up to k, and its length."""

    def sweep(image: Array) -> Array:
        def some(j: Array, image: Array) -> Array:
            rows = jax.lax.dynamic_slice_in_dim(basis, j * ROWS, ROWS)
            return image - jnp.matmul(jnp.matmul(rows, image), rows)

        return jax.lax.fori_loop(jnp.zeros_like(k), k // ROWS + 1, some, image)

    before = jnp.linalg.norm(image)
    image = sweep(image)
    # once more only where much was lost (Kahan, Parlett)
    image = jax.lax.cond(jnp.linalg.norm(image) > 0.7 * before, lambda a: a, sweep, image)
    return image, jnp.linalg.norm(image)
