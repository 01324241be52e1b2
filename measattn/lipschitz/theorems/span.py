"""A square matrix in a basis of the span of its rows and columns, outside of which it is 0.

Heads of a transformer are of small rank: what is asked of many matrices near A costs little there.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Within(NamedTuple):
    r"""A in the range of Q.

    Attributes:
        inner: $Q^\top AQ$.
        basis: Q (d, s), orthonormal columns.
        lost: at least $\|A - QQ^\top AQQ^\top\|$.
    """

    inner: NDArray
    basis: NDArray
    lost: float


def within_span(matrix: NDArray) -> Within:
    """The basis has twice as many columns as A has rank, so that on half of its range A is 0.

    It is the identity where that is no gain.
    """
    left, values, right = np.linalg.svd(matrix)
    seen = values >= 1e-14 * values[0]  # all of them where A is 0
    if 2 * np.sum(seen) >= len(matrix):
        return Within(matrix, np.eye(len(matrix)), 0.0)
    basis = np.linalg.qr(np.concatenate([left[:, seen], right[seen].T], axis=1))[0]
    inner = basis.T @ matrix @ basis
    # a little more, for the rounding of the difference and of the basis
    lost = float(np.linalg.norm(matrix - basis @ inner @ basis.T))
    return Within(inner, basis, lost + 1e-14 * len(matrix) * float(values[0]))
