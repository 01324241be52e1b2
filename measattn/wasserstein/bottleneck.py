r"""$W_\infty$ between uniform measures: the bottleneck transport, exact, with its witness."""

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from scipy.spatial.distance import cdist

from measattn.measure import EmpiricalMeasure
from measattn.wasserstein.ground import UNIT, Index
from measattn.wasserstein.plan import Plan
from measattn.wasserstein.problem import common_space, states, weights

LARGEST = 2**24
"""More pairs than this are not held as a matrix of distances."""


@dataclass(frozen=True)
class BottleneckSolution:
    r"""$W_\infty$ with the two witnesses of its optimality.

    Attributes:
        value: the longest arc of the plan (attained).
        lower: certified, from the blocking sources.
        upper: certified, from the plan.
        plan: a plan with no arc longer than ``value``.
        blocking: sources that hold more mass than all targets nearer to them than ``value``, so
            that some of it has to go as far (Hall's condition fails for shorter arcs).
    """

    value: float
    lower: float
    upper: float
    plan: Plan = field(repr=False)
    blocking: Index = field(repr=False)

    def __float__(self) -> float:
        return self.value


def w_inf(mu: EmpiricalMeasure, nu: EmpiricalMeasure) -> BottleneckSolution:
    r"""$W_\infty(\mu,\nu) = \min_\pi \max_{\pi_{ij}>0} |x_i - y_j|$ for uniform measures.

    A threshold admits a plan if a flow through the arcs below it moves all mass. Masses are whole
    numbers of a common unit, so bisection over the distances finds the least threshold exactly.

    Args:
        mu: a measure with n equally heavy atoms.
        nu: another, with m.

    Raises:
        ValueError: weights that are not uniform, tokens or pairs, traced values, different
            dimensions, or more than 2^24 pairs.

    Source: Hall's marriage theorem; docs/theory.md, W4.
    """
    for name, measure in (("mu", mu), ("nu", nu)):
        mass = weights(name, measure)
        if np.ptp(mass) > 64 * np.finfo(measure.dtype).eps * mass.max():
            raise ValueError(
                f"{name} must be uniform for w_inf, got weights from {mass.min()} to {mass.max()}: "
                "repeat atoms in proportion to their weights"
            )
    x, y, unit = common_space(states("mu", mu), states("nu", nu))
    n, m = len(x), len(y)
    if n * m > LARGEST:
        raise ValueError(
            f"w_inf holds the {n}·{m} distances, more than {LARGEST}: compare random subsets"
        )
    cost = cdist(x, y)
    # every source and every target has to use its shortest arc at least
    least = max(cost.min(axis=1).max(), cost.min(axis=0).max())
    lengths = np.unique(cost[cost >= least])
    low, high = 0, len(lengths) - 1
    while low < high:
        middle = (low + high) // 2
        if _flow(cost <= lengths[middle]).complete:
            high = middle
        else:
            low = middle + 1
    value = unit * float(lengths[low])
    relative = (x.shape[1] / 2 + 4) * UNIT
    return BottleneckSolution(
        value=value,
        lower=value * (1 - relative),
        upper=value * (1 + relative),
        plan=_flow(cost <= lengths[low]).plan,
        blocking=_flow(cost < lengths[low]).blocking,
    )


@dataclass(frozen=True)
class _Flow:
    """The largest flow from the sources to the targets through some arcs.

    Attributes:
        plan: it, as a plan of total mass at most 1.
        complete: whether it moves all mass.
        blocking: sources with more mass than all targets that they reach; empty if complete.
    """

    plan: Plan
    complete: bool
    blocking: Index


def _flow(arcs: np.ndarray) -> _Flow:
    n, m = arcs.shape
    shared = math.gcd(n, m)
    a, b = m // shared, n // shared  # units of mass of a source, of a target
    rows, cols = np.nonzero(arcs)
    source, sink = n + m, n + m + 1
    tails = np.concatenate([rows, np.full(n, source), n + np.arange(m)])
    heads = np.concatenate([n + cols, np.arange(n), np.full(m, sink)])
    capacity = np.concatenate([np.full(len(rows), min(a, b)), np.full(n, a), np.full(m, b)])
    graph = csr_array((capacity.astype(np.int32), (tails, heads)), shape=(n + m + 2,) * 2)
    flow = maximum_flow(graph, source, sink)
    moved = flow.flow[:n, n : n + m].tocoo()
    units = n * a
    positive = moved.data > 0
    plan = Plan(moved.row[positive], moved.col[positive], moved.data[positive] / units)
    complete = flow.flow_value == units
    if complete:
        return _Flow(plan, True, np.empty(0, np.int64))
    residual = graph - flow.flow
    residual.data[residual.data < 0] = 0
    residual.eliminate_zeros()
    reached = breadth_first_order(residual, source, return_predecessors=False)
    return _Flow(plan, False, np.sort(reached[reached < n]).astype(np.int64))
