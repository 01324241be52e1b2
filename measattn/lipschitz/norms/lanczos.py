r"""The largest singular value of a linear map, attained, and certified but for a small probability.

From a random start v, uniform on the sphere of R^N, k steps of Lanczos on $J^\top J$ give the Ritz
value ϑ, and for $0 < \varepsilon < 1$

$$ P\bigl[\|J\|_2^2 > \vartheta/(1-\varepsilon)\bigr]
   \le 2\sqrt{2N/\pi}\,e^{-(2k-1)\,\mathrm{artanh}\sqrt\varepsilon} . $$

Source: G4 of docs/theory-lipschitz.md; the bound is that of Kuczyński & Woźniakowski, SIAM J.
Matrix Anal. Appl. 13 (1992) 1094-1122.
"""

import abc
import math
from typing import NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from measattn.lipschitz.norms.problem import UNIT, UP

DENSE = 1024
"""Up to so many columns a matrix is formed, and its norm certified without chance."""


class AbstractLinearMap(abc.ABC):
    """A matrix J that is known by its products.

    Attributes:
        shape: its rows and columns.
    """

    shape: tuple[int, int]

    @abc.abstractmethod
    def push(self, x: NDArray) -> NDArray:
        """$Jx$."""

    @abc.abstractmethod
    def pull(self, y: NDArray) -> NDArray:
        r"""$J^\top y$."""


class SpectralNorm(NamedTuple):
    """The largest singular value.

    Attributes:
        value: $|Ju|/|u|$ at ``direction``.
        upper: above it but for ``probability``.
        direction: u (N,), of length 1.
        probability: with which the random start may have misled; 0 for a deterministic bound.
        steps: of Lanczos.
    """

    value: float
    upper: float
    direction: NDArray
    probability: float
    steps: int


def steps_needed(size: int, ratio: float, probability: float) -> int:
    r"""How many steps certify $\|J\|_2$ up to a factor ``ratio``, but for a probability."""
    eps = 1 - 1 / ratio**2
    enough = math.log(2 * math.sqrt(2 * size / math.pi) / probability) / math.atanh(math.sqrt(eps))
    return math.ceil((enough + 1) / 2)


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
    size = matrix.shape[1]
    steps = steps_needed(size, ratio, probability)
    if size <= max(DENSE, steps):
        return cholesky_norm(np.stack([matrix.push(e) for e in np.eye(size)], axis=1))
    return lanczos(matrix, rng, steps, ratio, probability)


def lanczos(
    matrix: AbstractLinearMap,
    rng: np.random.Generator,
    steps: int,
    ratio: float,
    probability: float,
) -> SpectralNorm:
    r"""The spectral norm of J by Lanczos on $J^\top J$ with full re-orthogonalisation."""
    size = matrix.shape[1]
    v = rng.normal(size=size)
    basis = np.empty((steps, size))
    basis[0] = v / np.linalg.norm(v)
    diagonal, beside = np.zeros(steps), np.zeros(steps - 1)
    for k in range(steps):
        image = np.array(matrix.pull(matrix.push(basis[k])))
        if not np.isfinite(image).all():
            raise ValueError(
                "the Jacobian of the layer at this measure has entries that are NaN or infinite"
            )
        diagonal[k] = basis[k] @ image
        image -= diagonal[k] * basis[k]
        if k:
            image -= beside[k - 1] * basis[k - 1]
        length = float(np.linalg.norm(image))
        length = _orthogonalised(image, basis[: k + 1], length)
        if k + 1 == steps:
            break
        beside[k] = length
        if length <= size * UNIT * np.abs(diagonal).max():
            # The rest is rounding: the Krylov space is invariant as far as float64 sees. To stop
            # would promise less than the probability that was asked for; go on from a random
            # vector, which only makes the space larger.
            image, beside[k] = rng.normal(size=size), 0.0
            length = _orthogonalised(image, basis[: k + 1], float(np.linalg.norm(image)))
        basis[k + 1] = image / length
    values, vectors = scipy.linalg.eigh_tridiagonal(diagonal, beside)
    direction = vectors[:, -1] @ basis
    direction /= np.linalg.norm(direction)
    value = float(np.linalg.norm(matrix.push(direction)))
    top = max(float(values[-1]), value**2) * UP
    upper = math.sqrt(top) * ratio * UP
    return SpectralNorm(value, upper, direction, probability, len(diagonal))


def _orthogonalised(image: NDArray, known: NDArray, length: float) -> float:
    """Take from a vector, in place, its part in a space; its length after that."""
    for _ in range(2):  # once more only where much was lost (Kahan, Parlett)
        image -= (known @ image) @ known
        before, length = length, float(np.linalg.norm(image))
        if length > 0.7 * before:
            break
    return length


def cholesky_norm(matrix: NDArray) -> SpectralNorm:
    r"""The spectral norm of a dense matrix, certified by a factor of $\lambda I - J^\top J$.

    Raises:
        ValueError: entries that are NaN or infinite.
    """
    if not np.isfinite(matrix).all():
        raise ValueError(
            "the Jacobian of the layer at this measure has entries that are NaN or infinite"
        )
    rows, size = matrix.shape
    gram = matrix.T @ matrix
    values, vectors = scipy.linalg.eigh(gram, subset_by_index=[size - 1, size - 1])
    direction = vectors[:, 0]
    value = float(np.linalg.norm(matrix @ direction))
    total = float(np.sum(matrix**2))
    shift = max(float(values[0]), value**2)
    for excess in 10.0 ** np.arange(-10, 1):
        level = shift * (1 + excess) + np.finfo(float).tiny
        try:
            scipy.linalg.cholesky(level * np.eye(size) - gram, check_finite=False)
        except np.linalg.LinAlgError:
            continue
        gamma = (size + 1) * UNIT / (1 - (size + 1) * UNIT)
        backward = gamma / (1 - gamma) * max(level * size - np.trace(gram), 0) * UP
        formed = rows * UNIT / (1 - rows * UNIT) * total * UP
        certified = level + backward + formed + 2 * UNIT * (level + total)
        return SpectralNorm(value, math.sqrt(certified) * UP, direction, 0.0, 0)
    return SpectralNorm(value, math.sqrt(total) * UP, direction, 0.0, 0)
