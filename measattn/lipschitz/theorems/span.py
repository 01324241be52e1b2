"""A square matrix in a basis of the span of its rows and columns, outside of which it is 0.

Heads of a transformer are of small rank: what is asked of many matrices near A costs little there.
"""

import numpy as np
from numpy.typing import NDArray


def within_span(matrix: NDArray) -> tuple[NDArray, float]:
    r"""$Q^\top AQ$ and at least $\|A - QQ^\top AQQ^\top\|$; A and 0 where its rank is not small.

    Q has twice as many columns as A has rank, so that on half of its range A is 0.
    """
    left, values, right = np.linalg.svd(matrix)
    seen = values >= 1e-14 * values[0]  # all of them where A is 0
    if 2 * np.sum(seen) >= len(matrix):
        return matrix, 0.0
    basis = np.linalg.qr(np.concatenate([left[:, seen], right[seen].T], axis=1))[0]
    inner = basis.T @ matrix @ basis
    # a little more, for the rounding of the difference and of the basis
    lost = float(np.linalg.norm(matrix - basis @ inner @ basis.T))
    return inner, lost + 1e-14 * len(matrix) * float(values[0])
