"""Measures for the tests of transport, and the oracles applied to them."""

import numpy as np

import measattn as ma
from measattn.wasserstein import (
    Assignment,
    Auto,
    ColumnGeneration,
    Line,
    NetworkSimplex,
    Single,
)
from measattn.wasserstein.problem import pose_measures
from tests import oracles

KINDS = {
    "general": lambda rng, n, d: rng.normal(size=(n, d)),
    "grid": lambda rng, n, d: rng.integers(0, 3, (n, d)).astype(float),
    "collinear": lambda rng, n, d: rng.normal(size=(n, 1)) * np.arange(1.0, d + 1),
    "clustered": lambda rng, n, d: rng.integers(0, 2, (n, 1)) + 1e-7 * rng.normal(size=(n, d)),
    "coincident": lambda rng, n, d: np.repeat(rng.integers(0, 4, (n // 2 + 1, d)), 2, 0)[:n] / 3,
}


def cloud(seed, n, d, weighted=False, kind="general"):
    """A measure of n atoms of R^d; some weights are zero if there are more than four."""
    rng = np.random.default_rng(seed)
    points = KINDS[kind](rng, n, d)
    if not weighted:
        return ma.EmpiricalMeasure(points)
    weights = 0.1 + rng.random(n)
    if n > 4:
        weights[:: max(4, n // 8)] = 0
    return ma.weighted(points, weights)


def line(*points):
    """Atoms of equal mass on the line."""
    return ma.EmpiricalMeasure(np.asarray(points, float)[:, None])


def arrays(mu, nu):
    """x, y, a, b as the oracles take them."""
    return tuple(np.asarray(z, np.float64) for z in (mu.points, nu.points, mu.weights, nu.weights))


def by_program(mu, nu, p=1):
    """W_p by the linear program."""
    return oracles.wasserstein(*arrays(mu, nu), p)


def mapped(f, mu):
    """The image of a measure under a NumPy function of all its points."""
    return ma.weighted(f(np.asarray(mu.points)), np.asarray(mu.weights))


def solvers_for(mu, nu, p=1):
    """The exact solvers that apply."""
    problem = pose_measures(mu, nu, p=p).problem
    n, m = problem.ground.shape
    out = [Auto(), NetworkSimplex(), ColumnGeneration(neighbours=2)]
    if problem.uniform:
        out.append(Assignment())
    if mu.dimension == 1:
        out.append(Line())
    if min(n, m) == 1:
        out.append(Single())
    return out
