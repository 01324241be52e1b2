r"""Pricing: the c-transform of a potential, exactly, and the arcs that would lower the cost.

$$ v_j = \min_i\,(C_{ij} - u_i) $$

For large problems a cheap lower bound for groups of sources says where the minimum can lie; only
there costs are evaluated, in float64 by direct differences. The result is the exact minimum over
all n·m pairs either way.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from measattn.wasserstein.ground import UNIT, AbstractGround, Euclidean, Index, Matrix, Vector

BLOCK = 2**21
"""Entries of the blocks of costs that are held at once (16 MB)."""


class Priced(NamedTuple):
    """The c-transform and the pairs of small reduced cost met on the way.

    Attributes:
        v: the c-transform (m,).
        at: for each target a source at which it is attained (m,).
        rows: the sources of the pairs.
        cols: their targets.
        values: $C_{ij} - u_i$ of these pairs.
    """

    v: Vector
    at: Index
    rows: Index
    cols: Index
    values: Vector


def c_transform(ground: AbstractGround, u: Vector, ceiling: Vector | None = None) -> Priced:
    r"""The largest v with $u_i + v_j \\le C_{ij}$ for all pairs.

    Args:
        ground: the costs (n, m).
        u: a potential on the sources (n,).
        ceiling: find pairs whose $C_{ij} - u_i$ lies below it (m,), too, not only the least.
    """
    n, m = ground.shape
    if isinstance(ground, Euclidean) and ground.x.shape[1] == ground.p == 1 and n * m > BLOCK:
        return _on_the_line(ground.x[:, 0], ground.y[:, 0], u)
    v, at = np.full(m, np.inf), np.zeros(m, np.int64)
    found: list[tuple[Index, Index, Vector]] = []
    bounds = ground.minima(u)
    if bounds is None:
        for cols, reduced in _blocks(ground, u):
            at[cols] = reduced.argmin(axis=0)
            v[cols] = reduced[at[cols], np.arange(reduced.shape[1])]
            if ceiling is not None:
                i, j = np.nonzero(reduced < ceiling[cols])
                found.append((i, cols.start + j, reduced[i, j]))
    else:
        for cols, table in bounds:
            for rows, which, values in _visits(ground, u, cols, table, v, ceiling):
                lower = values < v[which]
                v[which[lower]], at[which[lower]] = values[lower], rows[lower]
                found.append((rows, which, values))
    found = found or [(at, np.arange(m), v)]
    return Priced(v, at, *(np.concatenate(part) for part in zip(*found, strict=True)))


def _on_the_line(x: Vector, y: Vector, u: Vector) -> Priced:
    r"""For d = 1 and p = 1 the c-transform, from below, in O(n log n).

    $v_j$ is the smaller of $y_j + \min_{x_i \le y_j}(-x_i - u_i)$ and $-y_j + \min_{x_i > y_j}
    (x_i - u_i)$, two running minima. These sums round, and v is lowered by as much.
    """
    n, middle = len(x), x.mean()
    order = np.argsort(x)
    x, y, sorted_u = x[order] - middle, y - middle, u[order]
    left, at_left = _running_minimum(-x - sorted_u)
    right, at_right = (part[::-1] for part in _running_minimum((x - sorted_u)[::-1]))
    before = np.searchsorted(x, y, side="right")
    i, j = np.maximum(before - 1, 0), np.minimum(before, n - 1)
    from_left = np.where(before > 0, y + left[i], np.inf)
    from_right = np.where(before < n, right[j] - y, np.inf)
    at = order[np.where(from_left <= from_right, at_left[i], n - 1 - at_right[j])]
    size = max(np.abs(x).max(), np.abs(y).max()) + np.abs(u).max()
    v = np.minimum(from_left, from_right) - 16 * UNIT * size
    return Priced(v, at, at, np.arange(len(y)), v)


def _running_minimum(values: Vector) -> tuple[Vector, Index]:
    """The least of the values so far, and where it was met."""
    least = np.minimum.accumulate(values)
    return least, np.maximum.accumulate(np.where(values == least, np.arange(len(values)), 0))


def _visits(
    ground: AbstractGround,
    u: Vector,
    cols: slice,
    bounds: Matrix,
    v: Vector,
    ceiling: Vector | None,
) -> Iterator[tuple[Index, Index, Vector]]:
    """The least pair of each group and target that the bounds do not exclude; v falls meanwhile."""
    first = bounds.argmin(axis=0)
    for again in (False, True):
        for g, group in enumerate(ground.groups):
            todo = first == g
            if again:
                limit = v[cols] if ceiling is None else np.maximum(v[cols], ceiling[cols])
                # not excluded: a bound that overflowed excludes nothing
                todo = ~todo & ~(bounds[g] >= limit)
            which = cols.start + np.flatnonzero(todo)
            if len(which):
                rows, values = _least(ground, group, which, u)
                yield rows, which, values


def nearest(ground: AbstractGround, u: Vector, count: int) -> tuple[Index, Index]:
    """For each target about ``count`` sources of small reduced cost, the least among them."""
    n = ground.shape[0]
    rows, cols = [], []
    bounds = ground.minima(u)
    if bounds is None:
        for part, reduced in _blocks(ground, u):
            k = min(count, n)
            rows.append(np.argpartition(reduced, k - 1, axis=0)[:k].reshape(-1))
            cols.append(np.tile(np.arange(part.start, part.stop), k))
    else:
        for part, table in bounds:
            k = min(count, len(ground.groups))
            chosen = np.zeros(table.shape, bool)
            np.put_along_axis(chosen, np.argpartition(table, k - 1, axis=0)[:k], True, axis=0)
            for g, group in enumerate(ground.groups):
                which = part.start + np.flatnonzero(chosen[g])
                if len(which):
                    rows.append(_least(ground, group, which, u)[0])
                    cols.append(which)
    return np.concatenate(rows), np.concatenate(cols)


def _blocks(ground: AbstractGround, u: Vector) -> Iterator[tuple[slice, Matrix]]:
    """All reduced costs, by slices of the targets."""
    n, m = ground.shape
    width = max(1, BLOCK // n)
    for start in range(0, m, width):
        cols = slice(start, min(start + width, m))
        yield cols, ground.block(slice(None), cols) - u[:, None]


def _least(ground: AbstractGround, group: Index, cols: Index, u: Vector) -> tuple[Index, Vector]:
    """The source of least reduced cost in a group, for each of some targets."""
    rows, values = np.empty(len(cols), np.int64), np.empty(len(cols))
    width = BLOCK // len(group)
    for start in range(0, len(cols), width):
        part = slice(start, start + width)
        reduced = ground.block(group, cols[part]) - u[group][:, None]
        at = reduced.argmin(axis=0)
        rows[part] = group[at]
        values[part] = reduced[at, np.arange(len(at))]
    return rows, values
