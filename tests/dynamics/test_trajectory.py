"""Trajectories: what is recorded of each step, and what ends them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import pdist

import measattn as ma
from measattn import dynamics as dyn
from measattn.wasserstein import w1

pytestmark = pytest.mark.float64

RNG = np.random.default_rng(0)
CLOUD = RNG.normal(size=(40, 3))
LAYER = ma.SelfAttention(ma.DotProduct(0.7), 0.8 * np.eye(3))


def test_the_measures_are_those_of_repeated_transport():
    mu = ma.weighted(CLOUD, RNG.random(40))
    path = dyn.iterate(LAYER, mu, 5, keep="all", distances=False)
    for step in range(5):
        expected = path[step] @ LAYER
        np.testing.assert_allclose(path[step + 1].points, expected.points, rtol=1e-13)
    np.testing.assert_array_equal(path[-1].points, path[5].points)
    assert len(list(path)) == 6


def test_the_steps_are_certified_distances():
    path = dyn.iterate(LAYER, ma.EmpiricalMeasure(CLOUD), 4, keep="all")
    for step in range(4):
        assert abs(path.w1[step] - w1(path[step], path[step + 1]).value) <= 1e-12
    assert np.all(path.lower <= path.w1)
    assert np.all(path.w1 <= path.upper)


def test_what_is_observed_is_what_numpy_sees():
    weights = np.where(np.arange(40) % 5 == 0, 0.0, 1.0)
    mu = ma.weighted(CLOUD, weights)
    path = dyn.iterate(LAYER, mu, 3, keep="all", distances=False, bandwidth=0.3)
    for step in range(4):
        x = np.asarray(path[step].points)[weights > 0]
        assert abs(path.radius[step] - np.linalg.norm(x, axis=1).max()) <= 1e-13
        assert abs(path.diameter[step] - pdist(x).max()) <= 1e-13
        square = ((x[:, None] - x[None]) ** 2).sum(axis=2)
        assert abs(path.clusters[step] - 1 / np.exp(-square / (2 * 0.09)).mean()) <= 1e-10


def test_equal_narrow_clusters_are_counted():
    centres = 10 * np.eye(4)
    points = np.repeat(centres, 25, axis=0) + 1e-3 * RNG.normal(size=(100, 4))
    assert abs(float(dyn.clusters(ma.EmpiricalMeasure(points), 0.5)) - 4) <= 1e-3


def test_the_diameter_of_a_tiny_cloud_far_away_keeps_its_digits():
    points = 1e3 + 1e-6 * CLOUD
    expected = pdist(points).max()
    assert abs(float(dyn.diameter(ma.EmpiricalMeasure(points))) / expected - 1) <= 1e-6


def test_the_energy_of_attention_rises_along_its_path_and_is_that_of_the_measures():
    layer, mu = ma.SelfAttention(ma.DotProduct(0.5)), ma.EmpiricalMeasure(CLOUD)
    path = dyn.iterate(ma.Residual(layer), mu, 3, distances=False, potential=layer.potential)
    expected = dyn.interaction_energy(layer.potential, path[-1])
    assert abs(path.energy[-1] - float(expected)) <= 1e-12 * path.energy[-1]
    assert np.all(np.diff(path.energy) > 0)
    assert len(dyn.iterate(layer, mu, 2, distances=False).energy) == 3
    assert len(dyn.iterate(ma.Residual(layer), mu, 2, distances=False).energy) == 0


def test_states_that_are_not_finite_end_the_path_at_the_last_good_one():
    growing = ma.SelfAttention(ma.DotProduct(1.0), 1e60 * np.eye(3))
    path = dyn.iterate(growing, ma.EmpiricalMeasure(CLOUD), 20, distances=False, observe=False)
    assert 0 < path.steps < 20
    assert np.isfinite(path[-1].points).all()
    assert not np.isfinite((path[-1] @ growing).points).all()
    assert f"Step {path.steps + 1} " in path.status


def test_the_rate_of_a_linear_contraction_is_found_with_its_error():
    path = dyn.iterate(ma.SelfAttention(ma.DotProduct(0.0), 0.5 * np.eye(3)), _dirac(), 20)
    rate = path.rate()
    assert abs(rate.value - 0.5) <= 3 * rate.stderr + 1e-12


def _dirac():
    return ma.EmpiricalMeasure(np.ones((1, 3)))


def test_a_noisy_sequence_has_a_standard_error_that_covers_the_rate():
    covered = 0
    for seed in range(200):
        noise = np.random.default_rng(seed).normal(scale=0.1, size=40)
        rate = dyn.fit_rate(0.7 ** np.arange(40) * np.exp(noise))
        covered += abs(rate.value - 0.7) <= 2 * rate.stderr
    assert 175 <= covered <= 200


def test_too_short_a_run_has_no_rate():
    path = dyn.iterate(LAYER, ma.EmpiricalMeasure(CLOUD), 3)
    with pytest.raises(ValueError, match="at least 5 steps"):
        path.rate()
    with pytest.raises(ValueError, match="distances=True"):
        dyn.iterate(LAYER, ma.EmpiricalMeasure(CLOUD), 3, distances=False).rate()


def test_a_layer_that_changes_the_dimension_is_refused():
    wide = ma.SelfAttention(ma.DotProduct(1.0), np.ones((5, 3)))
    with pytest.raises(ValueError, match="dimension 3 became 5"):
        dyn.iterate(wide, ma.EmpiricalMeasure(CLOUD), 2)


@pytest.mark.parametrize("steps", [-1, 2.5, True])
def test_steps_must_be_a_whole_number(steps):
    with pytest.raises(ValueError, match="steps must be a whole number"):
        dyn.iterate(LAYER, ma.EmpiricalMeasure(CLOUD), steps)


def test_tokens_keep_their_positions_and_move_in_law():
    mu = ma.EmpiricalMeasure(ma.Token(jnp.arange(40.0), jnp.asarray(CLOUD)))
    causal = ma.SelfAttention(ma.Causal(ma.DotProduct(1.0)))
    path = dyn.iterate(causal, mu, 3)
    np.testing.assert_array_equal(path[-1].points.position, mu.points.position)
    assert len(path.w1) == 3


def test_progress_is_told_and_steps_that_were_not_kept_are_refused():
    told = []
    path = dyn.iterate(
        LAYER, ma.EmpiricalMeasure(CLOUD), 3, watch=lambda step, steps: told.append((step, steps))
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(KeyError, match="keep"):
        path[1]


def test_nothing_is_compiled_twice_for_a_second_start():
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
    )
    for start in (CLOUD, CLOUD + 1):
        compiled.clear()
        dyn.iterate(LAYER, ma.EmpiricalMeasure(jnp.asarray(start)), 4, distances=False)
    assert not compiled
