"""Continuous depth against SciPy, closed forms and the scalar equation of the orthogonal start."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

import measattn as ma
from measattn import dynamics
from tests import oracles

pytestmark = pytest.mark.float64
BETAS = [1.0, 4.0, 9.0]


def on_sphere(layer):
    return dynamics.Tangential(layer)


def dot(beta, value=None):
    return ma.SelfAttention(ma.DotProduct(beta), value)


def unit(rng, n, d, towards=0.0):
    x = rng.normal(size=(n, d))
    x[:, 0] += towards
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def scipy_flow(velocity, x, times):
    """The path by SciPy's own method of order 8."""
    done = solve_ivp(
        lambda t, y: velocity(y.reshape(x.shape)).ravel(), (0, times[-1]), x.ravel(),
        method="DOP853", t_eval=times, rtol=1e-12, atol=1e-13,
    )  # fmt: skip
    return done.y.T.reshape(-1, *x.shape)


# the orthogonal start


def duration(n, beta, gamma, normalised=True):
    """When γ is reached: the integral of one over the speed, in the variable log(1 - γ)."""

    def slowness(u):
        g = -np.expm1(u)
        z = np.exp(beta) + (n - 1) * np.exp(beta * g) if normalised else n
        return z / (2 * np.exp(beta * g) * ((n - 1) * g + 1))

    return quad(slowness, np.log1p(-gamma), 0, epsabs=0, epsrel=1e-13, limit=500)[0]


@pytest.mark.parametrize("n", [2, 16, pytest.param(128, marks=pytest.mark.slow)])
def test_orthonormal_tokens_follow_the_scalar_equation(n):
    off = ~np.eye(n, dtype=bool)
    rotation = np.linalg.qr(np.random.default_rng(n).normal(size=(n, n)))[0]
    for beta in BETAS:
        path = dynamics.flow(
            on_sphere(dot(beta)), ma.EmpiricalMeasure(rotation), duration(n, beta, 0.999), save=9
        )
        inner = np.einsum("kid,kjd->kij", path.points, path.points)[:, off]
        gamma = dynamics.orthogonal_start(n, beta, np.asarray(path.times))
        assert gamma[-1] == pytest.approx(0.999, abs=1e-10)
        assert np.abs(inner - gamma[:, None]).max() < 1e-8
        assert path.drift < 1e-9


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("n", [2, 16, 128])
def test_the_scalar_equation_reaches_a_value_when_quadrature_says(n, normalised):
    for beta in BETAS:
        values = np.array([0.01, 0.3, 0.9, 0.999])
        times = [duration(n, beta, g, normalised) for g in values]
        got = dynamics.orthogonal_start(n, beta, times, normalised=normalised)
        np.testing.assert_allclose(got, values, atol=1e-11)


def test_the_scalar_equation_has_the_values_of_the_literature():
    assert dynamics.orthogonal_start(2, 0.0, 1.0) == pytest.approx(np.tanh(1), abs=1e-12)
    got = dynamics.orthogonal_start(2, 1.0, [0.0, 1.0, 2.0, 5.0])
    want = [0, 0.5791953369, 0.9140067563, 0.9997670886]
    np.testing.assert_allclose(got, want, atol=1e-10)
    got = dynamics.orthogonal_start(16, 4.0, [1.0, 2.0, 5.0])
    np.testing.assert_allclose(got, [0.0375643202, 0.1040520962, 0.8708602017], atol=1e-10)


def test_the_velocity_at_equal_angles_is_the_right_side_of_the_scalar_equation():
    n, gamma = 5, 0.3
    x = jnp.linalg.cholesky((1 - gamma) * jnp.eye(n) + gamma)
    for beta in (-2.0, 0.5, 4.0):
        for layer, z in (
            (dot(beta), np.exp(beta) + (n - 1) * np.exp(beta * gamma)),
            (dynamics.Unnormalised(dot(beta)), n),
        ):
            v = on_sphere(layer).push(ma.EmpiricalMeasure(x))
            want = 2 * np.exp(beta * gamma) * (1 - gamma) * ((n - 1) * gamma + 1) / z
            assert v[0] @ x[1] + v[1] @ x[0] == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize(
    ("n", "beta", "times"),
    [(1, 1.0, 1.0), (2.5, 1.0, 1.0), (2, np.nan, 1.0), (2, 1.0, -1.0), (2, 1.0, [2.0, 1.0])],
)
def test_an_orthogonal_start_that_makes_no_sense_is_refused(n, beta, times):
    with pytest.raises(ValueError, match="n must|beta must|times must"):
        dynamics.orthogonal_start(n, beta, times)


# paths against other methods


@pytest.mark.parametrize(("beta", "value"), [(0.7, 0.5), (2.0, -1.0)])
def test_two_opposite_tokens_on_the_line_follow_their_formula(beta, value):
    mu = ma.EmpiricalMeasure([[0.8], [-0.8]])
    path = dynamics.flow(dot(beta, [[value]]), mu, 1.0, save=5)
    want = scipy_flow(
        lambda x: value * x * np.tanh(beta * x * x), np.array([0.8]), np.asarray(path.times)
    )
    np.testing.assert_allclose(path.points[:, 0], want, atol=1e-10)
    np.testing.assert_allclose(path.points[:, 1], -want, atol=1e-10)


def test_weighted_attention_on_the_space_flows_as_scipy_says():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(7, 3)), rng.dirichlet(np.ones(7))
    A, V = rng.normal(size=(2, 3, 3)) / 2

    def velocity(x):
        return oracles.softmax(x @ A @ x.T + np.log(w)[None]) @ x @ V.T

    layer = ma.SelfAttention(ma.Bilinear(A.T, np.eye(3)), V)
    path = dynamics.flow(layer, ma.weighted(x, w), 1.0, save=[0.0, 0.3, 1.0])
    np.testing.assert_allclose(
        path.points, scipy_flow(velocity, x, np.asarray(path.times)), atol=1e-9
    )
    np.testing.assert_allclose(path.measure(-1).weights, w, rtol=1e-12)


def test_the_increment_of_gaussian_attention_is_the_gradient_of_the_log_density():
    rng, sigma = np.random.default_rng(1), 0.8
    mu = ma.EmpiricalMeasure(rng.normal(size=(9, 2)))
    layer = ma.SelfAttention(ma.Gaussian(sigma))

    def log_density(x):
        return ma.log_normaliser(layer.potential, mu, x)

    want = sigma**2 * jax.vmap(jax.grad(log_density))(mu.points)
    np.testing.assert_allclose(dynamics.Increment(layer).push(mu), want, atol=1e-13)


def test_the_increment_of_a_residual_layer_is_the_layer():
    mu = ma.EmpiricalMeasure(np.random.default_rng(2).normal(size=(5, 3)))
    layer = dot(1.0, 2 * np.eye(3))
    np.testing.assert_allclose(
        dynamics.Increment(ma.Residual(layer)).push(mu), layer.push(mu), atol=1e-14
    )


def test_residual_layers_are_euler_steps_of_the_flow():
    mu = ma.EmpiricalMeasure([[0.8], [-0.8]])
    end = dynamics.flow(dot(0.7, [[0.5]]), mu, 1.0, save=5).points[-1]
    errors = []
    for depth in (50, 100, 200):
        stack = ma.WeightShared(ma.Residual(dot(0.7, [[0.5 / depth]])), depth)
        errors.append(float(jnp.abs((mu @ stack).points - end).max()))
    np.testing.assert_allclose(np.array(errors[:-1]) / errors[1:], 2, atol=0.03)


def test_the_first_token_of_a_causal_flow_sees_itself_alone():
    x = np.random.default_rng(3).normal(size=(4, 2))
    tokens = ma.Token(jnp.arange(4.0), jnp.asarray(x))
    layer = ma.SelfAttention(ma.Causal(ma.DotProduct(1.0)), 0.5 * np.eye(2))
    path = dynamics.flow(layer, ma.EmpiricalMeasure(tokens), 1.0)
    np.testing.assert_allclose(path.points[-1, 0], np.exp(0.5) * x[0], rtol=1e-11)
    np.testing.assert_array_equal(path.measure(1).points.position, np.arange(4))
    moved = ma.Token(jnp.arange(4.0), jnp.asarray(x).at[-1].add(3.0))
    other = dynamics.flow(layer, ma.EmpiricalMeasure(moved), 1.0)
    np.testing.assert_allclose(other.points[-1, :3], path.points[-1, :3], rtol=1e-9)
    assert np.abs(other.points[-1, 3] - path.points[-1, 3]).max() > 1


def test_a_flow_in_float32_stays_in_float32():
    x = jnp.asarray(unit(np.random.default_rng(4), 3, 2), jnp.float32)
    path = dynamics.flow(on_sphere(dot(1.0)), ma.EmpiricalMeasure(x), 0.5)
    assert path.points.dtype == path.times.dtype == jnp.float32
    assert path.drift < 1e-4


@pytest.mark.slow
def test_the_derivative_of_a_flow_is_that_of_finite_differences():
    mu = ma.EmpiricalMeasure([[0.8], [-0.5]])

    def end(beta):
        return jnp.sum(dynamics.flow(dot(beta), mu, 0.5).points[-1] ** 2)

    h = 1e-4
    want = (end(1 + h) - end(1 - h)) / (2 * h)
    assert jax.grad(end)(1.0) == pytest.approx(float(want), rel=1e-6)


# the sphere


def test_the_tangential_field_moves_directions_alike_at_every_radius():
    rng = np.random.default_rng(5)
    u = unit(rng, 6, 3)
    radius = rng.uniform(0.5, 2, size=(6, 1))
    field = on_sphere(dot(3.0, rng.normal(size=(3, 3))))
    on, off = field.push(ma.EmpiricalMeasure(u)), field.push(ma.EmpiricalMeasure(radius * u))
    np.testing.assert_allclose(off, radius * on, atol=1e-13)
    np.testing.assert_allclose(np.sum(off * u, axis=1), 0, atol=1e-13)
    other = unit(rng, 4, 3)
    got = field.push(ma.EmpiricalMeasure(u), jnp.asarray(other))
    gamma = oracles.softmax(3 * other @ u.T) @ u @ np.asarray(field.layer.value.weight).T
    want = gamma - np.sum(gamma * other, axis=1, keepdims=True) * other
    np.testing.assert_allclose(got, want, atol=1e-13)


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
        f, g = dynamics.sinkhorn.scalings(ma.Bilinear(A.T, np.eye(2)), mu)
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


# what goes wrong


def test_a_flow_that_becomes_infinite_keeps_its_path_up_to_there():
    # x' = x e^{x²} from 1 becomes infinite at E1(1)/2
    layer = dynamics.Unnormalised(dot(1.0))
    with pytest.raises(dynamics.FlowError, match="becomes infinite") as caught:
        dynamics.flow(layer, ma.dirac([1.0]), 1.0, save=21)
    path = caught.value.flow
    assert path.times[-1] == pytest.approx(0.21938393439552 / 2, rel=1e-6)
    assert np.all(np.isfinite(path.points))
    assert np.all(np.diff(path.times) > 0)
    assert path.points[-1, 0, 0] > 4


def test_a_flow_that_runs_out_of_steps_keeps_its_path_up_to_there():
    with pytest.raises(dynamics.FlowError, match="the steps ran out") as caught:
        dynamics.flow(dynamics.Unnormalised(dot(1.0)), ma.dirac([1.0]), 0.1, save=21, max_steps=4)
    path = caught.value.flow
    assert 0 < path.times[-1] < 0.1
    assert "ran out" in repr(path)


def test_a_velocity_that_is_not_finite_is_reported_at_the_start():
    layer = ma.Deterministic(lambda x: x / 0)
    with pytest.raises(dynamics.FlowError, match="not finite at the start") as caught:
        dynamics.flow(layer, ma.dirac([1.0]), 1.0)
    np.testing.assert_array_equal(caught.value.flow.points, [[[1.0]]])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"time": -1.0}, "time must be positive"),
        ({"time": np.inf}, "time must be positive"),
        ({"save": 1}, "save must be at least 2"),
        ({"save": [0.0, 2.0]}, "increase within"),
        ({"save": [0.5, 0.5]}, "increase within"),
        ({"rtol": 1e-17}, "rtol must be"),
        ({"atol": -1.0}, "atol at least 0"),
    ],
)
def test_times_and_tolerances_that_make_no_sense_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        dynamics.flow(**{"layer": dot(1.0), "mu": ma.dirac([1.0]), "time": 1.0, **options})


def test_what_cannot_flow_is_refused_with_words():
    mu = ma.EmpiricalMeasure(np.eye(3))
    with pytest.raises(ValueError, match="keeps the dimension"):
        dynamics.flow(dot(1.0, np.ones((2, 3))), mu, 1.0)
    with pytest.raises(ValueError, match="an increment needs a layer that keeps the dimension"):
        dynamics.flow(dynamics.Increment(dot(1.0, np.ones((2, 3)))), mu, 1.0)
    with pytest.raises(ValueError, match="on the unit sphere"):
        dynamics.flow(on_sphere(dot(1.0)), ma.EmpiricalMeasure(2 * np.eye(3)), 1.0)
    with pytest.raises(ValueError, match="wrap points as"):
        dynamics.flow(dot(1.0), np.eye(3), 1.0)
    with pytest.raises(ValueError, match="attention must be one head"):
        dynamics.Unnormalised(ma.MultiHead([dot(1.0), dot(1.0)]))
    path = dynamics.flow(dot(0.7), ma.EmpiricalMeasure([[0.8], [-0.8]]), 1.0, save=5)
    with pytest.raises(ValueError, match="k must be one of 5 times"):
        path.measure(5)


def test_without_diffrax_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffrax", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'measattn\[flow\]'"):
        dynamics.flow(dot(1.0), ma.dirac([1.0]), 1.0)
