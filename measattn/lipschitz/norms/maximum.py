r"""The largest of many sums of norms, from below and from above.

From below by the generalised power method
$u \leftarrow \sum_t N_t^\top N_tu/|N_tu|$, scaled to length 1, along which the sum of norms never
falls; from above by the certificate of its weights. Problems whose upper bound is below what
another one attains are left alone.

Source: the method is that of Journée, Nesterov, Richtárik & Sepulchre, JMLR 11 (2010) 517-553, for
convex functions on the sphere; the certificate is G3 of docs/theory-lipschitz.md.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from measattn.lipschitz.norms.problem import UP, AbstractSums, unit
from measattn.lipschitz.norms.weights import certify, floored, improve

NEAR = 1e-6
"""What is certified to be no further above the best value than this is left alone."""

POLISH = 40
"""Last steps of the power method, for the best problem alone."""


class Maximum(NamedTuple):
    """The largest value, and what bounds all of them.

    Attributes:
        value: attained.
        upper: certified for all problems.
        problem: which of them attains it.
        direction: where (d,).
        refined: the weights of how many problems were improved.
    """

    value: float
    upper: float
    problem: int
    direction: NDArray
    refined: int


def maximise(
    sums: AbstractSums,
    gap: float | int = 1e-3,
    steps: int = 8,
    rounds: int = 4,
    refinements: int = 48,
) -> Maximum:
    """The largest of the maxima of a family.

    Args:
        sums: the family.
        gap: the relative gap above which weights are improved.
        steps: of the power method in the first round; each round has twice as many.
        rounds: of ascent and certificate.
        refinements: how many problems may have their weights improved, the worst first.

    Raises:
        ValueError: a term is NaN or infinite.
    """
    state = _State(sums, gap)
    state.climb(np.arange(sums.count), steps)  # all of them: then cheap bounds discard most
    for turn in range(rounds):
        state.bound(state.alive())
        alive = state.alive()
        if not len(alive):
            break
        state.climb(alive, steps * 2**turn, restart=turn > 0)
    refined = state.refine(refinements)
    winner = int(np.argmax(state.values))
    state.climb(np.array([winner]), POLISH)
    value = sums.value(winner, state.u[winner])
    upper = float(np.maximum(state.upper, state.values).max())
    if not math.isfinite(value):
        raise ValueError("the Jacobian has entries that are NaN or infinite")
    u = state.u[winner]
    return Maximum(
        value, max(upper, value), winner, u if sums.basis is None else sums.basis @ u, refined
    )


class _State:
    """Values, directions and upper bounds of all problems so far."""

    def __init__(self, sums: AbstractSums, gap: float | int):
        self.sums, self.gap = sums, gap
        self.upper = sums.sizes.sum(axis=0) * UP + sums.slack
        if not np.all(np.isfinite(self.upper)):
            raise ValueError(
                "the Jacobian of the layer at this measure has entries that are NaN or infinite: "
                "it is not differentiable there, or its scores overflow"
            )
        self.values = np.zeros(sums.count)
        self.rng = np.random.default_rng(0)
        self.u = unit(self.rng.normal(size=(sums.count, sums.dimension)))

    def alive(self) -> NDArray:
        return np.flatnonzero(self.upper > self.values.max() * (1 + self.gap / 2))

    def climb(self, index: NDArray, steps: int, restart: bool = False) -> None:
        self._keep(index, *self.sums.ascend(index, self.u[index], steps))
        if restart:
            u = unit(self.rng.normal(size=(len(index), self.sums.dimension)))
            self._keep(index, *self.sums.ascend(index, u, steps))

    def bound(self, index: NDArray) -> None:
        if not len(index):
            return
        w = floored(self.sums.norms(index, self.u[index]), self.sums.sizes[:, index])
        # which problems are below the best one is decided without their eigenvalues
        found = certify(self.sums, index, w, self.values.max() * (1 + NEAR))
        self.upper[index] = np.minimum(self.upper[index], found.upper)
        # a direction that the certificate points at is a start worth trying
        if found.open.any():
            self._keep(index[found.open], *self.sums.ascend(index[found.open], found.directions, 2))

    def refine(self, refinements: int) -> int:
        """Restart, then improve weights, where upper bounds are worst; how often it was of use."""
        for turn in range(refinements):
            j = int(np.argmax(self.upper))
            if self.upper[j] <= self.values.max() * (1 + self.gap):
                return turn
            index = np.array([j])
            many = np.repeat(index, self.sums.restarts)
            u = unit(self.rng.normal(size=(self.sums.restarts, self.sums.dimension)))
            self._keep(many, *self.sums.ascend(many, u, 100))
            self.bound(index)
            if self.upper[j] <= self.values.max() * (1 + self.gap):
                continue
            w = floored(self.sums.norms(index, self.u[index]), self.sums.sizes[:, index])[:, 0]
            upper, _, direction = improve(self.sums, j, w, self.values.max() * (1 + self.gap / 2))
            self.upper[j] = min(self.upper[j], upper)
            self._keep(index, *self.sums.ascend(index, direction[None], 50))
            if (
                self.upper[j] > self.values.max() * (1 + self.gap)
                and self.upper[j] == self.upper.max()
            ):
                return turn + 1  # the worst one stays the worst
        return refinements

    def _keep(self, index: NDArray, u: NDArray, values: NDArray) -> None:
        """Keep what is better than what was known; an index may occur several times."""
        for k in np.flatnonzero(values > self.values[index]):
            if values[k] > self.values[index[k]]:
                self.values[index[k]] = values[k]
                self.u[index[k]] = u[k]
