r"""Sums of norms of several heads, with maps before and after them.

$$ N^{(j)}_iu = \frac{\omega_i}{\omega_j}\Psi_i\sum_hP^h_{ij}\bigl(V_hz
   + \langle g^h_{ij},z\rangle V_h(y_j-\bar y^h_i)\bigr), \qquad z = \Phi_ju, $$

and transposed for p = ∞. A step costs $O(n^2)$ products with small matrices for all problems, in
blocks of problems; blocks of the Jacobian exist for one problem at a time, when S_w is asked for.
Source: B7 of docs/theory.md; G1 and G3 of docs/theory-lipschitz.md.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from measattn.lipschitz.derivatives.parts import Parts
from measattn.lipschitz.derivatives.rows import ENTRIES, thin
from measattn.lipschitz.norms.problem import UNIT, AbstractSums

TINY = 1e-280
"""Squares below this count as 0."""


class Factors(NamedTuple):
    """One head: its value map is ``out @ into``, of as small a rank as it has."""

    p: Any  # (n, m)
    into: Any  # (r, e)
    out: Any  # (v, r)
    images: Any  # of the keys under ``into`` (m, r)
    means: Any  # of the rows (n, r)
    slopes: Any  # (n, e)
    tilts: Any  # (m, e) or None


class Arrays(NamedTuple):
    """All heads and what is around them."""

    heads: tuple[Factors, ...]
    after: Any  # (n, v, e) or None
    before: Any  # (n, e, d) or None
    own: Any  # the dense matrix of each problem (k, v, d)
    share: Any  # factors of the terms (n, k)


class Mixed(AbstractSums):
    """The families of a layer with one attention sublayer.

    Args:
        parts: the derivative.
        own: the dense matrix of each problem (n, v, d).
        share: by what the terms are multiplied, 0 where they are in ``own`` (n, n).
        transposed: whether outputs are watched (p = ∞); else atoms move.
        sizes: at least the norms of the terms and of the dense matrix (n + 1, n).
        slack: what rounding may add to them (n,).
    """

    def __init__(
        self,
        parts: Parts,
        own: NDArray,
        share: NDArray,
        transposed: bool,
        sizes: NDArray,
        slack: NDArray,
    ):
        self.sizes, self.slack, self.basis = sizes, slack, None
        self.count, self.dimension = len(own), own.shape[2]
        with jax.enable_x64(True):
            heads = []
            for h in parts.mixing:
                out, into = thin(h.value)
                images, means = h.keys @ into.T, h.means @ into.T
                found = (h.p, into, out, images, means, h.slopes, h.tilts)
                heads.append(Factors(*(_array(a) for a in found)))
            around = (_array(a) for a in (parts.after, parts.before, own, share))
            self._arrays = Arrays(tuple(heads), *around)
        self._terms = _watched if transposed else _moved
        self._inner: Any = None
        self.restarts = 4
        widest = max(own.shape[1:])
        self._width = max(1, min(self.count, ENTRIES // (self.count * widest)))

    @property
    def chunk(self) -> int:
        return 1

    def norms(self, index: NDArray, u: NDArray) -> NDArray:
        parts = [
            _norms(self._terms, self._arrays, i, v)[:, :kept]
            for i, v, kept in self._tiles(index, u)
        ]
        return np.concatenate([np.asarray(a) for a in parts], axis=1)

    def ascend(self, index: NDArray, u: NDArray, steps: int) -> tuple[NDArray, NDArray]:
        ends, values = [], []
        for i, v, kept in self._tiles(index, u):
            end, value = _ascend(self._terms, self._arrays, i, v, jnp.asarray(steps))
            ends.append(np.asarray(end)[:kept])
            values.append(np.asarray(value)[:kept])
        return np.concatenate(ends), np.concatenate(values)

    def gram(self, index: NDArray, w: NDArray) -> tuple[NDArray, NDArray]:
        if self._terms is _moved and self._arrays.heads:
            return self._gram_of_moved(index, w)
        m, d = len(w), self.dimension
        found = []
        for k, j in enumerate(index):
            matrices = self.matrices(int(j))
            scaled = (matrices * np.sqrt(_inverse(w[:, k]))[:, None, None]).reshape(-1, d)
            found.append(scaled.T @ scaled)
        gram = np.stack(found)
        rows = m * self._arrays.own.shape[1]
        return gram, 4 * UNIT * (rows + 16) * np.trace(gram, axis1=1, axis2=2)

    def _gram_of_moved(self, index: NDArray, w: NDArray) -> tuple[NDArray, NDArray]:
        """Without the blocks: what is after attention enters by its Gram matrices alone."""
        with jax.enable_x64(True):
            if self._inner is None:
                self._inner = _inner(self._arrays)
            found, spread = [], []
            for k, j in enumerate(index):
                inverse = jnp.asarray(_inverse(w[:, k]))
                out = _gram_of_moved(self._arrays, self._inner, jnp.asarray(j), inverse)
                found.append(np.asarray(out[0]))
                spread.append(float(out[1]))
        _, v, d = self._arrays.own.shape
        rank, width = self._inner.shape[-1], self._arrays.heads[0].into.shape[1]
        chain = len(w) * len(self._arrays.heads) + 2 * (v + d + rank + width) + 32
        return np.stack(found), 8 * UNIT * chain * np.array(spread)

    def squares(self, problem: int) -> NDArray:
        matrices = self.matrices(problem)
        return np.matmul(matrices.swapaxes(1, 2), matrices)

    def value(self, problem: int, u: NDArray) -> float:
        return float(self.norms(np.array([problem]), u[None]).sum())

    def matrices(self, problem: int) -> Float[NDArray, "m v d"]:
        """All terms of one problem."""
        d = self.dimension
        index = np.full(d, problem)
        columns = [
            np.asarray(_terms(self._terms, self._arrays, i, v))[:, :kept]
            for i, v, kept in self._tiles(index, np.eye(d))
        ]
        return np.concatenate(columns, axis=1).swapaxes(1, 2)

    def _tiles(self, index: NDArray, u: NDArray) -> Any:
        """Problems and directions in blocks of one length, and how many of them are asked for."""
        width = self._width
        with jax.enable_x64(True):
            for begin in range(0, len(index), width):
                some, start = index[begin : begin + width], u[begin : begin + width]
                missing = width - len(some)
                padded = np.concatenate([some, np.repeat(some[-1:], missing)])
                start = np.concatenate([start, np.repeat(start[-1:], missing, axis=0)])
                yield jnp.asarray(padded), jnp.asarray(start), len(some)


def _inverse(w: NDArray) -> NDArray:
    """1/w, and 0 where w is 0."""
    return np.divide(1, w, out=np.zeros(len(w)), where=w > 0)


def _array(a: NDArray | None) -> Any:
    return None if a is None else jnp.asarray(a)


def _moved(arrays: Arrays, j: Array, u: Float[Array, "k d"]) -> Float[Array, "m k v"]:
    """What reaches every output from atoms j that move along u."""
    z = u if arrays.before is None else jnp.einsum("ked,kd->ke", arrays.before[j], u)
    share = arrays.share[:, j]
    total = jnp.zeros(
        (*share.shape, arrays.own.shape[1] if arrays.after is None else arrays.after.shape[2]),
        u.dtype,
    )
    for h in arrays.heads:
        p = h.p[:, j] * share
        slope = jnp.matmul(h.slopes, z.T)
        if h.tilts is not None:
            slope += jnp.sum(h.tilts[j] * z, axis=1)[None, :]
        lever = h.images[j][None, :, :] - h.means[:, None, :]
        pushed = jnp.matmul(z, h.into.T)[None, :, :] + slope[:, :, None] * lever
        total += jnp.matmul(p[:, :, None] * pushed, h.out.T)
    return total if arrays.after is None else jnp.einsum("nve,nke->nkv", arrays.after, total)


def _watched(arrays: Arrays, i: Array, w: Float[Array, "k v"]) -> Float[Array, "m k d"]:
    """What outputs i, watched along w, see of every atom: transposed blocks."""
    z = w if arrays.after is None else jnp.einsum("kve,kv->ke", arrays.after[i], w)
    share = arrays.share[:, i]
    total: Any = 0.0
    for h in arrays.heads:
        p = h.p[i].T * share
        pulled = jnp.matmul(z, h.out)
        lever = jnp.matmul(h.images, pulled.T) - jnp.sum(h.means[i] * pulled, axis=1)[None, :]
        slope = jnp.broadcast_to(h.slopes[i][None, :, :], (*p.shape, h.slopes.shape[1]))
        if h.tilts is not None:
            slope = slope + h.tilts[:, None, :]
        total += p[:, :, None] * (
            jnp.matmul(pulled, h.into)[None, :, :] + lever[:, :, None] * slope
        )
    if not arrays.heads:
        return jnp.zeros((*share.shape, arrays.own.shape[1]), w.dtype)
    return total if arrays.before is None else jnp.einsum("ned,nke->nkd", arrays.before, total)


@partial(jax.jit, static_argnums=0)
def _terms(terms: Callable, arrays: Arrays, j: Array, u: Array) -> Float[Array, "m k v"]:
    own = jnp.einsum("kvd,kd->kv", arrays.own[j], u)
    return jnp.concatenate([terms(arrays, j, u), own[None]])


@partial(jax.jit, static_argnums=0)
def _norms(terms: Callable, arrays: Arrays, j: Array, u: Array) -> Float[Array, "m k"]:
    return jnp.sqrt(jnp.sum(_terms(terms, arrays, j, u) ** 2, axis=2))


@partial(jax.jit, static_argnums=0)
def _ascend(
    terms: Callable, arrays: Arrays, j: Array, u: Array, steps: Array
) -> tuple[Array, Array]:
    def total(u: Array) -> tuple[Array, Array]:
        square = jnp.sum(_terms(terms, arrays, j, u) ** 2, axis=2)
        # the root has no slope at 0
        lengths = jnp.where(square > TINY, jnp.sqrt(jnp.where(square > TINY, square, 1)), 0)
        values = jnp.sum(lengths, axis=0)
        return jnp.sum(values), values

    def step(_: Array, u: Array) -> Array:
        up, _values = jax.grad(total, has_aux=True)(u)
        size = jnp.sqrt(jnp.sum(up * up, axis=1))[:, None]
        return jnp.where(size > 0, up / jnp.where(size > 0, size, 1), u)

    u = jax.lax.fori_loop(jnp.zeros_like(steps), steps, step, u)
    return u, total(u)[1]


@jax.jit
def _inner(arrays: Arrays) -> Float[Array, "n R R"]:
    r"""$O^\top\Psi_i^\top\Psi_iO$, O the output maps of all heads side by side."""
    out = jnp.concatenate([h.out for h in arrays.heads], axis=1)
    if arrays.after is None:
        return jnp.matmul(out.T, out)[None]

    def one(after: Array) -> Array:
        through = jnp.matmul(after, out)
        return jnp.matmul(through.T, through)

    return jax.lax.map(one, arrays.after)


@jax.jit
def _gram_of_moved(
    arrays: Arrays, inner: Array, j: Array, inverse: Array
) -> tuple[Float[Array, "d d"], Array]:
    r"""S_w for atom j from $N_i = \Psi_iO(D_iT + Y_iB_i^\top)\Phi_j$, and its rounding's scale.

    D_i is diagonal, with $P^h_{ij}$ on head h; the columns of Y_i are the levers of the heads,
    those of B_i their slopes.
    """
    share = arrays.share[:, j]
    factors, levers, slopes, sizes = [], [], [], 0.0
    widths = [h.into.shape[0] for h in arrays.heads]
    for k, h in enumerate(arrays.heads):
        p = h.p[:, j] * share
        factors.append(jnp.broadcast_to(p[:, None], (len(p), widths[k])))
        lever = h.images[j][None, :] - h.means
        slope = h.slopes if h.tilts is None else h.slopes + h.tilts[j][None, :]
        before, after = sum(widths[:k]), sum(widths[k + 1 :])
        levers.append(jnp.pad(p[:, None] * lever, ((0, 0), (before, after))))
        slopes.append(slope)
        reach = jnp.sqrt(jnp.sum(h.images[j] ** 2)) + jnp.sqrt(jnp.sum(h.means**2, axis=1))
        steep = jnp.sqrt(jnp.sum(slope * slope, axis=1))
        sizes += p * (jnp.sqrt(jnp.sum(h.into**2)) + reach * steep)
    d, y, b = jnp.concatenate(factors, axis=1), jnp.stack(levers, axis=2), jnp.stack(slopes, axis=2)
    into = jnp.concatenate([h.into for h in arrays.heads])
    c = inverse[:-1]
    if inner.shape[0] == 1:
        first = inner[0] * jnp.matmul((c[:, None] * d).T, d)
        pushed = jnp.einsum("rs,nsh->nrh", inner[0], y)
    else:
        first = jnp.einsum("nr,nrs,ns->rs", c[:, None] * d, inner, d)
        pushed = jnp.matmul(inner, y)
    mixed = jnp.einsum("nrh,neh->re", (c[:, None] * d)[:, :, None] * pushed, b)
    square = jnp.einsum("nrh,nrk->nhk", y, pushed)
    last = jnp.einsum("neh,nhk,nfk->ef", c[:, None, None] * b, square, b)
    cross = jnp.matmul(into.T, mixed)
    gram = jnp.matmul(jnp.matmul(into.T, first), into) + cross + cross.T + last
    around = jnp.trace(inner, axis1=1, axis2=2)
    spread = jnp.sum(c * around * sizes**2)
    if arrays.before is not None:
        before = arrays.before[j]
        gram = jnp.matmul(jnp.matmul(before.T, gram), before)
        spread *= jnp.sum(before**2)
    own = arrays.own[j]
    gram += inverse[-1] * jnp.matmul(own.T, own)
    return 0.5 * (gram + gram.T), spread + inverse[-1] * jnp.sum(own**2)
