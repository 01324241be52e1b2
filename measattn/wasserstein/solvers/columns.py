"""Column generation: exact transport on few arcs, priced over all of them."""

from dataclasses import dataclass

import numpy as np

from measattn.wasserstein.certificate import Below, Certified, from_above, from_below
from measattn.wasserstein.ground import Index, Vector
from measattn.wasserstein.plan import Plan, monotone
from measattn.wasserstein.pricing import Priced, c_transform, nearest
from measattn.wasserstein.problem import Problem
from measattn.wasserstein.solution import Bracket
from measattn.wasserstein.solvers.base import AbstractSolver, Proposal, Run
from measattn.wasserstein.solvers.simplex import on_arcs

PATH = 64
"""Longer paths than this are not followed: the rounds of the simplex go on."""


@dataclass(frozen=True)
class ColumnGeneration(AbstractSolver):
    """Any weights and sizes, in memory O(n + m): the network simplex on candidate arcs.

    The candidates are each atom's neighbours on the other side and a feasible chain. Every round
    solves the transport problem on them and prices all n·m pairs with its potentials; pairs of
    negative reduced cost join. The rounds' brackets are certified; they end when the gap is closed.

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
        below = from_below(problem, np.zeros(n) if run.start is None else run.start.u)
        coupling = Plan(below.priced.at, np.arange(m), problem.b)
        if _has_marginal(coupling, problem.a):  # every target takes from its cheapest source
            certified = Certified(below, from_above(problem, coupling))
            return Proposal(coupling, below.u, "ColumnGeneration", certified=certified)

        arcs, best = self._candidates(problem, below, run), below
        trace: list[Bracket] = []
        value, settled = np.inf, 0  # of how many rounds the plan has not changed
        while True:
            plan, u, v = on_arcs(problem, arcs // m, arcs % m, self.pivots)
            below, above = from_below(problem, u, v), from_above(problem, plan)
            best = max(best, below, key=_height)
            settled = settled + 1 if above.value >= value * (1 - 1e-13) else 0
            value = above.value
            if settled == 1 and above.upper - best.lower > 1e-5 * value:
                best = self._shortest_paths(problem, plan, best)
            lower, upper = (cost ** (1 / problem.p) for cost in (best.lower, above.upper))
            trace.append(Bracket(lower, upper, len(arcs)))
            run.watch(trace[-1])
            # the bound has moved a constant from one potential to the other
            violated = self._violated(below.priced, v + u[0] - below.u[0], above.resolution / 64)
            grown = np.union1d(arcs, violated)
            closed = upper - lower <= run.tol * upper
            if closed or len(grown) == len(arcs) or len(trace) == self.rounds:
                certified = Certified(best, above)
                rounds = len(trace)
                return Proposal(plan, best.u, "ColumnGeneration", rounds, tuple(trace), certified)
            arcs = grown

    def _shortest_paths(self, problem: Problem, plan: Plan, best: Below) -> Below:
        r"""The best bound so far, or that of shortest paths where the plan is a permutation.

        A permutation has few arcs for its n potentials, and those of the simplex are arbitrary. The
        largest $u \le 0$ with $u_i \le u_k + C_{i\sigma(k)} - C_{k\sigma(k)}$ prove it optimal, if
        it is; on nearly matched clouds the paths are short.
        """
        ground, n = problem.ground, len(problem.a)
        if not (problem.uniform and len(plan.rows) == n):
            return best
        matched = ground.arcs(plan.rows, plan.cols)
        u, v = np.zeros(n), np.empty(n)
        for _ in range(PATH):
            v[plan.cols] = matched - u[plan.rows]
            fallen = np.minimum(u, c_transform(ground.transposed, v).v)
            if np.all(u - fallen <= ground.resolution(0.0) / 64):
                break
            u = fallen
        return max(best, from_below(problem, u), key=_height)

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

    def _candidates(self, problem: Problem, below: Below, run: Run) -> Index:
        """A feasible chain, the arcs of the start, and neighbours in reduced cost on both sides."""
        ground, (n, m) = problem.ground, problem.ground.shape
        chain = monotone(np.arange(n), np.arange(m), problem.a, problem.b)
        rows, cols = nearest(ground, below.u, self.neighbours)
        parts = [chain.rows * m + chain.cols, rows * m + cols]
        v = np.zeros(m)  # plain neighbours on this side as well
        if run.start is not None:
            v = below.priced.v
            parts.append(run.start.rows * m + run.start.cols)
        cols, rows = nearest(ground.transposed, v, self.neighbours)
        parts.append(rows * m + cols)
        return np.unique(np.concatenate(parts))


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
