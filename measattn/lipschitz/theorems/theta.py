r"""The exponent $\theta_R(A,c) = \sup_{|x|,|y|\le R}\langle Ax+c,\,y-x\rangle$.

$$ \theta_R(A,0) = R^2\min_{\lambda>0}\Bigl[\frac\lambda2 +
   \lambda_{\max}\Bigl(\frac{A^\top A}{2\lambda}-\frac{A+A^\top}2\Bigr)^+\Bigr], $$

and every λ gives an upper bound. Source: H5 of docs/theory-lipschitz.md.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from measattn.lipschitz.theorems.span import within_span

ALLOWANCE = 1e-10
"""What eigenvalues are raised by, relative to the norms of the matrices."""


def theta(matrix: NDArray, shift: NDArray, radius: float) -> float:
    r"""$\theta_R(A, c)$ from above, as $\theta_R(A,0) + 2R|c|$; exact up to rounding for c = 0.

    Args:
        matrix: A (d, d).
        shift: c (d,).
        radius: R.
    """
    size = float(np.linalg.norm(matrix, 2))
    tilt = 2 * radius * float(np.linalg.norm(shift)) * (1 + ALLOWANCE)
    if size == 0:
        return tilt
    # in units of the norm, whose square may not be a float
    matrix, lost = within_span(matrix / size)
    gram, symmetric = matrix.T @ matrix, (matrix + matrix.T) / 2

    def bound(log_multiplier: float) -> float:
        multiplier = np.exp(log_multiplier)
        least = np.linalg.eigvalsh(gram / (2 * multiplier) - symmetric)[-1]
        rounding = ALLOWANCE * (1 / (2 * multiplier) + 1)
        return multiplier / 2 + max(least, 0.0) + rounding  # 0 is what it is outside of the span

    options = {"xatol": 1e-10}
    found: Any = minimize_scalar(bound, bounds=(-12, 3), method="bounded", options=options)
    # the bound is convex in the multiplier, but any of them certifies
    best = min(bound(float(found.x)), bound(float(np.log(2))), bound(0.0), 2 * (1 + ALLOWANCE))
    return radius * radius * size * (best + 2 * lost) + tilt
