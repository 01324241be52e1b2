r"""The largest singular value of a linear map, attained, and certified but for a small probability.

Lanczos on $J^\top J$ from a random start, with full re-orthogonalisation, until ``chance`` bounds
the largest eigenvalue as closely as is asked for.

Source: G4 of docs/theory-lipschitz.md.
"""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float
from numpy.typing import NDArray

from measattn.lipschitz.norms.chance import excludes, highest, least_share, steps_enough
from measattn.lipschitz.norms.cholesky import cholesky_norm
from measattn.lipschitz.norms.problem import UNIT, UP
from measattn.lipschitz.norms.spectral import SpectralNorm
from measattn.lipschitz.threads import one_blas_thread

DENSE = 1024
"""Up to so many columns a matrix is formed, and its norm certified without chance."""

ROWS = 8
"""So many columns of a matrix are formed at a time."""

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
    basis = np.empty((min(FIRST, most), size))
    diagonal, beside, scale, top = np.empty(0), np.empty(0), 0.0, 0.0
    vectors = np.ones((1, 1))
    with jax.enable_x64(True), one_blas_thread():
        start = rng.normal(size=size)
        basis[0] = start / np.linalg.norm(start)
        for k in range(1, most + 1):
            found = _squared(matrix, basis[k - 1], np.float64(scale))
            image, scale = np.asarray(found[0]), float(found[1])
            if scale == 0:
                return SpectralNorm(0.0, 0.0, basis[0], probability, 1)
            diagonal = np.append(diagonal, basis[k - 1] @ image)
            if not np.isfinite(diagonal[-1]):
                raise ValueError(
                    "the Jacobian of the layer at this measure has entries that are NaN or infinite"
                )
            image, length = _orthogonalised(image, basis[:k])
            # below this the rest is rounding: the space is invariant as far as float64 sees. A
            # random vector goes on from there, as if a perturbation of that size led to it.
            least = size * UNIT * float(np.abs(diagonal).max())
            beside = np.append(beside, max(length, least))
            values, vectors = scipy.linalg.eigh_tridiagonal(
                diagonal, beside[:-1], select="i", select_range=(k - 1, k - 1)
            )
            top = float(values[0])
            if k == most or excludes(diagonal, beside, top * ratio**2, share):
                break
            if length <= least:
                image, length = _orthogonalised(rng.normal(size=size), basis[:k])
            if k == len(basis):
                basis = np.concatenate([basis, np.empty((min(k, most - k), size))])
            np.divide(image, length, out=basis[k])
        direction = vectors[:, 0] @ basis[:k]
        direction /= np.linalg.norm(direction)
        value = float(np.linalg.norm(np.asarray(_image(matrix, direction)) / scale))
    # what the perturbations above may add, twice
    top = max(highest(diagonal, beside, top, share), value**2) * (1 + 8 * size * UNIT)
    return SpectralNorm(value * scale, math.sqrt(top) * UP * scale, direction, probability, k)


def _orthogonalised(
    image: Float[NDArray, " N"], basis: Float[NDArray, "k N"]
) -> tuple[NDArray, float]:
    """A vector without its part in the space of some rows, and its length."""
    before = np.linalg.norm(image)
    image = image - (basis @ image) @ basis
    # once more only where much was lost (Kahan, Parlett)
    if np.linalg.norm(image) <= 0.7 * before:
        image -= (basis @ image) @ basis
    return image, float(np.linalg.norm(image))


@eqx.filter_jit
def _formed(matrix: AbstractLinearMap) -> Float[Array, "M N"]:
    """All columns, a few at a time."""
    return jax.lax.map(matrix.push, jnp.eye(matrix.shape[1]), batch_size=ROWS).T


@eqx.filter_jit
def _image(matrix: AbstractLinearMap, x: Any) -> Array:
    return matrix.push(x)


@eqx.filter_jit
def _squared(matrix: AbstractLinearMap, v: Any, scale: Any) -> tuple[Array, Array]:
    r"""$J^\top Jv$ in squares of a scale, and the scale, found in the first step if it is 0.

    In others squares could underflow.
    """
    pushed = matrix.push(v)
    scale = jnp.where(scale > 0, scale, jnp.max(jnp.abs(pushed)))
    safe = jnp.where(scale == 0, 1.0, scale)
    return matrix.pull(pushed / safe) / safe, scale
