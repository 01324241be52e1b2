"""Clustering rates, energies that rise along flows, and Sinkhorn attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn import dynamics
from tests.dynamics.paths import dot, on_sphere, scipy_flow, unit

pytestmark = pytest.mark.float64


@pytest.fixture(scope="module")
def clusters():
    """Paths of sixteen tokens in a cone of the sphere of R^16, by the score's factor."""
    x = unit(np.random.default_rng(6), 16, 16, towards=8.0)
    return {
        beta: dynamics.flow(on_sphere(dot(beta)), ma.EmpiricalMeasure(x), 3.0, save=9)
        for beta in (0.0, 1.0, 4.0)
    }


def cosines(path):
    return np.array([float(dynamics.least_cosine(path.measure(k))) for k in range(len(path.times))])


def test_tokens_in_a_cone_cluster_at_least_at_the_proved_rate(clusters):
    for beta, path in clusters.items():
        c, t = cosines(path), np.asarray(path.times)
        assert c[0] > 0
        assert np.all(np.diff(c) > 0)
        for k in range(len(t) - 1):
            rate = dynamics.clustering_rate(c[k], beta, least_weight=1 / 16)
            assert np.all(1 - c[k:] <= (1 - c[k]) * np.exp(-rate * (t[k:] - t[k])) + 1e-12)


def test_the_least_cosine_stays_above_the_solution_of_its_inequality(clusters):
    for beta, path in clusters.items():
        c, t = cosines(path), np.asarray(path.times)
        bound = dynamics.cosine_bound(c[0], beta, t, least_weight=1 / 16)
        assert np.all(c >= bound - 1e-12)
        rate = dynamics.clustering_rate(c[0], beta, least_weight=1 / 16)
        assert np.all(1 - bound <= (1 - c[0]) * np.exp(-rate * t) + 1e-12)
    # for β = 0 and equal weights the bound is an equality at the orthogonal start
    for t in (0.5, 3.0):
        want = dynamics.orthogonal_start(16, 0.0, t)
        assert dynamics.cosine_bound(0.0, 0.0, t, least_weight=1 / 16) == pytest.approx(want)
    assert dynamics.cosine_bound(1.0, 2.0, 1.0) == 1


def test_no_rate_above_two_holds_near_consensus(clusters):
    c, t = cosines(clusters[1.0]), np.asarray(clusters[1.0].times)
    observed = -np.diff(np.log1p(-c))[-1] / np.diff(t)[-1]
    assert observed == pytest.approx(2, abs=0.02)
    assert dynamics.clustering_rate(1.0, 1.0) == 2


def test_the_differential_inequality_of_the_least_cosine_holds_for_random_clouds():
    rng = np.random.default_rng(7)
    for _ in range(50):
        x, w = unit(rng, 6, 3, towards=3 * rng.random()), rng.dirichlet(np.ones(6))
        gram = x @ x.T
        i, j = np.unravel_index(gram.argmin(), gram.shape)
        if gram[i, j] < 0:
            continue
        beta = 3 * rng.random()
        v = np.asarray(on_sphere(dot(beta)).push(ma.weighted(x, w)))
        rate = dynamics.clustering_rate(gram[i, j], beta, least_weight=w.min())
        assert v[i] @ x[j] + v[j] @ x[i] >= rate * (1 - gram[i, j]) - 1e-12


def test_a_clustering_rate_of_an_obtuse_cloud_or_a_negative_score_is_refused():
    with pytest.raises(ValueError, match="cosine must be from 0 to 1"):
        dynamics.clustering_rate(-0.1, 1.0)
    with pytest.raises(ValueError, match="beta must be"):
        dynamics.clustering_rate(0.1, -1.0)


# energies


def energies(path, energy):
    return np.array([float(energy(path.measure(k))) for k in range(len(path.times))])


def test_the_interaction_energy_rises_along_the_flow(clusters):
    for beta in (1.0, 4.0):
        potential = ma.DotProduct(beta)
        energy = energies(
            clusters[beta], lambda mu, a=potential: dynamics.interaction_energy(a, mu)
        )
        assert np.all(np.diff(energy) > 0)
        assert energy[-1] <= np.exp(beta) / 2


@pytest.mark.parametrize("sphere", [False, True])
def test_the_rate_of_the_energy_is_the_weighted_square_of_the_velocity(sphere):
    rng = np.random.default_rng(8)
    x, w, beta = unit(rng, 8, 3), rng.dirichlet(np.ones(8)), 1.7
    mu, potential = ma.weighted(x, w), ma.DotProduct(beta)
    z = np.exp(beta * x @ x.T) @ w
    for layer, weight in ((dot(beta), z), (dynamics.Unnormalised(dot(beta)), np.ones(8))):
        field = on_sphere(layer) if sphere else layer
        v = np.asarray(field.push(mu))
        rate = dynamics.energy_rate(
            lambda mu: dynamics.interaction_energy(potential, mu), field, mu
        )
        want = beta * np.sum(w * weight * np.sum(v * v, axis=1))
        assert rate == pytest.approx(want, rel=1e-11)


def test_a_symmetric_score_with_its_own_matrix_as_values_climbs_and_the_opposite_falls():
    rng = np.random.default_rng(9)
    A = rng.normal(size=(3, 3))
    A = A + A.T
    potential = ma.Bilinear(np.eye(3), A)
    mu = ma.EmpiricalMeasure(rng.normal(size=(6, 3)))
    for sign in (1, -1):
        layer = ma.SelfAttention(potential, sign * A)
        rate = dynamics.energy_rate(lambda m: dynamics.interaction_energy(potential, m), layer, mu)
        assert sign * rate > 0.1


def test_mean_shift_climbs_the_energy_of_its_kernel():
    mu = ma.EmpiricalMeasure(np.random.default_rng(10).normal(size=(8, 2)))
    potential = ma.Gaussian(0.6)
    layer = dynamics.Increment(ma.SelfAttention(potential))
    rate = dynamics.energy_rate(lambda m: dynamics.interaction_energy(potential, m), layer, mu)
    v, z = map(np.asarray, (layer.push(mu), potential.block(mu.points, mu.points)))
    want = np.mean(np.exp(z).mean(axis=1) * np.sum(v * v, axis=1)) / 0.36
    assert rate == pytest.approx(want, rel=1e-12)


def test_without_symmetry_the_energy_may_fall():
    potential = ma.Bilinear([[0.0, 1.0], [-1.0, 0.0]], np.eye(2))
    mu = ma.EmpiricalMeasure([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.5]])
    rates = [
        dynamics.energy_rate(
            lambda m: dynamics.interaction_energy(potential, m),
            ma.SelfAttention(potential, sign * np.eye(2)),
            mu,
        )
        for sign in (1, -1)
    ]
    assert min(rates) < -1e-3


# Sinkhorn


def doubly_stochastic(logits, w):
    """The coupling by plain Sinkhorn steps in NumPy."""
    kernel = np.exp(logits) * w[:, None] * w[None]
    for _ in range(5000):
        kernel *= (w / kernel.sum(1))[:, None]
        kernel *= w / kernel.sum(0)
    return kernel


def test_sinkhorn_attention_has_both_marginals():
    rng = np.random.default_rng(11)
    x, w, A = rng.normal(size=(7, 2)), rng.dirichlet(np.ones(7)), rng.normal(size=(2, 2))
    layer = dynamics.SinkhornAttention(ma.Bilinear(A.T, np.eye(2)), [[1.0, 2.0], [0.0, 1.0]])
    plan = doubly_stochastic(x @ A @ x.T, w)
    want = plan @ x @ np.array([[1.0, 0.0], [2.0, 1.0]]) / w[:, None]
    mu = ma.weighted(x, w)
    np.testing.assert_allclose(layer.push(mu), want, atol=1e-11)
    # both marginals prescribed: the mean of the law of outputs is that of the values
    np.testing.assert_allclose(ma.mean(mu @ layer), w @ x @ [[1.0, 0.0], [2.0, 1.0]], atol=1e-12)
    assert np.abs(ma.mean(mu @ ma.SelfAttention(layer.potential)) - w @ x).max() > 0.05


def test_both_marginals_are_met_for_large_scores_where_sinkhorn_alone_stalls():
    rng = np.random.default_rng(16)
    A = rng.normal(size=(2, 2))
    for scale, w in ((1.0, rng.dirichlet(np.ones(12))), (4.0, np.full(12, 1 / 12))):
        x = scale * rng.normal(size=(12, 2))
        w = np.where(np.arange(12) == 3, 0, w)
        mu = ma.weighted(x, w)
        f, g = dynamics.scalings(ma.Bilinear(A.T, np.eye(2)), mu)
        w = np.asarray(mu.weights)
        plan = w[:, None] * w[None] * np.exp(x @ A @ x.T + f[:, None] + g[None])
        np.testing.assert_allclose(plan.sum(0), w, atol=1e-13)
        np.testing.assert_allclose(plan.sum(1), w, atol=1e-13)


def test_sinkhorn_attention_climbs_its_energy_at_twice_the_square_of_its_velocity():
    rng = np.random.default_rng(12)
    mu = ma.weighted(rng.normal(size=(7, 2)), rng.dirichlet(np.ones(7)))
    A = np.array([[1.0, 0.3], [0.3, -0.5]])
    potential = ma.Bilinear(np.eye(2), A)
    layer = dynamics.SinkhornAttention(potential, A)

    def energy(mu):
        return dynamics.sinkhorn_energy(potential, mu)

    v = layer.push(mu)
    want = 2 * np.sum(mu.weights * np.sum(v * v, axis=1))
    assert dynamics.energy_rate(energy, layer, mu) == pytest.approx(float(want), rel=1e-10)
    gradient = jax.grad(lambda x: energy(ma.weighted(x, mu.weights)))(mu.points)
    np.testing.assert_allclose(gradient, 2 * mu.weights[:, None] * v, atol=1e-11)
    plan = doubly_stochastic(mu.points @ A @ mu.points.T, np.asarray(mu.weights))
    product = mu.weights[:, None] * mu.weights[None]
    logits = np.asarray(potential.block(mu.points, mu.points))
    assert energy(mu) == pytest.approx(np.sum(plan * (logits - np.log(plan / product))), rel=1e-11)


def test_softmax_attention_is_no_gradient_in_space():
    """Velocities times weights that were a gradient would have a symmetric Jacobian."""
    x = jnp.asarray(np.random.default_rng(13).normal(size=(4, 2)))

    def asymmetry(layer):
        jacobian = jax.jacfwd(lambda x: layer.push(ma.EmpiricalMeasure(x)).ravel())(x)
        jacobian = np.asarray(jacobian).reshape(8, 8)
        return np.abs(jacobian - jacobian.T).max()

    assert asymmetry(dot(1.0)) > 0.1
    assert asymmetry(dynamics.Unnormalised(dot(1.0))) < 1e-12
    assert asymmetry(dynamics.SinkhornAttention(ma.DotProduct(1.0))) < 1e-10


def test_sinkhorn_attention_flows_as_scipy_says():
    x = 0.5 * np.random.default_rng(14).normal(size=(5, 2))
    w = np.full(5, 0.2)
    path = dynamics.flow(
        dynamics.SinkhornAttention(ma.DotProduct(1.0)), ma.EmpiricalMeasure(x), 0.3
    )
    want = scipy_flow(lambda x: doubly_stochastic(x @ x.T, w) @ x / 0.2, x, [0.0, 0.3])
    np.testing.assert_allclose(path.points[-1], want[-1], atol=1e-8)


def test_sinkhorn_that_runs_out_of_rounds_or_meets_a_mask_says_so():
    x = ma.EmpiricalMeasure(np.random.default_rng(15).normal(size=(5, 2)))
    with pytest.raises(RuntimeError, match="did not reach its tolerance in 1 rounds"):
        jax.block_until_ready(dynamics.SinkhornAttention(ma.DotProduct(3.0), rounds=1).push(x))
    masked = ma.Masked(ma.DotProduct(), lambda x, y: x[0] <= y[0])
    with pytest.raises(RuntimeError, match="needs a finite potential"):
        jax.block_until_ready(dynamics.SinkhornAttention(masked).push(x))
    with pytest.raises(ValueError, match="rounds must be"):
        dynamics.SinkhornAttention(ma.DotProduct(), rounds=0)
