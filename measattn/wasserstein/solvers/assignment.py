"""Equally many atoms of equal mass: an optimal plan is a permutation (Birkhoff)."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from measattn.wasserstein.ground import Matrix, Vector
from measattn.wasserstein.plan import Plan
from measattn.wasserstein.problem import Problem
from measattn.wasserstein.solvers.base import AbstractSolver, Proposal, Run


@dataclass(frozen=True)
class Assignment(AbstractSolver):
    """SciPy finds the permutation, by shortest augmenting paths on the dense matrix.

    Its potentials are shortest path lengths in the residual graph, found here by Bellman-Ford
    rounds over all arcs at once.
    """

    def solve(self, problem: Problem, run: Run) -> Proposal:
        """The permutation, and the potential that proves it optimal."""
        if not problem.uniform:
            raise ValueError(
                "Assignment needs equally many atoms of equal weight (after equal atoms are merged "
                f"and common mass is cancelled), got {len(problem.a)} and {len(problem.b)}: use "
                "NetworkSimplex() or ColumnGeneration()"
            )
        rows, cols = linear_sum_assignment(problem.cost)
        return Proposal(Plan(rows, cols, problem.a), _potential(problem.cost, cols), "Assignment")


def _potential(cost: Matrix, permutation: np.ndarray) -> Vector:
    r"""A potential u with $u_i + v_j \le C_{ij}$, equal on the permutation, from shortest paths.

    With $v_{\sigma(i)} = C_{i\sigma(i)} - u_i$ feasibility says $u_i \le u_k + C_{i\sigma(k)} -
    C_{k\sigma(k)}$ for all i, k: potentials are distances in that graph. Only rows whose distance
    fell in one round can lower others in the next.
    """
    n = len(cost)
    matched = cost[np.arange(n), permutation]
    u = np.zeros(n)
    changed = np.arange(n)
    for _ in range(n):
        best = np.full(n, np.inf)
        for start in range(0, len(changed), 512):
            part = changed[start : start + 512]
            offers = cost[:, permutation[part]] + (u[part] - matched[part])[None, :]
            np.minimum(best, offers.min(axis=1), out=best)
        lower = best < u - 4 * np.finfo(float).eps * np.maximum(np.abs(u), matched)
        if not lower.any():
            break
        u[lower] = best[lower]
        changed = np.flatnonzero(lower)
    return u
