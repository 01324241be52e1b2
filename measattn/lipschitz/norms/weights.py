r"""The eigenvalue certificate of a sum of norms, and better weights for it.

$$ \max_{|u|=1}\sum_t|N_tu| \le \sqrt{\textstyle\sum_t w_t\cdot\lambda_{\max}(S_w)}, \qquad
   S_w = \sum_t N_t^\top N_t/w_t . $$

The best weights are the solution of a semidefinite programme, convex in w; here they are improved
by quasi-Newton steps on their logarithms, with $\lambda_{\max}$ smoothed by less and less.
Source: G3 of docs/theory-lipschitz.md.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.optimize
from jaxtyping import Array
from numpy.typing import NDArray

from measattn.lipschitz.norms.problem import UNIT, UP, AbstractSums

FLOOR = 1e-5
"""The least weight of a term, in parts of its size."""


LARGE = 96
"""From so many rows on, one eigenvalue costs a third of all of them."""

MANY = 8
"""So many matrices are worth a call of their own."""


class Certificate(NamedTuple):
    """Upper bounds (j,), which are open, and for these the directions of their eigenvectors.

    Attributes:
        upper: the bounds.
        open: whether a bound is above what was ``enough`` (j,).
        directions: in which those that are open would be attained, one row for each.
    """

    upper: NDArray
    open: NDArray
    directions: NDArray


def floored(w: NDArray, sizes: NDArray) -> NDArray:
    """Positive weights near those given; terms that are 0 get the weight 0."""
    return np.where(sizes > 0, np.maximum(w, FLOOR * sizes), 0.0)


def certify(sums: AbstractSums, index: NDArray, w: NDArray, enough: float | int = 0) -> Certificate:
    """Upper bounds of the problems in ``index`` by the weights (m, j), positive where terms are.

    Those that are at most ``enough`` are only shown to be that, without their eigenvalues.
    """
    upper, is_open, directions = [], [], []
    for begin in range(0, len(index), sums.chunk):
        part = slice(begin, begin + sums.chunk)
        gram, rounding = sums.gram(index[part], w[:, part])
        total, slack = w[:, part].sum(axis=0), sums.slack[index[part]]
        left = np.ones(len(gram), bool)
        if enough > 0 and len(gram) >= MANY:
            with np.errstate(divide="ignore", invalid="ignore"):
                level = (np.maximum(enough / UP - slack, 0) / UP) ** 2 / total - rounding
            left = ~_below(gram, np.where(np.isfinite(level), level, 0))
        values, vectors = _eigen(gram[left])
        # LAPACK's eigenvalues err by d roundings of the norm, which is less than UP
        top = np.maximum(values, 0) * UP + rounding[left]
        found = np.full(len(gram), float(enough))
        found[left] = np.sqrt(total[left] * top) * UP + slack[left]
        upper.append(found)
        is_open.append(left)
        directions.append(vectors)
    return Certificate(np.concatenate(upper), np.concatenate(is_open), np.concatenate(directions))


def _below(matrices: NDArray, level: NDArray) -> NDArray:
    r"""Whether the largest eigenvalues are at most the levels (j,), by Cholesky's factors (G4).

    A tenth of the work of an eigenvalue. What the factorisation may have lost is taken off first:
    $\frac{\gamma}{1-\gamma}$ times the trace of what is factorised, $\gamma = (d+1)\upsilon$ up to
    second order; matrices are positive semi-definite, so that this is at most d levels.
    """
    d = matrices.shape[1]
    lowered = level * (1 - 4 * UNIT * (d + 2) * (d + 1))
    # few lengths, since each is compiled anew
    more = [(0, (1 << (len(matrices) - 1).bit_length()) - len(matrices))]
    if more[0][1]:
        matrices = np.pad(matrices, more + [(0, 0)] * 2)
    with jax.enable_x64(True):
        diagonal = np.asarray(_pivots(jnp.asarray(matrices), jnp.asarray(np.pad(lowered, more))))
    return np.isfinite(diagonal).all(axis=1)[: len(lowered)] & (lowered > 0)


@jax.jit
def _pivots(matrices: Array, level: Array) -> Array:
    """The diagonals of the factors of level - S; NaN where there is none."""
    shifted = level[:, None, None] * jnp.eye(matrices.shape[1])[None] - matrices
    factor = jax.lax.linalg.cholesky(shifted, symmetrize_input=False)
    return jnp.diagonal(factor, axis1=1, axis2=2)


def _eigen(matrices: NDArray) -> tuple[NDArray, NDArray]:
    """The largest eigenvalues (j,) of symmetric matrices and their eigenvectors (j, d)."""
    count, last = len(matrices), matrices.shape[1] - 1
    if count >= MANY and last < LARGE:
        # JAX has LAPACK work on all matrices in one call, several times faster than NumPy
        some = np.minimum(np.arange(1 << (count - 1).bit_length()), count - 1)
        with jax.enable_x64(True):
            vectors, values = jax.lax.linalg.eigh(
                jnp.asarray(matrices[some]), symmetrize_input=False
            )
            return np.asarray(values[:count, -1]), np.asarray(vectors[:count, :, -1])
    found: Any = [scipy.linalg.eigh(a, subset_by_index=[last, last]) for a in matrices]
    vectors = np.array([v[:, 0] for _, v in found]).reshape(count, last + 1)
    return np.array([values[0] for values, _ in found]), vectors


def improve(
    sums: AbstractSums, problem: int, w: NDArray, enough: float, sharpness: tuple = (30, 300, 3000)
) -> tuple[float, NDArray, NDArray]:
    r"""Lower the certificate of one problem, until it is ``enough`` or no longer falls.

    Minimises $\log\sum w_t + \log\lambda_{\max}(S_w)$ over $\log w$, where
    $\lambda_{\max}$ is replaced by $\beta^{-1}\log\mathrm{tr}\,e^{\beta S}$ on S scaled to about 1.

    Returns:
        The certificate, its weights (m,), and the direction (d,) of the largest eigenvalue.
    """
    index = np.array([problem])
    seen = np.flatnonzero(w > 0)
    best = certify(sums, index, w[:, None])
    upper, direction = float(best.upper[0]), best.directions[0]

    def spread(theta: NDArray) -> NDArray:
        out = np.zeros_like(w)
        out[seen] = np.exp(theta - theta.max())
        return out

    squares = sums.squares(problem)[seen]
    flat = squares.reshape(len(seen), -1)

    def objective(theta: NDArray, beta: float) -> tuple[float, NDArray]:
        now = np.exp(theta - theta.max())
        values, vectors = np.linalg.eigh(((1 / now) @ flat).reshape(squares.shape[1:]))
        beta = beta / values[-1]
        share = np.exp(beta * (values - values[-1]))
        smooth = values[-1] + np.log(share.sum()) / beta
        share /= share.sum()
        carried = flat @ ((vectors * share) @ vectors.T).reshape(-1)  # tr(N_t U N_t^T)
        slope = now / now.sum() - carried / now / smooth
        return float(np.log(now.sum()) + np.log(smooth)), slope

    theta = np.log(w[seen])
    for beta in sharpness:
        found = scipy.optimize.minimize(
            objective, theta, (float(beta),), "L-BFGS-B", jac=True, options={"maxiter": 20}
        )
        theta = found.x
        tried = certify(sums, index, spread(theta)[:, None])
        if tried.upper[0] < upper:
            upper, direction, w = float(tried.upper[0]), tried.directions[0], spread(theta)
        if upper <= enough:
            break
    return upper, w, direction
