r"""The arrays of a derivative with several heads, in the small spaces that its value maps reach."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from measattn.lipschitz.derivatives.parts import Parts
from measattn.lipschitz.derivatives.rows import Rows, thin


class Arrays(NamedTuple):
    """All heads, their ranks filled up with zeros to a common one, and what is around them."""

    p: Any  # (n, h, m)
    into: Any  # T (h, r, e)
    images: Any  # of the keys under T (h, m, r)
    means: Any  # of the rows under T (n, h, r)
    left: Any  # slopes are left @ right + tilts: (h, n, s)
    right: Any  # (h, s, e)
    tilts: Any  # (h, m, e), or None
    through: Any  # what is after t: (n or 1, v, h r)
    before: Any  # (n, e, d), or None
    metric: Any  # Gram matrices of what is after the terms, (n or 1, c, c), or None
    own: Any  # the dense matrix of each problem (k, v, d)
    share: Any  # factors of the terms (n, k)


def arrays(parts: Parts, own: NDArray, share: NDArray, watched: bool) -> Arrays:
    """Those of a family; its arguments are those of `Mixed`."""
    heads, (n, v, d) = parts.mixing, parts.own.shape
    e = d if parts.before is None else parts.before.shape[1]
    width = v if parts.after is None else parts.after.shape[2]
    values = [thin(head.value) for head in heads]
    slopes = [thin(head.slopes) for head in heads]
    into = _stacked([into for _, into in values], (0, e))
    out = _stacked([out.T for out, _ in values], (0, width)).reshape(-1, width).T
    tilts = None
    if any(head.tilts is not None for head in heads):
        tilts = np.stack([_tilts(head) for head in heads])
    images, means, p = np.zeros((0, n, 0)), np.zeros((n, 0, 0)), np.zeros((n, 0, n))
    if heads:
        images = np.stack([head.keys for head in heads]) @ into.swapaxes(1, 2)
        means = np.stack([head.means for head in heads]) @ into.swapaxes(1, 2)
        means, p = means.swapaxes(0, 1), np.stack([head.p for head in heads], axis=1)
    left = _stacked([left.T for left, _ in slopes], (0, n)).swapaxes(1, 2)
    right = _stacked([right for _, right in slopes], (0, e))
    through = jnp.asarray(out)[None]
    if parts.after is not None:
        through = jnp.matmul(jnp.asarray(parts.after), jnp.asarray(out))
    before = None if parts.before is None else jnp.asarray(parts.before)
    if watched:
        metric = None if before is None else jnp.matmul(before, jnp.swapaxes(before, 1, 2))
    else:
        metric = jnp.matmul(jnp.swapaxes(through, 1, 2), through)
    known = (p, into, images, means, left, right, tilts)
    known = (None if a is None else jnp.asarray(a) for a in known)
    return Arrays(*known, through, before, metric, jnp.asarray(own), jnp.asarray(share))


def _stacked(matrices: list[NDArray], empty: tuple[int, int]) -> NDArray:
    """Matrices of one width, filled up with rows of zeros to one height; ``empty`` if none."""
    height = max((len(a) for a in matrices), default=0)
    if not matrices:
        return np.zeros((0, *empty))
    return np.stack([np.pad(a, ((0, height - len(a)), (0, 0))) for a in matrices])


def _tilts(head: Rows) -> NDArray:
    return np.zeros_like(head.keys) if head.tilts is None else head.tilts


def at(through: Array, i: Array) -> Array:
    """Of each token i, where all have the same, too."""
    if len(through) == 1:
        return jnp.broadcast_to(through, (len(i), *through.shape[1:]))
    return through[i]


def slopes_at(a: Arrays, i: Array) -> Float[Array, "k h e"]:
    """Slopes of all heads at queries i."""
    return jnp.swapaxes(jnp.matmul(a.left[:, i], a.right), 0, 1)
