"""Distances along a path: problems that resemble each other, solved one after the other."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from measattn.measure import EmpiricalMeasure, states
from measattn.wasserstein import Solution, TransportError, w1
from measattn.wasserstein.problem import LARGEST_POINT

FEW = 2
"""A warm problem that closes within so many rounds may be one that a cold one solves in none."""

PATIENCE = 64
"""The most warm problems before a cold one is tried again."""


class Distances(NamedTuple):
    r"""$W_1$ of several pairs of laws, with certificates; empty where none were asked for.

    Attributes:
        w1: attained by plans (k,); NaN where states are too large for distances in float64.
        lower: certified from below (k,).
        upper: certified from above (k,); infinite where states are too large.
    """

    w1: NDArray
    lower: NDArray
    upper: NDArray


class Chain:
    """Solves one problem after another and keeps the numbers, of the solutions only the last.

    Attributes:
        wide: the numbers of the problems whose bracket is wider than was asked for.
    """

    def __init__(self, tol: Any):
        self._tol, self._last, self._known = tol, None, []
        self._warm, self._wait = 0, 1
        self.wide: list[int] = []

    def add(self, mu: EmpiricalMeasure, nu: EmpiricalMeasure) -> None:
        """The distance between the laws of the states, from the arcs of the problem before."""
        found, closed = bracketed(mu, nu, self._tol, self._start())
        if not closed:
            self.wide.append(len(self._known))
        # what did not close is no good start
        self._last = found if closed else None
        known = (
            (math.nan, 0.0, math.inf) if found is None else (found.value, found.lower, found.upper)
        )
        self._known.append(known)

    def _start(self) -> Solution | None:
        """The solution before, where a start pays.

        Where atoms move less than their spacing no arcs are searched for, and a start costs more.
        A problem solved cold says so; one solved warm may have been such if it needed few rounds
        and sent each atom to its own image, and a cold try, ever more rarely, tells.
        """
        if self._last is None or not self._last.trace:
            self._warm, self._wait = 0, 1
            return None
        self._warm += 1
        rows, cols, _ = self._last.plan
        short = len(self._last.trace) <= FEW and np.array_equal(rows, cols)
        if short and self._warm > self._wait:
            self._warm, self._wait = 0, min(2 * self._wait, PATIENCE)
            return None
        return self._last

    @property
    def distances(self) -> Distances:
        """All of them."""
        return Distances(*np.asarray(self._known, np.float64).reshape(-1, 3).T)


def bracketed(
    mu: EmpiricalMeasure, nu: EmpiricalMeasure, tol: Any = 1e-9, start: Solution | None = None
) -> tuple[Solution | None, bool]:
    """$W_1$ between the laws of the states, and whether it is as exact as was asked for.

    What a solver left open is still certified, and is no reason to lose a path; where states are
    finite, but too large for distances in float64, there is no solution at all.
    """
    if max(float(np.abs(np.asarray(states(law).points)).max()) for law in (mu, nu)) > LARGEST_POINT:
        return None, False
    try:
        return w1(states(mu), states(nu), tol=tol, start=start), True
    except TransportError as error:
        return error.solution, False
