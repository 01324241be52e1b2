r"""H4 and H6: bounds that are maxima, re-checked by branch and bound.

A claim says that the logarithm of a maximand stays below a level. The maximand is Lipschitz in
each variable, so a box on whose centre it is low enough is done; others are cut in halves.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WORK = 2**23
"""More boxes than this at once are not looked at: then a claim counts as not proved."""


class Problem(NamedTuple):
    """A function on a box.

    Attributes:
        function: of points (k, m), one for each of m columns.
        sides: the box is the product of [0, side].
        slopes: Lipschitz constants in each variable.
        slack: how far, relative, a claim may be above the maximum, by the allowance of its grid.
    """

    function: Callable[[NDArray], NDArray]
    sides: tuple[float, ...]
    slopes: tuple[float, ...]
    slack: float


def h4(t: float, g: float, identity: bool) -> Problem:
    """The logarithm of H4's maximand, a function of D in [0, 2]; g = R|c|."""
    steep = t + g

    def function(points: NDArray) -> NDArray:
        (d,) = points
        rise = d - d * d
        if not identity:
            rise = np.where(d > 1, d * (2 - d) / 4, np.where(d > 0.5, 0.25, rise))
        return t * rise + g * d + _tail(1 + steep * d, steep)

    return Problem(function, (2.0,), (3 * t + g + 1,), 1e-4 + 1e-5 * t)


def h6(t: float, g: float) -> Problem:
    """The logarithm of H6's maximand for multiples of the identity, of (D, m, φ)."""
    steep = t + g

    def function(points: NDArray) -> NDArray:
        d, m, angle = points
        inner = np.minimum(m * d, (1 - d * d - m * m) / 2)
        cosine = steep * d * np.cos(angle)
        ahead, behind = (
            np.sqrt(np.maximum(1 + 2 * s * cosine + (steep * d) ** 2, 0)) for s in (1, -1)
        )
        lean = (t * m + g) / steep if steep > 0 else 0 * m
        chi = (ahead + behind + lean * (ahead - behind)) / 2
        return t * inner + g * d + _tail(chi, steep)

    return Problem(function, (2.0, 1.0, math.pi / 2), (2 * t + g + 1, 2 * t + 2, 2.0), 6e-3)


def _tail(chi: NDArray, steep: float) -> NDArray:
    r"""$\max_\delta[\log(\chi+\ell\delta)-\delta^2/2]$, at $\delta(\chi+\ell\delta)=\ell$."""
    if steep == 0:
        return np.log(chi)
    delta = (np.sqrt(chi * chi + 4 * steep * steep) - chi) / (2 * steep)
    return np.log(chi + steep * delta) - delta * delta / 2


def stays_below(problem: Problem, level: float) -> tuple[float, bool]:
    """The largest value that was met, and whether all values are at most ``level``."""
    sides, slopes = np.array(problem.sides), np.array(problem.slopes)
    counts = np.full(len(sides), 8)
    half = sides / counts / 2
    axes = [h * (2 * np.arange(k) + 1) for k, h in zip(counts, half, strict=True)]
    centres = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")])
    corners = np.array(list(itertools.product((-0.5, 0.5), repeat=len(sides)))).T
    top = -math.inf
    while True:
        values = problem.function(centres)
        top = max(top, float(values.max()))
        if top > level:
            return _climbed(problem, centres[:, int(values.argmax())], half, top), False
        centres = centres[:, values + slopes @ half > level]
        if centres.shape[1] == 0:
            return top, True
        if centres.shape[1] * corners.shape[1] > WORK:
            return top, False
        half = half / 2
        centres = (centres[:, :, None] + 2 * half[:, None, None] * corners[:, None, :]).reshape(
            len(sides), -1
        )


def _climbed(problem: Problem, place: NDArray, half: NDArray, top: float) -> float:
    """A nearly largest value near a place, so that a report can say by how much a claim fails."""
    sides = np.array(problem.sides)
    for _ in range(60):
        steps = np.array(list(itertools.product((-1, 0, 1), repeat=len(sides)))).T
        near = np.clip(place[:, None] + half[:, None] * steps, 0, sides[:, None])
        values = problem.function(near)
        k = int(values.argmax())
        if values[k] > top:
            place, top = near[:, k], float(values[k])
        else:
            half = half / 2
    return top
