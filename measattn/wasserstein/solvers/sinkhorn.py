"""Entropic transport: an estimate with a certified bracket of its own."""

import math
import warnings
from dataclasses import dataclass
from numbers import Real

import numpy as np

from measattn.wasserstein.ground import Matrix
from measattn.wasserstein.plan import Plan
from measattn.wasserstein.problem import Problem
from measattn.wasserstein.solvers.base import AbstractSolver, Proposal, Run, check_count
from measattn.wasserstein.solvers.simplex import pot

LARGEST = 2**24
"""More pairs than this are not held as a plan."""


@dataclass(frozen=True)
class Sinkhorn(AbstractSolver):
    r"""The plan of least $\sum C_{ij}\pi_{ij} + \varepsilon\,\mathrm{KL}(\pi | a\otimes b)$.

    Its plan is rounded to the exact marginals (Altschuler, Weed and Rigollet 2017, Algorithm 2),
    its potential c-transformed: the bracket is certified, but its width is about
    $\varepsilon\log n$ and is not promised to close.

    Attributes:
        epsilon: the temperature relative to the largest cost.
        iterations: the most iterations.
    """

    epsilon: float | int = 1e-2
    iterations: int = 10_000
    exact = False

    def __post_init__(self):
        if not isinstance(self.epsilon, Real) or not 0 < self.epsilon < math.inf:
            raise ValueError(
                f"epsilon must be positive and finite, such as 1e-2, got {self.epsilon!r}"
            )
        check_count("iterations", self.iterations)

    def solve(self, problem: Problem, run: Run) -> Proposal:
        """POT's iterations on the logarithms."""
        n, m = problem.ground.shape
        if n * m > LARGEST:
            raise ValueError(
                f"Sinkhorn holds the plan of {n}·{m} entries, more than {LARGEST}: use "
                "ColumnGeneration(), which is exact and needs memory for few of them"
            )
        cost, total = problem.cost, problem.a.sum()
        largest = max(float(cost.max()), np.finfo(float).tiny)
        a, b = problem.a / total, problem.b / problem.b.sum()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unfinished iteration shows in the bracket
            plan, log = pot().bregman.sinkhorn_log(
                a, b, cost / largest, self.epsilon, numItermax=self.iterations, log=True
            )
        rounded = _with_marginals(plan, a, b) * total
        rows, cols = np.nonzero(rounded)
        u = largest * self.epsilon * np.asarray(log["log_u"])
        return Proposal(Plan(rows, cols, rounded[rows, cols]), u, "Sinkhorn", int(log["niter"]))


def _with_marginals(plan: Matrix, a: np.ndarray, b: np.ndarray) -> Matrix:
    """The nearby plan that has the marginals: shrink what is too much, spread what is missing."""
    rows = plan.sum(axis=1)
    plan = plan * np.minimum(1, a / np.where(rows > 0, rows, 1))[:, None]
    cols = plan.sum(axis=0)
    plan = plan * np.minimum(1, b / np.where(cols > 0, cols, 1))[None, :]
    short_a = np.maximum(a - plan.sum(axis=1), 0)
    short_b = np.maximum(b - plan.sum(axis=0), 0)
    missing = short_a.sum()
    return plan if missing == 0 else plan + np.outer(short_a, short_b) / missing
