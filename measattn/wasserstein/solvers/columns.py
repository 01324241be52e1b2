"""Column generation: exact transport on few arcs, priced over all of them."""

from dataclasses import dataclass

import numpy as np

from measattn.checks import whole
from measattn.wasserstein.certificate import Below, Certified, from_above, from_below
from measattn.wasserstein.ground import Index, Vector
from measattn.wasserstein.plan import Plan, monotone
from measattn.wasserstein.pricing import Priced, c_transform, nearest
from measattn.wasserstein.problem import Problem
from measattn.wasserstein.solution import Bracket
from measattn.wasserstein.solvers.base import AbstractSolver, Proposal, Run
from measattn.wasserstein.solvers.candidates import Candidates
from measattn.wasserstein.solvers.simplex import NetworkSimplex

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

    def __post_init__(self):
        for name in ("neighbours", "rounds", "pivots"):
            object.__setattr__(self, name, whole(name, getattr(self, name), 1))

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
        candidates = Candidates.none().grown(problem, pairs, chain.rows * m + chain.cols)
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
