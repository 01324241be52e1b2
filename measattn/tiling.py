r"""The streamed softmax under every attention of this library.

For logits $\ell_{ij} = a(x_i, y_j) + \log\omega_j$ the engine returns, for each query $x_i$,

$$ o_i = \sum_j p_{ij} v_j, \qquad \log Z_i = \log\sum_j e^{\ell_{ij}}, \qquad
   p_{ij} = e^{\ell_{ij}} / Z_i , $$

going through blocks of queries and blocks of keys with a running maximum, so that no array of size
$n \times m$ exists: memory is $O((n + m)\,d)$ and one tile. Forward- and reverse-mode derivatives
stream in the same way. For tangents $\dot\ell, \dot v$

$$ \dot o_i = \sum_j p_{ij} \dot v_j + \sum_j p_{ij} (\dot\ell_{ij} - c_i)(v_j - o_i), \qquad
   \frac{d}{dt}\log Z_i = c_i + \sum_j p_{ij} (\dot\ell_{ij} - c_i) $$

hold for any constants $c_i$. We take $c_i = \dot\ell_{i j^*(i)}$ at the row's largest logit: then
the term that dominates the row vanishes exactly, and what the tail contributes is not lost to
cancellation (with $p_{i j^*} = 1$ in floating point, a textbook softmax returns 0 there).

Source: the running softmax is Milakov & Gimelshein, arXiv 1805.02867; the tiling over queries and
keys Rabe & Staats, arXiv 2112.05682. The centred derivative is derived in docs/theory.md, S1.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

Score = Callable[[PyTree, PyTree], Float[Array, "n m"]]

# Rows and columns of a tile. On a CPU a tile of logits (2 MB in float32) stays in cache; an
# accelerator has thousands of lanes to feed and a larger tile is still small beside its memory.
TILES = {"cpu": (1024, 512)}
LARGE_TILE = (4096, 2048)


class _Softmax(NamedTuple):
    """Mean value, and the normaliser as exp(shift + log_sum) with the row's maximum as shift."""

    mean: Float[Array, "n v"]
    shift: Float[Array, " n"]
    log_sum: Float[Array, " n"]
    largest: Int[Array, " n"]  # the key with the row's largest logit


class _Scores(NamedTuple):
    """The score as functions of explicit parameters: of a tile, and of one pair of points."""

    tile: Callable[[PyTree, PyTree, PyTree], Array]
    pair: Callable[[PyTree, PyTree, PyTree], Array]


def softmax_mean(
    score: Score,
    queries: PyTree,
    keys: PyTree,
    log_weights: Float[Array, " m"],
    values: Float[Array, "m v"],
) -> tuple[Float[Array, "n v"], Float[Array, " n"]]:
    r"""The means $o_i$ and the log-normalisers $\log Z_i$ of the module's formula.

    Args:
        score: $a$ on blocks of points, ``score(x_block, y_block) -> (rows, columns)``. Arrays in it
            or closed over by it can be differentiated; a value of -inf forbids the pair.
        queries: points $x_i$, a pytree of float arrays with leading axis n.
        keys: points $y_j$, a pytree of float arrays with leading axis m.
        log_weights: $\log\omega_j$; -inf is an atom without mass.
        values: $v_j$; with v = 0 columns only the normaliser is computed.

    Returns:
        the means (n, v) and the log-normalisers (n,). A row whose logits are all -inf has mean 0,
        log-normaliser -inf and derivative 0; whoever calls decides whether that is an error.
    """
    n, m = _length(queries), _length(keys)
    rows, columns = _tile_sizes(n, m)
    scores, parameters = _explicit(
        score, _head(queries, rows), _head(keys, columns), log_weights.dtype
    )
    values = values.astype(log_weights.dtype)
    out = _softmax((scores, rows, columns), parameters, queries, keys, log_weights, values)
    return out.mean, out.shift + out.log_sum


def _explicit(score: Score, x: PyTree, y: PyTree, dtype: Any) -> tuple[_Scores, PyTree]:
    """Make every array that the score depends on an argument, its closure included.

    The rule for derivatives sees only arguments, while a user's potential may close over arrays
    that are being differentiated, or traced.
    """

    def block(x: PyTree, y: PyTree) -> Array:
        return jnp.asarray(score(x, y)).astype(dtype)

    def pair(x: PyTree, y: PyTree) -> Array:
        one = jax.tree.map(lambda a: a[None], (x, y))
        return block(*one)[0, 0]

    first = jax.tree.map(lambda a: a[0], (x, y))
    of_tile = eqx.filter_closure_convert(block, x, y)
    of_pair = eqx.filter_closure_convert(pair, *first)
    arrays, static = eqx.partition((of_tile, of_pair), eqx.is_array)
    scores = _Scores(
        tile=lambda p, x, y: eqx.combine(p[0], static[0])(x, y),
        pair=lambda p, x, y: eqx.combine(p[1], static[1])(x, y),
    )
    return scores, arrays


def _forward(
    static: tuple[_Scores, int, int],
    parameters: PyTree,
    queries: PyTree,
    keys: PyTree,
    log_weights: Array,
    values: Array,
) -> _Softmax:
    scores, rows, columns = static
    m, dtype = _length(keys), log_weights.dtype
    tiles = _key_tiles(columns, keys, log_weights, values)
    offsets = jnp.arange(0, m, columns, dtype=jnp.int32)

    def row_block(x: PyTree) -> _Softmax:
        def accumulate(carry: tuple, tile: tuple) -> tuple[tuple, None]:
            shift, total, mean, largest = carry
            (y, log_w, v), offset = tile
            logits = scores.tile(parameters, x, y) + log_w[None, :]
            top = jnp.max(logits, axis=1)
            here = jnp.where(logits == top[:, None], jnp.arange(columns, dtype=jnp.int32)[None], -1)
            largest = jnp.where(top > shift, jnp.max(here, axis=1) + offset, largest)
            new = jnp.maximum(shift, top)
            finite = jnp.where(jnp.isneginf(new), 0, new)
            mass = jnp.exp(logits - finite[:, None])
            decay = jnp.exp(shift - finite)
            total = total * decay + jnp.sum(mass, axis=1)
            mean = mean * decay[:, None] + _matmul(mass, v)
            return (new, total, mean, largest), None

        start = (
            jnp.full(rows, -jnp.inf, dtype),
            jnp.zeros(rows, dtype),
            jnp.zeros((rows, values.shape[1]), dtype),
            jnp.zeros(rows, jnp.int32),
        )
        (shift, total, mean, largest), _ = jax.lax.scan(accumulate, start, (tiles, offsets))
        empty = total == 0
        mean = mean / jnp.where(empty, 1, total)[:, None]
        return _Softmax(mean, jnp.where(empty, 0, shift), jnp.log(total), largest)

    return _over_rows(row_block, rows, _length(queries), queries)


_softmax = jax.custom_jvp(_forward, nondiff_argnums=(0,))


@_softmax.defjvp
def _derivative(static: tuple, primals: tuple, tangents: tuple) -> tuple[_Softmax, _Softmax]:
    scores, rows, columns = static
    parameters, queries, keys, log_weights, values = primals
    d_parameters, d_queries, d_keys, d_log_weights, d_values = tangents
    out = _softmax(static, *primals)

    tiles = _key_tiles(columns, keys, log_weights, values)
    d_tiles = _key_tiles(columns, d_keys, d_log_weights, d_values, mass_free=0.0)
    empty = jnp.isneginf(out.log_sum)
    log_sum = jnp.where(empty, 0, out.log_sum)
    pairs = jax.vmap(scores.pair, in_axes=(None, 0, 0))

    @partial(jax.checkpoint, prevent_cse=False)
    def one_tile(row: tuple, tile: tuple, d_tile: tuple) -> tuple[Array, Array]:
        (x, d_x, shift, log_sum, centre), (y, log_w, v), (d_y, d_log_w, d_v) = row, tile, d_tile
        logits, d_logits = jax.jvp(scores.tile, (parameters, x, y), (d_parameters, d_x, d_y))
        p = jnp.exp((logits + log_w[None, :] - shift[:, None]) - log_sum[:, None])
        change = jnp.where(p > 0, p * (d_logits + d_log_w[None, :] - centre[:, None]), 0)
        return _matmul(change, v) + _matmul(p, d_v), jnp.sum(change, axis=1)

    @partial(jax.checkpoint, prevent_cse=False)
    def row_block(row: tuple) -> tuple[Array, Array]:
        x, d_x, shift, log_sum, largest, mean = row
        # c_i, the tangent of the row's largest logit
        top, d_top = jax.tree.map(lambda a: a[largest], (keys, d_keys))
        _, centre = jax.jvp(pairs, (parameters, x, top), (d_parameters, d_x, d_top))
        centre = centre + d_log_weights[largest]

        def accumulate(carry: tuple, tile_pair: tuple) -> tuple[tuple, None]:
            of_row = (x, d_x, shift, log_sum, centre)
            d_mean, d_mass = one_tile(of_row, *tile_pair)
            return (carry[0] + d_mean, carry[1] + d_mass), None

        start = (jnp.zeros_like(mean), jnp.zeros_like(shift))
        (d_mean, d_mass), _ = jax.lax.scan(accumulate, start, (tiles, d_tiles))
        return d_mean - d_mass[:, None] * mean, centre + d_mass

    row = (queries, d_queries, out.shift, log_sum, out.largest, out.mean)
    d_mean, d_log_sum = _over_rows(row_block, rows, _length(queries), row)
    d_log_sum = jnp.where(empty, 0, d_log_sum)
    no_tangent: Any = np.zeros(out.largest.shape, jax.dtypes.float0)
    return out, _Softmax(d_mean, jnp.zeros_like(out.shift), d_log_sum, no_tangent)


def _matmul(a: Array, b: Array) -> Array:
    # accelerators would otherwise round the factors to TF32 or bfloat16
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _length(points: PyTree) -> int:
    return jax.tree.leaves(points)[0].shape[0]


def _tile_sizes(n: int, m: int) -> tuple[int, int]:
    """Equal tiles no larger than `TILES`, so that padding stays below one row a tile."""
    rows, columns = TILES.get(jax.default_backend(), LARGE_TILE)
    return math.ceil(n / math.ceil(n / rows)), math.ceil(m / math.ceil(m / columns))


def _head(tree: PyTree, size: int) -> PyTree:
    return jax.tree.map(lambda a: a[:size], tree)


def _tiled(tree: PyTree, tile: int) -> PyTree:
    """Split the leading axis into tiles; the last is filled up with copies of its last entry."""

    def split(a: Array) -> Array:
        missing = -a.shape[0] % tile
        if missing:
            a = jnp.pad(a, [(0, missing)] + [(0, 0)] * (a.ndim - 1), mode="edge")
        return a.reshape(a.shape[0] // tile, tile, *a.shape[1:])

    return jax.tree.map(split, tree)


def _key_tiles(
    tile: int, keys: PyTree, log_weights: Array, values: Array, mass_free: float = -jnp.inf
) -> tuple:
    """Keys, log-weights and values by tiles, what fills up the last tile being without mass."""
    missing = -log_weights.shape[0] % tile
    log_weights = jnp.pad(log_weights, (0, missing), constant_values=mass_free)
    return _tiled(keys, tile), log_weights.reshape(-1, tile), _tiled(values, tile)


def _over_rows(f: Callable, tile: int, n: int, rows: PyTree) -> PyTree:
    """Apply ``f`` to blocks of rows, one after the other, and join the results."""
    out = jax.lax.map(f, _tiled(rows, tile))
    return jax.tree.map(lambda a: a.reshape(a.shape[0] * tile, *a.shape[2:])[:n], out)
