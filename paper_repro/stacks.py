"""Weight-shared layers for the claims about depth: in the library, in NumPy, and their limits."""

from typing import Any, NamedTuple

import jax
import numpy as np

import measattn as ma
from measattn import dynamics as dyn
from paper_repro import jacobians, oracles

Array = np.ndarray


class Block(NamedTuple):
    """Attention with the score ⟨Ax, y⟩ and the values Vy + b."""

    A: Array
    V: Array
    b: Array

    @property
    def layer(self) -> ma.SelfAttention:
        """In the library."""
        return ma.SelfAttention(ma.Bilinear(self.A, np.eye(len(self.A))), ma.Affine(self.V, self.b))

    def __call__(self, x: Array, weights: Array | None = None, mask: Any = 0.0) -> Array:
        """In NumPy."""
        return oracles.softmax(x @ self.A.T @ x.T + mask, weights) @ x @ self.V.T + self.b

    @property
    def limit(self) -> Array:
        """The only point that the layer leaves where it is, as a Dirac mass."""
        return np.linalg.solve(np.eye(len(self.V)) - self.V, self.b)


def random_block(
    rng: np.random.Generator, d: int, *, score: float, value: float, shift: float = 0.0
) -> Block:
    """Random matrices of these norms, and a shift of that length."""
    A, V = rng.normal(size=(2, d, d))
    b = rng.normal(size=d)
    return Block(
        score * A / np.linalg.norm(A, 2),
        value * V / np.linalg.norm(V, 2),
        shift * b / np.linalg.norm(b),
    )


def contracting(rng: np.random.Generator, d: int, mu: ma.EmpiricalMeasure) -> Block:
    """A random block, its scores weakened until the library proves a constant below 0.95."""
    value = rng.uniform(0.4, 0.75)
    block = random_block(rng, d, score=rng.uniform(0.3, 1), value=value, shift=0.5 * (1 - value))
    while claimed(block.layer, mu) > 0.95:
        block = block._replace(A=0.7 * block.A)
    return block


def claimed(layer: Any, mu: ma.EmpiricalMeasure, p: float = 1) -> float:
    """The factor a step that the library proves near a measure; none is infinite."""
    try:
        return dyn.contraction(layer, mu, p).value
    except dyn.NotProved:
        return float("inf")


def concluded(found: dyn.FixedPoint) -> float:
    """One if a run says that it has converged, else zero."""
    return float(found.verdict in ("certified", "converged"))


def jacobian_of(x: Array, block: Block) -> Array:
    """The Jacobian of attention in NumPy (nd, nd)."""
    n, d = x.shape
    J = jacobians.jacobian(x, jacobians.dot_slopes(x, block.A), block.V)
    return J.reshape(n * d, n * d)


def spectral_radius(matrix: Array) -> float:
    """The spectral radius."""
    return float(np.abs(np.linalg.eigvals(matrix)).max())


@jax.jit
def differentiated(x: Any, layer: Any) -> Any:
    """The Jacobian of a layer of the library, by JAX."""
    return jax.jacfwd(lambda x: (ma.EmpiricalMeasure(x) @ layer).points)(x)


def diameter(x: Array) -> float:
    """The largest distance of two rows."""
    return float(oracles.distances(x, x).max())


def row_norms(x: Array) -> Array:
    """The length of each row."""
    return np.linalg.norm(x, axis=-1)


def panels(*titles: str) -> tuple[Any, list[Any]]:
    """A figure of axes side by side; to be called under the house style."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.0 * len(titles), 3.1), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(1, len(titles))))
    for each, title in zip(axes, titles, strict=True):
        each.set_title(title)
    return figure, axes
