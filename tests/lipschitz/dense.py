"""Local constants from the whole Jacobian by reverse mode and brute force: the oracle."""

import jax
import jax.numpy as jnp
import numpy as np

import measattn as ma
from measattn.kernel import moved
from measattn.measure import measure
from measattn.points import state, with_state


def jacobian(layer, mu):
    """J (n, v, n, d): output i, its coordinate, atom j, its coordinate."""

    def f(x):
        return state(moved(layer, measure(with_state(mu.points, x), mu.log_weights), None))

    return np.asarray(jax.jacrev(f)(jnp.asarray(state(mu.points))))


def flat_derivatives(layer, mu):
    """D(x_i) (n, v, d) with mu held fixed, and M_{x_j}(x_i) (j, v, i, d): J = D + omega M."""
    n = mu.size

    def f(x):
        return state(moved(layer, mu, with_state(mu.points, x)))

    query = np.asarray(jax.jacrev(f)(jnp.asarray(state(mu.points))))
    d = np.stack([query[i, :, i] for i in range(n)])
    m = jacobian(layer, mu).copy()
    for i in range(n):
        m[i, :, i] -= d[i]
    return d, m / np.asarray(mu.weights)[None, None, :, None]


def largest_sum(terms, seed=0, starts=40, steps=150):
    """The maximum of sum_t |N_t u| over unit u, from many starts; terms (m, v, d)."""
    d = terms.shape[2]
    rng = np.random.default_rng(seed)
    if d == 1:
        return float(np.linalg.norm(terms[:, :, 0], axis=1).sum())
    u = rng.normal(size=(d, starts))
    for _ in range(steps):
        u = u / np.linalg.norm(u, axis=0)
        images = terms @ u  # (m, v, starts)
        lengths = np.linalg.norm(images, axis=1, keepdims=True)
        images = images / np.where(lengths > 0, lengths, 1)
        pulled = np.einsum("mvd,mvs->ds", terms, images)
        u = np.where(np.linalg.norm(pulled, axis=0) > 0, pulled, u)
    u = u / np.linalg.norm(u, axis=0)
    return float(np.linalg.norm(terms @ u, axis=1).sum(axis=0).max())


def whole(layer, mu, p):
    """The local constant Whole, from the Jacobian."""
    j, w = jacobian(layer, mu), np.asarray(mu.weights)
    n = len(w)
    if p == 1:
        share = w[:, None, None] / w
        return max(largest_sum(j[:, :, i] * share[:, :, i, None]) for i in range(n))
    if p == 2:
        root = np.sqrt(w)
        scaled = j * root[:, None, None, None] / root[None, None, :, None]
        return float(np.linalg.norm(scaled.reshape(n * j.shape[1], -1), 2))
    return max(largest_sum(j[i].transpose(1, 2, 0)) for i in range(n))


def split(layer, mu):
    """The local constant Split for p = 1."""
    d, m = flat_derivatives(layer, mu)
    w = np.asarray(mu.weights)
    terms = [np.concatenate([d[i][None], m[:, :, i] * w[:, None, None]]) for i in range(len(w))]
    return max(largest_sum(t) for t in terms)


def shown(layer, mu, found):
    """What the witness of a result attains, from the Jacobian."""
    j, w = jacobian(layer, mu), np.asarray(mu.weights)
    move = found.witness
    if found.p == 1:
        out = j[:, :, move.atom] @ move.direction
        return float(w @ np.linalg.norm(out, axis=1) / w[move.atom])
    if found.p == 2:
        out = np.einsum("ivjd,jd->iv", j, move.direction)
        before = w @ np.sum(move.direction**2, axis=1)
        return float(np.sqrt(w @ np.sum(out**2, axis=1) / before))
    pulled = np.einsum("vjd,v->jd", j[move.atom], move.direction)
    return float(np.linalg.norm(pulled, axis=1).sum())


def head(rng, d=3, v=3, e=3, scale=1.0, bias=False):
    """A random head on R^d."""
    query, key = rng.normal(size=(2, e, d))
    if bias:
        query, key = (
            ma.maps.Affine(query, rng.normal(size=e)),
            ma.maps.Affine(key, rng.normal(size=e)),
        )
    return ma.SelfAttention(ma.Bilinear(query, key, scale), rng.normal(size=(v, d)))
