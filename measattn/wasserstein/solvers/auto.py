"""The choice of a solver."""

from dataclasses import dataclass, replace

from measattn.wasserstein.ground import Euclidean
from measattn.wasserstein.problem import Problem
from measattn.wasserstein.solvers.assignment import Assignment
from measattn.wasserstein.solvers.base import AbstractSolver, Proposal, Run
from measattn.wasserstein.solvers.columns import ColumnGeneration
from measattn.wasserstein.solvers.line import Line
from measattn.wasserstein.solvers.simplex import NetworkSimplex
from measattn.wasserstein.solvers.single import Single

SMALL = 2**17
"""Up to this many pairs a dense matrix of costs is faster than a search for candidates."""


DENSE = 2**24
"""Up to this many pairs (128 MB) the dense simplex can take over from column generation."""

ROUNDS = 24
"""Column generation closes ordinary problems in six rounds; it is slow where many arcs tie."""


@dataclass(frozen=True)
class Auto(AbstractSolver):
    """The exact solver that fits the problem; the solution says which, and why."""

    def solve(self, problem: Problem, run: Run) -> Proposal:
        """Choose, and let the chosen one solve."""
        solver, reason = choose(problem)
        proposal = solver.solve(problem, run)
        if proposal.iterations == ROUNDS and isinstance(solver, ColumnGeneration):
            lower, upper, _ = proposal.trace[-1]
            if upper - lower > run.tol * upper and len(problem.a) * len(problem.b) <= DENSE:
                reason = f"column generation left a gap of {upper - lower:.1e} in {ROUNDS} rounds"
                trace = proposal.trace
                proposal = replace(NetworkSimplex().solve(problem, run), trace=trace)
        return replace(proposal, solver=f"{proposal.solver} ({reason})")


def choose(problem: Problem) -> tuple[AbstractSolver, str]:
    """The exact solver that fits a problem, and why."""
    ground, (n, m) = problem.ground, problem.ground.shape
    if min(n, m) == 1:
        return Single(), "one measure is a Dirac mass"
    if isinstance(ground, Euclidean) and ground.x.shape[1] == 1:
        return Line(), "points on the line"
    if n * m > DENSE:
        return ColumnGeneration(), f"{n}·{m} pairs are many"
    if n * m > SMALL:
        return ColumnGeneration(rounds=ROUNDS), f"{n}·{m} pairs are many"
    if problem.uniform:
        return Assignment(), "equally many atoms of equal weight"
    return NetworkSimplex(), "few atoms, general weights"
