r"""The matrices $S_w = \sum_tN_t^\top N_t/w_t$ of several heads, for many problems at once.

With $g^h_{ij} = R_h^\top l^h_i$ and $\lambda^h_{ij} = T_h(y_j-\bar y^h_i)$ a term is
$N_i = \Psi_iO\,C_{ij}B\,\Phi_j$: B has the rows of all $T_h$ and $R_h$, and
$C_{ij} = \mathrm{diag}_h\,q^h_{ij}\,(I\mid\lambda^h_{ij}(l^h_i)^\top)$. So

$$ S_w = \Phi_j^\top B^\top\Bigl(\sum_iC_{ij}^\top G_iC_{ij}/w_i\Bigr)B\,\Phi_j, $$

whose inner matrix is a sum of matrix products over tokens: blocks of the Jacobian are never formed.
Watched outputs have $\Psi_iO\bigl(\sum_jC_{ij}BB^\top C_{ij}^\top/w_j\bigr)O^\top\Psi_i^\top$.
Source: B7 of docs/theory.md; G3 of docs/theory-lipschitz.md.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from measattn.lipschitz.derivatives.factors import Arrays, at, slopes_at
from measattn.lipschitz.derivatives.rows import ENTRIES


@jax.jit
def of_moved(
    a: Arrays, j: Array, inverse: Float[Array, "m k"]
) -> tuple[Float[Array, "k d d"], Float[Array, " k"]]:
    """S_w of atoms j that move, and sums of absolute values that its rounding is a part of.

    Args:
        a: the arrays.
        j: numbers of the atoms.
        inverse: $1/w$ of all terms, that of the dense matrix last.
    """
    n, h, _ = a.p.shape
    r, k = a.into.shape[1], len(j)
    c, left, right = inverse[:-1], jnp.swapaxes(a.left, 0, 1), a.right[None]
    if a.tilts is not None:  # one more coordinate, in which every query has 1
        left = jnp.pad(left, ((0, 0), (0, 0), (0, 1)), constant_values=1)
        tilts = jnp.swapaxes(a.tilts[:, j], 0, 1)[:, :, None, :]
        right = jnp.concatenate([jnp.broadcast_to(right, (k, *a.right.shape)), tilts], axis=2)
    s = left.shape[2]
    q = jnp.swapaxes(a.p[:, :, j] * a.share[:, None, j], 1, 2)
    images = a.images[:, j]
    some = max(1, min(n, ENTRIES // max(k * h * h * r, 1)))
    missing = -n % some

    def tiles(b: Array) -> Array:
        return jnp.pad(b, ((0, missing), *[(0, 0)] * (b.ndim - 1))).reshape(-1, some, *b.shape[1:])

    metric: Any = a.metric
    per_token = tiles(metric) if len(metric) > 1 else None

    def add(total: tuple, tile: tuple) -> tuple[tuple, None]:
        gram, q, c, means, left = tile
        gram = jnp.broadcast_to(metric, (some, *metric.shape[1:])) if gram is None else gram
        gram = gram.reshape(some, h, r, h, r)
        pairs = c[:, :, None, None] * q[:, :, :, None] * q[:, :, None, :]  # (b, k, h, g)
        first = jnp.einsum("bkhg,bhrgs->hgkrs", pairs, gram)
        pushed = jnp.einsum("bhrgs,gks->gbhrk", gram, images)
        pushed -= jnp.moveaxis(jnp.einsum("bhrgs,bgs->bhrg", gram, means), 3, 0)[..., None]
        pushed *= pairs.transpose(3, 0, 2, 1)[:, :, :, None, :]  # (g, b, h, r, k)
        mixed = jnp.einsum("gbhrk,bgs->ghrks", pushed, left)
        lever = images.transpose(0, 2, 1)[None] - means[:, :, :, None]  # (b, h, r, k)
        square = jnp.sum(pushed * lever[None], axis=3)
        last = square[..., None] * left.transpose(1, 0, 2)[:, :, None, None, :]  # (g, b, h, k, t)
        last = jnp.einsum("bhs,gbhkt->hsgkt", left, last)
        found = first, mixed, last
        return tuple(x + y for x, y in zip(total, found, strict=True)), None

    shapes = (h, h, k, r, r), (h, h, r, k, s), (h, s, h, k, s)
    zero = tuple(jnp.zeros(shape, q.dtype) for shape in shapes)
    given = (per_token, *(tiles(b) for b in (q, c, a.means, left)))
    first, mixed, last = jax.lax.scan(add, zero, given)[0]
    first = first.transpose(2, 0, 3, 1, 4).reshape(k, h * r, h * r)
    mixed = mixed.transpose(3, 1, 2, 0, 4).reshape(k, h * r, h * s)
    last = last.transpose(3, 0, 1, 2, 4).reshape(k, h * s, h * s)
    across = jnp.concatenate([mixed, last], axis=1)
    down = jnp.concatenate([first, jnp.swapaxes(mixed, 1, 2)], axis=1)
    inner = jnp.concatenate([down, across], axis=2)
    into = jnp.broadcast_to(a.into.reshape(1, h * r, -1), (len(right), h * r, a.into.shape[2]))
    basis = jnp.concatenate([into, right.reshape(len(right), h * s, -1)], axis=1)
    found = jnp.matmul(jnp.swapaxes(basis, 1, 2), jnp.matmul(inner, basis))
    # lengths of both summands of each lever and slope: what is added is at most their product
    reach = _length(images, 2).T[None] + _length(a.means, 2)[:, None, :]
    steep = _length(left, 2)[:, None, :] * _length(right, (2, 3))[None]
    sizes = jnp.sum(q * (_length(a.into, (1, 2))[None, None, :] + reach * steep), axis=2)
    spread = jnp.sum(c * jnp.trace(metric, axis1=1, axis2=2)[:, None] * sizes**2, axis=0)
    if a.before is not None:
        before = a.before[j]
        found = jnp.matmul(jnp.swapaxes(before, 1, 2), jnp.matmul(found, before))
        spread *= jnp.sum(before**2, axis=(1, 2))
    return _with_own(a, j, inverse[-1], found, spread)


@jax.jit
def of_watched(
    a: Arrays, i: Array, inverse: Float[Array, "m k"]
) -> tuple[Float[Array, "k v v"], Float[Array, " k"]]:
    """The same of outputs i that are watched, for heads without tilts and nothing before them."""
    (h, r, _), k = a.into.shape, len(i)
    c, slopes = inverse[:-1].T, slopes_at(a, i)
    q = a.p[i] * a.share.T[i][:, None, :]
    lever = a.images[None] - a.means[i][:, :, None, :]
    lever = jnp.pad(lever, ((0, 0), (0, 0), (0, 0), (1, 0)), constant_values=1)
    rows = ((jnp.sqrt(c)[:, None, :] * q)[..., None] * lever).transpose(0, 1, 3, 2)
    rows = rows.reshape(k, h * (r + 1), -1)
    moments = jnp.matmul(rows, jnp.swapaxes(rows, 1, 2)).reshape(k, h, r + 1, h, r + 1)
    met = jnp.einsum("hre,gse->hrgs", a.into, a.into)
    across = jnp.einsum("hre,kge->khrg", a.into, slopes)
    along = jnp.einsum("khe,kge->khg", slopes, slopes)
    inner = (
        met[None] * moments[:, :, :1, :, :1] + along[:, :, None, :, None] * moments[:, :, 1:, :, 1:]
    )
    inner = inner.reshape(k, h * r, h * r)
    mixed = (across[..., None] * moments[:, :, :1, :, 1:]).reshape(k, h * r, h * r)
    inner = inner + mixed + jnp.swapaxes(mixed, 1, 2)
    through = at(a.through, i)
    found = jnp.matmul(jnp.matmul(through, inner), jnp.swapaxes(through, 1, 2))
    reach = _length(a.images, 2)[None] + _length(a.means[i], 2)[:, :, None]
    steep = _length(slopes, 2) + _length(a.left[:, i], 2).T * _length(a.right, (1, 2))[None]
    sizes = jnp.sum(
        q * (_length(a.into, (1, 2))[None, :, None] + reach * steep[:, :, None]), axis=1
    )
    spread = jnp.sum(through**2, axis=(1, 2)) * jnp.sum(c * sizes**2, axis=1)
    return _with_own(a, i, inverse[-1], found, spread)


def _with_own(a: Arrays, j: Array, inverse: Array, gram: Array, spread: Array) -> tuple:
    """With the dense matrices added, and symmetric."""
    own = a.own[j]
    gram += inverse[:, None, None] * jnp.matmul(jnp.swapaxes(own, 1, 2), own)
    gram = 0.5 * (gram + jnp.swapaxes(gram, 1, 2))
    return gram, spread + inverse * jnp.sum(own**2, axis=(1, 2))


def _length(a: Array, axis: int | tuple[int, ...]) -> Array:
    return jnp.sqrt(jnp.sum(a * a, axis=axis))
