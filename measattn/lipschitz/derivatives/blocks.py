r"""Upper bounds of the norms of all blocks $J_{ij}$ of a derivative, and of their rounding.

For one head a block is a multiple of $N = V + pr^\top$. With $\hat r = r/|r|$, $m = N\hat r$ and
$\alpha = |m|$, $\beta = |V^\top m - \hat r\langle\hat r, V^\top m\rangle|$,

$$ \|N\|^2 \le \lambda_{\max}\begin{pmatrix}\alpha^2 & \beta\\ \beta & \|V\|^2\end{pmatrix}, $$

because N is V on the complement of r. Heads are added, maps before and after multiply.
Source: B7 of docs/theory.md.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from measattn.lipschitz.derivatives.parts import Parts
from measattn.lipschitz.derivatives.rows import Rows
from measattn.lipschitz.norms.problem import UNIT, UP

AUTODIFF = 1e-11
"""The relative rounding assumed of Jacobians by automatic differentiation, and of dense sums."""

MANY, SMALL = 8, 96
"""So many matrices, of so many rows at most, are not worth all their eigenvalues."""

CLOSE = 1.02
"""Bounds of eigenvalues that exceed them by more are not used."""

STEPS = 16
"""Of the power method with a matrix; with its square a quarter of them does as much."""


class BlockNorms(NamedTuple):
    """At least the norms of all blocks as computed, and of what rounding may add to them.

    Attributes:
        keyed: of what reaches output i through atom j as a key (n, n).
        diagonal: of all that reaches an output from its own atom (n,).
        rounding: what rounding may add to the block (i, j) in norm (n, n).
    """

    keyed: Float[NDArray, "n n"]
    diagonal: Float[NDArray, " n"]
    rounding: Float[NDArray, "n n"]

    @property
    def norms(self) -> Float[NDArray, "n n"]:
        """Those of the blocks of the Jacobian."""
        norms = self.keyed.copy()
        np.fill_diagonal(norms, self.diagonal)
        return norms


def block_norms(parts: Parts) -> BlockNorms:
    """Upper bounds of the norms of the blocks of a derivative."""
    n = len(parts.own)
    after = np.ones(n) if parts.after is None else spectral(parts.after)
    before = np.ones(n) if parts.before is None else spectral(parts.before)
    around = after[:, None] * before[None, :]
    norms, rounding = np.zeros((n, n)), np.zeros((n, n))
    for head in parts.heads:
        size = float(np.linalg.norm(head.value))
        error = (8 * head.error + AUTODIFF) * size
        query = 2 * np.linalg.norm(head.matrix) * head.reach**2
        rounding[np.diag_indices(n)] += error * query * np.diagonal(around)
        if head.own:
            norms += head.p * _lengths(head) * around * UP
            rounding += levers(head, error, size)[:, None] * head.p * around
    own = parts.diagonal
    rounding[np.diag_indices(n)] += AUTODIFF * np.linalg.norm(own, axis=(1, 2))
    return BlockNorms(norms, spectral(own), rounding)


def spectral(matrices: NDArray) -> NDArray:
    """Spectral norms of many matrices, from above."""
    if matrices.shape[1] > matrices.shape[2]:
        matrices = matrices.swapaxes(1, 2)
    with jax.enable_x64(True):  # matrix products on all cores
        grams = np.asarray(jnp.matmul(matrices, matrices.swapaxes(1, 2)))
    squares = _highest(grams)
    rounding = 8 * UNIT * (matrices.shape[2] + 4) * np.sum(matrices**2, axis=(1, 2))
    return np.sqrt(np.maximum(squares, 0) * UP + rounding)


def _highest(grams: NDArray) -> NDArray:
    """The largest eigenvalues of positive semi-definite matrices, or a little more."""
    if len(grams) < MANY or grams.shape[1] > SMALL:
        return np.linalg.eigvalsh(grams)[:, -1]
    with jax.enable_x64(True):
        least, found = (np.array(a) for a in deflated(jnp.asarray(grams), 2))
    loose = np.flatnonzero(~(found <= least * CLOSE))
    if len(loose):
        found[loose] = np.linalg.eigvalsh(grams[loose])[:, -1]
    return found


@partial(jax.jit, static_argnames="squarings")
def deflated(
    grams: Float[Array, "k d d"], squarings: int
) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """Largest eigenvalues of positive semi-definite matrices, about and from above (G6).

    NaN for matrices that are 0.
    """
    d = grams.shape[1]
    error = 8 * UNIT * (d * d + 8)  # of products, and of sums of squares

    def one(gram: Array) -> tuple[Array, Array]:
        trace, sizes = jnp.trace(gram), []
        power = gram / trace
        for _ in range(squarings):
            sizes.append(jnp.sum(power * power))
            power = jnp.matmul(power, power)
        size = jnp.sum(power * power)
        v = power[jnp.argmax(jnp.diagonal(power))]
        for _ in range(max(1, STEPS >> 2 * squarings)):
            v = jnp.matmul(power, v / jnp.linalg.norm(v))
        v /= jnp.linalg.norm(v)
        image = jnp.matmul(power, v)
        about = jnp.vdot(v, image)
        beside = jnp.linalg.norm(image - about * v)
        rest = jnp.sqrt(jnp.maximum(size - about**2 - 2 * beside**2, 0) + error * size)
        slack = error * jnp.sqrt(size)
        half = jnp.sqrt(((about - rest) / 2) ** 2 + (beside + slack) ** 2)
        above = (about + rest) / 2 + half + slack
        for size in reversed(sizes):
            above, about = jnp.sqrt(above + error * size), jnp.sqrt(about)
        return about * trace, above * trace * UP

    return jax.lax.map(one, grams)


def levers(head: Rows, error: float, size: float) -> NDArray:
    r"""What blocks of one head may err by, over $P_{ij}$, for each row (n,).

    $$ (1+2\rho(|g_i|+f))e+2\rho f\|V\|, $$

    $|g_i|$ at least the slopes of the row and f their rounding, which is relative to their
    summands: these may be far longer than what is left of them. Source: G4.

    Args:
        head: the head.
        error: e, the error of V and of the softmax weights.
        size: at least the norm of V.
    """
    tilts = 0.0 if head.tilts is None else float(np.linalg.norm(head.tilts, axis=1).max())
    unsure = (AUTODIFF + 4 * UNIT * (head.keys.shape[1] + 8)) * (head.slope + tilts)
    slopes = (np.linalg.norm(head.slopes, axis=1) + tilts) * UP + unsure
    return error + 2 * head.reach * (slopes * error + unsure * size)


def _lengths(head: Rows) -> NDArray:
    """Upper bounds of the norms of V + p r^T, for p = V(y_j - mean_i) and r = g_ij, (n, m)."""
    tilts = np.zeros_like(head.keys) if head.tilts is None else head.tilts
    size = spectral(head.value[None])[0]
    with jax.enable_x64(True):
        return np.asarray(_lengths_of(head.value, size, head.keys, head.means, head.slopes, tilts))


@jax.jit
def _lengths_of(
    value: Array, size: Array, keys: Array, means: Array, slopes: Array, tilts: Array
) -> Float[Array, "n m"]:
    gram = jnp.matmul(value.T, value)
    r = slopes, tilts
    p = -jnp.matmul(means, value.T), jnp.matmul(keys, value.T)
    pulled = -jnp.matmul(means, gram), jnp.matmul(keys, gram)  # V^T p
    vr = jnp.matmul(slopes, value.T), jnp.matmul(tilts, value.T)
    gr = jnp.matmul(slopes, gram), jnp.matmul(tilts, gram)
    r2, p2, vr2 = _product(r, r), _product(p, p), _product(vr, vr)
    along = _product(vr, p)
    # sums of absolute values, which roundings are a part of
    reach, whole = _sizes(p) * jnp.sqrt(jnp.maximum(r2, 0)), jnp.linalg.norm(value)
    margin = 64 * UNIT * (value.shape[1] + 8) * (whole + reach) ** 2
    first = vr2 / r2 + 2 * along + r2 * p2
    inner = vr2 / r2 + along
    cross = _product(gr, gr) / r2 + 2 * _product(gr, pulled) + r2 * _product(pulled, pulled)
    alpha = jnp.maximum(first, 0) + margin
    beta2 = jnp.maximum(cross - inner**2, 0) + 4 * margin * whole**2
    # what the square of the inner product loses
    beta2 += 4 * margin * (jnp.abs(inner) + margin)
    half = (alpha - size**2) / 2
    found = jnp.sqrt((alpha + size**2) / 2 + jnp.sqrt(half**2 + beta2)) * UP
    simple = (size + reach) * UP
    # where r is 0, what was divided by it is not finite
    return jnp.where(jnp.isfinite(found), jnp.minimum(found, simple), simple)


def _product(a: tuple, b: tuple) -> Array:
    """Inner products of all sums: a_i + a'_j with b_i + b'_j."""
    rows, columns = jnp.sum(a[0] * b[0], axis=1), jnp.sum(a[1] * b[1], axis=1)
    mixed = jnp.matmul(a[0], b[1].T) + jnp.matmul(b[0], a[1].T)
    return rows[:, None] + columns[None, :] + mixed


def _sizes(a: tuple) -> Array:
    """Sums of the lengths of both summands."""
    return jnp.linalg.norm(a[0], axis=1)[:, None] + jnp.linalg.norm(a[1], axis=1)[None, :]
