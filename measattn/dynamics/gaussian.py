r"""Exact answers: a Gaussian law stays Gaussian under attention and under its flow.

For $\mu = N(m, S)$ the attention weights are Gaussian again, so $f_\mu$ is affine,

$$ a = \langle Ax+c, y\rangle:\ \bar y_x = m + S(Ax+c), \qquad
   a = -\tfrac{|x-y|^2}{2\sigma^2}:\ \bar y_x = m + S(S+\sigma^2I)^{-1}(x-m), $$

and $f_\mu(x) = rx + \sum_h V_h\bar y^h_x + v = Bx + b$ with B, b that depend on m and S. A layer
sends $N(m, S)$ to $N(Bm+b,\,BSB^\top)$, and along the flow $\dot m = Bm+b$,
$\dot S = BS + SB^\top$.

Source: Q1 and Q2 in docs/theory-dynamics.md; Castin et al., arXiv 2501.18322.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, ScalarLike
from numpy.typing import NDArray

from measattn.checks import host_array, whole
from measattn.dynamics.fields import Increment
from measattn.dynamics.ode import ARRIVED, FlowError, grid, solve, tolerances
from measattn.layer import Layer
from measattn.lipschitz.forms import Gauss, UnreadableLayer, form
from measattn.measure import EmpiricalMeasure


@dataclass(frozen=True, eq=False, init=False)
class GaussianLaw:
    r"""The Gaussian law $N(m, S)$ in float64; ``law @ layer`` is its image, Gaussian again.

    Args:
        mean: m, (d,).
        covariance: S, (d, d), symmetric and positive semi-definite.

    Raises:
        ValueError: shapes that do not fit, or a matrix that is no covariance.
    """

    mean: NDArray
    covariance: NDArray

    def __init__(self, mean: Any, covariance: Any):
        mean, covariance = host_array("mean", mean), host_array("covariance", covariance)
        if mean.ndim != 1 or not mean.size or covariance.shape != (len(mean), len(mean)):
            raise ValueError(
                f"mean must be a vector (d,) and covariance a matrix (d, d), got shapes "
                f"{mean.shape} and {covariance.shape}"
            )
        if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(covariance))):
            raise ValueError("mean and covariance must be finite, got a NaN or infinite entry")
        size = np.abs(covariance).max(initial=0)
        if np.abs(covariance - covariance.T).max(initial=0) > 1e-12 * size:
            raise ValueError("covariance must be symmetric: pass (S + S.T)/2")
        covariance = (covariance + covariance.T) / 2
        least = np.linalg.eigvalsh(covariance).min(initial=0)
        if least < -1e-12 * size:
            raise ValueError(
                f"covariance must have no negative eigenvalue, got {least:.3g}: pass L @ L.T"
            )
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "covariance", covariance)

    @property
    def dimension(self) -> int:
        """The dimension d."""
        return len(self.mean)

    def __matmul__(self, layer: Layer) -> "GaussianLaw":
        matrix, shift = affine(layer, self)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = matrix @ self.mean + shift
            image = matrix @ self.covariance @ matrix.T
        if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(image))):
            raise ValueError(
                "layer must send the law to one that is finite in float64, got infinite entries: "
                "scale the layer or the law down"
            )
        return GaussianLaw(mean, (image + image.T) / 2)

    __array_ufunc__ = None  # NumPy leaves `law @ x` to us

    def sample(self, n: Any, *, key: Array) -> EmpiricalMeasure:
        """The empirical measure of n independent draws, in JAX's default dtype."""
        values, vectors = np.linalg.eigh(self.covariance)
        root = jnp.asarray(vectors * np.sqrt(np.maximum(values, 0)))
        z = jax.random.normal(key, (whole("n", n, 1), self.dimension), root.dtype)
        return EmpiricalMeasure(jnp.asarray(self.mean)[None, :] + jnp.matmul(z, root.T))

    def __repr__(self) -> str:
        spread = np.sqrt(np.maximum(np.linalg.eigvalsh(self.covariance)[[0, -1]], 0))
        return (
            f"GaussianLaw(d={self.dimension}, |mean|={np.linalg.norm(self.mean):.4g}, standard "
            f"deviations from {spread[0]:.4g} to {spread[1]:.4g})"
        )


@dataclass(frozen=True)
class GaussianFlow:
    """The path of a Gaussian law.

    Attributes:
        times: (k,).
        laws: the law at each of them.
        status: how the computation ended, a sentence.
        steps: accepted steps.
    """

    times: NDArray
    laws: tuple[GaussianLaw, ...]
    status: str
    steps: int | Int[Array, ""]

    def __repr__(self) -> str:
        return (
            f"GaussianFlow({len(self.times)} times, to t = {self.times[-1]:.6g}, {self.steps} "
            f"steps: {self.status})"
        )


def affine(layer: Any, law: Any) -> tuple[NDArray, NDArray]:
    r"""The matrix B and the vector b with $f_\mu(x) = Bx + b$ for Gaussian μ.

    Args:
        layer: self-attention with dot-product, bilinear or Gaussian scores, several heads of it,
            with a residual, or an `Increment` of these.
        law: μ.

    Raises:
        ValueError: a layer that has no such form: masks, a memory, maps that are not affine, norms.

    Source: Q1 in docs/theory-dynamics.md.
    """
    _need_law(law)
    terms, identity, shift = _terms(layer, law.dimension)
    matrix, shift = _affine(terms, identity, shift, law.mean, law.covariance, np)
    return np.asarray(matrix), np.asarray(shift)


def gaussian_flow(
    layer: Any,
    law: Any,
    time: Any,
    *,
    save: Any = 2,
    rtol: ScalarLike | None = None,
    atol: ScalarLike | None = None,
    max_steps: ScalarLike = 100_000,
) -> GaussianFlow:
    r"""The path of a Gaussian law under $\dot x = f_{\mu_t}(x)$: $d + d^2$ numbers, in float64.

    Args:
        layer: the velocity, as for `affine`.
        law: the law at time 0.
        time: the last time, positive.
        save: how many equally spaced times to save, both ends included, or the times themselves.
        rtol: tolerance of a step relative to the size of the numbers, as for `flow`.
        atol: absolute tolerance of a step.
        max_steps: how many steps may be tried.

    Raises:
        ValueError: a layer that keeps no Gaussian law, or changes the dimension.
        FlowError: the end was not reached; covariances can become infinite in finite time.
        ModuleNotFoundError: diffrax is missing; it comes with the extra ``measattn[flow]``.

    Source: Q2 in docs/theory-dynamics.md.
    """
    _need_law(law)
    max_steps = whole("max_steps", max_steps, 1)
    terms, identity, shift = _terms(layer, law.dimension)
    if len(shift) != law.dimension:
        raise ValueError(
            f"a flow needs a layer that keeps the dimension, this one maps {law.dimension} to "
            f"{len(shift)}"
        )
    times = grid(time, save, np.float64)
    with jax.enable_x64(True):
        rtol, atol = tolerances(jnp.float64, rtol, atol)
        args = jax.tree.map(jnp.asarray, (terms, identity, shift))
        start = jnp.asarray(law.mean), jnp.asarray(law.covariance)
        found = solve(_change, start, time, times, args, rtol=rtol, atol=atol, max_steps=max_steps)
        at, means, covariances = map(np.asarray, (found.times, *found.values))
    laws = tuple(GaussianLaw(m, (S + S.T) / 2) for m, S in zip(means, covariances, strict=True))
    path = GaussianFlow(at, laws, found.status, found.steps)
    if found.status != ARRIVED:
        raise FlowError(
            f"the flow stopped at t = {at[-1]:.6g} of {float(time):.6g}: {found.status}; the "
            "error's flow holds the path up to there",
            path,
        )
    return path


def _need_law(law: Any) -> None:
    if not isinstance(law, GaussianLaw):
        raise ValueError(
            f"law must be a GaussianLaw, got a {type(law).__name__}: make one of a mean and a "
            "covariance as GaussianLaw(mean, covariance)"
        )


Term = tuple[Any, Any, Any, Any]
"""V, A, c of a head with dot products and None; or V, None, None and the bandwidth."""


def _terms(layer: Layer, dimension: int) -> tuple[list[Term], NDArray, NDArray]:
    """The heads of a layer, the factor of x, and what it adds."""
    if isinstance(layer, Increment):
        terms, identity, shift = _terms(layer.layer, dimension)
        return terms, np.asarray(identity - 1), shift
    read = form(layer, dimension)
    if read.masked or any(head.memory is not None for head in read.heads):
        raise UnreadableLayer(
            "a Gaussian law stays Gaussian under self-attention; with a mask or a memory it does "
            "not: pass the layer without"
        )
    terms = [
        (head.value, None, None, np.asarray(head.score.sigma, np.float64))
        if isinstance(head.score, Gauss)
        else (head.value, head.score.matrix, head.score.shift, None)
        for head in read.heads
    ]
    shift = np.sum([head.shift for head in read.heads], axis=0)
    if read.residual and len(shift) != dimension:
        raise ValueError(f"a residual adds dimension {dimension} to dimension {len(shift)}")
    return terms, np.asarray(float(read.residual)), shift


def _affine(terms: list[Term], identity: Any, shift: Any, mean: Any, cov: Any, xp: Any) -> tuple:
    """B and b, in NumPy or in JAX."""
    eye = xp.eye(len(mean), dtype=cov.dtype)
    # the factor of x is 0 where the dimension changes
    matrix = identity * eye if len(shift) == len(mean) else xp.zeros((len(shift), len(mean)))
    for value, score, tilt, sigma in terms:
        if sigma is None:
            slope = cov @ score
            at_zero = mean + cov @ tilt
        else:
            # S and S + σ² commute
            slope = xp.linalg.solve(cov + sigma * sigma * eye, cov)
            at_zero = mean - slope @ mean
        matrix, shift = matrix + value @ slope, shift + value @ at_zero
    return matrix, shift


def _change(t: Float[Array, ""], law: tuple, args: tuple) -> tuple:
    mean, cov = law
    terms, identity, shift = args
    matrix, shift = _affine(terms, identity, shift, mean, cov, jnp)
    half = matrix @ cov
    return matrix @ mean + shift, half + half.T
