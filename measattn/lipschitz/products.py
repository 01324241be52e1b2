r"""Products of matrices in float64 that keep 11 digits, whatever cancels.

A bound speaks of $A = sK^\top Q$ and of shifts $Az + c$ about a far centre. Where the terms of such
products cancel, rounding can be as large as what is left. It is at most
$k\upsilon\,\| |M_1|\cdots|M_r| \|_F$, k the number of factors and summands of an entry (Higham,
*Accuracy and Stability of Numerical Algorithms*, Section 3.5); where that is too much beside the
product, it is taken in fractions and rounded once.
"""

from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from measattn.wasserstein.ground import UNIT

RELATIVE = 1e-11
"""The largest error of a product, in parts of its spectral norm; bounds are raised by more."""

_fractions: Any = np.frompyfunc(lambda a: Fraction(float(a)), 1, 1)


def product(*factors: NDArray) -> NDArray:
    r"""$M_1M_2\cdots M_r$ (n_0, n_r) of matrices (n_{i-1}, n_i).

    Its error is at most `RELATIVE` of its spectral norm.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        found, sizes = _multiplied(factors), _multiplied([np.abs(factor) for factor in factors])
        lengths = [float(np.linalg.norm(matrix)) for matrix in (found, sizes)]
    if not np.all(np.isfinite(lengths)):
        return found  # who asked finds that it is not finite, or far too large for a bound
    terms = sum(factor.shape[1] + 1 for factor in factors)
    rank = min(min(factor.shape) for factor in factors)
    lost, spectral = terms * UNIT * lengths[1], lengths[0] / rank**0.5
    if lost <= RELATIVE * spectral:
        return found
    return _multiplied([_fractions(factor) for factor in factors]).astype(np.float64)


def image(matrix: NDArray, constant: NDArray, centre: NDArray, *after: NDArray) -> NDArray:
    r"""$N_1\cdots N_r(Mz + c)$ as one product: M (e, d), c (e,), z (d,), the maps N ``after``."""
    affine = np.column_stack([matrix, constant])
    return product(*after, affine, np.append(centre, 1.0)[:, None])[:, 0]


def _multiplied(factors: Any) -> Any:
    # from the right: a vector there makes all products cheap
    return reduce(lambda right, left: left @ right, reversed(factors))
