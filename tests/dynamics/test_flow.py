"""Continuous depth against SciPy, closed forms and the scalar equation of the orthogonal start."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

import measattn as ma
from measattn import dynamics
from tests import oracles
from tests.dynamics.paths import dot, on_sphere, scipy_flow, unit

pytestmark = pytest.mark.float64
BETAS = [1.0, 4.0, 9.0]


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
    sigma, h = 0.8, 1e-5
    x = np.random.default_rng(1).normal(size=(9, 2))

    def log_density(at):
        return np.log(np.exp(-np.sum((at - x) ** 2, axis=1) / (2 * sigma**2)).mean())

    want = [
        [(log_density(a + h * e) - log_density(a - h * e)) / (2 * h) for e in np.eye(2)] for a in x
    ]
    got = dynamics.Increment(ma.SelfAttention(ma.Gaussian(sigma))).push(ma.EmpiricalMeasure(x))
    np.testing.assert_allclose(got, sigma**2 * np.array(want), atol=1e-9)


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
def test_a_flow_is_the_same_under_jit():
    mu = ma.EmpiricalMeasure(np.eye(2))

    @jax.jit
    def path():
        return dynamics.flow(on_sphere(dot(1.0)), mu, 1.0)

    got = path()
    assert got.measure(-1).points[0] @ got.points[-1, 1] == pytest.approx(
        dynamics.orthogonal_start(2, 1.0, 1.0), abs=1e-11
    )


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
        ({"save": 1}, "save must be a whole number of at least 2"),
        ({"save": [0.0, 2.0]}, "increase within"),
        ({"save": [0.5, 0.5]}, "increase within"),
        ({"rtol": 1e-17}, "rtol must be"),
        ({"atol": -1.0}, "atol must be finite and at least 0"),
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
    with pytest.raises(
        ValueError, match="k, which counts the times, must be .* from -5 to 4, got 5"
    ):
        path.measure(5)


def test_without_diffrax_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffrax", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'measattn\[flow\]'"):
        dynamics.flow(dot(1.0), ma.dirac([1.0]), 1.0)
