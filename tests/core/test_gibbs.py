"""The Boltzmann-Gibbs transformation, softmatch, and the variational principle."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import measattn as ma
from tests import oracles
from tests.core.closeness import assert_close, float64, normal, uniform
from tests.core.compiled import grad, hessian
from tests.strategies import bounded, clouds

X, Y, W = normal(0, 4, 2), normal(1, 5, 2), uniform(2, 5)
MU = ma.weighted(Y, W)


def log_g(x):
    return 2 * x[0] - x[0] * x[1]


def reweighted(points, weights):
    mass = weights * np.exp(2 * points[:, 0] - points[:, 0] * points[:, 1])
    return mass / mass.sum()


@bounded
@given(clouds())
def test_boltzmann_gibbs_multiplies_by_g_and_divides_by_the_integral(cloud):
    out = ma.boltzmann_gibbs(log_g, ma.weighted(*cloud))
    assert_close(out.weights, reweighted(*cloud))
    np.testing.assert_array_equal(float64(out.points), cloud[0])


@bounded
@given(clouds())
def test_two_transformations_are_one_by_the_product(cloud):
    mu = ma.weighted(*cloud)
    twice = ma.boltzmann_gibbs(lambda x: x[1], ma.boltzmann_gibbs(log_g, mu))
    once = ma.boltzmann_gibbs(lambda x: log_g(x) + x[1], mu)
    assert_close(twice.weights, float64(once.weights))


@pytest.mark.parametrize("constant", [0.0, 1e4, -1e4])
def test_a_constant_factor_of_g_does_not_matter(constant):
    out = ma.boltzmann_gibbs(lambda x: log_g(x) + constant, MU)
    assert_close(out.weights, reweighted(float64(Y), float64(W)), scale=max(1, abs(constant)))


def test_where_g_is_zero_no_mass_is_left():
    out = ma.boltzmann_gibbs(lambda x: jnp.where(x[0] > 0, 0.0, -jnp.inf), MU)
    positive = float64(Y)[:, 0] > 0
    assert 0 < positive.sum() < 5
    expected = np.where(positive, float64(W), 0)
    assert_close(out.weights, expected / expected.sum())


def test_a_function_that_is_not_scalar_is_refused():
    with pytest.raises(ValueError, match=r"one number for a point, got shape \(2,\)"):
        ma.boltzmann_gibbs(lambda x: x, MU)


@bounded
@given(clouds())
def test_the_softmatch_kernel_is_a_softmax_row_on_the_keys(cloud):
    points, weights = cloud
    kernel = ma.SoftmatchKernel(ma.DotProduct(0.5), ma.weighted(points, weights))
    row = kernel(jnp.asarray([1.0, -2.0]))
    expected = oracles.softmatch(0.5 * points @ [1.0, -2.0], weights)
    assert_close(row.weights, expected)


@pytest.mark.parametrize("potential", [ma.Gaussian(0.8), lambda x, y: x[0] * y[1], ma.DotProduct()])
def test_the_softmatch_kernel_is_the_boltzmann_gibbs_transformation_of_its_keys(potential):
    row = ma.SoftmatchKernel(potential, MU)(X[0])
    expected = ma.boltzmann_gibbs(lambda y: potential(X[0], y), MU)
    assert_close(row.weights, float64(expected.weights))


@bounded
@given(clouds(sizes=(4,)), clouds())
def test_transport_by_softmatch_reweights_the_keys_by_the_column_mass(queries, keys):
    mu, nu = ma.weighted(*queries), ma.weighted(*keys)
    out = mu @ ma.SoftmatchKernel(ma.DotProduct(), nu)
    rows = oracles.softmatch(queries[0] @ keys[0].T, keys[1])
    assert_close(out.weights, queries[1] / queries[1].sum() @ rows)
    np.testing.assert_array_equal(float64(out.points), keys[0])


def test_the_column_mass_integrates_to_one():
    mass = ma.gibbs.log_column_mass(ma.Gaussian(0.5), ma.EmpiricalMeasure(X), MU)
    assert_close(jnp.sum(jnp.exp(mass)), 1.0)


def test_transport_by_softmatch_counts_queries_without_mass_as_nothing():
    kernel = ma.SoftmatchKernel(ma.Masked(ma.DotProduct(), lambda x, y: x[0] < 50), MU)
    blind = ma.weighted(jnp.concatenate([X, jnp.full((1, 2), 100.0)]), [1, 1, 1, 1, 0])
    seeing = ma.EmpiricalMeasure(X)
    assert_close((blind @ kernel).weights, float64((seeing @ kernel).weights))


@bounded
@given(clouds())
def test_the_log_normaliser_is_the_logarithm_of_the_integral_of_g(cloud):
    points, weights = cloud
    x = np.array([1.0, -2.0])
    got = ma.log_normaliser(ma.DotProduct(), ma.weighted(points, weights), jnp.asarray(x))
    assert_close(got, oracles.log_normaliser(points @ x, weights), scale=10)


def test_the_log_normaliser_of_a_query_that_sees_nothing_is_minus_infinity():
    blind = ma.Masked(ma.DotProduct(), lambda x, y: False)
    assert float(ma.log_normaliser(blind, MU, X[0])) == -np.inf


def test_the_gradient_of_the_log_normaliser_is_the_mean_of_the_keys():
    slope = grad(lambda x: ma.log_normaliser(ma.DotProduct(0.7), MU, x))(X[0])
    p = oracles.softmatch(0.7 * float64(Y) @ float64(X[0]), W)
    assert_close(slope, 0.7 * p @ float64(Y))


def test_the_hessian_of_the_log_normaliser_is_the_covariance_of_the_keys():
    curvature = hessian(lambda x: ma.log_normaliser(ma.DotProduct(0.7), MU, x))(X[0])
    p = oracles.softmatch(0.7 * float64(Y) @ float64(X[0]), W)
    assert_close(curvature, 0.49 * oracles.covariance(Y, p))


def test_the_log_normaliser_can_be_differentiated_in_the_log_weights():
    log_w = normal(3, 5)
    slope = grad(lambda v: ma.log_normaliser(ma.DotProduct(), ma.EmpiricalMeasure(Y, v), X[0]))(
        log_w
    )
    weights = np.exp(float64(log_w))
    p = oracles.softmatch(float64(Y) @ float64(X[0]), weights)
    assert_close(slope, p - weights / weights.sum(), scale=1)


@bounded
@given(clouds())
def test_the_transformation_attains_the_least_free_energy(cloud):
    mu = ma.weighted(*cloud)
    least = ma.gibbs.free_energy(log_g, mu, ma.boltzmann_gibbs(log_g, mu))
    mass = cloud[1] / cloud[1].sum() * np.exp([log_g(x) for x in cloud[0]])
    assert_close(least, -np.log(mass.sum()), scale=20)


@pytest.mark.parametrize("seed", range(3))
def test_any_other_law_has_a_free_energy_larger_by_its_relative_entropy(seed):
    p = ma.weighted(Y, uniform(seed, 5))
    best = ma.boltzmann_gibbs(log_g, MU)
    excess = ma.gibbs.free_energy(log_g, MU, p) - ma.gibbs.free_energy(log_g, MU, best)
    share, target = float64(p.weights), reweighted(float64(Y), float64(W))
    expected = share @ np.log(share / target)
    assert expected > 0.01
    assert_close(excess, expected, scale=5)
    assert_close(ma.gibbs.relative_entropy(p, best), expected, scale=5)


def test_the_free_energy_is_finite_where_g_vanishes_on_part_of_the_support():
    def half(x):
        return jnp.where(x[0] > 0, 1.0, -jnp.inf)

    best = ma.boltzmann_gibbs(half, MU)
    seen = float64(W)[float64(Y)[:, 0] > 0].sum() / float64(W).sum()
    assert_close(ma.gibbs.free_energy(half, MU, best), -1 - np.log(seen))


def test_the_relative_entropy_is_infinite_where_there_is_no_mass_to_compare_with():
    p, mu = ma.weighted([[0.0], [1.0]], [0.5, 0.5]), ma.weighted([[0.0], [1.0]], [1, 0])
    assert float(ma.gibbs.relative_entropy(p, mu)) == np.inf
    assert float(ma.gibbs.relative_entropy(mu, p)) == pytest.approx(np.log(2))


def test_the_relative_entropy_of_measures_on_other_atoms_is_refused():
    with pytest.raises(ValueError, match="same atoms, got 5 and 4"):
        ma.gibbs.relative_entropy(MU, ma.EmpiricalMeasure(X))


def test_the_derivative_in_the_inverse_temperature_is_the_variance_of_the_energy():
    def energy(beta):
        tilted = ma.boltzmann_gibbs(lambda x: beta * log_g(x), MU)
        return ma.integrate(log_g, tilted)

    values = np.array([log_g(y) for y in float64(Y)])
    mass = float64(W) * np.exp(0.7 * values)
    p = mass / mass.sum()
    assert_close(grad(energy)(0.7), p @ (values - p @ values) ** 2)


def test_influence_is_the_flat_derivative_towards_a_new_atom():
    new = jnp.asarray([0.3, -1.2])
    got = ma.gibbs.influence(ma.DotProduct(), MU, X[0], new)
    points = np.vstack([float64(Y), float64(new)])
    weights = float64(W) / float64(W).sum()

    def output(share):
        share = np.concatenate([(1 - share) * weights, [share]])
        mass = share * np.exp(points @ float64(X[0]))
        return mass @ points / mass.sum()

    assert_close(got, oracles.directional(output, 0.0, 1.0))


def test_influence_integrates_to_zero():
    total = ma.integrate(lambda y: ma.gibbs.influence(ma.Gaussian(0.7), MU, X[0], y), MU)
    assert_close(total, np.zeros(2), scale=1)


def test_influence_takes_a_value_map_like_attention_does():
    matrix = normal(4, 3, 2)
    got = ma.gibbs.influence(ma.DotProduct(), MU, X[0], X[1], value=matrix)
    plain = ma.gibbs.influence(ma.DotProduct(), MU, X[0], X[1])
    assert_close(got, float64(matrix) @ float64(plain))


def test_among_laws_of_one_mean_energy_the_tilted_one_is_closest():
    best = ma.boltzmann_gibbs(lambda x: 0.5 * x[0], MU)
    points = float64(Y)
    # a direction that changes neither the mass nor the mean of x_0
    constraints = np.stack([np.ones(5), points[:, 0]])
    direction = np.linalg.svd(constraints)[2][-1]
    for size in (0.02, -0.02):
        p = ma.weighted(Y, float64(best.weights) + size * direction)
        assert_close(ma.mean(p)[0], float(ma.mean(best)[0]))
        gap = ma.gibbs.relative_entropy(p, MU) - ma.gibbs.relative_entropy(best, MU)
        assert_close(gap, float(ma.gibbs.relative_entropy(p, best)), scale=5)
        assert float(gap) > 1e-5
