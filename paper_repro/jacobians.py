"""Jacobians of attention in plain NumPy, written out block by block, and their norms.

Blocks J[i, :, j, :] are the derivatives of the output i in the token j.
"""

from typing import NamedTuple

import numpy as np

from paper_repro.oracles import softmax

Array = np.ndarray


class Slopes(NamedTuple):
    """Scores (n, n), and their gradients (n, n, d) in the query and in the key."""

    scores: Array
    query: Array
    key: Array


def dot_slopes(x: Array, A: Array, allowed: Array | None = None) -> Slopes:
    """Of ⟨Ax, y⟩; -∞ where a row does not see a key."""
    n, scores = len(x), x @ A.T @ x.T
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    query = np.broadcast_to((x @ A)[None], (n, *x.shape))
    key = np.broadcast_to((x @ A.T)[:, None], (n, *x.shape))
    return Slopes(scores, query, key)


def gaussian_slopes(x: Array, sigma: float = 1.0, W: Array | None = None) -> Slopes:
    """Of -|Wx - Wy|²/(2σ²)."""
    W = np.eye(x.shape[1]) if W is None else W
    z = x @ W.T
    apart = z[None] - z[:, None]  # key less query
    slope = apart @ W / sigma**2
    return Slopes(-(apart**2).sum(axis=2) / (2 * sigma**2), slope, -slope)


def jacobian(x: Array, slopes: Slopes, V: Array | None = None) -> Array:
    """Blocks (n, v, n, d) of the derivative of all outputs in all tokens, equal weights."""
    n, d = x.shape
    P = softmax(slopes.scores)
    centred = x[None] - (P @ x)[:, None]
    J = np.einsum("ij,ija,ijb->iajb", P, centred, slopes.key)
    J += np.einsum("ij,ab->iajb", P, np.eye(d))
    own = np.arange(n)
    J[own, :, own] += np.einsum("ij,ija,ijb->iab", P, centred, slopes.query)
    return J if V is None else np.einsum("va,iajb->ivjb", V, J)


def frobenius(J: Array) -> float:
    """The norm of J for the root of the sum of squares of all displacements."""
    n, v, m, d = J.shape
    return float(np.linalg.norm(J.reshape(n * v, m * d), 2))


def largest(J: Array, rng: np.random.Generator) -> float:
    """The norm of J for the largest displacement: attained, by fixed-point iteration."""
    return sum_of_norms(J.transpose(0, 2, 3, 1), rng)


def mean(J: Array, rng: np.random.Generator) -> float:
    """The norm of J for the mean displacement: attained, by fixed-point iteration."""
    return sum_of_norms(J.transpose(2, 0, 1, 3), rng)


def sum_of_norms(M: Array, rng: np.random.Generator) -> float:
    """The largest Σ_j |M_ij u| over i and unit vectors u that a few iterations find."""
    best = 0.0
    for _ in range(4):
        u = rng.normal(size=(len(M), M.shape[3]))
        for _ in range(30):
            u /= np.maximum(np.linalg.norm(u, axis=1, keepdims=True), 1e-300)
            images = np.einsum("ijab,ib->ija", M, u)
            lengths = np.linalg.norm(images, axis=2)
            best = max(best, float(lengths.sum(axis=1).max()))
            units = images / np.maximum(lengths, 1e-300)[:, :, None]
            u = np.einsum("ijab,ija->ib", M, units)
    return best


def in_ball(rng: np.random.Generator, n: int, d: int, radius: float = 1.0) -> Array:
    """Random points of the ball, many of them near its surface."""
    x = rng.normal(size=(n, d))
    return radius * rng.random((n, 1)) ** 0.2 * x / np.linalg.norm(x, axis=1, keepdims=True)
