"""Exact solvers: each gives a plan and a potential, and `certify` judges them.

A solver is a small object with `solve(problem)`; which one fits is decided in `w1.choose`.
"""

import abc
import warnings
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from measattn.wasserstein.problem import Matrix, Problem, Vector
from measattn.wasserstein.solution import Plan


class AbstractSolver(abc.ABC):
    """A method for the Kantorovich problem."""

    @abc.abstractmethod
    def solve(self, problem: Problem) -> tuple[Plan, Vector]:
        """An optimal plan, and a dual potential on the source atoms."""


@dataclass(frozen=True)
class Line(AbstractSolver):
    r"""d = 1: the monotone coupling, and the potential $f' = -\mathrm{sign}(F - G)$.

    Source: W1 = ∫|F - G|; Villani, *Topics in Optimal Transportation*, Section 2.2.
    """

    def solve(self, problem: Problem) -> tuple[Plan, Vector]:
        """Sort, pair the quantiles, integrate the sign of F - G."""
        if problem.x.shape[1] != 1:
            raise ValueError(f"Line solves d = 1, got dimension {problem.x.shape[1]}")
        x, y = problem.x[:, 0], problem.y[:, 0]
        i, j = np.argsort(x, kind="stable"), np.argsort(y, kind="stable")
        plan = _quantile_plan(i, j, problem.a, problem.b)
        sites = np.concatenate([x, y])
        order = np.argsort(sites, kind="stable")
        signed = np.concatenate([problem.a, -problem.b])[order]
        height = np.cumsum(signed)[:-1]
        # differences below rounding have no sign
        height[np.abs(height) < 4 * len(sites) * np.finfo(float).eps] = 0
        f = np.concatenate([[0.0], np.cumsum(-np.sign(height) * np.diff(sites[order]))])
        values = np.empty_like(f)
        values[order] = f
        return plan, values[: len(x)]


def _quantile_plan(i: np.ndarray, j: np.ndarray, a: Vector, b: Vector) -> Plan:
    """The monotone coupling of weights a (in order i) and b (in order j)."""
    ends_a, ends_b = np.cumsum(a[i]), np.cumsum(b[j])
    ends_a[-1] = ends_b[-1] = 1.0
    ends = np.union1d(ends_a, ends_b)
    mass = np.diff(ends, prepend=0.0)
    rows = i[np.minimum(np.searchsorted(ends_a, ends), len(i) - 1)]
    cols = j[np.minimum(np.searchsorted(ends_b, ends), len(j) - 1)]
    keep = mass > 0
    return Plan(rows[keep], cols[keep], mass[keep])


@dataclass(frozen=True)
class Assignment(AbstractSolver):
    """Equal numbers of equally heavy atoms: an optimal plan is a permutation (Birkhoff).

    SciPy finds the permutation (a shortest augmenting path method); its potentials are shortest
    path lengths in the residual graph, found here by Bellman-Ford rounds over all arcs at once.
    """

    def solve(self, problem: Problem) -> tuple[Plan, Vector]:
        """The permutation, and the potential that proves it optimal."""
        if not problem.uniform:
            raise ValueError(
                "Assignment needs equally many atoms of equal weight, got "
                f"{len(problem.x)} and {len(problem.y)}: use NetworkSimplex()"
            )
        n = len(problem.x)
        rows, cols = linear_sum_assignment(problem.cost)
        return Plan(rows, cols, np.full(n, 1 / n)), _potential_of(problem.cost, cols)


def _potential_of(cost: Matrix, permutation: np.ndarray) -> Vector:
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


@dataclass(frozen=True)
class NetworkSimplex(AbstractSolver):
    """Any weights: POT's network simplex on the dense matrix of costs.

    Attributes:
        iterations: the most pivots allowed; what is not optimal by then fails its certificate.
    """

    iterations: int = 100_000_000

    def solve(self, problem: Problem) -> tuple[Plan, Vector]:
        """POT's plan and potential, its warnings turned into the certificate's business."""
        ot = _pot()
        # POT's tolerances are absolute, so bring the largest cost to about one; a power of two
        # scales without rounding
        scale = 2.0 ** np.floor(np.log2(max(problem.cost.max(), np.finfo(float).tiny)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # non-convergence shows in the certified gap
            plan, log = ot.lp.emd(
                problem.a, problem.b, problem.cost / scale, numItermax=self.iterations, log=True
            )
        rows, cols = np.nonzero(plan)
        return Plan(rows, cols, plan[rows, cols]), scale * np.asarray(log["u"])


def _pot():
    """POT, imported on first use and kept from importing torch, which would cost seconds."""
    import os
    import sys

    names = ("PYTORCH", "JAX", "CUPY", "TENSORFLOW")
    if "ot" not in sys.modules:
        for name in names:
            os.environ.setdefault(f"POT_BACKEND_DISABLE_{name}", "1")
    import ot

    return ot
