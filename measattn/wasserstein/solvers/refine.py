"""The last digits: the problem again among nearly tight arcs, in units of their reduced costs."""

from measattn.wasserstein.certificate import Certified, from_above, from_below
from measattn.wasserstein.pricing import c_transform
from measattn.wasserstein.problem import Problem
from measattn.wasserstein.solvers.candidates import Candidates

TIGHT = 1e-9
"""Arcs whose reduced cost is below this part of the largest cost."""

PIVOTS = 10_000_000
"""Enough for what is nearly solved; one that is not is left as it was."""


def refined(problem: Problem, certified: Certified) -> Certified:
    """A bracket within that of a nearly optimal plan and its potentials.

    The network simplex works to 1e-13 of the largest cost that it sees. On arcs that are nearly
    tight it sees reduced costs only, and its error is 1e-13 of these: iterative refinement, as for
    linear systems. Where most mass stays and little moves, this is what keeps the digits.
    """
    (_, u, priced), above = certified
    slack = TIGHT * problem.ground.largest
    near = c_transform(problem.ground, u, priced.v + slack)
    tight = near.values - priced.v[near.cols] < slack
    m = len(priced.v)
    candidates = Candidates.none().grown(
        problem,
        near.rows[tight] * m + near.cols[tight],
        above.plan.rows * m + above.plan.cols,
    )
    plan, u, v = candidates.solve(problem, (u, priced.v), PIVOTS)
    return Certified(
        max(certified.below, from_below(problem, u, v), key=lambda bound: bound.lower),
        min(above, from_above(problem, plan), key=lambda bound: bound.upper),
    )
