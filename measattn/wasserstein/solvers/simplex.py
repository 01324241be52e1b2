"""POT's network simplex: on the dense matrix of costs, and on a few arcs."""

import os
import sys
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix

from measattn.checks import whole
from measattn.wasserstein.ground import Index, Vector
from measattn.wasserstein.plan import Plan
from measattn.wasserstein.problem import Problem
from measattn.wasserstein.solvers.base import AbstractSolver, Proposal, Run


@dataclass(frozen=True)
class NetworkSimplex(AbstractSolver):
    """Any weights: POT's network simplex on the dense matrix of costs.

    Attributes:
        pivots: the most pivots allowed; what is not optimal by then fails its certificate.
    """

    pivots: int = 1_000_000_000

    def __post_init__(self):
        object.__setattr__(self, "pivots", whole("pivots", self.pivots, 1))

    def solve(self, problem: Problem, run: Run) -> Proposal:
        """POT's plan and potential, its warnings turned into the certificate's business."""
        cost_unit, (a, b, mass_unit) = _unit(problem.cost.max()), _masses(problem)
        plan, log = _emd(a, b, problem.cost / cost_unit, self.pivots)
        rows, cols = np.nonzero(plan)
        mass = plan[rows, cols] * mass_unit
        return Proposal(Plan(rows, cols, mass), cost_unit * np.asarray(log["u"]), "NetworkSimplex")


def on_arcs(
    problem: Problem, rows: Index, cols: Index, costs: Vector, pivots: int
) -> tuple[Plan, Vector, Vector]:
    """The optimal plan among those that use some arcs only, and its potentials (u, v).

    The costs may have any sign. The arcs must allow a feasible plan: POT answers an infeasible
    problem with zeros.
    """
    cost_unit, (a, b, mass_unit) = _unit(np.abs(costs).max()), _masses(problem)
    # coordinates, because a conversion from a matrix would drop the zero costs of equal points
    matrix = coo_matrix((costs / cost_unit, (rows, cols)), shape=problem.ground.shape)
    plan, log = _emd(a, b, matrix, pivots)
    plan = plan.tocoo()
    kept = Plan(plan.row.astype(np.int64), plan.col.astype(np.int64), plan.data * mass_unit)
    return kept, cost_unit * np.asarray(log["u"]), cost_unit * np.asarray(log["v"])


def _emd(a: Vector, b: Vector, cost: Any, pivots: int) -> tuple[Any, dict]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # non-convergence shows in the certified gap
        return pot().lp.emd(
            a, b, cost, numItermax=pivots, log=True, center_dual=False, check_marginals=False
        )


def _unit(largest: float) -> float:
    """A power of two near the largest cost: POT's tolerances are absolute."""
    return 2.0 ** np.floor(np.log2(max(largest, np.finfo(float).tiny)))


def _masses(problem: Problem) -> tuple[Vector, Vector, float]:
    """The masses for POT and their unit; ones for uniform atoms, so that flows are exact."""
    if problem.uniform:
        ones = np.ones(len(problem.a))
        return ones, ones, float(problem.a[0])
    total = float(problem.a.sum())
    return problem.a / total, problem.b / total, total


def pot() -> Any:
    """POT, imported on first use and kept from importing torch, which would cost seconds."""
    if "ot" not in sys.modules:
        for name in ("PYTORCH", "JAX", "CUPY", "TENSORFLOW"):
            os.environ.setdefault(f"POT_BACKEND_DISABLE_{name}", "1")
    import ot

    return ot
