"""Trajectories: what is recorded of each step, and what ends them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import pdist

import measattn as ma
from measattn import dynamics as dyn
from measattn.wasserstein import w1
from tests.reference.agreement import minilm, needs_minilm

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
        assert abs(path.cosine[step] - cosine_of(x, np.ones(len(x)))) <= 1e-13
        assert abs(path.rank[step] - rank_of(x, np.ones(len(x)))) <= 1e-10


def cosine_of(x, w):
    """Pair by pair."""
    pairs = [
        (w[i] * w[j], x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]))
        for i in range(len(x))
        for j in range(len(x))
        if i != j
    ]
    return sum(m * c for m, c in pairs) / sum(m for m, _ in pairs)


def rank_of(x, w):
    """From the singular values."""
    w = w / w.sum()
    p = np.linalg.svd((x - w @ x) * np.sqrt(w)[:, None], compute_uv=False) ** 2
    p = p[p > 0] / p.sum()
    return np.exp(-(p * np.log(p)).sum())


@pytest.mark.parametrize("shape", [(12, 3), (4, 9), (2, 1)])
def test_weights_count_in_the_mean_cosine_and_in_the_rank(shape):
    rng = np.random.default_rng(5)
    x, w = rng.normal(size=shape), rng.random(shape[0])
    mu = ma.weighted(x, w)
    assert abs(float(dyn.mean_cosine(mu)) - cosine_of(x, w)) <= 1e-13
    assert abs(float(dyn.effective_rank(mu)) - rank_of(x, w)) <= 1e-10


def test_the_mean_cosine_keeps_its_digits_where_one_atom_has_nearly_all_mass():
    x, w = RNG.normal(size=(5, 3)), np.array([1e-14, 2e-14, 1.0, 3e-14, 1e-14])
    assert abs(float(dyn.mean_cosine(ma.weighted(x, w))) - cosine_of(x, w)) <= 1e-12


def test_tokens_of_one_direction_have_cosine_one_and_equal_axes_count_in_the_rank():
    ray = RNG.uniform(1, 2, size=(20, 1)) * np.ones((1, 4))
    assert abs(float(dyn.mean_cosine(ma.EmpiricalMeasure(ray))) - 1) <= 1e-14
    assert abs(float(dyn.effective_rank(ma.EmpiricalMeasure(ray))) - 1) <= 1e-12
    cross = np.concatenate([np.eye(5)[:3], -np.eye(5)[:3]])
    assert abs(float(dyn.effective_rank(ma.EmpiricalMeasure(1e-200 * cross))) - 3) <= 1e-12
    assert abs(float(dyn.mean_cosine(ma.EmpiricalMeasure(cross))) + 0.2) <= 1e-14


def test_one_point_has_rank_zero_and_the_origin_has_no_direction():
    assert float(dyn.effective_rank(_dirac())) == 0
    assert abs(float(dyn.mean_cosine(_dirac())) - 1) <= 1e-15
    assert float(dyn.mean_cosine(ma.EmpiricalMeasure(np.zeros((1, 3))))) == 0
    half = ma.EmpiricalMeasure([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    assert abs(float(dyn.mean_cosine(half)) - 1 / 3) <= 1e-15


def test_equal_narrow_clusters_are_counted():
    centres = 10 * np.eye(4)
    points = np.repeat(centres, 25, axis=0) + 1e-3 * RNG.normal(size=(100, 4))
    assert abs(float(dyn.clusters(ma.EmpiricalMeasure(points), 0.5)) - 4) <= 1e-3


def test_the_diameter_of_a_tiny_cloud_far_away_keeps_its_digits():
    points = 1e3 + 1e-6 * CLOUD
    expected = pdist(points).max()
    assert abs(float(dyn.diameter(ma.EmpiricalMeasure(points))) / expected - 1) <= 1e-6


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_sizes_are_finite_where_their_squares_are_not(size):
    mu = ma.EmpiricalMeasure(size * CLOUD)
    assert abs(float(dyn.diameter(mu)) / (size * pdist(CLOUD).max()) - 1) <= 1e-14
    assert abs(float(dyn.radius(mu)) / (size * np.linalg.norm(CLOUD, axis=1).max()) - 1) <= 1e-14


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


def test_different_layers_are_gone_through_one_after_the_other():
    mu = ma.weighted(CLOUD, RNG.random(40))
    layers = [LAYER, ma.layer.LayerNorm(), ma.Residual(ma.SelfAttention(ma.Gaussian(1.0)))]
    path = dyn.through(ma.Stack(layers), mu, keep="all", potential=LAYER.potential)
    for step, layer in enumerate(layers):
        expected = path[step] @ layer
        np.testing.assert_allclose(path[step + 1].points, expected.points, rtol=1e-13)
        assert abs(path.w1[step] - w1(path[step], path[step + 1]).value) <= 1e-12
        assert path.lower[step] <= path.w1[step] <= path.upper[step]
    assert [len(seen) for seen in (path.radius, path.cosine, path.rank, path.energy)] == [4] * 4


def test_going_through_equal_layers_is_iterating_one():
    mu = ma.EmpiricalMeasure(CLOUD)
    one, other = dyn.iterate(LAYER, mu, 4), dyn.through([LAYER] * 4, mu, potential=LAYER.potential)
    for name in ("w1", "radius", "diameter", "clusters", "cosine", "rank", "energy"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-12)


def test_no_layers_leave_the_measure_and_a_bad_one_is_refused_before_any_step():
    mu = ma.EmpiricalMeasure(CLOUD)
    path = dyn.through([], mu)
    assert (path.steps, len(path.w1), len(path.rank)) == (0, 0, 1)
    with pytest.raises(ValueError, match="dimension 3 became 5"):
        dyn.through([LAYER, ma.SelfAttention(ma.DotProduct(1.0), np.ones((5, 3)))], mu)
    with pytest.raises(ValueError, match="layers must be a sequence, got one SelfAttention"):
        dyn.through(LAYER, mu)


def test_a_step_that_is_not_finite_ends_the_way_through_layers():
    growing = ma.SelfAttention(ma.DotProduct(1.0), 1e200 * np.eye(3))
    path = dyn.through([LAYER, growing, growing, LAYER], ma.EmpiricalMeasure(CLOUD), observe=False)
    assert path.steps < 4
    assert f"Step {path.steps + 1} " in path.status


@needs_minilm
def test_the_layers_of_minilm_are_those_of_the_model():
    mu = minilm().tokens("The river bank was muddy.", dtype=jnp.float64)
    path = dyn.through(minilm().layers, mu)
    end = mu @ ma.Stack(minilm().layers)
    np.testing.assert_allclose(path[-1].points, end.points, atol=1e-10)
    x = np.asarray(end.points)
    assert path.steps == 6
    assert abs(path.cosine[-1] - cosine_of(x, np.ones(len(x)))) <= 1e-10
    assert abs(path.rank[-1] - rank_of(x, np.ones(len(x)))) <= 1e-8
