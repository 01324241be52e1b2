r"""Sums of norms of one head, whose terms are a fixed matrix and one of rank one.

$$ N^{(j)}_t = q_{tj}\bigl(L + p_{tj}r_{tj}^\top\bigr), \qquad p_{tj} = p_t + p'_j, \quad
   r_{tj} = r_t + r'_j, $$

and one dense matrix $K_j$ for each problem. With $s = \langle r, u\rangle$ and $\alpha = Lu$,
$|N u|^2 = q^2(|\alpha|^2 + 2s\langle\alpha, p\rangle + s^2|p|^2)$: all norms, their gradients and
the matrices $S_w$ are matrix products, $O(n^2d)$ a step for all problems at once.
Source: B7 of docs/theory.md; G1 and G3 of docs/theory-lipschitz.md.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from measattn.lipschitz.derivatives.rows import CACHE, ENTRIES, mapped
from measattn.lipschitz.norms.problem import UNIT, AbstractSums

TINY = 1e-280
"""Squares below this count as 0."""

FEWEST = 64
"""Families of up to so many problems are always worked on as a whole."""

FEW = 8
"""A few problems are filled up to so many, whatever the family."""


class Terms(NamedTuple):
    """The arrays of a family: m terms, k problems."""

    q: Any  # (m, k), at least 0
    matrix: Any  # L, (v, d)
    p: Any  # p_t, (m, v)
    p_own: Any  # p'_j, (k, v)
    r: Any  # r_t, (m, d)
    r_own: Any  # r'_j, (k, d)
    dense: Any  # K_j, (k, v, d)


class RankOne(AbstractSums):
    """The family of one head.

    Args:
        terms: its arrays.
        sizes: at least the norms of the terms and of K (m + 1, k).
        slack: what their rounding may add to each maximum (k,).
        basis: the directions of the whole space that u has coordinates in (d', d); None for all.
    """

    def __init__(self, terms: Terms, sizes: NDArray, slack: NDArray, basis: NDArray | None = None):
        self.terms, self.sizes, self.slack, self.basis = terms, sizes, slack, basis
        self.count, self.dimension = terms.q.shape[1], terms.matrix.shape[1]
        with jax.enable_x64(True):
            self._arrays = Terms(*(jnp.asarray(a) for a in terms))

    @property
    def chunk(self) -> int:
        return max(1, ENTRIES // self.dimension**2)

    def norms(self, index: NDArray, u: NDArray) -> NDArray:
        padded, start = self._padded(index, u)
        with jax.enable_x64(True):
            return np.asarray(_norms(self._arrays, padded, start))[:, : len(index)]

    def ascend(self, index: NDArray, u: NDArray, steps: int) -> tuple[NDArray, NDArray]:
        padded, start = self._padded(index, u)
        with jax.enable_x64(True):
            out = _ascend(self._arrays, padded, start, jnp.asarray(steps))
            u, values = (np.asarray(a)[: len(index)] for a in out)
        return u, values

    def gram(self, index: NDArray, w: NDArray) -> tuple[NDArray, NDArray]:
        padded, w = self._padded(index, w.T)
        with jax.enable_x64(True):
            out, spread = _gram(self._arrays, padded, jnp.asarray(w.T))
            out, spread = (np.asarray(a)[: len(index)] for a in (out, spread))
        m, (v, d) = len(self.terms.q) + 1, self.terms.matrix.shape
        return out, 4 * UNIT * (m + 2 * v + 2 * d + 16) * spread

    def squares(self, problem: int) -> NDArray:
        t = self.terms
        q, r, p = t.q[:, problem], t.r + t.r_own[problem], t.p + t.p_own[problem]
        dense = t.dense[problem]
        with jax.enable_x64(True):
            return np.asarray(_squares_of_terms(q, t.matrix, p, r, dense))

    def value(self, problem: int, u: NDArray) -> float:
        t = self.terms
        slopes = (t.r + t.r_own[problem]) @ u
        moved = t.matrix @ u + slopes[:, None] * (t.p + t.p_own[problem])
        lengths = t.q[:, problem] * np.linalg.norm(moved, axis=1)
        return float(lengths.sum() + np.linalg.norm(t.dense[problem] @ u))

    def _padded(self, index: NDArray, rows: NDArray) -> tuple[NDArray, NDArray]:
        """Filled up with their last entries to one of few lengths, since each is compiled anew."""
        size = min(max(1 << (len(index) - 1).bit_length(), FEWEST), self.count)
        size = FEW if len(index) <= FEW else size
        some = np.minimum(np.arange(max(size, len(index))), len(index) - 1)
        return index[some], rows[some]


def _of(t: Terms, index: Array) -> Terms:
    """Those problems."""
    return Terms(t.q[:, index], t.matrix, t.p, t.p_own[index], t.r, t.r_own[index], t.dense[index])


def _squares(a: Float[Array, "m e"], b: Float[Array, "k e"]) -> Float[Array, "m k"]:
    """Squared lengths of all sums a + b."""
    own, other = jnp.sum(a * a, axis=1), jnp.sum(b * b, axis=1)
    return jnp.maximum(own[:, None] + other[None, :] + 2 * jnp.matmul(a, b.T), 0)


def _pushed(t: Terms, u: Array, p2: Array) -> tuple[Array, ...]:
    """alpha, s, <alpha, p>, |alpha + s p|^2 and K u."""
    alpha = jnp.matmul(u, t.matrix.T)
    s = jnp.matmul(t.r, u.T) + jnp.sum(t.r_own * u, axis=1)[None, :]
    along = jnp.matmul(t.p, alpha.T) + jnp.sum(t.p_own * alpha, axis=1)[None, :]
    length = jnp.sum(alpha * alpha, axis=1)
    square = jnp.maximum(length[None, :] + s * (2 * along + s * p2), 0)
    return alpha, s, along, square, jnp.einsum("kvd,kd->kv", t.dense, u)


@jax.jit
def _norms(t: Terms, index: Array, u: Float[Array, "k d"]) -> Float[Array, "m k"]:
    t = _of(t, index)
    _, _, _, square, own = _pushed(t, u, _squares(t.p, t.p_own))
    return jnp.concatenate([t.q * jnp.sqrt(square), jnp.sqrt(jnp.sum(own * own, axis=1))[None]])


@jax.jit
def _ascend(t: Terms, index: Array, u: Float[Array, "k d"], steps: Array) -> tuple[Array, Array]:
    t = _of(t, index)
    p2 = _squares(t.p, t.p_own)

    def look(u: Array) -> tuple[Array, Array]:
        alpha, s, along, square, own = _pushed(t, u, p2)
        root = jnp.sqrt(square)
        c = jnp.where(square > TINY, t.q / jnp.where(square > TINY, root, 1), 0)
        cs = c * s
        e = c * (along + s * p2)
        pulled = jnp.sum(c, axis=0)[:, None] * alpha + jnp.matmul(cs.T, t.p)
        pulled += jnp.sum(cs, axis=0)[:, None] * t.p_own
        up = jnp.matmul(pulled, t.matrix) + jnp.matmul(e.T, t.r)
        up += jnp.sum(e, axis=0)[:, None] * t.r_own
        length = jnp.sqrt(jnp.sum(own * own, axis=1))
        own = own / jnp.where(length > 0, length, 1)[:, None]
        up += jnp.einsum("kvd,kv->kd", t.dense, own)
        return jnp.sum(t.q * root, axis=0) + length, up

    def step(_: Array, u: Array) -> Array:
        _, up = look(u)
        size = jnp.sqrt(jnp.sum(up * up, axis=1))[:, None]
        return jnp.where(size > 0, up / jnp.where(size > 0, size, 1), u)

    u = jax.lax.fori_loop(jnp.zeros_like(steps), steps, step, u)
    return u, look(u)[0]


@jax.jit
def _gram(t: Terms, index: Array, w: Float[Array, "m k"]) -> tuple[Array, Array]:
    """S_w of the terms and of K, and the sums of absolute values that its rounding is a part of."""
    t = _of(t, index)
    d, k = t.matrix.shape[1], t.q.shape[1]
    inner, last = w[:-1], w[-1]
    c = jnp.where(inner > 0, t.q / jnp.where(inner > 0, inner, 1), 0) * t.q
    p2 = _squares(t.p, t.p_own)
    h = c * p2
    pulled, pulled_own = jnp.matmul(t.p, t.matrix), jnp.matmul(t.p_own, t.matrix)

    def some(weights: tuple[Array, Array]) -> Array:
        """Half of the sums over terms, of a few problems: made symmetric below."""
        c, h = (a[:, None, :] for a in weights)
        left = c * pulled.T[None] + 0.5 * h * t.r.T[None]
        return jnp.matmul(left.reshape(-1, left.shape[2]), t.r).reshape(-1, d, d)

    total = mapped(some, (c.T, h.T), max(1, min(k, CACHE // (d * len(t.p)))))
    sum_c, sum_h = jnp.sum(c, axis=0), jnp.sum(h, axis=0)
    cp, cr, hr = jnp.matmul(c.T, pulled), jnp.matmul(c.T, t.r), jnp.matmul(h.T, t.r)

    def outer(a: Array, b: Array) -> Array:
        return a[:, :, None] * b[:, None, :]

    total += outer(cp + sum_c[:, None] * pulled_own + hr, t.r_own) + outer(pulled_own, cr)
    total += outer(0.5 * sum_h[:, None] * t.r_own, t.r_own)
    total = total + jnp.swapaxes(total, 1, 2)
    total += sum_c[:, None, None] * jnp.matmul(t.matrix.T, t.matrix)[None]
    scale = jnp.where(last > 0, 1 / jnp.where(last > 0, last, 1), 0)
    total += scale[:, None, None] * jnp.einsum("kvd,kve->kde", t.dense, t.dense)
    lengths = [jnp.sqrt(jnp.sum(a * a, axis=1)) for a in (t.p, t.p_own, t.r, t.r_own)]
    p, r = lengths[0][:, None] + lengths[1][None, :], lengths[2][:, None] + lengths[3][None, :]
    size = jnp.sqrt(jnp.sum(t.matrix**2))
    spread = jnp.sum(c * (size + p * r) ** 2, axis=0)
    return total, spread + scale * jnp.sum(t.dense**2, axis=(1, 2))


@jax.jit
def _squares_of_terms(q: Array, matrix: Array, p: Array, r: Array, dense: Array) -> Array:
    mixed = jnp.matmul(p, matrix)[:, :, None] * r[:, None, :]
    square = jnp.sum(p * p, axis=1)[:, None, None] * r[:, :, None] * r[:, None, :]
    whole = jnp.matmul(matrix.T, matrix)[None] + mixed + jnp.swapaxes(mixed, 1, 2) + square
    return jnp.concatenate([(q * q)[:, None, None] * whole, jnp.matmul(dense.T, dense)[None]])
