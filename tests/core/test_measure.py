"""Empirical measures: what their constructors, maps and integrals mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import measattn as ma
from tests.core.closeness import X64, assert_close, float64, normal, uniform
from tests.strategies import bounded, clouds

POINTS = [[0.0, 1.0], [2.0, -1.0], [0.5, 0.5]]


def as_dict(mu):
    """The law as {point: mass}, equal points merged, massless ones dropped."""
    law = {}
    for point, mass in zip(float64(mu.points).tolist(), float64(mu.weights), strict=True):
        law[tuple(point)] = law.get(tuple(point), 0.0) + mass
    return {point: mass for point, mass in law.items() if mass > 0}


def test_a_measure_without_weights_is_uniform():
    assert_close(ma.EmpiricalMeasure(POINTS).weights, np.full(3, 1 / 3))


def test_log_weights_are_normalised_by_the_constructor():
    mu = ma.EmpiricalMeasure(POINTS, jnp.array([1.0, 2.0, 3.0]))
    expected = np.exp([1.0, 2.0, 3.0]) / np.exp([1.0, 2.0, 3.0]).sum()
    assert_close(mu.weights, expected)
    assert_close(mu.log_weights, np.log(expected))


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_a_common_constant_in_the_log_weights_does_not_matter(shift):
    mu = ma.EmpiricalMeasure(POINTS, jnp.array([0.0, 1.0, 2.0]) + shift)
    expected = np.exp([0.0, 1.0, 2.0]) / np.exp([0.0, 1.0, 2.0]).sum()
    assert_close(mu.weights, expected, scale=max(abs(shift), 1))


@bounded
@given(clouds())
def test_weighted_divides_by_the_sum(cloud):
    points, weights = cloud
    assert_close(ma.weighted(points, weights).weights, weights / weights.sum())


@bounded
@given(clouds(), st.sampled_from([1e-30, 1.0, 1e30]))
def test_weighted_does_not_see_the_scale_of_the_weights(cloud, scale):
    points, weights = cloud
    assert_close(ma.weighted(points, weights * scale).weights, weights / weights.sum())


def test_size_dimension_and_dtype_are_those_of_the_points():
    mu = ma.EmpiricalMeasure(POINTS)
    assert (mu.size, mu.dimension) == (3, 2)
    assert mu.dtype == mu.points.dtype == jnp.zeros(()).dtype


def test_the_dimension_of_tokens_and_pairs_is_that_of_the_state():
    token = ma.Token(jnp.arange(3.0), normal(0, 3, 4))
    assert ma.EmpiricalMeasure(token).dimension == 4
    assert ma.pairs(normal(0, 3, 2), normal(1, 3, 5)).dimension == 5
    assert ma.EmpiricalMeasure(ma.Pair(normal(0, 3, 2), token)).dimension == 4


def test_a_dirac_has_one_atom_of_mass_one():
    delta = ma.dirac([1.0, 2.0])
    assert as_dict(delta) == {(1.0, 2.0): 1.0}


def test_a_dirac_at_a_token_is_a_measure_of_one_token():
    delta = ma.dirac(ma.Token(jnp.asarray(2.0), jnp.asarray([1.0, 3.0])))
    assert delta.size == 1
    assert delta.points.position.shape == (1,)
    assert_close(delta.points.state, [[1.0, 3.0]])


@bounded
@given(clouds(), clouds(), st.sampled_from([(1.0, 1.0), (0.25, 0.75), (1.0, 0.0)]))
def test_a_mixture_integrates_as_the_mixture_of_integrals(one, two, weights):
    mu, nu = ma.weighted(*one), ma.weighted(*two)
    f = lambda x: jnp.sin(x[0]) * x[1]  # noqa: E731
    got = ma.integrate(f, ma.mixture([mu, nu], weights))
    share = np.array(weights) / sum(weights)
    expected = share[0] * float(ma.integrate(f, mu)) + share[1] * float(ma.integrate(f, nu))
    assert_close(got, expected, scale=3)


def test_measures_are_mixed_equally_by_default():
    mixed = ma.mixture([ma.dirac([0.0]), ma.dirac([1.0]), ma.dirac([1.0])])
    assert_close(ma.mean(mixed), [2 / 3])


def test_the_mean_of_a_mixture_can_be_differentiated_in_its_share():
    mu, nu = ma.dirac([1.0]), ma.dirac([5.0])
    slope = jax.grad(lambda t: ma.mean(ma.mixture([mu, nu], jnp.stack([1 - t, t])))[0])
    assert_close(slope(0.25), 4.0)


def test_a_mixture_takes_traced_shares_in_a_list():
    mu, nu = ma.dirac([1.0]), ma.dirac([5.0])
    slope = jax.grad(lambda t: ma.mean(ma.mixture([mu, nu], [1 - t, t]))[0])
    assert_close(slope(0.25), 4.0)


def test_weighted_takes_traced_weights_in_a_list():
    slope = jax.grad(lambda t: ma.mean(ma.weighted([[1.0], [5.0]], [1 - t, t]))[0])
    assert_close(slope(0.25), 4.0)


def test_a_product_integrates_products_as_the_product_of_integrals():
    mu, nu = ma.weighted(normal(0, 4, 2), uniform(1, 4)), ma.weighted(normal(2, 3, 1), [1, 0, 2])
    joint = ma.product(mu, nu)
    assert joint.size == 12
    got = ma.integrate(lambda p: jnp.sin(p.key[0]) * jnp.cos(p.value[0]), joint)
    expected = ma.integrate(lambda x: jnp.sin(x[0]), mu) * ma.integrate(lambda y: jnp.cos(y[0]), nu)
    assert_close(got, expected)


def test_a_product_keeps_its_first_factor_as_slow_index():
    joint = ma.product(ma.EmpiricalMeasure([[0.0], [1.0]]), ma.EmpiricalMeasure([[5.0], [6.0]]))
    assert joint.points.key[:, 0].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert joint.points.value[:, 0].tolist() == [5.0, 6.0, 5.0, 6.0]


@bounded
@given(clouds())
def test_the_integral_of_an_image_is_the_integral_of_the_composition(cloud):
    mu = ma.weighted(*cloud)
    f = lambda x: jnp.stack([x[0] * x[1], x[0], x[1] ** 2])  # noqa: E731
    g = lambda y: jnp.cos(y[0]) + y[2]  # noqa: E731
    got = ma.integrate(g, ma.pushforward(f, mu))
    assert_close(got, float64(ma.integrate(lambda x: g(f(x)), mu)), scale=9)


def test_a_pushforward_may_change_the_dimension_but_not_the_masses():
    mu = ma.weighted(POINTS, [1, 2, 3])
    image = ma.pushforward(lambda x: x[:1], mu)
    assert image.dimension == 1
    assert_close(image.weights, np.array([1, 2, 3]) / 6)


def test_an_integral_keeps_the_structure_of_its_integrand():
    got = ma.integrate(lambda x: {"mean": x, "one": 1.0}, ma.weighted(POINTS, [1, 2, 3]))
    assert_close(got["mean"], np.array([1, 2, 3]) @ np.array(POINTS) / 6)
    assert_close(got["one"], 1.0)


def test_the_integral_of_an_indicator_is_a_probability():
    mu = ma.weighted(POINTS, [1, 2, 3])
    assert_close(ma.integrate(lambda x: x[0] > 0.25, mu), 5 / 6)


def test_an_atom_without_mass_does_not_enter_an_integral_where_f_is_infinite():
    mu = ma.weighted([[0.0], [np.e]], [0.0, 1.0])
    assert_close(ma.integrate(lambda x: jnp.log(x[0]), mu), 1.0)


@bounded
@given(clouds(dimension=3))
def test_mean_and_covariance_are_those_of_numpy(cloud):
    points, weights = cloud
    mu = ma.weighted(points, weights)
    assert_close(ma.mean(mu), np.average(points, axis=0, weights=weights), scale=3)
    expected = np.cov(points.T, aweights=weights, ddof=0)
    assert_close(ma.covariance(mu), expected.reshape(3, 3), scale=9)


def test_the_covariance_of_points_far_from_the_origin_does_not_cancel():
    points = normal(0, 6, 2) + 100
    expected = np.cov(float64(points).T, ddof=0)
    assert_close(ma.covariance(ma.EmpiricalMeasure(points)), expected, scale=100)


def test_pairs_keep_the_weights_of_the_keys_and_states_forget_the_keys():
    keys = ma.weighted(normal(0, 3, 2), [1, 2, 3])
    joint = ma.pairs(keys, normal(1, 3, 4))
    values = ma.states(joint)
    assert values.dimension == 4
    assert_close(joint.weights, np.array([1, 2, 3]) / 6)
    assert_close(values.weights, np.array([1, 2, 3]) / 6)


def test_states_of_tokens_are_plain_points():
    mu = ma.EmpiricalMeasure(ma.Token(jnp.arange(3.0), normal(0, 3, 2)))
    assert_close(ma.states(mu).points, float64(normal(0, 3, 2)))


@bounded
@given(clouds())
def test_compact_has_the_same_law_on_different_atoms_of_positive_mass(cloud):
    mu = ma.weighted(*cloud)
    small = ma.compact(mu)
    assert len({tuple(p) for p in small.points.tolist()}) == small.size
    assert np.all(float64(small.weights) > 0)
    before, after = as_dict(mu), as_dict(small)
    assert before.keys() == after.keys()
    assert_close(small.weights, [before[tuple(p)] for p in small.points.tolist()])


def test_compact_keeps_atoms_in_the_order_of_their_first_appearance():
    mu = ma.EmpiricalMeasure([[3.0], [1.0], [3.0], [2.0]])
    assert ma.compact(mu).points[:, 0].tolist() == [3.0, 1.0, 2.0]


def test_compact_takes_zero_and_minus_zero_for_one_point():
    assert ma.compact(ma.EmpiricalMeasure([[0.0], [-0.0]])).size == 1


def test_compact_merges_tokens_only_where_position_and_state_agree():
    states = jnp.asarray([[1.0], [1.0], [1.0]])
    mu = ma.EmpiricalMeasure(ma.Token(jnp.asarray([0.0, 1.0, 0.0]), states))
    small = ma.compact(mu)
    assert small.points.position.tolist() == [0.0, 1.0]
    assert_close(small.weights, [2 / 3, 1 / 3])


def test_the_sum_of_the_weights_has_no_derivative_in_the_log_weights():
    def total(log_weights):
        return jnp.sum(ma.EmpiricalMeasure(POINTS, log_weights).weights)

    slope = jax.grad(total)(jnp.asarray([0.3, -1.0, 2.0]))
    assert_close(slope, np.zeros(3), scale=1)


def test_derivatives_in_the_log_weights_sum_to_zero():
    def energy(log_weights):
        mu = ma.EmpiricalMeasure(POINTS, log_weights)
        return jnp.sum(jnp.sin(3 * ma.mean(mu)))

    slope = jax.grad(energy)(jnp.asarray([0.3, -1.0, 2.0]))
    assert np.abs(float64(slope)).max() > 0.001
    assert_close(jnp.sum(slope), 0.0, scale=1)


def test_the_derivative_in_a_weight_is_that_of_the_quotient_and_zero_at_zero():
    weights = jnp.asarray([1.0, 3.0, 0.0])
    slope = jax.grad(lambda w: ma.mean(ma.weighted(POINTS, w))[0])(weights)
    first = np.array(POINTS)[:, 0]
    expected = (first - first[:2] @ [0.25, 0.75]) / 4
    assert_close(slope, [expected[0], expected[1], 0.0])


@pytest.mark.parametrize(
    ("text", "mu"),
    [
        ("n=3, d=2", ma.EmpiricalMeasure(POINTS)),
        ("effective size 3", ma.EmpiricalMeasure(POINTS)),
        ("effective size 1.6", ma.weighted(POINTS, [1, 3, 0])),
        ("float64" if X64 else "float32", ma.EmpiricalMeasure(POINTS)),
        ("float32", ma.EmpiricalMeasure(np.array(POINTS, np.float32))),
        ("tokens", ma.EmpiricalMeasure(ma.Token(jnp.arange(2.0), jnp.ones((2, 3))))),
        ("pairs", ma.pairs([[1.0]], [[2.0]])),
    ],
)
def test_repr_says_what_the_measure_is(text, mu):
    assert text in repr(mu)


def test_repr_of_a_batch_says_batch_of():
    batch = jax.vmap(ma.EmpiricalMeasure)(normal(0, 4, 3, 2))
    assert "batch of 4" in repr(batch)
    assert "n=3, d=2" in repr(batch)


def test_repr_under_jit_says_traced():
    seen = []
    jax.jit(lambda mu: seen.append(repr(mu)))(ma.EmpiricalMeasure(POINTS))
    assert "n=3, d=2" in seen[0]
    assert "traced" in seen[0]


def test_a_batch_of_measures_is_the_same_type_with_leading_axes():
    batch = jax.vmap(ma.weighted)(normal(0, 4, 3, 2), uniform(1, 4, 3))
    assert isinstance(batch, ma.EmpiricalMeasure)
    means = jax.vmap(ma.mean)(batch)
    for k in range(4):
        alone = ma.mean(ma.weighted(normal(0, 4, 3, 2)[k], uniform(1, 4, 3)[k]))
        assert_close(means[k], float64(alone))
