r"""The Kantorovich problem between two empirical measures.

$$ W_1(\mu,\nu) = \min_{\pi\in\Pi(a,b)} \sum_{ij} \pi_{ij} |x_i - y_j| $$

All arithmetic is NumPy float64, whatever the dtype of the measures: distances by direct
differences, because $|x|^2 + |y|^2 - 2\langle x, y\rangle$ cancels for close points.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from measattn.checks import traced
from measattn.measure import EmpiricalMeasure
from measattn.points import Pair, Token

LARGEST_DENSE = 2**27
"""More entries than this (1 GiB) are not held as a matrix of costs."""

Vector = NDArray[np.floating]
Matrix = NDArray[np.floating]


@dataclass(frozen=True)
class Problem:
    """Two weighted point clouds in R^d, atoms without mass left out.

    Attributes:
        x: source atoms (n, d).
        y: target atoms (m, d).
        a: source weights (n,), positive, with sum 1 up to rounding.
        b: target weights (m,), likewise.
    """

    x: Matrix
    y: Matrix
    a: Vector
    b: Vector

    @cached_property
    def cost(self) -> Matrix:
        """The matrix of Euclidean distances (n, m).

        Raises:
            ValueError: it would have more than `LARGEST_DENSE` entries.
        """
        entries = len(self.x) * len(self.y)
        if entries > LARGEST_DENSE:
            raise ValueError(
                f"the matrix of costs would have {len(self.x)}·{len(self.y)} entries, more than "
                f"{LARGEST_DENSE}: compare random subsets of the atoms, or project to the line"
            )
        return cdist(self.x, self.y)

    @property
    def uniform(self) -> bool:
        """Whether both measures have the same number of atoms, all of one weight."""
        n = len(self.x)
        return n == len(self.y) and bool(
            np.allclose(self.a, 1 / n, rtol=1e-12, atol=0)
            and np.allclose(self.b, 1 / n, rtol=1e-12, atol=0)
        )


def problem(mu: EmpiricalMeasure, nu: EmpiricalMeasure) -> Problem:
    """The transport problem between two measures of states.

    Raises:
        ValueError: traced values, tokens or pairs, or spaces of different dimension.
    """
    x, a = _atoms("mu", mu)
    y, b = _atoms("nu", nu)
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"mu and nu must live on one space, got dimensions {x.shape[1]} and {y.shape[1]}"
        )
    return Problem(x, y, a, b)


def _atoms(name: str, mu: Any) -> tuple[Matrix, Vector]:
    if not isinstance(mu, EmpiricalMeasure):
        raise ValueError(
            f"{name} must be an EmpiricalMeasure, got a {type(mu).__name__}: wrap points as "
            "EmpiricalMeasure(points)"
        )
    if isinstance(mu.points, (Token, Pair)):
        raise ValueError(
            f"{name} is a measure on {type(mu.points).__name__.lower()}s, on which no distance is "
            "agreed: take the law of the states, states(mu)"
        )
    if traced(mu):
        raise ValueError(
            f"{name} has traced values, and an exact solver runs on the host: call w1 outside "
            "jit, grad and vmap"
        )
    if mu.log_weights.ndim != 1:
        raise ValueError(f"{name} is a batch of measures: call w1 on one at a time")
    points = np.asarray(mu.points, np.float64)
    weights = np.exp(np.asarray(mu.log_weights, np.float64))
    if not np.all(np.isfinite(points)):
        raise ValueError(f"{name} has NaN or infinite points: drop or repair these rows")
    keep = weights > 0
    weights = weights[keep]
    return points[keep], weights / weights.sum()
