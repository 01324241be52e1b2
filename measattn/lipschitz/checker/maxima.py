r"""H4 and H6: bounds that are maxima, re-checked by branch and bound.

A claim says that the logarithm of a maximand stays below a level. A box on which an upper bound of
the maximand is low enough is done; others are cut in halves.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WORK = 2**22
"""More boxes than this at once are not looked at: then a claim counts as not proved."""


class Problem(NamedTuple):
    """A function on a box.

    Attributes:
        above: of boxes, given by their centres (k, m) and half of their sides (k,), an upper bound
            on each; of sides 0 it is the value.
        sides: the whole box is the product of [0, side].
        slack: how far, relative, a claim may be above the maximum, by the allowance of its grid.
    """

    above: Callable[[NDArray, NDArray], NDArray]
    sides: tuple[float, ...]
    slack: float


def h4(t: float, g: float, identity: bool) -> Problem:
    """The logarithm of H4's maximand, a function of D in [0, 2]; g = R|c|."""
    steep = t + g

    def above(centres: NDArray, half: NDArray) -> NDArray:
        (d,) = centres
        rise = d - d * d
        if not identity:
            rise = np.where(d > 1, d * (2 - d) / 4, np.where(d > 0.5, 0.25, rise))
        return t * rise + g * d + _tail(1 + steep * d, steep) + (3 * t + g + 1) * half[0]

    return Problem(above, (2.0,), 1e-4 + 1e-5 * t)


def h6(matrix: NDArray, cap: float, g: float) -> Problem:
    r"""The logarithm of H6's maximand, of (D, m).

    Args:
        matrix: $R^2A$.
        cap: $\theta_R(A, c)$.
        g: R|c|.
    """
    t = float(np.linalg.svd(matrix, compute_uv=False)[0])
    steep = t + g
    # any ν gives a bound of <A pi, w>
    tried = []
    for nu in [0.0, *(t * 2 ** (k / 4) for k in range(-24, 9))]:
        apart = np.linalg.svd(matrix - 2 * nu * np.eye(len(matrix)), compute_uv=False)[0]
        tried.append((nu, float(apart) + 1e-15 * (t + nu)))

    def above(centres: NDArray, half: NDArray) -> NDArray:
        low, (d, m) = centres - half[:, None], centres + half[:, None]
        corner = 1 - low[0] ** 2 - low[1] ** 2
        rise = np.full(d.shape, cap)
        for nu, apart in tried:
            np.minimum(
                rise, apart * d * m + np.minimum(2 * nu * d * m, nu * corner) + g * d, out=rise
            )
        s, share = steep * d, (t * m + g) / (steep or 1.0)
        chi = np.sqrt((1 + s**2) * (1 + share**2))
        chi = np.where(s < share, 1 + s * share, np.where(s * share > 1, s + share, chi))
        top = rise + np.minimum(_tail(chi, steep), math.log(1 + 2 * steep))
        return np.where(low[0] - m <= 1, top, -math.inf)

    return Problem(above, (2.0, 1.0), 1e-3 * (1 + steep))


def _tail(chi: NDArray, steep: float) -> NDArray:
    r"""$\max_\delta[\log(\chi+\ell\delta)-\delta^2/2]$, at $\delta(\chi+\ell\delta)=\ell$."""
    if steep == 0:
        return np.log(chi)
    delta = (np.sqrt(chi * chi + 4 * steep * steep) - chi) / (2 * steep)
    return np.log(chi + steep * delta) - delta * delta / 2


def stays_below(problem: Problem, level: float) -> tuple[float, bool]:
    """The largest value that was met, and whether all values are at most ``level``."""
    sides = np.array(problem.sides)
    half = sides / 16
    axes = [h * (2 * np.arange(8) + 1) for h in half]
    centres = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")])
    corners = np.array(list(itertools.product((-0.5, 0.5), repeat=len(sides)))).T
    top, place = -math.inf, centres[:, 0]
    while True:
        values = problem.above(centres, 0 * half)
        k = int(values.argmax())
        if values[k] > top:
            top, place = float(values[k]), centres[:, k]
        centres = centres[:, problem.above(centres, half) > level]
        if top > level or centres.shape[1] == 0:
            # climbed, so that a report can say by how much a claim fails, or could be lower
            return _climbed(problem, place, half, top), top <= level
        if centres.shape[1] * corners.shape[1] > WORK:
            return top, False
        half = half / 2
        centres = (centres[:, :, None] + 2 * half[:, None, None] * corners[:, None, :]).reshape(
            len(sides), -1
        )


def _climbed(problem: Problem, place: NDArray, half: NDArray, top: float) -> float:
    """A nearly largest value near a place."""
    sides = np.array(problem.sides)
    for _ in range(60):
        steps = np.array(list(itertools.product((-1, 0, 1), repeat=len(sides)))).T
        near = np.clip(place[:, None] + half[:, None] * steps, 0, sides[:, None])
        values = problem.above(near, 0 * half)
        k = int(values.argmax())
        if values[k] > top:
            place, top = near[:, k], float(values[k])
        else:
            half = half / 2
    return top
