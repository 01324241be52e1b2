r"""Pricing: the c-transform of a potential, exactly, and the arcs that would lower the cost.

$$ v_j = \min_i\,(C_{ij} - u_i) $$

A cheap lower bound for groups of sources says where the minimum can lie; only there costs are
evaluated, in float64 by direct differences. The result is the exact minimum over all n·m pairs.
"""

from typing import NamedTuple

import numpy as np

from measattn.wasserstein.ground import AbstractGround, Index, Vector


class Priced(NamedTuple):
    """The c-transform and the pairs met on the way.

    Attributes:
        v: the c-transform (m,).
        at: for each target a source at which it is attained (m,).
        rows: for each examined group and target the source of least reduced cost.
        cols: the target.
        values: $C_{ij} - u_i$ of these pairs.
    """

    v: Vector
    at: Index
    rows: Index
    cols: Index
    values: Vector


def c_transform(ground: AbstractGround, u: Vector, ceiling: Vector | None = None) -> Priced:
    r"""The largest v with $u_i + v_j \le C_{ij}$ for all pairs.

    Args:
        ground: the costs (n, m).
        u: a potential on the sources (n,).
        ceiling: look at all pairs whose $C_{ij} - u_i$ may lie below it (m,), not only at those
            that may be the least.
    """
    found: list[tuple[Index, Index, Vector]] = []
    v, at = np.full(ground.shape[1], np.inf), np.zeros(ground.shape[1], np.int64)
    for cols, bounds in ground.minima(u):
        first = bounds.argmin(axis=0)
        best = v[cols]
        # without a ceiling this is the same array as best, and falls with it
        above = best if ceiling is None else ceiling[cols]
        for again in (False, True):
            for g, group in enumerate(ground.groups):
                todo = (bounds[g] < np.maximum(best, above)) & (first != g) if again else first == g
                which = np.flatnonzero(todo)
                if len(which):
                    rows, values = _least(ground, group, cols.start + which, u)
                    lower = values < best[which]
                    best[which[lower]] = values[lower]
                    at[cols.start + which[lower]] = rows[lower]
                    found.append((rows, cols.start + which, values))
    return Priced(v, at, *(np.concatenate(part) for part in zip(*found, strict=True)))


def nearest(ground: AbstractGround, u: Vector, count: int) -> tuple[Index, Index]:
    """For each target about ``count`` sources of small reduced cost, the smallest among them."""
    rows, cols = [], []
    for part, bounds in ground.minima(u):
        k = min(count, len(ground.groups))
        if np.isneginf(bounds[0, 0]):
            for g, group in enumerate(ground.groups):
                bounds[g] = _least(ground, group, np.arange(part.start, part.stop), u)[1]
        chosen = np.zeros(bounds.shape, bool)
        smallest = np.argpartition(bounds, k - 1, axis=0)[:k]
        np.put_along_axis(chosen, smallest, True, axis=0)
        for g, group in enumerate(ground.groups):
            which = part.start + np.flatnonzero(chosen[g])
            if len(which):
                rows.append(_least(ground, group, which, u)[0])
                cols.append(which)
    return np.concatenate(rows), np.concatenate(cols)


def _least(ground: AbstractGround, group: Index, cols: Index, u: Vector) -> tuple[Index, Vector]:
    """The source of least reduced cost in a group, for each of some targets."""
    rows, values = np.empty(len(cols), np.int64), np.empty(len(cols))
    for start in range(0, len(cols), 2**15):
        part = slice(start, start + 2**15)
        reduced = ground.block(group, cols[part]) - u[group][:, None]
        at = reduced.argmin(axis=0)
        rows[part] = group[at]
        values[part] = reduced[at, np.arange(len(at))]
    return rows, values
