r"""What a transport solver returns, and why it can be trusted.

A plan with the right marginals gives $W_1 \le \sum C_{ij}\pi_{ij}$, potentials with
$u_i + v_j \le C_{ij}$ give $W_1 \ge \sum a_iu_i + \sum b_jv_j$. `certify` makes the potentials
feasible by the c-transform $v_j = \min_i(C_{ij} - u_i)$ whatever the solver returned, evaluates
both sides in float64 and widens the bracket by what rounding may have done. Source: derived in
docs/theory.md, G5.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from measattn.wasserstein.problem import Matrix, Problem, Vector

EPS = float(np.finfo(np.float64).eps)


class Plan(NamedTuple):
    """A sparse transport plan: ``mass[k]`` goes from atom ``rows[k]`` to atom ``cols[k]``."""

    rows: np.ndarray
    cols: np.ndarray
    mass: Vector


class TransportError(RuntimeError):
    """A solver did not close the gap; ``solution`` carries the bracket that it reached."""

    def __init__(self, message: str, solution: "W1Solution"):
        super().__init__(message)
        self.solution = solution


@dataclass(frozen=True)
class W1Solution:
    """A Wasserstein-1 distance with a two-sided certificate.

    Attributes:
        value: the cost of the plan (attained).
        lower: certified, from feasible dual potentials.
        upper: certified, from the plan.
        plan: the optimal plan, sparse; rows and columns count the atoms of positive mass.
        potentials: the pair (u, v) of feasible dual potentials on these atoms.
        solver: the name of the solver and why it was chosen.
        status: how it ended, in a sentence.
    """

    value: float
    lower: float
    upper: float
    plan: Plan = field(repr=False)
    potentials: tuple[Vector, Vector] = field(repr=False)
    solver: str
    status: str

    @property
    def gap(self) -> float:
        """The width of the certified bracket, ``upper - lower``."""
        return self.upper - self.lower

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return (
            f"W1Solution(value={self.value:.12g}, certified in [{self.lower:.12g}, "
            f"{self.upper:.12g}], gap={self.gap:.1e}, {self.solver})"
        )


def certify(
    problem: Problem, plan: Plan, potential: Vector, solver: str, *, tol: float
) -> W1Solution:
    """The certified bracket of a plan and a potential on the source atoms.

    The bracket is accepted at ``tol`` times W1, or where rounding alone is wider than that, at what
    rounding costs: for equal or nearly equal measures W1 is below the resolution of float64.

    Raises:
        TransportError: the bracket is wider, or plan or potential are not finite.
    """
    x, y = problem.x, problem.y
    n, m, d = len(x), len(y), x.shape[1]
    mass = np.maximum(plan.mass, 0)  # negative mass would make a plan too cheap; now it is missing
    plan = Plan(plan.rows, plan.cols, mass)
    costs = np.linalg.norm(x[plan.rows] - y[plan.cols], axis=1)
    value = float(costs @ mass)
    # a constant moved from u to v changes nothing but the size of the terms that are added
    u = potential - (potential.max() + potential.min()) / 2
    v, met = c_transform(problem, u)
    # a sum of N products errs by N·eps times the sum of absolute values, a distance by (d+4)·eps/2,
    # the c-transform by that and one subtraction
    spread = float(problem.a @ np.abs(u) + problem.b @ np.abs(v))
    below = (n + m + d + 4) * EPS * spread + (d + 6) * EPS * (met + float(np.abs(u).max()))
    above = (len(costs) + d + 4) * EPS * value
    largest = _largest_cost(problem)
    lower = max(float(problem.a @ u + problem.b @ v) - below, 0.0)
    upper = value + above + _marginal_defect(problem, plan) * largest
    # the marginals of an exact plan, too, are right to rounding only
    floor = 2 * (below + above + (n + m) * EPS * largest)
    accepted = max(tol * value, floor)
    gap = upper - lower
    reached = f"within {tol:g} of W1" if gap <= tol * value else "the resolution of float64 here"
    closed = gap <= accepted
    solution = W1Solution(
        value=value,
        lower=lower,
        upper=upper,
        plan=plan,
        potentials=(u, v),
        solver=solver,
        status=f"The certified gap is {gap:.2e}, "
        + (f"{reached}." if closed else f"wider than the {accepted:.2e} that was asked for."),
    )
    if not closed:
        raise TransportError(
            f"{solver} did not close the gap: W1 lies in [{lower}, {upper}], which is wider than "
            f"{accepted:.2e} (tol = {tol:g}). Let the solver run longer, or raise tol",
            solution,
        )
    return solution


def c_transform(problem: Problem, u: Vector) -> tuple[Vector, float]:
    """The largest v with u_i + v_j ≤ C_ij, and the largest C_ij, by blocks."""
    n, m = len(problem.x), len(problem.y)
    block = max(1, 2**22 // n)
    v = np.empty(m)
    met = 0.0
    for start in range(0, m, block):
        columns = slice(start, start + block)
        costs = cdist(problem.x, problem.y[columns])
        met = max(met, float(costs.max()))
        v[columns] = (costs - u[:, None]).min(axis=0)
    return v, met


def _marginal_defect(problem: Problem, plan: Plan) -> float:
    rows = np.bincount(plan.rows, plan.mass, len(problem.x))
    cols = np.bincount(plan.cols, plan.mass, len(problem.y))
    return float(np.abs(rows - problem.a).sum() + np.abs(cols - problem.b).sum())


def _largest_cost(problem: Problem) -> float:
    """An upper bound of the largest distance, from the radii about one centre."""
    centre = problem.x.mean(axis=0)
    radius = [float(np.linalg.norm(z - centre, axis=1).max()) for z in (problem.x, problem.y)]
    return sum(radius)


def dense_plan(plan: Plan, shape: tuple[int, int]) -> Matrix:
    """The plan as a matrix, for small problems and pictures."""
    out = np.zeros(shape)
    np.add.at(out, (plan.rows, plan.cols), plan.mass)
    return out
