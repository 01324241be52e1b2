"""Mean shift is attention: against scikit-learn's centres and NumPy's loops."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import MeanShift

import measattn as ma
from measattn import dynamics as dyn

pytestmark = pytest.mark.float64

CENTRES = np.array([[0.0, 0.0], [9.0, 1.0], [4.0, -8.0], [-7.0, -6.0]])
WIDTH = 3.5
"""Covers a cluster and no other: clusters are within 3 of their centres, which are 8 apart."""


def separated(seed=0):
    """Clusters of 10, 20, 30 and 40 points."""
    rng = np.random.default_rng(seed)
    noise = np.clip(rng.normal(scale=0.5, size=(100, 2)), -1.2, 1.2)
    return np.repeat(CENTRES, [10, 20, 30, 40], axis=0) + noise


def scattered(seed=1):
    return np.random.default_rng(seed).normal(size=(120, 2))


def flat(width):
    """The score of a flat kernel: equal weights within the width, none beyond it."""

    def score(x, y):
        return jnp.where(jnp.sum((x - y) ** 2) <= width**2, 0.0, -jnp.inf)

    return ma.Interaction(score)


def shifted(points, width):
    """Where ordinary mean shift takes each point: the data stay and are attended to."""
    data = ma.EmpiricalMeasure(points)
    end = dyn.fixed_point(ma.CrossAttention(flat(width), np.eye(2), data), data, 1e-12, steps=200)
    assert end.verdict == "converged"
    return np.asarray(end.measure.points)


def apart(x, y):
    """The distance of each x to the nearest y."""
    return np.linalg.norm(x[:, None] - y[None], axis=2).min(axis=1)


@pytest.mark.parametrize(("points", "width"), [(separated(), WIDTH), (scattered(), 0.8)])
def test_ordinary_mean_shift_ends_at_the_centres_of_scikit_learn(points, width):
    known = MeanShift(bandwidth=width).fit(points).cluster_centers_
    ends = shifted(points, width)
    # it stops below a thousandth of the width, and keeps one of those within a width
    assert apart(known, ends).max() <= 1e-3 * width
    assert apart(ends, known).max() <= width
    assert len(known) > 2


def test_one_round_of_blurring_with_a_flat_kernel_gives_the_centres_of_scikit_learn():
    points = separated()
    known = MeanShift(bandwidth=WIDTH).fit(points)
    blurred = ma.EmpiricalMeasure(points) @ ma.SelfAttention(flat(WIDTH))
    np.testing.assert_allclose(
        blurred.points, known.cluster_centers_[known.labels_], rtol=1e-12, atol=1e-12
    )


def test_blurring_with_a_gaussian_kernel_finds_the_clusters_of_scikit_learn():
    points = separated()
    known = MeanShift(bandwidth=WIDTH).fit(points)
    end = dyn.fixed_point(ma.SelfAttention(ma.Gaussian(1.0)), ma.EmpiricalMeasure(points), 1e-9)
    x = np.asarray(end.measure.points)
    assert end.verdict == "converged"
    assert abs(float(dyn.clusters(end.measure, 0.1)) - 1 / (0.01 + 0.04 + 0.09 + 0.16)) <= 1e-6
    off = x - known.cluster_centers_[known.labels_]
    assert np.linalg.norm(off, axis=1).max() <= 0.1  # near the means, and not at them
    assert np.linalg.norm(off, axis=1).max() >= 1e-6


def test_blurring_mean_shift_is_that_of_plain_loops():
    points, weights = scattered(), np.random.default_rng(2).random(120)
    x = points
    for _ in range(5):
        k = np.exp(-((x[:, None] - x[None]) ** 2).sum(axis=2) / (2 * 0.7**2)) * weights
        x = k @ x / k.sum(axis=1, keepdims=True)
    layer = ma.SelfAttention(ma.Gaussian(0.7))
    path = dyn.iterate(layer, ma.weighted(points, weights), 5, distances=False, observe=False)
    np.testing.assert_allclose(path[-1].points, x, rtol=1e-11, atol=1e-13)
    still = np.exp(-((x[:, None] - points[None]) ** 2).sum(axis=2) / (2 * 0.7**2)) * weights
    ordinary = still @ points / still.sum(axis=1, keepdims=True)
    assert np.abs(ordinary - np.asarray((path[-1] @ layer).points)).max() > 1e-2
