"""The transport problem on a few candidate arcs, solved near known potentials."""

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from measattn.wasserstein.ground import Index, Vector
from measattn.wasserstein.plan import Arcs, Plan
from measattn.wasserstein.problem import Problem
from measattn.wasserstein.solvers.simplex import on_arcs


class Candidates(NamedTuple):
    """The arcs that a plan may use.

    Attributes:
        pairs: their numbers, source · m + target, sorted.
        rows: their sources, in the order in which they joined.
        cols: their targets, likewise.
        costs: their costs, likewise.
    """

    pairs: Index
    rows: Index
    cols: Index
    costs: Vector

    @classmethod
    def none(cls) -> "Candidates":
        """No arcs."""
        empty = np.empty(0, np.int64)
        return cls(empty, empty, empty, np.empty(0))

    def grown(self, problem: Problem, *pairs: Index) -> "Candidates":
        """With more arcs; itself if it has them all."""
        # sorts, because NumPy's sets go by hashes, which are slower here
        found = np.sort(np.concatenate(pairs))
        new = found[np.diff(found, prepend=-1) > 0]
        if len(self.pairs):
            at = np.searchsorted(self.pairs, new)
            new = new[self.pairs[np.minimum(at, len(self.pairs) - 1)] != new]
        if len(new) == 0:
            return self
        rows, cols = np.divmod(new, problem.ground.shape[1])
        return Candidates(
            np.sort(np.concatenate([self.pairs, new]), kind="stable"),
            np.concatenate([self.rows, rows]),
            np.concatenate([self.cols, cols]),
            np.concatenate([self.costs, problem.ground.arcs(rows, cols)]),
        )

    def reduced(self, u: Vector, v: Vector) -> Vector:
        """The reduced costs $C_{ij} - u_i - v_j$."""
        return self.costs - u[self.rows] - v[self.cols]

    def least(self, dual: tuple[Vector, Vector], count: int) -> Arcs:
        """The arcs of least reduced cost."""
        if count < len(self.pairs):
            kept = np.argpartition(self.reduced(*dual), count)[:count]
            return Arcs(self.rows[kept], self.cols[kept])
        return Arcs(self.rows, self.cols)

    def solve(
        self, problem: Problem, dual: tuple[Vector, Vector], pivots: int
    ) -> tuple[Plan, Vector, Vector]:
        r"""The optimal plan on these arcs, and potentials (u, v) that prove it so, near ``dual``.

        The simplex sees the costs reduced by ``dual``: it starts where the last round ended, and
        its potentials are small corrections, which keeps their digits. A plan with fewer than
        n + m - 1 arcs leaves the potentials of its components free against each other, and those
        of the simplex are arbitrary. Taken instead are the largest with $u_i$ at most that of
        ``dual``: shortest paths in the reduced costs, which are not negative.
        """
        n, m = problem.ground.shape
        plan, u, v = on_arcs(problem, self.rows, self.cols, self.reduced(*dual), pivots)
        u, v = u + dual[0], v + dual[1]
        if len(plan.rows) >= n + m - 1:
            return plan, u, v
        room = dual[0] - u
        # v_j bounds u_i along an arc, the plan ties v_j to its u_i, and dual bounds every u_i
        lengths = [np.maximum(self.reduced(u, v), 0), np.zeros(len(plan.rows)), room - room.min()]
        tails = [n + self.cols, plan.rows, np.full(n, n + m)]
        heads = [self.rows, n + plan.cols, np.arange(n)]
        edges = np.concatenate(lengths), (np.concatenate(tails), np.concatenate(heads))
        graph = coo_array(edges, shape=(n + m + 1,) * 2).tocsr()
        shift = dijkstra(graph, indices=n + m)[: n + m] + room.min()
        shift = np.where(np.isfinite(shift), shift, 0)  # a target without mass in the plan
        return plan, u + shift[:n], v - shift[n:]
