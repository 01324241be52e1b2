r"""One head at the atoms of a measure: its softmax rows and what its derivative is made of.

With the query's slope $g_{ij} = \nabla_y a(x_i, y_j) = a_i + e_j$ ($a_i = Ax_i + c$, $e_j = 0$ for
a bilinear score; $a_i = x_i/\sigma^2$, $e_j = -y_j/\sigma^2$ for a Gaussian one) the derivative of
$f_i = V\bar y_i$ is

$$ \frac{\partial f_i}{\partial y_j} = P_{ij}V\bigl(I + (y_j-\bar y_i)g_{ij}^\top\bigr), \qquad
   D_i = \frac{\partial f_i}{\partial x_i} = V\,\mathrm{Cov}_{P_i}(y)\,A. $$

All points are measured from the mean of the keys, so that differences keep their digits.
Source: B7 of docs/theory.md.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float
from numpy.typing import NDArray

from measattn.lipschitz.forms import Dot, Head
from measattn.lipschitz.norms.problem import UNIT
from measattn.points import need_token, state

ENTRIES = 2**22
"""How many numbers an intermediate array may have (32 MB)."""

CACHE = 2**18
"""How many numbers are written and at once read again: they stay in the cache (2 MB)."""


class Rows(NamedTuple):
    """One head at n queries and m keys.

    Attributes:
        p: softmax weights (n, m), those of the keys included; rows sum to 1.
        normaliser: logarithms of their denominators (n,), for keys measured from ``centre``.
        centre: the mean of the keys (d,).
        keys: from the centre (m, d).
        means: $\\bar y_i$ from the centre (n, d).
        slopes: $a_i$ (n, d).
        tilts: $e_j$ (m, d), None for a bilinear score.
        value: V (v, d).
        matrix: A (d, d), with which queries meet keys.
        own: whether the keys are the atoms themselves, so that their moves matter.
        error: a bound of the relative rounding errors of p.
        slope: a bound of the length of the summands of any $a_i$, relative to which it is rounded.
    """

    p: NDArray
    normaliser: NDArray
    centre: NDArray
    keys: NDArray
    means: NDArray
    slopes: NDArray
    tilts: NDArray | None
    value: NDArray
    matrix: NDArray
    own: bool
    error: float
    slope: float

    @property
    def reach(self) -> float:
        """The largest distance of a key from the centre."""
        return float(np.linalg.norm(self.keys, axis=1).max())


def rows(head: Head, points: Any, weights: NDArray) -> Rows:
    """The softmax rows of one head at the atoms of a measure.

    Args:
        head: the head.
        points: arrays (n, d), or tokens, in float64.
        weights: of the atoms (n,).

    Raises:
        ValueError: an atom sees no key, or positions are needed and missing.
    """
    x = np.asarray(state(points), np.float64)
    keys, mass = (x, weights) if head.memory is None else head.memory
    centre = mass @ keys
    keys = keys - centre
    reach = np.linalg.norm(keys, axis=1).max()
    if isinstance(head.score, Dot):
        matrix, tilts = head.score.matrix, None
        slopes = x @ matrix.T + head.score.shift
        slope = np.linalg.norm(matrix) * np.linalg.norm(x, axis=1).max()
        slope += np.linalg.norm(head.score.shift)
        bias = np.zeros(len(keys))
    else:
        precision = 1 / head.score.sigma**2
        matrix, tilts = precision * np.eye(x.shape[1]), -precision * keys
        slopes = precision * (x - centre)
        slope = precision * np.linalg.norm(x - centre, axis=1).max()
        bias = -precision * np.sum(keys * keys, axis=1) / 2
    with np.errstate(divide="ignore"):
        log_mass = np.log(mass)
    # an inner product of d summands and the exponential of what it is
    logits = 2 * slope * reach + np.abs(bias).max() + np.abs(log_mass[mass > 0]).max()
    error = 4 * UNIT * ((x.shape[1] + 8) * logits + len(keys) + 16)
    with jax.enable_x64(True):
        allowed = _allowed(head, points)
        p, normaliser, means = _softmax(
            jnp.asarray(slopes), jnp.asarray(keys), jnp.asarray(bias + log_mass), allowed
        )
    p = np.asarray(p)
    bad = np.flatnonzero(~np.isfinite(np.asarray(normaliser)))
    if len(bad):
        raise ValueError(
            f"mu and the mask must leave every atom a key of positive weight, and scores must be "
            f"finite, but at atom {bad[0]} (of those with mass) they do not: drop that atom, widen "
            "the mask, or scale the scores"
        )
    return Rows(
        p,
        np.asarray(normaliser),
        centre,
        keys,
        np.asarray(means),
        slopes,
        tilts,
        head.value,
        matrix,
        head.memory is None,
        float(error),
        float(slope),
    )


def thin(matrix: NDArray) -> tuple[NDArray, NDArray]:
    """Factors B, C with BC the matrix, and as few columns of B as it has rank in float64."""
    # QR with pivots tells the rank ten times faster than singular values
    found: Any = scipy.linalg.qr(matrix, mode="economic", pivoting=True)
    left, right, order = found
    sizes = np.abs(np.diagonal(right))
    rank = max(int(np.sum(sizes > 1e-14 * sizes[0])), 1)
    if rank == matrix.shape[0]:
        return np.eye(rank), matrix
    if rank == matrix.shape[1]:
        return matrix, np.eye(rank)
    factor = np.empty_like(right[:rank])
    factor[:, order] = right[:rank]
    return left[:, :rank], factor


def as_queries(heads: tuple[Rows, ...]) -> Float[Array, "n v d"]:
    r"""$D_i = \sum_hV_h\,\mathrm{Cov}_{P^h_i}(y)\,A_h$ of all queries."""
    outs, found = [], []
    with jax.enable_x64(True):
        for head in heads:
            out, into = thin(head.value)
            left, right = thin(head.matrix)
            if right.shape[0] == right.shape[1]:  # nothing is gained by factors
                left, right = head.matrix, None
            outs.append(out)
            found.append(_covariances(head.p, head.keys @ into.T, head.keys @ left, right))
        if len(heads) == 1 and len(into) == len(out):  # then ``out`` is the identity
            return found[0]
        return jnp.matmul(np.concatenate(outs, axis=1), jnp.concatenate(found, axis=1))


def as_keys(heads: tuple[Rows, ...]) -> Float[Array, "n v d"]:
    r"""$\sum_hP^h_{jj}V_h(I + (y_j-\bar y_j)g_{jj}^\top)$, what reaches atoms from themselves."""
    p = np.stack([np.diagonal(head.p) for head in heads], axis=1)
    values = np.stack([head.value for head in heads])
    moved = np.stack([(head.keys - head.means) @ head.value.T for head in heads], axis=2)
    slopes = [h.slopes if h.tilts is None else h.slopes + h.tilts for h in heads]
    with jax.enable_x64(True):
        levers = jnp.matmul(moved * p[:, None, :], jnp.asarray(np.stack(slopes, axis=1)))
        return jnp.tensordot(jnp.asarray(p), jnp.asarray(values), 1) + levers


def _allowed(head: Head, points: Any) -> Array | None:
    """Which queries see which keys (n, m); None if all do."""
    if not head.masked:
        return None
    seen = None
    if head.causal:
        need_token(points, "a causal mask")
        seen = points.position[None, :] <= points.position[:, None]
    if head.allowed is not None:
        allowed = head.allowed
        other = jax.vmap(lambda x: jax.vmap(lambda y: allowed(x, y))(points))(points)
        seen = other if seen is None else seen & other
    return seen


@jax.jit
def _softmax(
    slopes: Float[Array, "n d"], keys: Float[Array, "m d"], bias: Float[Array, " m"], allowed: Any
) -> tuple[Array, Array, Array]:
    logits = jnp.matmul(slopes, keys.T) + bias[None, :]
    if allowed is not None:
        logits = jnp.where(allowed, logits, -jnp.inf)
    top = jnp.max(logits, axis=1)
    mass = jnp.exp(logits - top[:, None])
    total = jnp.sum(mass, axis=1)
    p = mass / total[:, None]
    return p, top + jnp.log(total), jnp.matmul(p, keys)


@jax.jit
def _covariances(
    p: Float[Array, "n m"],
    a: Float[Array, "m r"],
    b: Float[Array, "m s"],
    right: Float[Array, "s d"] | None,
) -> Float[Array, "n r d"]:
    """Covariances of a and b in each row, times a matrix; a few rows at a time."""
    (n, m), r = p.shape, a.shape[1]
    means = jnp.matmul(p, a), jnp.matmul(p, b)

    def some(tile: tuple[Array, Array, Array]) -> Array:
        p, a_means, b_means = tile
        left = (p[:, None, :] * a.T[None]).reshape(-1, m)
        found = jnp.matmul(left, b).reshape(len(p), r, -1)
        found -= a_means[:, :, None] * b_means[:, None, :]
        return found if right is None else jnp.matmul(found, right)

    return mapped(some, (p, *means), max(1, min(n, CACHE // (r * m))))


def mapped(some: Any, arrays: tuple[Array, ...], width: int) -> Array:
    """A function of a few rows of arrays at a time, which are filled up with zeros."""
    n = len(arrays[0])
    tiles = (jnp.pad(a, ((0, -n % width), (0, 0))).reshape(-1, width, a.shape[1]) for a in arrays)
    out = jax.lax.map(some, tuple(tiles))
    return out.reshape(-1, *out.shape[2:])[:n]
