r"""The orthogonal start: n orthonormal tokens on the sphere follow one scalar equation.

With V = I and the score $\beta\langle x, y\rangle$ all inner products of two tokens stay equal to
one number γ(t), with γ(0) = 0 and

$$ \dot\gamma = \frac{2e^{\beta\gamma}(1-\gamma)\,((n-1)\gamma+1)}{e^\beta+(n-1)e^{\beta\gamma}},
   \qquad\text{without the normaliser}\qquad
   \dot\gamma = \tfrac2n e^{\beta\gamma}(1-\gamma)\,((n-1)\gamma+1) . $$

Source: Theorem 6.8 of Geshkovski et al., arXiv 2312.10794; proof in docs/theory-dynamics.md, O1.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.special import expit

from measattn.checks import host_array, host_number, whole

TOLERANCE = 1e-13


def orthogonal_start(n: Any, beta: Any, times: Any, *, normalised: bool = True) -> Any:
    r"""The common inner product γ of n orthonormal tokens, at the times; float64 on the host.

    It is found from $u = \log(1 - \gamma)$, so that $1 - \gamma$ keeps its digits near consensus.

    Args:
        n: how many tokens, at least 2, in dimension n or more.
        beta: the factor β of the score, any sign.
        times: (k,), not negative, in increasing order; or one time.
        normalised: with softmax weights; False is the equation of `Unnormalised`.

    Returns:
        The values (k,), or one number for one time; the error is below 1e-11.

    Raises:
        ValueError: fewer than two tokens, a β that is not finite, or times out of order.

    Source: O1 in docs/theory-dynamics.md.
    """
    n = whole("n", n, 2)
    slope = host_number(beta)
    if slope is None or not np.isfinite(slope):
        raise ValueError(f"beta must be a finite number, such as 4.0, got {beta!r}")
    beta = slope

    def speed(gamma: NDArray) -> NDArray:
        if normalised:
            weight = expit(beta * (gamma - 1) + np.log(n - 1)) / (n - 1)
        else:
            weight = np.exp(beta * gamma) / n
        return 2 * weight * ((n - 1) * gamma + 1)

    return approach_to_one(speed, 0.0, times)


def approach_to_one(speed: Callable[[NDArray], NDArray], start: float, times: Any) -> Any:
    r"""The solution of $\dot c = (1 - c)\,s(c)$, at the times, in the variable $\log(1 - c)$.

    Args:
        speed: s, positive and smooth on [0, 1].
        start: c(0) < 1.
        times: (k,), not negative, in increasing order; or one time.

    Raises:
        ValueError: times out of order.
    """
    at = np.atleast_1d(host_array("times", times))
    ordered = at.ndim == 1 and at.size and np.all(np.isfinite(at)) and np.all(np.diff(at) >= 0)
    if not ordered or at[0] < 0:
        raise ValueError(
            f"times must be one or more numbers of at least 0 in increasing order, got {times}"
        )
    first = np.log1p(-start)
    if at[-1] == 0:
        found = np.full(len(at), first)
    else:
        done = solve_ivp(
            lambda t, u: -speed(-np.expm1(u)), (0, at[-1]), [first], method="DOP853",
            t_eval=np.unique(at), rtol=TOLERANCE, atol=TOLERANCE,
        )  # fmt: skip
        if not done.success:
            raise ValueError(f"the equation was not solved up to t = {at[-1]}: {done.message}")
        found = done.y[0][np.searchsorted(done.t, at)]
    gap = -np.expm1(found)
    return gap if np.ndim(times) else gap[0]
