r"""Empirical probability measures $\mu = \sum_{i=1}^n \omega_i \delta_{x_i}$.

A point $x_i$ is an array (d,), a `Token` (a state at a position) or a `Pair` (a key and its value).
Weights are kept as logarithms: the Boltzmann-Gibbs transformation is then one addition and one
normalisation, and a mask is a $-\infty$. A batch of measures is the same type with leading axes,
made by `jax.vmap`.

Source: the empirical measures m(K) of [VBT20], Section on the measure-theoretic model.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from measattn import storage
from measattn.checks import ensure, float_array, traced
from measattn.points import (
    Pair,
    Token,
    as_points,
    count,
    finite,
    moved_points,
    one_row,
    state,
)

LARGEST_SUPPORT = 2**22
"""More atoms than this are not made by a product or a general kernel (16 MB of weights)."""


@jax.custom_jvp
def normalise(log_weights: Float[Array, " n"]) -> Float[Array, " n"]:
    r"""$\log\omega_i - \log\sum_j \omega_j$, with a derivative that keeps its tail.

    $\dot\ell_i - \sum_j p_j\dot\ell_j$ is evaluated on $\dot\ell - \dot\ell_{j^*}$, $j^*$ the
    largest entry, so that the tangent of a weight next to one does not cancel to 0.
    """
    if log_weights.ndim != 1:
        raise ValueError(
            f"this is a batch of measures, with log-weights of shape {log_weights.shape}: apply "
            "the function to one measure at a time, through jax.vmap"
        )
    return log_weights - jax.scipy.special.logsumexp(log_weights)


@normalise.defjvp
def _normalise_derivative(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (log_weights,), (tangent,) = primals, tangents
    out = normalise(log_weights)
    centred = tangent - tangent[jnp.argmax(log_weights)]
    return out, centred - jnp.sum(jnp.exp(out) * centred)


class EmpiricalMeasure(eqx.Module):
    r"""The probability measure $\mu = \sum_i \omega_i \delta_{x_i}$, uniform unless weighted.

    Args:
        points: n points with finite entries: an array (n, d) or anything that becomes one (lists,
            NumPy, torch through DLPack), or a `Token` or `Pair` of such arrays. Integers are
            converted to floats.
        log_weights: $\log\omega_i$ up to a common constant, (n,); -inf is an atom without mass.

    Raises:
        ValueError: NaN or infinite points, a NaN or +inf log-weight, no mass at all, wrong ranks,
            unequal lengths, no points (a RuntimeError in the same words for values under `jit`).
    """

    points: PyTree[Float[Array, "..."]]
    log_weights: Float[Array, "*batch n"]

    def __init__(self, points: PyTree, log_weights: Any = None):
        points = as_points(points)
        n, dtype = count(points), state(points).dtype
        if log_weights is None:
            log_weights = _uniform(n, dtype)
        else:
            log_weights = float_array("log_weights", log_weights).astype(dtype)
            if log_weights.shape != (n,):
                raise ValueError(
                    f"log_weights must have shape ({n},), one for each of the {n} points, got "
                    f"{log_weights.shape}"
                )
            points, log_weights = ensure(
                ~jnp.any(jnp.isnan(log_weights) | jnp.isposinf(log_weights)),
                (points, log_weights),
                "log_weights must be finite, or -inf for no mass, got a NaN or +inf entry",
            )
            points, log_weights = ensure(
                jnp.any(log_weights > -jnp.inf),
                (points, log_weights),
                "log_weights are all -inf, so the measure has no mass: give at least one atom mass",
            )
            log_weights = normalise(log_weights)
        self.points, self.log_weights = finite(points, (points, log_weights))

    @property
    def weights(self) -> Float[Array, " n"]:
        r"""The weights $\omega_i$, which sum to one; their derivatives sum to zero."""
        return jnp.exp(normalise(self.log_weights))

    @property
    def size(self) -> int:
        """The number n of atoms."""
        return self.log_weights.shape[-1]

    @property
    def dimension(self) -> int:
        """The dimension d of the state."""
        return jax.tree.leaves(state(self.points))[0].shape[-1]

    @property
    def dtype(self) -> Any:
        """The dtype of points and weights."""
        return self.log_weights.dtype

    def save(self, file: Any) -> None:
        """Write the measure to an npz file, to be read by `load_measure`."""
        storage.write(file, self.points, self.log_weights)

    def __repr__(self) -> str:
        kind = {Token: "tokens, ", Pair: "pairs, "}.get(type(self.points), "")
        shape = getattr(self.log_weights, "shape", None)
        if not shape:
            return f"EmpiricalMeasure(points={self.points}, log_weights={self.log_weights})"
        text = f"EmpiricalMeasure({kind}n={self.size}, d={self.dimension}, {self.dtype}"
        if len(shape) > 1:
            return f"batch of {'×'.join(map(str, shape[:-1]))} {text})"
        if traced(self.log_weights):
            return text + ", traced)"
        if isinstance(self.log_weights, jax.ShapeDtypeStruct):
            return text + ")"
        w = np.exp(np.asarray(self.log_weights, np.float64))
        return f"{text}, effective size {w.sum() ** 2 / (w**2).sum():.4g})"


def measure(points: PyTree, log_weights: Float[Array, " n"]) -> EmpiricalMeasure:
    """A measure from parts that are known to be valid and normalised: no check, no cost."""
    mu = object.__new__(EmpiricalMeasure)
    object.__setattr__(mu, "points", points)
    object.__setattr__(mu, "log_weights", log_weights)
    return mu


def need_measure(name: str, mu: Any) -> None:
    """Refuse what is no measure.

    Raises:
        ValueError: it is something else; ``name`` is the argument.
    """
    if not isinstance(mu, EmpiricalMeasure):
        raise ValueError(
            f"{name} must be an EmpiricalMeasure, got a {type(mu).__name__}: wrap points as "
            "EmpiricalMeasure(points)"
        )


def _uniform(n: int, dtype: Any) -> Float[Array, " n"]:
    return jnp.full(n, -np.log(n), dtype)


def weighted(points: PyTree, weights: Any) -> EmpiricalMeasure:
    r"""The measure $\sum_i \omega_i\delta_{x_i} / \sum_i\omega_i$.

    Differentiable in the weights; the derivative in a weight that is 0 is 0 (the flat derivative
    in the direction of a new atom is `gibbs.influence`).

    Args:
        points: as for `EmpiricalMeasure`.
        weights: $\omega_i \ge 0$, (n,), with a positive and finite sum.

    Raises:
        ValueError: negative, NaN, infinite or all-zero weights, or not one for each point.
    """
    points = as_points(points)
    log_weights, checks = _logarithms(weights, count(points), state(points).dtype)
    return finite(points, _checked(measure(points, normalise(log_weights)), checks))


Checks = list[tuple[Any, str]]


def _logarithms(weights: Any, n: int, dtype: Any) -> tuple[Float[Array, " n"], Checks]:
    """The logarithms of n weights, and what must hold of the weights."""
    if any(isinstance(w, jax.Array) for w in jax.tree.leaves(weights)):
        weights, xp = jnp.asarray(weights), jnp
    else:
        # 1e-300 is no float32, its logarithm is
        weights, xp = np.asarray(weights, np.float64), np
    if weights.shape != (n,):
        raise ValueError(f"weights must have shape ({n},), one for each, got {weights.shape}")
    checks = [
        (
            xp.isfinite(weights) & (weights >= 0),
            "weights must be finite and not negative, got an entry that is NaN, infinite or below "
            "0: clip or drop it",
        ),
        (
            xp.any(weights > 0),
            "weights are all zero, so the measure has no mass: give at least one atom mass",
        ),
    ]
    positive = weights > 0
    logs = xp.where(positive, xp.log(xp.where(positive, weights, 1)), -xp.inf)
    return jnp.asarray(logs).astype(dtype), checks


def _checked(mu: EmpiricalMeasure, checks: Checks) -> EmpiricalMeasure:
    for ok, message in checks:
        mu = ensure(ok, mu, message)
    return mu


def dirac(x: PyTree) -> EmpiricalMeasure:
    r"""The Dirac mass $\delta_x$ at one point: an array (d,), a `Token` or a `Pair`."""
    if not isinstance(x, eqx.Module):
        x = float_array("a point (d,)", x, 1)
    return EmpiricalMeasure(one_row(x))


def mixture(measures: Any, weights: Any = None) -> EmpiricalMeasure:
    r"""The mixture $\sum_k \lambda_k \mu_k$; its atoms are those of all $\mu_k$ in their order.

    Args:
        measures: measures on the same space.
        weights: $\lambda_k \ge 0$, one for each measure; equal by default.
    """
    if isinstance(measures, EmpiricalMeasure):
        raise ValueError("measures must be a sequence of measures, got one measure: write [mu, nu]")
    if len(measures) == 0:
        raise ValueError("measures must hold at least one measure, got an empty sequence")
    dimensions = [mu.dimension for mu in measures]
    if len(set(dimensions)) > 1 or len({type(mu.points) for mu in measures}) > 1:
        raise ValueError(f"measures must live on the same space, got dimensions {dimensions}")
    dtypes = {str(mu.dtype) for mu in measures}
    if len(dtypes) > 1:
        raise ValueError(f"measures must have one dtype, got {sorted(dtypes)}: convert the points")
    weights = np.ones(len(measures)) if weights is None else weights
    log_shares, checks = _logarithms(weights, len(measures), measures[0].dtype)
    points = jax.tree.map(lambda *a: jnp.concatenate(a), *[mu.points for mu in measures])
    shares = zip(measures, normalise(log_shares), strict=True)
    log_weights = jnp.concatenate([normalise(mu.log_weights) + share for mu, share in shares])
    return _checked(measure(points, log_weights), checks)


def product(mu: EmpiricalMeasure, nu: EmpiricalMeasure) -> EmpiricalMeasure:
    r"""The product measure $\mu\otimes\nu$ on pairs (x, y): n·m atoms, x the slow index."""
    n, m = mu.size, nu.size
    if n * m > LARGEST_SUPPORT:
        raise ValueError(
            f"the product measure would have {n}·{m} = {n * m} atoms, more than "
            f"{LARGEST_SUPPORT}: integrate one variable at a time instead"
        )
    x = jax.tree.map(lambda a: jnp.repeat(a, m, axis=0), mu.points)
    y = jax.tree.map(lambda a: jnp.tile(a, (n,) + (1,) * (a.ndim - 1)), nu.points)
    log_weights = mu.log_weights[:, None] + nu.log_weights[None, :]
    return measure(Pair(x, y), normalise(log_weights.reshape(-1)))


def pushforward(f: Callable[[PyTree], PyTree], mu: EmpiricalMeasure) -> EmpiricalMeasure:
    r"""The image measure $f_\#\mu = \sum_i \omega_i \delta_{f(x_i)}$; f maps point to point."""
    return measure(moved_points(jax.vmap(f)(mu.points), "f"), mu.log_weights)


def integrate(f: Callable[[PyTree], PyTree], mu: EmpiricalMeasure) -> PyTree:
    r"""The integral $\mu(f) = \sum_i \omega_i f(x_i)$; f maps a point to an array or a pytree."""
    return jax.tree.map(lambda v: _weighted_sum(mu.weights, v), jax.vmap(f)(mu.points))


def _weighted_sum(weights: Float[Array, " n"], values: Array) -> Array:
    massive = (weights > 0).reshape(-1, *[1] * (values.ndim - 1))
    # f may be infinite where there is no mass
    values = jnp.where(massive, values.astype(weights.dtype), 0)
    return jnp.tensordot(weights, values, axes=1, precision=jax.lax.Precision.HIGHEST)


def mean(mu: EmpiricalMeasure) -> Float[Array, " d"]:
    r"""The mean $\int x\,\mu(dx)$ of the states."""
    return integrate(state, mu)


def covariance(mu: EmpiricalMeasure) -> Float[Array, "d d"]:
    r"""The covariance $\int (x-\bar x)(x-\bar x)^\top\mu(dx)$ of the states (no $n-1$)."""
    centred = state(mu.points) - mean(mu)[None, :]
    return jnp.einsum(
        "n,nd,ne->de", mu.weights, centred, centred, precision=jax.lax.Precision.HIGHEST
    )


def pairs(keys: Any, values: Any) -> EmpiricalMeasure:
    r"""The joint law $\sum_i\omega_i\delta_{(k_i, v_i)}$ of keys and values.

    Args:
        keys: an `EmpiricalMeasure`, whose weights are kept, or points (n, e).
        values: points (n, v), or a measure of the same size, whose weights are not looked at.
    """
    if not isinstance(keys, EmpiricalMeasure):
        keys = as_points(keys, "keys")
        size = count(keys)
        joint = pairs(measure(keys, _uniform(size, state(keys).dtype)), values)
        return finite(keys, joint, "keys")
    values = values.points if isinstance(values, EmpiricalMeasure) else as_points(values, "values")
    if count(values) != keys.size:
        raise ValueError(
            f"there must be one value for each key, got {keys.size} keys and {count(values)} values"
        )
    return finite(values, measure(Pair(keys.points, values), keys.log_weights), "values")


def states(mu: EmpiricalMeasure) -> EmpiricalMeasure:
    """The law of the states alone: positions and keys are forgotten."""
    return measure(state(mu.points), mu.log_weights)


def compact(mu: EmpiricalMeasure) -> EmpiricalMeasure:
    """The same measure with equal atoms merged and atoms without mass dropped.

    The number of atoms depends on their values, so this works outside `jit` only.
    """
    leaves, structure = jax.tree.flatten(mu.points)
    if traced(leaves):
        raise ValueError("compact needs concrete values: call it outside jit, vmap and grad")
    leaves = [np.asarray(leaf) for leaf in leaves]
    log_weights = np.asarray(mu.log_weights)
    keep = log_weights > -np.inf
    # + 0.0 makes -0.0 and 0.0 one atom
    rows = np.concatenate([leaf.reshape(mu.size, -1)[keep] + 0.0 for leaf in leaves], axis=1)
    _, first, group = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    merged = np.full(len(first), -np.inf)
    np.logaddexp.at(merged, group.reshape(-1), log_weights[keep].astype(np.float64))
    order = np.argsort(first)
    points = [jnp.asarray(leaf[keep][first[order]]) for leaf in leaves]
    weights = jnp.asarray(merged[order], mu.dtype)
    return measure(jax.tree.unflatten(structure, points), normalise(weights))


def load_measure(file: Any) -> EmpiricalMeasure:
    """Read a measure that `EmpiricalMeasure.save` wrote; nothing in the file is executed.

    Raises:
        ValueError: the file is no such npz file, or its arrays do not make a measure.
    """
    return EmpiricalMeasure(*storage.read(file))
