"""Masses of equal atoms: summed, compared and cancelled without loss.

Whatever is rounded is known: `Merged.rounded` and `difference` say by how much in total, so that a
certificate can be charged with it. Source: docs/theory.md, G5.
"""

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from measattn.wasserstein.ground import AbstractGround, Euclidean, Index, Matrix, Vector


class Merged(NamedTuple):
    """Each atom's merged atom, one atom of each, their masses and points, and what these round."""

    site: Index
    first: Index
    mass: Vector
    points: Any
    rounded: float


def merged(mass: Vector, points: Any, ground: AbstractGround) -> Merged:
    """Atoms with mass, equal ones of R^d merged."""
    keep = np.flatnonzero(mass > 0)
    site = np.full(len(mass), -1)
    if not isinstance(ground, Euclidean):
        site[keep] = np.arange(len(keep))
        return Merged(site, keep, mass[keep], None, 0.0)
    rows = points[keep] + 0.0  # -0.0 and 0.0 are one point
    if len(np.unique(_hashes(rows))) == len(rows):
        site[keep] = np.arange(len(keep))
        return Merged(site, keep, mass[keep], rows, 0.0)
    _, first, group = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    group = group.reshape(-1)
    site[keep] = group
    sums = exact_sums(group, mass[keep], np.zeros(len(first)))
    # to the nearest float, whatever the order of the atoms; and what that leaves out
    rounded = math.fsum(np.abs(exact_sums(group, mass[keep], sums)))
    return Merged(site, keep[first], sums, rows[first], rounded)


def exact_sums(index: Index, mass: Vector, less: Vector) -> Vector:
    """The sums of the masses of each index, less some numbers, each rounded once."""
    count = np.bincount(index, minlength=len(less))
    out = np.bincount(index, mass, len(less)) - less  # right for single masses
    order = np.argsort(index, kind="stable")
    values, ends = mass[order].tolist(), np.cumsum(count)
    for k in np.flatnonzero(count > 1):
        out[k] = math.fsum([*values[ends[k] - count[k] : ends[k]], -less[k]])
    return out


def difference(a: Vector, b: Vector) -> tuple[Vector, float]:
    """The differences a - b >= 0, rounded, and the total of what rounding changes."""
    out = a - b
    # Knuth's exact error of a sum
    part = out - a
    return out, math.fsum(np.abs((a - (out - part)) + (-b - part)))


def _hashes(rows: Matrix) -> Index:
    """Numbers that are equal for equal rows, and hardly ever for others."""
    bits = np.ascontiguousarray(rows).view(np.uint64)
    mixed = bits ^ (bits >> np.uint64(32))
    return (mixed * _factors(rows.shape[1])).sum(axis=1, dtype=np.uint64)


@cache
def _factors(count: int) -> Index:
    return np.random.default_rng(0).integers(1, 2**63, count, dtype=np.uint64) * 2 + 1


def common_mass(x: Matrix, a: Vector, y: Matrix, b: Vector) -> tuple[Index, Index, Vector]:
    """The atoms that both measures have, and the smaller of their masses."""
    _, rows, cols = np.intersect1d(_hashes(x), _hashes(y), return_indices=True)
    same = np.all(x[rows] == y[cols], axis=1)
    rows, cols = rows[same], cols[same]
    return rows, cols, np.minimum(a[rows], b[cols])
