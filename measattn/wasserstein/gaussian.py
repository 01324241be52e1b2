r"""Closed forms: $W_1$ to a Gaussian, $W_2$ between Gaussians."""

import math
from typing import Any

import numpy as np
from jaxtyping import ScalarLike
from scipy.special import gammaln, hyp1f1, ndtr, ndtri

from measattn.checks import host_array
from measattn.measure import EmpiricalMeasure
from measattn.wasserstein.ground import Matrix, Vector
from measattn.wasserstein.problem import states, weights


def w1_to_gaussian(mu: EmpiricalMeasure, mean: Any, sd: ScalarLike) -> float:
    r"""$W_1(\mu, N(m, s^2 I))$ where it has a closed form.

    On the line it is $\int|F_\mu - \Phi((t - m)/s)|\,dt$, integrated exactly between the atoms. For
    a Dirac mass in $\mathbb R^d$ it is the mean distance,
    $s\sqrt2\,\tfrac{\Gamma((d+1)/2)}{\Gamma(d/2)}\,{}_1F_1(-\tfrac12; \tfrac d2;
    -|x-m|^2/2s^2)$.

    Args:
        mu: a measure on the line, or with a single atom.
        mean: m, (d,) or a number on the line.
        sd: the standard deviation s > 0 of each coordinate.

    Raises:
        ValueError: several atoms in more than one dimension, where no closed form is known; a mean
            of another dimension; traced, NaN or infinite values.

    Source: docs/theory.md, W5.
    """
    w, x = weights("mu", mu), states("mu", mu)
    mean, deviation = _finite("mean", mean), _finite("sd", sd, 0)
    if mean.shape not in {(), x.shape[1:]}:
        raise ValueError(
            f"mean must have shape {x.shape[1:]}, that of a point of mu, got {mean.shape}"
        )
    sd = float(deviation)
    if sd <= 0:
        raise ValueError(
            f"sd must be positive, got {sd}: the distance to a point is w1(mu, dirac(mean))"
        )
    x, w = x[w > 0], w[w > 0]
    z = (x - mean) / sd
    if x.shape[1] == 1:
        return sd * _on_the_line(z[:, 0], w / w.sum())
    if np.any(x != x[0]):
        raise ValueError(
            f"no closed form is known for {len(x)} atoms in dimension {x.shape[1]}: compare with a "
            "sample of the Gaussian, w1(mu, EmpiricalMeasure(sample))"
        )
    d = x.shape[1]
    largest = float(np.exp(gammaln((d + 1) / 2) - gammaln(d / 2)))
    return sd * math.sqrt(2) * largest * float(hyp1f1(-0.5, d / 2, -(z[0] @ z[0]) / 2))


def _on_the_line(z: Vector, w: Vector) -> float:
    r"""$\int|F - \Phi|$, with the antiderivative $G(t) = t\Phi(t) + \varphi(t)$ of $\Phi$."""
    order = np.argsort(z)
    z, below = z[order], np.cumsum(w[order])[:-1]
    middle = np.clip(ndtri(below), z[:-1], z[1:])  # Φ crosses the step there, or at an end
    parts = np.abs(_excess(z[:-1], middle, below)) + np.abs(_excess(middle, z[1:], below))
    return float(parts.sum() + _tail(z[0]) + _tail(-z[-1]))


def _tail(t: Any) -> Any:
    r"""$\int_{-\infty}^t\Phi = t\Phi(t) + \varphi(t)$."""
    return t * ndtr(t) + np.exp(-t * t / 2) / np.sqrt(2 * np.pi)


def _excess(start: Vector, end: Vector, level: Vector) -> Vector:
    r"""$\int(\Phi - c)$ over intervals; on the right half as $\int((1-c) - (1-\Phi))$."""
    right = start > 0
    left = _tail(end) - _tail(start) - level * (end - start)
    mirrored = (1 - level) * (end - start) - (_tail(-start) - _tail(-end))
    return np.where(right, mirrored, left)


def w2_gaussians(mean: Any, covariance: Any, other_mean: Any, other_covariance: Any) -> float:
    r"""$W_2$ between $N(m, S)$ and $N(m', S')$, the Bures-Wasserstein distance.

    $W_2^2 = |m - m'|^2 + \min_U\|S^{1/2} - S'^{1/2}U\|_F^2$ over orthogonal U, which equals
    $\mathrm{tr}(S + S' - 2(S^{1/2}S'S^{1/2})^{1/2})$ but does not cancel for close covariances.

    Args:
        mean: m, (d,).
        covariance: S, (d, d), symmetric positive semidefinite.
        other_mean: m'.
        other_covariance: S'.

    Raises:
        ValueError: shapes that do not match, a covariance that is none, or traced, NaN or infinite
            values.
    """
    means = [
        np.atleast_1d(_finite(name, m)) for name, m in (("mean", mean), ("other_mean", other_mean))
    ]
    if means[0].shape != means[1].shape or means[0].ndim != 1:
        raise ValueError(
            "mean and other_mean must be vectors of one length, got shapes "
            f"{means[0].shape} and {means[1].shape}"
        )
    roots = [
        _root(name, _finite(name, s), len(means[0]))
        for name, s in (("covariance", covariance), ("other_covariance", other_covariance))
    ]
    left, _, right = np.linalg.svd(roots[1] @ roots[0])
    apart = roots[0] - roots[1] @ (left @ right)
    return float(np.hypot(np.linalg.norm(means[0] - means[1]), np.linalg.norm(apart)))


def _finite(name: str, value: Any, ndim: int | None = None) -> np.ndarray:
    value = host_array(name, value, ndim)
    if not np.all(np.isfinite(value)):
        raise ValueError(f"{name} must be finite, got {value[~np.isfinite(value)][0]}")
    return value


def _root(name: str, covariance: Matrix, d: int) -> Matrix:
    if covariance.shape != (d, d) and (d, covariance.ndim) != (1, 0):
        raise ValueError(
            f"{name} must be a matrix ({d}, {d}), got shape {covariance.shape}; for independent "
            "coordinates of variances s pass np.diag(s)"
        )
    covariance = covariance.reshape(d, d)
    if not np.allclose(covariance, covariance.T, rtol=1e-10):
        raise ValueError(f"{name} must be symmetric: pass (S + S.T) / 2 if only rounding is off")
    values, vectors = np.linalg.eigh(covariance)
    if values[0] < -1e-10 * max(values[-1], 0):
        raise ValueError(f"{name} must be positive semidefinite, got the eigenvalue {values[0]}")
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
