"""One of the measures is a Dirac mass: there is one coupling."""

from dataclasses import dataclass

import numpy as np

from measattn.wasserstein.plan import Plan
from measattn.wasserstein.problem import Problem
from measattn.wasserstein.solvers.base import AbstractSolver, Proposal, Run


@dataclass(frozen=True)
class Single(AbstractSolver):
    r"""A single source or target: $W_p^p = \sum_i a_i\,|x_i - y|^p$."""

    def solve(self, problem: Problem, run: Run) -> Proposal:
        """The product measure."""
        n, m = problem.ground.shape
        if min(n, m) != 1:
            raise ValueError(f"Single needs a Dirac mass on one side, got {n} and {m} atoms")
        if n == 1:
            plan = Plan(np.zeros(m, np.int64), np.arange(m), problem.b)
            return Proposal(plan, np.zeros(1), "Single")
        plan = Plan(np.arange(n), np.zeros(n, np.int64), problem.a)
        return Proposal(plan, problem.ground.arcs(plan.rows, plan.cols), "Single")
