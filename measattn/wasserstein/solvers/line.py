r"""The line: the monotone coupling is optimal for every $|x - y|^p$, $p \ge 1$.

Source: Villani, *Topics in Optimal Transportation*, Section 2.2.
"""

from dataclasses import dataclass

import numpy as np

from measattn.wasserstein.ground import Euclidean, Vector
from measattn.wasserstein.plan import cumulated, monotone
from measattn.wasserstein.problem import Problem
from measattn.wasserstein.solvers.base import AbstractSolver, Proposal, Run


@dataclass(frozen=True)
class Line(AbstractSolver):
    r"""d = 1, any weights: sort and pair the quantiles.

    For p = 1 the potential integrates $f' = -\mathrm{sign}(F - G)$, otherwise it is tight along the
    chain of the coupling's arcs, which suffices because the costs have the Monge property.
    """

    def solve(self, problem: Problem, run: Run) -> Proposal:
        """Sort, pair the quantiles, follow the chain."""
        ground = problem.ground
        if not isinstance(ground, Euclidean) or ground.x.shape[1] != 1:
            raise ValueError(
                "Line solves d = 1 with the Euclidean distance: use Auto() for other problems"
            )
        x, y = ground.x[:, 0], ground.y[:, 0]
        i, j = np.argsort(x, kind="stable"), np.argsort(y, kind="stable")
        plan = monotone(i, j, problem.a, problem.b)
        u = _slopes(x, y, problem) if problem.p == 1 else _chain(i, j, problem)
        return Proposal(plan, u, "Line")


def _slopes(x: Vector, y: Vector, problem: Problem) -> Vector:
    sites = np.concatenate([x, y])
    order = np.argsort(sites, kind="stable")
    height = np.cumsum(np.concatenate([problem.a, -problem.b])[order])[:-1]
    # differences below rounding have no sign
    small = 4 * len(sites) * np.finfo(float).eps * problem.a.max()
    height[np.abs(height) < small] = 0
    f = np.concatenate([[0.0], np.cumsum(-np.sign(height) * np.diff(sites[order]))])
    values = np.empty_like(f)
    values[order] = f
    return values[: len(x)]


def _chain(i: np.ndarray, j: np.ndarray, problem: Problem) -> Vector:
    """Potentials with $u + v = C$ along the staircase of the coupling, corners included.

    Where a source and a target are used up together the corner carries no mass and need not be
    tight: there the potential changes as little as it may, so that it is small where little moves.
    """
    ends_a, ends_b = cumulated(i, j, problem.a, problem.b)
    # the staircase advances one index a step, in the order in which the masses are used up
    ends = np.concatenate([ends_a[:-1], ends_b[:-1]])
    step = np.argsort(ends, kind="stable")
    right = step >= len(i) - 1
    rows = i[np.concatenate([[0], np.cumsum(~right)])]
    cols = j[np.concatenate([[0], np.cumsum(right)])]
    costs = problem.ground.arcs(rows, cols)
    # a step down changes the source at the same target, and its potential by what the cost changes
    rise = np.where(right, 0.0, np.diff(costs))
    together = np.flatnonzero(~right[:-1] & right[1:] & (np.diff(ends[step]) == 0))
    before, after = rows[together], cols[together + 2]
    least = costs[together + 2] - problem.ground.arcs(before, after)
    rise[together] = np.clip(0.0, least, rise[together])
    u = np.empty(len(i))
    u[rows] = np.concatenate([[0.0], np.cumsum(rise)])
    return u
