"""Column generation: exact transport on few arcs, priced over all of them."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from measattn.wasserstein.certificate import Below, Certified, from_above, from_below
from measattn.wasserstein.ground import Index, Vector
from measattn.wasserstein.plan import Arcs, Plan, monotone
from measattn.wasserstein.pricing import Priced, c_transform, nearest
from measattn.wasserstein.problem import Problem
from measattn.wasserstein.solution import Bracket
from measattn.wasserstein.solvers.base import AbstractSolver, Proposal, Run
from measattn.wasserstein.solvers.simplex import NetworkSimplex, on_arcs

SAMPLE = 512
"""Atoms of a sample whose optimal potentials stand in for those of the whole."""

SLOW = 3, 1e-2
"""A relative gap after so many rounds that says: mass does not go to near atoms."""

KEPT = 8
"""Arcs for each source that a solution keeps for the next problem."""


@dataclass(frozen=True)
class ColumnGeneration(AbstractSolver):
    """Any weights and sizes, in memory O(n + m): the network simplex on candidate arcs.

    The candidates are each atom's neighbours on the other side and a feasible chain, or what a
    nearby problem left. Every round solves the transport problem on them and prices all n·m pairs
    with its potentials; pairs of negative reduced cost join. The rounds' brackets are certified;
    they end when the gap is closed.

    Attributes:
        neighbours: candidates for each atom, at the start and in each round.
        rounds: the most rounds allowed.
        pivots: the most pivots of one round.
    """

    neighbours: int = 8
    rounds: int = 100
    pivots: int = 1_000_000_000

    def solve(self, problem: Problem, run: Run) -> Proposal:
        """Solve, price, add, until no pair of negative reduced cost is left."""
        n, m = problem.ground.shape
        if run.start is None:
            best = from_below(problem, np.zeros(n))
            coupling = Plan(best.priced.at, np.arange(m), problem.b)
            if _has_marginal(coupling, problem.a):  # every target takes from its cheapest source
                certified = Certified(best, from_above(problem, coupling))
                return Proposal(coupling, best.u, "ColumnGeneration", certified=certified)
            dual, pairs = (best.u, best.priced.v), self._near(problem, best.u, np.zeros(m))
        else:
            best, dual = None, (run.start.u, run.start.v)
            pairs = run.start.arcs.rows * m + run.start.arcs.cols
            if len(pairs) < 2 * (n + m):  # a plan alone
                pairs = np.concatenate([pairs, self._near(problem, *dual)])

        chain = monotone(np.arange(n), np.arange(m), problem.a, problem.b)
        candidates = _Candidates.none().grown(problem, pairs, chain.rows * m + chain.cols)
        trace: list[Bracket] = []
        while True:
            plan, u, v = candidates.solve(problem, dual, self.pivots)
            below, above = from_below(problem, u, v), from_above(problem, plan)
            best = below if best is None else max(best, below, key=_height)
            lower, upper = (cost ** (1 / problem.p) for cost in (best.lower, above.upper))
            trace.append(Bracket(lower, upper, len(candidates.pairs)))
            run.watch(trace[-1])
            # the bound has moved a constant from one potential to the other
            found = [self._violated(below.priced, v + u[0] - below.u[0], above.resolution / 64)]
            if len(trace) == SLOW[0] and upper - lower > SLOW[1] * upper:
                sampled = _from_a_sample(problem)
                found.append(self._near(problem, sampled.u, sampled.priced.v))
                best = max(best, sampled, key=_height)
            dual = best.u, best.priced.v
            grown = candidates.grown(problem, *found)
            closed = upper - lower <= run.tol * upper
            if closed or grown is candidates or len(trace) == self.rounds:
                return Proposal(
                    plan,
                    best.u,
                    "ColumnGeneration",
                    len(trace),
                    tuple(trace),
                    Certified(best, above),
                    candidates.least(dual, KEPT * n),
                )
            candidates = grown

    def _near(self, problem: Problem, u: Vector, v: Vector) -> Index:
        """Pairs of small reduced cost, on both sides."""
        m = problem.ground.shape[1]
        rows, cols = nearest(problem.ground, u, self.neighbours)
        targets, sources = nearest(problem.ground.transposed, v, self.neighbours)
        return np.concatenate([rows * m + cols, sources * m + targets])

    def _violated(self, priced: Priced, v: Vector, least: float) -> Index:
        """The pairs that violate the potentials, the worst few of each source and each target.

        Without the limit one wrong potential would bring in all pairs of its atom.
        """
        slack = priced.values - v[priced.cols]
        pairs = np.flatnonzero(slack < -least)
        pairs = pairs[np.argsort(slack[pairs], kind="stable")]
        few = _rank(priced.rows[pairs]) < self.neighbours
        few |= _rank(priced.cols[pairs]) < self.neighbours
        return priced.rows[pairs[few]] * len(v) + priced.cols[pairs[few]]


class _Candidates(NamedTuple):
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
    def none(cls) -> "_Candidates":
        """No arcs."""
        empty = np.empty(0, np.int64)
        return cls(empty, empty, empty, np.empty(0))

    def grown(self, problem: Problem, *pairs: Index) -> "_Candidates":
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
        return _Candidates(
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


def _from_a_sample(problem: Problem) -> Below:
    """The bound of the optimal potentials between samples of both measures."""
    ground, rng = problem.ground, np.random.default_rng(0)
    i, a = _sample(rng, problem.a)
    j, b = _sample(rng, problem.b)
    between = Problem(a, b, ground.restrict(i, j), problem.p)
    v = c_transform(between.ground, NetworkSimplex().solve(between, Run()).u).v
    everywhere = np.arange(ground.shape[0])
    return from_below(problem, c_transform(ground.restrict(everywhere, j).transposed, v).v)


def _sample(rng: np.random.Generator, mass: Vector) -> tuple[Index, Vector]:
    drawn = rng.choice(len(mass), SAMPLE, p=mass / mass.sum())
    atoms, count = np.unique(drawn, return_counts=True)
    return atoms, count / SAMPLE


def _has_marginal(plan: Plan, a: Vector) -> bool:
    return bool(np.allclose(np.bincount(plan.rows, plan.mass, len(a)), a, rtol=1e-14, atol=0))


def _rank(label: Index) -> Index:
    """For each entry, how many before it have its label."""
    order = np.argsort(label, kind="stable")
    ordered = label[order]
    first = np.searchsorted(ordered, ordered)
    rank = np.empty(len(label), np.int64)
    rank[order] = np.arange(len(label)) - first
    return rank


def _height(bound: Below) -> float:
    return bound.lower
