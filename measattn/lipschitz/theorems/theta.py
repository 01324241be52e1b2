r"""The exponent $\theta_R(A,c) = \sup_{|x|,|y|\le R}\langle Ax+c,\,y-x\rangle$.

$$ \theta_R(A,c) \le \min_{\lambda>0,\,\nu}\Bigl[R^2\Bigl(\frac\lambda2+\nu\Bigr)
   + \frac{|c|^2}{2\lambda} + \tfrac14h^\top(\nu I-Q)^{-1}h\Bigr], \qquad
   Q = \frac{A^\top A}{2\lambda}-\frac{A+A^\top}2, \quad h = \tfrac1\lambda A^\top c-c, $$

over $\nu\ge0$ above the eigenvalues of Q; it is convex, every λ and ν give an upper bound, and for
c = 0 there is equality. Source: H5 of docs/theory-lipschitz.md.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar

from measattn.lipschitz.theorems.base import norm
from measattn.lipschitz.theorems.span import within_span

ALLOWANCE = 1e-10
"""What eigenvalues and vectors are raised by, relative to their sizes."""

STEEP = 1e8
"""Where shifts are so many times larger than the matrix, it plays no part."""


def theta(matrix: NDArray, shift: NDArray, radius: float) -> float:
    r"""$\theta_R(A, c)$ from above; exact up to rounding for c = 0, at most $\theta_R(A,0)+2R|c|$.

    Args:
        matrix: A (d, d).
        shift: c (d,).
        radius: R.

    Raises:
        ValueError: entries that are NaN or infinite, shapes that do not match, or no radius.
    """
    if not 0 <= radius < math.inf:
        raise ValueError(f"radius must be a finite number of at least 0, got {radius!r}")
    finite = np.isfinite(matrix).all() and np.isfinite(shift).all()
    if matrix.shape != (len(shift), len(shift)) or not finite:
        raise ValueError(
            f"matrix must be (d, d) and shift (d,), both finite, got shapes {matrix.shape} and "
            f"{shift.shape}"
        )
    size, length = norm(matrix), norm(shift[:, None])
    simple = 2 * radius * (radius * size + length) * (1 + ALLOWANCE)
    if size * radius * STEEP <= length:
        return simple
    # in units of R and of the norm of A, whose square may not be a float
    inner, basis, lost = within_span(matrix / size)
    c = shift / size / radius
    seen = basis.T @ c
    beyond, tilt = float(np.linalg.norm(c - basis @ seen)), float(np.linalg.norm(c))
    gram, symmetric, pulled = inner.T @ inner, (inner + inner.T) / 2, inner.T @ seen

    def bound(log_multiplier: float) -> float:
        multiplier = math.exp(log_multiplier)
        form = gram / (2 * multiplier) - symmetric
        if tilt == 0:
            rest = max(float(np.linalg.eigvalsh(form)[-1]), 0.0)
        else:
            values, vectors = np.linalg.eigh(form)
            slopes = vectors.T @ (pulled / multiplier - seen)
            # outside of the span of A the form is 0
            rest = over_ball(np.append(values, 0.0), np.append(slopes, beyond))
        rounding = ALLOWANCE * (1 + tilt) * (1 / multiplier + 1)
        return (multiplier / 2 + tilt**2 / (2 * multiplier) + rest) * (1 + ALLOWANCE) + rounding

    options, ends = {"xatol": 1e-10}, (-12, 3 + math.log1p(tilt))
    found: Any = minimize_scalar(bound, bounds=ends, method="bounded", options=options)
    # the bound is convex in the multiplier, but any of them certifies
    best = min(bound(float(found.x)), bound(math.log(2)), bound(0.0))
    return min(radius * radius * size * (best + 2 * lost), simple)


def over_ball(values: NDArray, slopes: NDArray) -> float:
    r"""What $\sum_i(q_iz_i^2+h_iz_i)$ is at most for $|z|\le1$.

    $$ \min_\nu\Bigl[\nu+\tfrac14\sum_i\frac{h_i^2}{\nu-q_i}\Bigr] $$

    Args:
        values: q (d,).
        slopes: h (d,).
    """
    top, length = max(float(values.max()), 0.0), float(np.linalg.norm(slopes))
    if length == 0:
        return top
    apart = top - values

    def steepness(excess: float) -> float:
        return float(np.linalg.norm(slopes / (apart + excess))) / 2 - 1

    # ν = top + excess; the derivative is 0 below half of the length
    least, most = 1e-12 * length, length
    excess: Any = least if steepness(least) <= 0 else brentq(steepness, least, most)
    return top + excess + float(np.sum(slopes**2 / (apart + excess))) / 4
