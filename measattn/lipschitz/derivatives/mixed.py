r"""Sums of norms of several heads, with maps before and after them.

With value maps $V_h = O_hT_h$ of small rank and $q^h_{ij} = \frac{\omega_i}{\omega_j}P^h_{ij}$,

$$ N^{(j)}_iu = \Psi_iO\,t_{ij}, \qquad
   t^h_{ij} = q^h_{ij}\bigl(T_hz + \langle g^h_{ij},z\rangle T_h(y_j-\bar y^h_i)\bigr), \qquad
   z = \Phi_ju, $$

and transposed for p = ∞. Lengths come from the small vectors t and the Gram matrix of what is after
them, one for each term: a step costs $O(n^2)$ products with a small matrix for all problems, in
blocks of problems.
Source: B7 of docs/theory.md; G1 and G3 of docs/theory-lipschitz.md.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from measattn.lipschitz.derivatives import grams
from measattn.lipschitz.derivatives.factors import Arrays, arrays, at, slopes_at
from measattn.lipschitz.derivatives.parts import Parts
from measattn.lipschitz.derivatives.rows import ENTRIES
from measattn.lipschitz.norms.problem import UNIT, AbstractSums

TINY = 1e-280
"""Squares below this count as 0."""

PROBLEMS = 16
"""Of so many problems at most S_w is formed at a time."""


class Mixed(AbstractSums):
    """The families of a layer with one attention sublayer.

    Args:
        parts: the derivative.
        own: the dense matrix of each problem (n, v, d).
        share: by what the terms are multiplied, 0 where they are in ``own`` (n, n).
        watched: whether outputs are watched (p = ∞); else atoms move.
        sizes: at least the norms of the terms and of the dense matrix (n + 1, n).
        slack: what rounding may add to them (n,).
    """

    def __init__(
        self,
        parts: Parts,
        own: NDArray,
        share: NDArray,
        watched: bool,
        sizes: NDArray,
        slack: NDArray,
    ):
        self.sizes, self.slack, self.basis = sizes, slack, None
        self.count, self.dimension = len(own), own.shape[2]
        with jax.enable_x64(True):
            self._arrays = arrays(parts, own, share, watched)
        self._terms = _watched if watched else _moved
        self.restarts = 4
        length = self._arrays.into.shape[2] if watched else self._arrays.through.shape[2]
        self._width = max(1, min(self.count, 4 * ENTRIES // (self.count * max(length, 1))))

    @property
    def chunk(self) -> int:
        return PROBLEMS

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
        a = self._arrays
        inverse = np.divide(1, w, out=np.zeros_like(w), where=w > 0)
        if self._terms is _watched and (a.metric is not None or a.tilts is not None):
            found = []
            for k, j in enumerate(index):
                scaled = self.matrices(int(j)) * np.sqrt(inverse[:, k])[:, None, None]
                scaled = scaled.reshape(-1, self.dimension)
                with jax.enable_x64(True):  # on all cores
                    found.append(np.asarray(jnp.matmul(scaled.T, scaled)))
            gram = np.stack(found)
            rows = len(w) * a.own.shape[1]
            return gram, 4 * UNIT * (rows + 16) * np.trace(gram, axis1=1, axis2=2)
        form = grams.of_watched if self._terms is _watched else grams.of_moved
        padded = filled(index, PROBLEMS)
        inverse = np.pad(inverse, ((0, 0), (0, len(padded) - len(index))), mode="edge")
        with jax.enable_x64(True):
            out = form(a, jnp.asarray(padded), jnp.asarray(inverse))
            gram, spread = (np.asarray(part)[: len(index)] for part in out)
        _, v, d = a.own.shape
        (h, r, e), s = a.into.shape, a.right.shape[1]
        chain = len(w) + 2 * (v + d + e) + 4 * h * (r + s + 1) + 32
        return gram, 8 * UNIT * chain * spread

    def squares(self, problem: int) -> NDArray:
        matrices = self.matrices(problem)
        return np.matmul(matrices.swapaxes(1, 2), matrices)

    def value(self, problem: int, u: NDArray) -> float:
        with jax.enable_x64(True):
            index, start = jnp.asarray([problem]), jnp.asarray(u)[None]
            terms = _whole(self._terms, self._arrays, index, start)
            return float(np.linalg.norm(np.asarray(terms)[:, :, 0], axis=1).sum())

    def matrices(self, problem: int) -> Float[NDArray, "m v d"]:
        """All terms of one problem."""
        d = self.dimension
        columns = [
            np.asarray(_whole(self._terms, self._arrays, i, v))[:, :, :kept]
            for i, v, kept in self._tiles(np.full(d, problem), np.eye(d))
        ]
        return np.concatenate(columns, axis=2)

    def _tiles(self, index: NDArray, u: NDArray) -> Any:
        """Problems and directions in blocks of few lengths, and how many are asked for."""
        with jax.enable_x64(True):
            for begin in range(0, len(index), self._width):
                some, start = index[begin : begin + self._width], u[begin : begin + self._width]
                padded = filled(some, self._width)
                missing = len(padded) - len(some)
                start = np.concatenate([start, np.repeat(start[-1:], missing, axis=0)])
                yield jnp.asarray(padded), jnp.asarray(start), len(some)


def filled(index: NDArray, most: int) -> NDArray:
    """Filled up with its last entry to one of few sizes, since each is compiled anew."""
    size = min(1 << (len(index) - 1).bit_length(), max(most, len(index)))
    return np.concatenate([index, np.repeat(index[-1:], size - len(index))])


def _moved(a: Arrays, j: Array, u: Float[Array, "k d"]) -> Float[Array, "n c k"]:
    """The vectors t of every output, of atoms j that move along u."""
    z = u if a.before is None else jnp.einsum("ked,kd->ke", a.before[j], u)
    q = a.p[:, :, j] * a.share[:, None, j]
    slope = jnp.matmul(a.left, jnp.matmul(a.right, z.T))
    if a.tilts is not None:
        slope += jnp.einsum("hke,ke->hk", a.tilts[:, j], z)[:, None, :]
    pushed = jnp.matmul(a.into, z.T)
    lever = jnp.swapaxes(a.images[:, j], 1, 2)[None] - a.means[:, :, :, None]
    t = pushed[None] + jnp.swapaxes(slope, 0, 1)[:, :, None, :] * lever
    return (q[:, :, None, :] * t).reshape(len(q), -1, len(u))


def _watched(a: Arrays, i: Array, w: Float[Array, "k v"]) -> Float[Array, "m e k"]:
    """What outputs i, watched along w, see of every atom, but for the maps before attention."""
    z = jnp.einsum("kvc,kv->kc", at(a.through, i), w).reshape(len(w), *a.into.shape[:2])
    q = a.p[i] * a.share.T[i][:, None, :]
    lever = jnp.einsum("hmr,khr->khm", a.images, z)
    lever = q * (lever - jnp.sum(a.means[i] * z, axis=2)[:, :, None])
    pulled, slopes = jnp.einsum("khr,hre->khe", z, a.into), slopes_at(a, i)
    levels, along = jnp.concatenate([q, lever], axis=1), jnp.concatenate([pulled, slopes], axis=1)
    terms = jnp.matmul(jnp.swapaxes(levels, 1, 2), along)
    if a.tilts is not None:
        terms += jnp.einsum("khm,hme->kme", lever, a.tilts)
    return jnp.moveaxis(terms, 0, 2)


def _measured(a: Arrays, t: Array) -> tuple[Array, Array]:
    """G t, and about |t| in the norm of G."""
    up = t if a.metric is None else jnp.matmul(a.metric, t)
    square = jnp.sum(t * up, axis=1)
    return up, jnp.where(square > TINY, jnp.sqrt(jnp.where(square > TINY, square, 1)), 0)


def _inverse(a: Array) -> Array:
    return jnp.where(a > 0, 1 / jnp.where(a > 0, a, 1), 0)


@partial(jax.jit, static_argnums=0)
def _whole(terms: Callable, a: Arrays, j: Array, u: Array) -> Float[Array, "m v k"]:
    """All terms themselves."""
    t = terms(a, j, u)
    if terms is _moved:
        t = jnp.matmul(a.through, t)
    elif a.before is not None:
        t = jnp.matmul(jnp.swapaxes(a.before, 1, 2), t)
    return jnp.concatenate([t, jnp.einsum("kvd,kd->vk", a.own[j], u)[None]])


@partial(jax.jit, static_argnums=0)
def _norms(terms: Callable, a: Arrays, j: Array, u: Array) -> Float[Array, "m k"]:
    own = jnp.einsum("kvd,kd->kv", a.own[j], u)
    lengths = _measured(a, terms(a, j, u))[1]
    return jnp.concatenate([lengths, jnp.sqrt(jnp.sum(own * own, axis=1))[None]])


@partial(jax.jit, static_argnums=0)
def _ascend(terms: Callable, a: Arrays, j: Array, u: Array, steps: Array) -> tuple[Array, Array]:
    dense = a.own[j]

    def look(u: Array) -> tuple[Array, Array]:
        """Values, and the directions in which they grow."""
        t, pull = jax.vjp(lambda u: terms(a, j, u), u)
        up, lengths = _measured(a, t)
        own = jnp.einsum("kvd,kd->kv", dense, u)
        length = jnp.sqrt(jnp.sum(own * own, axis=1))
        further = pull(up * _inverse(lengths)[:, None, :])[0]
        further += jnp.einsum("kvd,kv->kd", dense, own * _inverse(length)[:, None])
        return jnp.sum(lengths, axis=0) + length, further

    def step(_: Array, u: Array) -> Array:
        up = look(u)[1]
        size = jnp.sqrt(jnp.sum(up * up, axis=1))[:, None]
        return jnp.where(size > 0, up / jnp.where(size > 0, size, 1), u)

    u = jax.lax.fori_loop(jnp.zeros_like(steps), steps, step, u)
    return u, look(u)[0]
