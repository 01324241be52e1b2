r"""How fast tokens on the sphere cluster.

With V = I the least inner product $c(t)$ of two tokens obeys, as long as it is not negative,

$$ \dot c \ge e^{-\beta(1-c)}(1-c)\,(2c + m(1-c)), \qquad
   1 - c(t) \le (1-c(0))\,e^{-rt},\quad r = e^{-\beta(1-c(0))}(2c(0) + m(1-c(0))), $$

for softmax attention with the score $\beta\langle x,y\rangle$, β ≥ 0, m twice the least weight of
an atom (0 is always allowed, which makes the rate free of n). The rate is sharp: near consensus it
is 2, and the orthogonal start attains it there.

Source: N3 in docs/theory-dynamics.md.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from measattn.checks import host_number
from measattn.dynamics.fields import directions
from measattn.dynamics.orthogonal import approach_to_one
from measattn.measure import EmpiricalMeasure, need_measure
from measattn.points import state


def least_cosine(mu: EmpiricalMeasure) -> Float[Array, ""]:
    """The least cosine of the angle between two atoms that have mass."""
    need_measure("mu", mu)
    u, _ = directions(state(mu.points))
    massive = mu.log_weights > -jnp.inf
    cosines = jnp.matmul(u, u.T, precision="highest")
    return jnp.min(jnp.where(massive[:, None] & massive[None, :], cosines, 1))


def clustering_rate(cosine: Any, beta: Any, *, least_weight: Any = 0.0) -> float:
    r"""The rate r with $1-c(t) \le (1-c(0))e^{-rt}$ for softmax attention with V = I.

    Args:
        cosine: c(0), the least inner product of two tokens, from 0 to 1.
        beta: the factor β ≥ 0 of the score.
        least_weight: the least weight of a token; 0 gives a rate for any number of tokens.

    Raises:
        ValueError: a negative c(0), for which the statement says nothing, or a negative β.

    Source: N3 in docs/theory-dynamics.md.
    """
    c, beta, m = _checked(cosine, beta, least_weight)
    return float(np.exp(-beta * (1 - c)) * (2 * c + m * (1 - c)))


def cosine_bound(cosine: Any, beta: Any, times: Any, *, least_weight: Any = 0.0) -> Any:
    r"""The lower bound of $c(t)$ that solves $\dot c = e^{-\beta(1-c)}(1-c)(2c+m(1-c))$.

    It is above the exponential bound, as the rate grows with c, and equal to the truth in the
    limit of consensus. In float64 on the host, with the solver's error of about 1e-12.

    Args:
        cosine: c(0), from 0 to 1.
        beta: the factor β ≥ 0 of the score.
        times: (k,), not negative, in increasing order; or one time.
        least_weight: the least weight of a token, or 0.

    Raises:
        ValueError: as for `clustering_rate`, or times out of order.

    Source: N3 in docs/theory-dynamics.md.
    """
    c, beta, m = _checked(cosine, beta, least_weight)
    if c == 1:
        return np.ones(np.shape(times)) if np.ndim(times) else 1.0
    return approach_to_one(lambda c: np.exp(-beta * (1 - c)) * (2 * c + m * (1 - c)), c, times)


def _checked(cosine: Any, beta: Any, least_weight: Any) -> tuple[float, float, float]:
    """The least cosine, β and m, if N3 speaks of them."""
    c, slope, least = host_number(cosine), host_number(beta), host_number(least_weight)
    if c is None or slope is None or least is None:
        raise ValueError(
            "cosine, beta and least_weight must be numbers that are known on the host, got "
            f"{cosine!r}, {beta!r} and {least_weight!r}"
        )
    beta, m = slope, 2 * least
    if not 0 <= c <= 1:
        raise ValueError(
            f"cosine must be from 0 to 1, got {c}: with a negative one tokens of a hemisphere "
            "still come together, but at a rate for which nothing is proved here"
        )
    if not (0 <= beta < np.inf and 0 <= m <= 1):
        raise ValueError(
            f"beta must be finite and at least 0, and the least of two or more weights at most "
            f"1/2, got {beta} and {m / 2}"
        )
    return c, beta, m
