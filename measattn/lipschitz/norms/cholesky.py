r"""The spectral norm of a dense matrix: H = $\lambda I - J^\top J$ has a Cholesky factor.

Source: G4 of docs/theory-lipschitz.md.
"""

import math

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from measattn.lipschitz.norms.problem import UNIT, UP
from measattn.lipschitz.norms.spectral import SpectralNorm


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
    if not values.size:  # LAPACK loses an eigenvalue that is nearly multiple
        values, vectors = scipy.linalg.eigh(gram)
    direction = vectors[:, -1]
    value = float(np.linalg.norm(matrix @ direction))
    total = float(np.sum(matrix**2))
    shift = max(float(values[-1]), value**2)
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
