"""Transport plans: sparse couplings, and how they are made and read."""

from typing import NamedTuple

import numpy as np

from measattn.wasserstein.ground import Index, Matrix, Vector


class Arcs(NamedTuple):
    """Pairs of atoms: ``rows[k]`` with ``cols[k]``."""

    rows: Index
    cols: Index

    def __repr__(self) -> str:
        return f"Arcs({len(self.rows)} arcs)"


class Plan(NamedTuple):
    """A sparse transport plan: ``mass[k]`` goes from atom ``rows[k]`` to atom ``cols[k]``."""

    rows: Index
    cols: Index
    mass: Vector

    def __repr__(self) -> str:
        return f"Plan({len(self.mass)} arcs, mass {self.mass.sum():.6g})"

    def dense(self, shape: tuple[int, int]) -> Matrix:
        """The plan as a matrix (n, m), for small problems and pictures."""
        out = np.zeros(shape)
        np.add.at(out, (self.rows, self.cols), self.mass)
        return out


def cumulated(i: Index, j: Index, a: Vector, b: Vector) -> tuple[Vector, Vector]:
    """The sums of masses a in the order i and of masses b in the order j, with a common end.

    With the longest floats that the machine has, so that differences of sums keep their digits.
    """
    ends_a, ends_b = (np.cumsum(mass, dtype=np.longdouble) for mass in (a[i], b[j]))
    ends_a[-1] = ends_b[-1] = max(ends_a[-1], ends_b[-1])
    return ends_a, ends_b


def monotone(i: Index, j: Index, a: Vector, b: Vector) -> Plan:
    """The quantile coupling of masses a in the order i with masses b in the order j.

    A chain of at most n + m - 1 arcs; with the atoms of the line sorted it is optimal, in any
    order it is feasible (the north-west corner).
    """
    ends_a, ends_b = cumulated(i, j, a, b)
    ends = np.union1d(ends_a, ends_b)
    mass = np.diff(ends, prepend=np.longdouble(0)).astype(np.float64)
    rows = i[np.minimum(np.searchsorted(ends_a, ends), len(i) - 1)]
    cols = j[np.minimum(np.searchsorted(ends_b, ends), len(j) - 1)]
    keep = mass > 0
    rows, cols, mass = rows[keep], cols[keep], mass[keep]
    # one arc alone at its source or target has the mass of that: the difference has fewer digits
    for ends, given in ((rows, a), (cols, b)):
        alone = np.bincount(ends)[ends] == 1
        mass[alone] = given[ends[alone]]
    return Plan(rows, cols, mass)


def divide(site: Index, mass: Vector, owner: Index, share: Vector) -> tuple[Index, Index, Vector]:
    """Divide the masses that lie at sites among the owners of these sites.

    Args:
        site: the site of each mass.
        mass: the masses.
        owner: the site of each owner, -1 for none.
        share: how much each owner holds; the shares of a site sum to its masses up to rounding.

    Returns:
        For each piece the number of its mass, the number of its owner, and its size.
    """
    i = np.argsort(site, kind="stable")
    owners = np.flatnonzero(owner >= 0)
    j = owners[np.argsort(owner[owners], kind="stable")]
    # per site both cumulated sums start and end at whole numbers, so no rounding crosses sites
    sites = np.unique(site)
    pieces = monotone(
        i, j, _even(site, mass, sites), _even(owner, np.where(owner >= 0, share, 0), sites)
    )
    at = site[pieces.rows]
    total = np.bincount(site, mass, sites[-1] + 1)
    same = at == owner[pieces.cols]
    return pieces.rows[same], pieces.cols[same], (pieces.mass * total[at])[same]


def _even(site: Index, mass: Vector, sites: Index) -> Vector:
    """Masses scaled so that each of ``sites`` holds one; masses elsewhere count nothing."""
    total = np.bincount(site[site >= 0], mass[site >= 0], max(site.max(), sites[-1]) + 1)
    out = np.zeros(len(mass))
    counted = np.isin(site, sites)
    out[counted] = mass[counted] / total[site[counted]]
    return out
