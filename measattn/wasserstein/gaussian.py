r"""Closed forms: $W_1$ to a Gaussian, $W_2$ between Gaussians."""

from typing import Any

import numpy as np
from scipy.special import gammaln, hyp1f1, ndtr, ndtri

from measattn.measure import EmpiricalMeasure
from measattn.wasserstein.ground import Matrix, Vector
from measattn.wasserstein.problem import states, weights


def w1_to_gaussian(mu: EmpiricalMeasure, mean: Any, sd: float | int) -> float:
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
        ValueError: several atoms in more than one dimension, where no closed form is known.

    Source: docs/theory.md, W5.
    """
    x, w = states("mu", mu), weights("mu", mu)
    mean = np.broadcast_to(np.asarray(mean, np.float64), x.shape[1:])
    if not (np.ndim(sd) == 0 and 0 < float(sd) < np.inf and np.all(np.isfinite(mean))):
        raise ValueError(f"mean and sd must be finite and sd a positive number, got {mean}, {sd}")
    x, w = x[w > 0], w[w > 0]
    z = (x - mean) / sd
    if x.shape[1] == 1:
        return float(sd) * _on_the_line(z[:, 0], w / w.sum())
    if np.any(x != x[0]):
        raise ValueError(
            f"no closed form is known for {len(x)} atoms in dimension {x.shape[1]}: compare with a "
            "sample of the Gaussian, w1(mu, EmpiricalMeasure(sample))"
        )
    d = x.shape[1]
    largest = float(np.exp(gammaln((d + 1) / 2) - gammaln(d / 2)))
    return float(sd) * np.sqrt(2) * largest * float(hyp1f1(-0.5, d / 2, -(z[0] @ z[0]) / 2))


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
        ValueError: shapes that do not match, or a covariance that is none.
    """
    means = [np.atleast_1d(np.asarray(m, np.float64)) for m in (mean, other_mean)]
    roots = [
        _root(np.atleast_2d(np.asarray(s, np.float64)), len(means[0]))
        for s in (covariance, other_covariance)
    ]
    if means[0].shape != means[1].shape:
        raise ValueError(f"the means must have one length, got {means[0].shape}, {means[1].shape}")
    left, _, right = np.linalg.svd(roots[1] @ roots[0])
    apart = roots[0] - roots[1] @ (left @ right)
    return float(np.hypot(np.linalg.norm(means[0] - means[1]), np.linalg.norm(apart)))


def _root(covariance: Matrix, d: int) -> Matrix:
    if covariance.shape != (d, d) or not np.allclose(covariance, covariance.T, rtol=1e-10):
        raise ValueError(f"a covariance must be a symmetric matrix ({d}, {d}), got {covariance}")
    values, vectors = np.linalg.eigh(covariance)
    if values[0] < -1e-10 * max(values[-1], 0):
        raise ValueError(f"a covariance must be positive semidefinite, got eigenvalue {values[0]}")
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
