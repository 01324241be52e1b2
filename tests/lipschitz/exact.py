"""What the local constant Anywhere sums at a point, in any arithmetic: the oracle of its bounds."""

from decimal import Decimal, getcontext
from typing import NamedTuple

import numpy as np

import measattn as ma

getcontext().prec = 60

KINDS = ["dot", "affine", "gauss", "memory", "heads", "gausses"]


class Head(NamedTuple):
    """A head with the score <Ax + c, y>, or the Gaussian one."""

    a: np.ndarray | None
    c: np.ndarray | None
    v: np.ndarray
    sigma: float | None = None
    memory: np.ndarray | None = None


def layer(heads, residual=False):
    """The same heads as a layer of the library."""
    found = [_layer(head) for head in heads]
    whole = found[0]
    if len(found) > 1:
        whole = ma.MultiHead(found, np.hstack([np.eye(len(heads[0].v))] * len(heads)))
    return ma.Residual(whole) if residual else whole


def _layer(head):
    if head.sigma is not None:
        score = ma.Gaussian(head.sigma)
    else:
        score = ma.Bilinear(ma.Affine(head.a, head.c), np.eye(len(head.a)))
    if head.memory is not None:
        return ma.CrossAttention(score, head.v, head.memory)
    return ma.SelfAttention(score, head.v)


def case(kind, d):
    """Heads, whether there is a residual, and a measure."""
    rng = np.random.default_rng(10 * d + len(kind))
    a, v = rng.normal(size=(2, d, d))
    c, memory = np.zeros(d), rng.uniform(-0.8, 0.8, size=(5, d))
    heads = {
        "dot": [Head(a, c, v)],
        "affine": [Head(a, np.ones(d), v)],
        "gauss": [Head(None, None, v, sigma=0.6)],
        "memory": [Head(a, np.ones(d), v, memory=memory)],
        "heads": [Head(a, np.ones(d), v), Head(-1.5 * np.eye(d), c, v - a)],
        "gausses": [Head(None, None, v, sigma=0.6), Head(None, None, v - a, sigma=0.9)],
    }[kind]
    mu = ma.weighted(rng.uniform(-0.6, 0.6, size=(4, d)), rng.random(4) + 0.2)
    return heads, kind in ("gauss", "memory", "heads", "gausses"), mu


def numbers(array):
    """Floats as decimals of sixty digits; the conversion is exact."""
    return np.array([Decimal(float(a)) for a in np.ravel(array)], object).reshape(np.shape(array))


def exp(array):
    if array.dtype == object:
        return np.array([a.exp() for a in array.ravel()], object).reshape(array.shape)
    return np.exp(array)


def score(head, query, key, to):
    if head.sigma is None:
        return np.sum((to(head.a) @ query + to(head.c)) * key)
    return -np.sum((query - key) ** 2) / (2 * to([head.sigma])[0] ** 2)


def softmax(head, query, keys, mass, to):
    """The shares of the keys, their largest score, and their sum without it."""
    scores = np.array([score(head, query, key, to) for key in keys], keys.dtype)
    shares = mass * exp(scores - scores.max())
    return shares / shares.sum(), scores.max(), shares.sum()


def summands(heads, residual, points, weights, x, exact=False):
    """The weighted M_i(x) of each atom i, then D(x): (n + 1, v, d), from their definitions."""
    to = numbers if exact else np.asarray
    points, weights, x = to(points), to(weights), to(x)
    n, d = points.shape
    one = to(np.eye(d))
    total = to(np.zeros((n + 1, len(heads[0].v), d)))
    if residual:
        total[n] += one
    for head in heads:
        v, keys, mass = to(head.v), points, weights
        if head.memory is not None:
            keys = to(head.memory)
            mass = to(np.full(len(keys), 1 / len(keys)))
        a = to(head.a) if head.sigma is None else one / to([head.sigma])[0] ** 2
        p, _, _ = softmax(head, x, keys, mass, to)
        moved = keys - p @ keys
        total[n] += v @ (p[:, None] * moved).T @ moved @ a
        if head.memory is not None:
            continue
        for i, y in enumerate(points):
            p, top, size = softmax(head, y, keys, mass, to)
            density = exp(np.array([score(head, y, x, to) - top], total.dtype))[0] / size
            slope = a @ y + to(head.c) if head.sigma is None else a @ (y - x)
            total[i] += weights[i] * density * (v @ (one + np.outer(x - p @ keys, slope)))
    return total


def lengths(terms, directions):
    """Sums of |N_i u| over i, of each direction u, in the arithmetic of the terms."""
    exact = terms.dtype == object
    images = terms @ (numbers(directions) if exact else directions).T
    squares = (images * images).sum(axis=1)
    if exact:
        return np.array([a.sqrt() for a in squares.ravel()], object).reshape(squares.shape).sum(0)
    return np.sqrt(squares).sum(axis=0)
