"""Distances along a path: problems that resemble each other, solved one after the other."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from measattn.measure import EmpiricalMeasure, states
from measattn.wasserstein import Solution, w1


class Distances(NamedTuple):
    r"""$W_1$ of several pairs of laws, with certificates; empty where none were asked for.

    Attributes:
        w1: attained by plans (k,).
        lower: certified from below (k,).
        upper: certified from above (k,).
    """

    w1: NDArray
    lower: NDArray
    upper: NDArray


class Chain:
    """Solves one problem after another and keeps the numbers, of the solutions only the last."""

    def __init__(self, tol: float | int):
        self._tol, self._last, self._known = tol, None, []

    def add(self, mu: EmpiricalMeasure, nu: EmpiricalMeasure) -> None:
        """The distance between the laws of the states, from the arcs of the problem before."""
        last: Solution | None = self._last
        # where atoms move less than their spacing no arcs are searched for, and a start costs more
        start = last if last is not None and last.iterations > 0 else None
        self._last = w1(states(mu), states(nu), tol=self._tol, start=start)
        self._known.append((self._last.value, self._last.lower, self._last.upper))

    @property
    def distances(self) -> Distances:
        """All of them."""
        return Distances(*np.asarray(self._known, np.float64).reshape(-1, 3).T)
