r"""What k steps of Lanczos from a random start prove of the largest eigenvalue, but for a chance.

S is symmetric, positive semi-definite, of size N, and Lanczos from v has given the diagonal
$\alpha_1,\dots,\alpha_k$ and $\beta_1,\dots,\beta_k$ beside it. The polynomials

$$ q_0 = 1, \qquad \beta_jq_j(x) = (x-\alpha_j)q_{j-1}(x)-\beta_{j-1}q_{j-2}(x) $$

are orthonormal for the measure $\sum_ic_i^2\delta_{\lambda_i}$ of v, and so
$c_1^2\le1/\sum_{j\le k}q_j(\lambda_1)^2$: the largest eigenvalue is at most the U above the Ritz
values where that is $\delta^2$, unless $|c_1|<\delta$. A uniform v does that with a probability of
at most $\sqrt{2N/\pi}\,\delta$, which does not depend on k: one may look after every step.

Source: G4 of docs/theory-lipschitz.md; the idea is that of van Dorsselaer, Hochstenbach & van der
Vorst, SIAM J. Matrix Anal. Appl. 22 (2000) 837-852.
"""

import math

from jaxtyping import Float
from numpy.typing import NDArray

BIG = 1e100
"""Sums of squares above this are scaled down, and their logarithms kept."""


def least_share(size: int, probability: float) -> float:
    r"""$\delta$: below it is $|c_1|$ of a uniform start in R^N with at most this probability."""
    return probability / math.sqrt(2 * size / math.pi)


def excludes(
    diagonal: Float[NDArray, " k"], beside: Float[NDArray, " k"], x: float, share: float
) -> bool:
    r"""Whether no eigenvalue is above x, unless $|c_1|$ is less than ``share``.

    Args:
        diagonal: $\alpha$.
        beside: $\beta$, the last one included, positive.
        x: at least the largest Ritz value.
        share: $\delta$.
    """
    goal = -2 * math.log(share)
    total, before, now, below = 1.0, 0.0, 1.0, 0.0
    taken = 0.0  # the logarithm of what the squares have been scaled by
    for alpha, beta in zip(diagonal.tolist(), beside.tolist(), strict=True):
        before, now = now, ((x - alpha) * now - below * before) / beta
        total, below = total + now * now, beta
        if total > BIG:
            scale = math.sqrt(total)
            before, now, total, taken = before / scale, now / scale, 1.0, taken + math.log(total)
    # the sum only grows with j: rounding of a few units in its logarithm is less than this
    return math.log(total) + taken > goal + 1e-6


def highest(
    diagonal: Float[NDArray, " k"], beside: Float[NDArray, " k"], ritz: float, share: float
) -> float:
    r"""U: the largest eigenvalue is no larger, unless $|c_1|$ is less than ``share``."""
    low, high = ritz, 2 * ritz
    while not excludes(diagonal, beside, high, share):
        low, high = high, 2 * high
    while high - low > 1e-12 * ritz:
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (low, middle) if excludes(diagonal, beside, middle, share) else (middle, high)
    return high


def steps_enough(size: int, ratio: float, probability: float) -> int:
    r"""After how many steps U is at most $\mathrm{ratio}^2$ times the Ritz value, whatever S is."""
    eps = 1 - 1 / ratio**2
    enough = math.log(2 / least_share(size, probability)) / math.atanh(math.sqrt(eps))
    return math.ceil(enough / 2) + 1
