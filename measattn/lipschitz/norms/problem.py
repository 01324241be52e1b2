r"""Many problems of one kind: maximise a sum of norms over unit vectors.

$$ m_j = \max_{|u|=1}\sum_t |N^{(j)}_t u|, \qquad j = 1, \dots, k . $$

The matrices N are never formed; a family of problems says what its terms do to directions.
Source: G1 and G3 of docs/theory-lipschitz.md.
"""

import abc

import numpy as np
from numpy.typing import NDArray

UP = 1 + 1e-10
"""Norms and eigenvalues of float64 are inflated by this factor."""

UNIT = 2.0**-53
"""The unit round-off of float64."""


class AbstractSums(abc.ABC):
    r"""A family of k maximisation problems, each of m terms, over the unit sphere of R^d.

    Attributes:
        count: k.
        dimension: d.
        sizes: at least $\|N_t\|$, (m, k); 0 only where $N_t = 0$.
        slack: what the rounding of the matrices themselves may add to each maximum (k,).
        restarts: how many random starts a problem is worth whose certificate stays open.
        basis: where u has coordinates in a subspace of another space, its basis (d', d).
    """

    count: int
    dimension: int
    sizes: NDArray
    slack: NDArray
    basis: NDArray | None = None
    restarts: int = 64

    @abc.abstractmethod
    def norms(self, index: NDArray, u: NDArray) -> NDArray:
        r"""About $|N_t u|$, (m, j), for directions (j, d)."""

    @abc.abstractmethod
    def ascend(self, index: NDArray, u: NDArray, steps: int) -> tuple[NDArray, NDArray]:
        """Directions (j, d) after steps of the generalised power method, and about their values."""

    @abc.abstractmethod
    def gram(self, index: NDArray, w: NDArray) -> tuple[NDArray, NDArray]:
        r"""$S_w = \sum_t N_t^\top N_t/w_t$, (j, d, d), and a bound of its rounding in norm (j,)."""

    @abc.abstractmethod
    def squares(self, problem: int) -> NDArray:
        r"""About $N_t^\top N_t$ of one problem, (m, d, d)."""

    @abc.abstractmethod
    def value(self, problem: int, u: NDArray) -> float:
        r"""$\sum_t|N_tu|$ of one problem at one direction, directly."""

    @property
    @abc.abstractmethod
    def chunk(self) -> int:
        """How many problems fit into memory at a time when `gram` is asked for."""


def unit(u: NDArray) -> NDArray:
    """Rows scaled to length 1; rows of zeros become the first axis."""
    length = np.linalg.norm(u, axis=-1, keepdims=True)
    first = np.zeros(u.shape[-1])
    first[0] = 1
    return np.where(length > 0, u / np.where(length > 0, length, 1), first)
