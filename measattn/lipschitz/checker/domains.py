"""Where the measures of a certificate live: the ball around it, and whether points lie inside."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .files import number, sized, vector
from .report import Rejected

ROUNDING = 1e-12
"""How far outside points of a sphere or simplex may lie, relative to its size."""


class Region(NamedTuple):
    """A domain in R^d.

    Attributes:
        kind: its name.
        radius: of the ball around it; infinite if there is none.
        centre: of that ball (d,).
        diameter: its own.
        numbers: the entries of the file.
    """

    kind: str
    radius: float
    centre: NDArray
    diameter: float
    numbers: dict[str, Any]

    def outside(self, x: NDArray, weights: NDArray) -> float:
        """How far the worst of the points (n, d) lies outside, beyond what rounding explains."""
        shift = x - self.centre
        lengths = np.linalg.norm(shift, axis=1)
        match self.kind:
            case "Ball":
                excess = float(lengths.max()) - self.radius
            case "Sphere":
                excess = float(np.abs(lengths - self.radius).max()) - ROUNDING * self.radius
            case "Box":
                low, high = self.numbers["low"], self.numbers["high"]
                excess = float(np.maximum(low - x, x - high).max())
            case "Simplex":
                off = np.abs(x.sum(axis=1) - 1) + np.maximum(-x, 0).sum(axis=1)
                excess = float(off.max()) - ROUNDING
            case _:
                moment = self.numbers["second_moment"]
                square = math.fsum(weights * np.sum(x * x, axis=1)) / math.fsum(weights)
                excess = -math.inf if moment is None else square - moment
        return max(excess, 0.0)


def region(entries: dict[str, Any], dimension: int) -> Region:
    """The domain of a certificate.

    Raises:
        Rejected: numbers that make no domain.
    """
    kind, origin = entries["kind"], np.zeros(dimension)
    if kind in {"Ball", "Sphere"}:
        radius = number("the radius", entries["radius"], least=5e-324)
        sized("the radius", np.array(radius))
        centre = entries["centre"]
        centre = origin if centre is None else vector("the centre", centre, dimension)
        sized("the centre", centre)
        return Region(kind, radius, centre, 2 * radius, {})
    if kind == "Box":
        low, high = (vector(name, entries[name], dimension) for name in ("low", "high"))
        if not np.all(low < high):
            raise Rejected("a box must have low < high")
        sized("the box", np.array([low, high]))
        sized("the sides of the box", high - low)
        diameter = float(np.linalg.norm(high - low)) * (1 + 1e-15 * dimension)
        middle = (low + high) / 2
        # the middle is rounded
        radius = diameter / 2 + float(np.linalg.norm(np.spacing(middle)))
        return Region(kind, radius, middle, diameter, {"low": low, "high": high})
    if kind == "Simplex":
        if entries["dimension"] != dimension or dimension < 2:
            raise Rejected(f"the simplex has dimension {entries['dimension']}, not {dimension}")
        centre = np.full(dimension, 1 / dimension)
        return Region(kind, math.sqrt(1 - 1 / dimension), centre, math.sqrt(2), {})
    moment = entries["second_moment"]
    if moment is not None:
        moment = number("the second moment", moment, least=0.0)
        sized("the second moment", np.array(moment))
    return Region(kind, math.inf, origin, math.inf, {"second_moment": moment})
