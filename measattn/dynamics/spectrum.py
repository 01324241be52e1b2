r"""The linearisation of a layer at a measure: its leading eigenvalues.

For atoms $x_i$ with fixed weights, $J_{ij} = \partial f(\mu, x_i)/\partial x_j$. At a fixed point
the spectral radius of J is the rate at which nearby clouds approach it or leave.

Source: Arnoldi's method as in ARPACK (Lehoucq, Sorensen & Yang, 1998), on forward derivatives.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ScalarLike
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

from measattn.checks import whole
from measattn.dynamics.steps import check_layer
from measattn.kernel import moved
from measattn.measure import EmpiricalMeasure, measure
from measattn.points import state, with_state

DENSE = 600
"""Up to this many coordinates the Jacobian is formed, which finds all copies of an eigenvalue."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues of the linearisation, the largest first.

    Attributes:
        values: complex (k,); estimates, each with its residual.
        residuals: $|Jv - \\lambda v|$ for unit v (k,).
        vectors: the eigenvectors as displacements of the atoms (k, n, d).
    """

    values: NDArray
    residuals: NDArray
    vectors: NDArray = field(repr=False)

    @property
    def radius(self) -> float:
        """The largest modulus."""
        return float(np.abs(self.values).max())

    def __repr__(self) -> str:
        return (
            f"Spectrum(radius {self.radius:.6g}, {len(self.values)} eigenvalues, residuals at most "
            f"{self.residuals.max():.1e})"
        )


def spectrum(
    layer: Any, mu: EmpiricalMeasure, count: ScalarLike | None = None, *, seed: ScalarLike = 0
) -> Spectrum:
    r"""The leading eigenvalues of the derivative of a layer in its atoms.

    Up to 600 coordinates all eigenvalues are computed. Above, Arnoldi's method finds the leading
    ones; of an eigenvalue that occurs several times, as at a cloud of equal clusters, it may miss
    copies, and then smaller ones stand in their places. The radius is not affected.

    Args:
        layer: a layer that keeps the dimension.
        mu: where to linearise, mostly a fixed point.
        count: how many eigenvalues; by default six, or all if there are fewer.
        seed: of the start of the Arnoldi iteration.

    Raises:
        ValueError: a layer that changes the dimension, a count that is no number of eigenvalues,
            or a derivative that is not finite.
        RuntimeError: the iteration did not converge.

    Source: the derivative by `jax.jvp`, the eigenvalues by ARPACK.
    """
    check_layer(layer, mu)
    shape = state(mu.points).shape
    size = int(np.prod(shape))
    count = min(6, size) if count is None else whole("count", count, 1, size)
    seed = whole("seed", seed)

    def push(vector: NDArray) -> NDArray:
        out = np.asarray(_push(layer, mu, jnp.asarray(vector.reshape(shape), mu.dtype)))
        if not np.isfinite(out).all():
            raise ValueError("the derivative of the layer is not finite at this measure")
        return out.astype(np.float64).reshape(-1)

    if size <= DENSE or count >= size - 1:
        values, vectors = np.linalg.eig(np.stack([push(row) for row in np.eye(size)], axis=1))
    else:
        operator = _Jacobian(push, size)
        start = np.random.default_rng(seed).normal(size=size)
        basis = min(size, max(2 * count + 1, 40))
        try:
            values, vectors = eigs(operator, count, v0=start, ncv=basis, which="LM")[:2]
        except ArpackNoConvergence as error:
            raise RuntimeError(
                f"Arnoldi's iteration found {len(error.eigenvalues)} of {count} eigenvalues: ask "
                "for fewer"
            ) from error
    order = np.argsort(-np.abs(values), kind="stable")[:count]
    values, vectors = values[order], vectors[:, order].T
    images = np.stack([push(v.real) + 1j * push(v.imag) for v in vectors])
    residuals = _lengths(images - values[:, None] * vectors)
    return Spectrum(values, residuals, vectors.reshape(-1, *shape))


def _lengths(rows: NDArray) -> NDArray:
    """The norms of rows, finite also where their squares are not."""
    largest = np.abs(rows).max(axis=1)
    return largest * np.linalg.norm(rows / np.where(largest > 0, largest, 1)[:, None], axis=1)


class _Jacobian(LinearOperator):
    """The derivative as an operator of SciPy."""

    def __init__(self, push: Callable[[NDArray], NDArray], size: int):
        super().__init__(np.float64, (size, size))
        self._push = push

    def _matvec(self, x: NDArray) -> NDArray:
        return self._push(x)


@eqx.filter_jit
def _push(layer: Any, mu: EmpiricalMeasure, move: Array) -> Array:
    def f(x: Array) -> Array:
        return state(moved(layer, measure(with_state(mu.points, x), mu.log_weights)))

    return jax.jvp(f, (state(mu.points),), (move,))[1]
