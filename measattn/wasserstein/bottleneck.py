r"""$W_\infty$ between uniform measures: the bottleneck transport, exact, with its witness.

A threshold admits a plan if a flow through the arcs up to it moves all mass. Where these are many
the flow is sought on a random part of them first. Where it fails, a cut names sources whose arcs
all lead to too few targets, and their arcs to all others are looked at: those up to the threshold
are added, and if there are none the shortest of them is a lower bound of $W_\infty$ (Hall's
condition fails below it).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from scipy.spatial.distance import cdist

from measattn.measure import EmpiricalMeasure
from measattn.wasserstein.ground import UNIT, Index, Matrix
from measattn.wasserstein.number import AbstractNumber
from measattn.wasserstein.plan import Plan
from measattn.wasserstein.problem import common_space, states, weights
from measattn.wasserstein.solution import Bracket
from measattn.wasserstein.support import Support

LARGEST = 2**24
"""More pairs than this are not held as a matrix of distances."""

MANY = 2**19
"""Up to this many arcs below a threshold a flow takes less time than a choice among them."""

STEP = 1.5
"""By this factor thresholds rise until one admits a plan."""


@dataclass(frozen=True, eq=False, repr=False)
class BottleneckSolution(AbstractNumber):
    r"""$W_\infty$ with the two witnesses of its optimality.

    Attributes:
        value: the longest arc of the plan (attained).
        lower: certified, from the blocking sources.
        upper: certified, from the plan.
        plan: a plan with no arc longer than ``value``.
        blocking: sources that hold more mass than all targets nearer to them than ``value``, so
            that some of it has to go as far (Hall's condition fails for shorter arcs).
        supports: how many atoms mu and nu have, and a fingerprint of where.
    """

    value: float
    lower: float
    upper: float
    plan: Plan
    blocking: Index
    supports: tuple[Support, Support]

    def __repr__(self) -> str:
        return f"Winf {self._known('bottleneck transport')}"


def w_inf(
    mu: EmpiricalMeasure,
    nu: EmpiricalMeasure,
    *,
    watch: Callable[[Bracket], None] | None = None,
) -> BottleneckSolution:
    r"""$W_\infty(\mu,\nu) = \min_\pi \max_{\pi_{ij}>0} |x_i - y_j|$ for uniform measures.

    Masses are whole numbers of a common unit and the value is one of the distances, so bisection
    over these finds it exactly. Atoms without mass count for nothing.

    Args:
        mu: a measure with n equally heavy atoms, up to 64 eps of their dtype, which is rounding.
        nu: another, with m.
        watch: called with the certified bracket after each threshold that was tried, for long
            runs: ``watch=print``; before there is a plan its upper end is infinite.

    Raises:
        ValueError: weights that are not uniform, tokens or pairs, traced values, different
            dimensions, or more than 2^24 pairs.

    Source: Hall's marriage theorem; docs/theory.md, W4.
    """
    if not (watch is None or callable(watch)):
        raise ValueError(f"watch must be a function of a Bracket, such as print, got {watch!r}")
    massive_a, massive_b = _equally_heavy("mu", mu), _equally_heavy("nu", nu)
    x, y, unit = common_space(states("mu", mu)[massive_a], states("nu", nu)[massive_b])
    n, m = len(x), len(y)
    if n * m > LARGEST:
        raise ValueError(
            f"w_inf holds the {n}·{m} distances, more than {LARGEST}: compare random subsets"
        )
    relative = (x.shape[1] / 2 + 4) * UNIT
    search = _Search(cdist(x, y))
    for lower, upper in search.narrowed():
        if watch is not None:
            rounded = (unit * lower * (1 - relative), unit * upper * (1 + relative))
            watch(Bracket(*rounded, search.arcs))
    value = unit * search.upper
    rows, cols, mass = search.plan
    return BottleneckSolution(
        value=value,
        lower=value * (1 - relative),
        upper=value * (1 + relative),
        plan=Plan(massive_a[rows], massive_b[cols], mass),
        blocking=massive_a[search.blocking],
        supports=(Support.of(mu), Support.of(nu)),
    )


def _equally_heavy(name: str, measure: EmpiricalMeasure) -> Index:
    """The atoms with mass, if all have the same."""
    mass = weights(name, measure)
    massive = np.flatnonzero(mass > 0)
    mass = mass[massive]
    if np.ptp(mass) > 64 * np.finfo(measure.dtype).eps * mass.max():
        raise ValueError(
            f"{name} must be uniform for w_inf, got weights from {mass.min()} to {mass.max()}: "
            "repeat atoms in proportion to their weights"
        )
    return massive


class _Search:
    """The bracket of the least threshold, with its two witnesses.

    Attributes:
        cost: the distances (n, m).
        lower: no threshold below it admits a plan, because of ``blocking``.
        blocking: sources with more mass than all targets nearer to them than ``lower``.
        upper: the longest arc of ``plan``, infinite until there is one.
        plan: a plan of all mass.
        arcs: how many arcs the last flow was allowed.
    """

    def __init__(self, cost: Matrix):
        nearest, nearest_source = cost.min(axis=1), cost.min(axis=0)
        # every source and every target has to use its shortest arc at least
        self.lower = float(max(nearest.max(), nearest_source.max()))
        lonely = np.flatnonzero(nearest == self.lower)[:1]
        self.blocking: Index = lonely if len(lonely) else np.arange(len(cost))
        self.upper = math.inf
        self.plan = Plan(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
        self.cost, self.arcs = cost, 0

    def narrowed(self) -> Iterator[tuple[float, float]]:
        """The bounds after each threshold: rising ones until there is a plan, then bisection."""
        self._try(self.lower)
        yield self.lower, self.upper
        while math.isinf(self.upper):
            self._try(STEP * self.lower)
            yield self.lower, self.upper
        # the distances that may still be the least threshold, beside ``upper``
        open_ = self.cost.reshape(-1)
        while self.lower < self.upper:
            open_ = open_[(open_ >= self.lower) & (open_ < self.upper)]
            middle = (len(open_) - 1) // 2
            self._try(float(np.partition(open_, middle)[middle]))
            yield self.lower, self.upper

    def _try(self, threshold: float) -> None:
        """Find a plan of arcs up to the threshold, or sources that have none."""
        arcs = self.cost <= threshold
        share = MANY / np.count_nonzero(arcs)
        if share < 1:
            random = np.random.default_rng(0).random(arcs.shape, np.float32)
            arcs &= random < share
        while True:
            self.arcs = int(arcs.sum())
            flow = _flow(arcs)
            if flow.complete:
                self.plan = flow.plan
                self.upper = float(self.cost[flow.plan.rows, flow.plan.cols].max())
                return
            beyond = np.ix_(flow.sources, flow.others)
            lengths = self.cost[beyond]
            if lengths.min() > threshold:
                self.lower, self.blocking = float(lengths.min()), flow.sources
                return
            arcs[beyond] = lengths <= threshold


@dataclass(frozen=True, eq=False)
class _Flow:
    """The largest flow from the sources to the targets through some arcs.

    Attributes:
        plan: it, as a plan of total mass at most 1.
        complete: whether it moves all mass.
        sources: if it does not, sources with more mass than all targets that they reach.
        others: the targets that these do not reach.
    """

    plan: Plan
    complete: bool
    sources: Index
    others: Index


def _flow(arcs: np.ndarray) -> _Flow:
    n, m = arcs.shape
    shared = math.gcd(n, m)
    a, b = m // shared, n // shared  # units of mass of a source, of a target
    rows, cols = np.nonzero(arcs)
    source, sink = n + m, n + m + 1
    tails = np.concatenate([rows, np.full(n, source), n + np.arange(m)])
    heads = np.concatenate([n + cols, np.arange(n), np.full(m, sink)])
    # an arc with room for all of its source is in no least cut
    capacity = np.concatenate([np.full(len(rows) + n, a), np.full(m, b)])
    graph = csr_array((capacity.astype(np.int32), (tails, heads)), shape=(n + m + 2,) * 2)
    flow = maximum_flow(graph, source, sink)
    moved = flow.flow[:n, n : n + m].tocoo()
    units = n * a
    positive = moved.data > 0
    plan = Plan(moved.row[positive], moved.col[positive], moved.data[positive] / units)
    if flow.flow_value == units:
        return _Flow(plan, True, np.empty(0, np.int64), np.empty(0, np.int64))
    residual = graph - flow.flow
    residual.data[residual.data < 0] = 0
    residual.eliminate_zeros()
    reached = np.zeros(n + m + 2, bool)
    reached[breadth_first_order(residual, source, return_predecessors=False)] = True
    return _Flow(plan, False, np.flatnonzero(reached[:n]), np.flatnonzero(~reached[n : n + m]))
