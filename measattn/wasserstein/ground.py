r"""Ground costs $C_{ij} = |x_i - y_j|^p$ between two clouds, evaluated where they are asked for.

All exact arithmetic is NumPy float64, whatever the dtype of the measures: distances by direct
differences, because $|x|^2 + |y|^2 - 2\langle x, y\rangle$ cancels for close points. No matrix of
costs is held; blocks and single arcs are evaluated on demand.
"""

import abc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from measattn.wasserstein import tiles

Vector = NDArray[np.floating]
Matrix = NDArray[np.floating]
Index = NDArray[np.integer]

UNIT = 2.0**-53
"""The largest relative error of one rounding in float64."""

WORTH_FILTERING = 2**24
"""From this many operations on, bounds in float32 save time over costs in float64."""


class AbstractGround(abc.ABC):
    """The costs between n source and m target atoms.

    Attributes:
        shape: the numbers (n, m).
        largest: an upper bound of all costs.
        relative: the largest relative rounding error of one evaluated cost.
        underflow: what a cost may be too small by, besides.
    """

    shape: tuple[int, int]
    largest: float
    relative: float
    underflow: float = 2.0**-1020

    @property
    def trivial(self) -> bool:
        """Whether all costs are exactly 0."""
        return self.largest == 0

    @abc.abstractmethod
    def block(self, rows: Any, cols: Any) -> Matrix:
        """The costs (len(rows), len(cols)) between some sources and some targets."""

    @abc.abstractmethod
    def arcs(self, rows: Index, cols: Index) -> Vector:
        """The costs of single pairs."""

    @abc.abstractmethod
    def restrict(self, rows: Index, cols: Index) -> "AbstractGround":
        """The same costs between some of the atoms."""

    @property
    @abc.abstractmethod
    def transposed(self) -> "AbstractGround":
        """The costs of the opposite problem, (m, n)."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n={self.shape[0]}, m={self.shape[1]})"

    def resolution(self, used: float) -> float:
        """A gap of this size is due to rounding; ``used`` is the largest cost in the plan."""
        return 64 * 2 * UNIT * (self.largest if used == 0 else used)

    @cached_property
    def groups(self) -> list[Index]:
        """A partition of the sources, for `minima`; shuffled, so that neighbours lie apart."""
        n = self.shape[0]
        order = np.random.default_rng(0).permutation(n)
        size = 2 ** int(np.log2(np.clip(n / 32, 1, 64)))
        return [order[start : start + size] for start in range(0, n, size)]

    def minima(self, u: Vector) -> Iterator[tuple[slice, Matrix]] | None:
        """Lower bounds of min over each group of $C_{ij} - u_i$, by slices of the targets.

        None where no bound is cheaper than the costs themselves.
        """
        return None


@dataclass(frozen=True, eq=False, repr=False)
class Euclidean(AbstractGround):
    """$|x_i - y_j|^p$ for points of R^d.

    Attributes:
        x: sources (n, d).
        y: targets (m, d).
        p: the exponent, at least 1.
        run: the engine of the bounds in float32, `tiles.compiled` or `tiles.on_the_host`.
    """

    x: Matrix
    y: Matrix
    p: float | int
    run: tiles.Tiles

    @property
    def shape(self) -> tuple[int, int]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The numbers (n, m) of atoms."""
        return len(self.x), len(self.y)

    @cached_property
    def diameter(self) -> float:
        """An upper bound of the largest distance, from the radii about one centre."""
        return 1.001 * sum(np.linalg.norm(z - self.centre, axis=1).max() for z in (self.x, self.y))

    @cached_property
    def centre(self) -> Vector:
        """A point amid the sources."""
        return self.x.mean(axis=0)

    @property
    def underflow(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """In units near the diameter, what the squares of a distance, or its power, may lose."""
        return 2.0**-520

    @property
    def trivial(self) -> bool:
        return all(
            np.array_equal(z, np.broadcast_to(self.x[:1], z.shape)) for z in (self.x, self.y)
        )

    @property
    def largest(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """An upper bound of all costs."""
        return float(self.diameter**self.p)

    @property
    def relative(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The largest relative rounding error of one cost."""
        # d squares and their sum, a root, a power
        return (self.p * (self.x.shape[1] / 2 + 4) + 4) * UNIT

    def resolution(self, used: float) -> float:
        return (64 + self.x.shape[1]) * 2 * UNIT * self.largest

    def block(self, rows: Any, cols: Any) -> Matrix:
        return self._power(cdist(self.x[rows], self.y[cols]))

    def arcs(self, rows: Index, cols: Index) -> Vector:
        out = np.empty(len(rows))
        for part in slices(len(rows), max(1, 2**22 // self.x.shape[1])):
            difference = self.x[rows[part]] - self.y[cols[part]]
            # the product with itself in one pass, as cdist does
            out[part] = np.sqrt(np.einsum("kd,kd->k", difference, difference))
        return self._power(out)

    def _power(self, distance: NDArray) -> NDArray:
        return distance if self.p == 1 else distance**self.p

    def restrict(self, rows: Index, cols: Index) -> "Euclidean":
        return replace(self, x=self.x[rows], y=self.y[cols])

    @cached_property
    def transposed(self) -> "Euclidean":
        return replace(self, x=self.y, y=self.x)

    def minima(self, u: Vector) -> Iterator[tuple[slice, Matrix]] | None:
        n, m = self.shape
        if n * m * (self.x.shape[1] + 4) < WORTH_FILTERING:
            return None
        return tiles.bounds(
            self.x,
            self.y,
            u,
            p=float(self.p),
            groups=self.groups,
            largest=self.largest,
            run=self.run,
        )


@dataclass(frozen=True, eq=False, repr=False)
class Table(AbstractGround):
    """Costs that are given as a matrix (n, m), not negative and finite."""

    cost: Matrix
    relative: float = 0.0

    @property
    def shape(self) -> tuple[int, int]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The numbers (n, m) of atoms."""
        return self.cost.shape[0], self.cost.shape[1]

    @cached_property
    def largest(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """An upper bound of all costs."""
        return float(self.cost.max())

    def block(self, rows: Any, cols: Any) -> Matrix:
        return self.cost[rows][:, cols]

    def arcs(self, rows: Index, cols: Index) -> Vector:
        return self.cost[rows, cols]

    def restrict(self, rows: Index, cols: Index) -> "Table":
        return replace(self, cost=self.cost[np.ix_(rows, cols)])

    @cached_property
    def transposed(self) -> "Table":
        return replace(self, cost=self.cost.T)


def slices(n: int, size: int) -> list[slice]:
    """0, …, n-1 in parts of at most ``size``."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
