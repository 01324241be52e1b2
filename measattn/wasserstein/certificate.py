r"""Why a distance can be trusted.

A plan with the right marginals gives $W_p^p \le \sum C_{ij}\pi_{ij}$, potentials with
$u_i + v_j \le C_{ij}$ give $W_p^p \ge \sum a_iu_i + \sum b_jv_j$. `certify` makes the potentials
feasible by the c-transform $v_j = \min_i(C_{ij} - u_i)$ whatever the solver returned, evaluates
both sides in float64 with exactly rounded sums, and widens the bracket by what rounding may have
done. Source: derived in docs/theory.md, G5.
"""

import math
from typing import NamedTuple

import numpy as np

from measattn.wasserstein.ground import UNIT, Vector
from measattn.wasserstein.masses import exact_sums
from measattn.wasserstein.plan import Plan
from measattn.wasserstein.pricing import Priced, c_transform
from measattn.wasserstein.problem import Problem


class Below(NamedTuple):
    """A lower bound of the least cost.

    Attributes:
        lower: at most the least cost.
        u: the potential on the sources.
        priced: its c-transform.
    """

    lower: float
    u: Vector
    priced: Priced


class Above(NamedTuple):
    """An upper bound of the least cost.

    Attributes:
        upper: at least the least cost.
        value: the cost of the plan.
        plan: the plan, without negative mass.
        resolution: a gap of this size is due to rounding.
    """

    upper: float
    value: float
    plan: Plan
    resolution: float


class Certified(NamedTuple):
    """The bracket of the least cost."""

    below: Below
    above: Above

    @property
    def gap(self) -> float:
        """The width of the bracket."""
        return self.above.upper - self.below.lower


def root(cost: float, p: float | int) -> tuple[float, float]:
    r"""Bounds of $c^{1/p}$ from below and from above.

    The exponent is rounded, which changes the root by the factor $e^{\upsilon|\log c|/p}$, and so
    are the power and what it is multiplied with.
    """
    if p == 1 or cost == 0:
        return cost, cost
    middle = cost ** (1 / p)
    margin = (4 + 2 * abs(math.log(cost)) / p) * UNIT
    return middle * (1 - margin), middle * (1 + margin)


def certify(problem: Problem, plan: Plan, potential: Vector) -> Certified:
    """The certified bracket of a plan and a potential on the sources, whatever their quality."""
    return Certified(from_below(problem, potential), from_above(problem, plan))


def from_below(problem: Problem, potential: Vector, opposite: Vector | None = None) -> Below:
    """The bound of a potential on the sources, made feasible by its c-transform.

    With an ``opposite`` potential on the targets all pairs that violate the two are looked at.
    """
    ground, a, b = problem.ground, problem.a, problem.b
    # a constant moved from u to v changes nothing but the size of the terms that are added
    u = np.where(np.isfinite(potential), potential, 0.0)
    middle = (u.max() + u.min()) / 2
    u = u - middle
    priced = c_transform(ground, u, None if opposite is None else opposite + middle)
    v = priced.v
    height_u, height_v = float(np.abs(u).max()), float(np.abs(v).max())
    spread_v = math.fsum(b * np.abs(v))
    mismatch = abs(math.fsum([*a, *-b]))
    rounding = (
        4 * UNIT * (math.fsum(a * np.abs(u)) + spread_v)  # the products and the sum
        # the c-transform
        + (ground.relative + 4 * UNIT) * (spread_v + math.fsum(b) * height_u)
        + mismatch * max(height_u, height_v)
    )
    dual = math.fsum([*(a * u), *(b * v)])
    rounding += ground.underflow * math.fsum(b) + problem.blur
    return Below(max(dual - rounding, 0.0), u, priced)


def from_above(problem: Problem, plan: Plan) -> Above:
    """The bound of a plan; what its marginals miss is charged with the largest cost."""
    ground = problem.ground
    # negative mass would make a plan too cheap; so it is taken out, and missing
    plan = Plan(plan.rows, plan.cols, np.where(plan.mass > 0, plan.mass, 0.0))
    costs = ground.arcs(plan.rows, plan.cols)
    value = math.fsum(costs * plan.mass)
    defect = math.fsum(np.abs(exact_sums(plan.rows, plan.mass, problem.a)))
    defect += math.fsum(np.abs(exact_sums(plan.cols, plan.mass, problem.b)))
    upper = value + (ground.relative + 4 * UNIT) * value + 1.001 * defect * ground.largest
    upper += ground.underflow * math.fsum(plan.mass) + problem.blur
    return Above(upper, value, plan, ground.resolution(float(costs.max(initial=0.0))))
