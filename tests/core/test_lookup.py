"""The look-up kernel: the conditional law of a value given its key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import measattn as ma
from tests import oracles
from tests.core.closeness import assert_close, float64, normal, uniform
from tests.strategies import bounded, clouds

KEYS, VALUES = normal(0, 5, 2), normal(1, 5, 3)
REPEATED = jnp.asarray([[1.0], [2.0], [1.0], [1.0]])
OUTCOMES = jnp.asarray([[10.0], [20.0], [30.0], [40.0]])


def test_looking_up_a_key_gives_its_value():
    row = ma.LookupKernel(KEYS, VALUES)(KEYS[3])
    assert_close(ma.mean(row), float64(VALUES[3]))
    assert_close(row.weights, np.eye(5)[3])


def test_looking_up_a_repeated_key_gives_the_conditional_law_of_its_values():
    keys = ma.weighted(REPEATED, [1, 5, 2, 1])
    law = ma.compact(ma.LookupKernel(keys, OUTCOMES)([1.0]))
    assert law.points[:, 0].tolist() == [10.0, 30.0, 40.0]
    assert_close(law.weights, [0.25, 0.5, 0.25])


def test_an_absent_key_is_refused_with_the_remedy():
    kernel = ma.LookupKernel(KEYS, VALUES)
    with pytest.raises(ValueError, match="no key of this kernel.*softmatch @ look-up"):
        kernel(KEYS[3] + 1e-3)
    with pytest.raises(ValueError, match="no key of this kernel"):
        ma.EmpiricalMeasure(KEYS + 1) @ kernel


def test_an_absent_key_without_mass_is_not_looked_up():
    kernel = ma.LookupKernel(REPEATED, OUTCOMES)
    out = ma.weighted([[2.0], [99.0]], [1.0, 0.0]) @ kernel
    assert_close(ma.mean(out), [20.0])


def test_a_key_of_another_dimension_is_refused():
    with pytest.raises(ValueError, match="same dimension"):
        ma.LookupKernel(KEYS, VALUES)(jnp.ones(3))


def test_transport_by_look_up_shares_the_mass_of_a_key_among_its_values():
    kernel = ma.LookupKernel(REPEATED, OUTCOMES)
    out = ma.weighted([[1.0], [2.0]], [0.3, 0.7]) @ kernel
    assert_close(out.weights, [0.1, 0.7, 0.1, 0.1])


@bounded
@given(clouds())
def test_transporting_the_law_of_the_keys_gives_the_law_of_the_values(cloud):
    points, weights = cloud
    keys = ma.weighted(points, weights)
    values = jnp.arange(1.0, len(points) + 1)[:, None]
    out = keys @ ma.LookupKernel(keys, values)
    assert_close(ma.mean(out), [weights @ np.arange(1, len(points) + 1) / weights.sum()])


def test_softmatch_then_look_up_on_the_same_keys_goes_by_index():
    keys = ma.weighted(KEYS, uniform(2, 5))
    composed = ma.SoftmatchKernel(ma.DotProduct(), keys) @ ma.LookupKernel(keys, VALUES)
    assert isinstance(composed, ma.lookup.SoftmatchLookup)
    row = composed(normal(3, 2))
    assert row.size == 5
    p = oracles.softmatch(float64(KEYS) @ float64(normal(3, 2)), uniform(2, 5))
    assert_close(row.weights, p)
    assert_close(ma.mean(row), p @ float64(VALUES))


def test_keys_that_are_equal_but_not_the_same_array_go_by_index_too():
    composed = ma.SoftmatchKernel(ma.DotProduct(), KEYS + 0) @ ma.LookupKernel(KEYS, VALUES)
    assert isinstance(composed, ma.lookup.SoftmatchLookup)


def test_other_keys_or_weights_do_not_go_by_index():
    weighted = ma.weighted(KEYS, uniform(2, 5))
    for keys in (KEYS[::-1], weighted):
        composed = ma.SoftmatchKernel(ma.DotProduct(), keys) @ ma.LookupKernel(KEYS, VALUES)
        assert not isinstance(composed, ma.lookup.SoftmatchLookup)


@bounded
@given(clouds())
def test_composition_by_index_is_the_general_composition_where_keys_repeat(cloud):
    points, weights = cloud
    keys = ma.weighted(points, weights)
    values = jnp.arange(1.0, len(points) + 1)[:, None]
    softmatch, lookup = ma.SoftmatchKernel(ma.DotProduct(), keys), ma.LookupKernel(keys, values)
    x = jnp.asarray([1.0, -0.5])
    by_index = (softmatch @ lookup)(x)
    general = ma.kernel.Composed(softmatch, lookup)(x)
    assert_close(ma.mean(by_index), float64(ma.mean(general)), scale=4)
    second = [float64(ma.integrate(lambda v: v**2, law)) for law in (by_index, general)]
    np.testing.assert_allclose(*second, rtol=1e-3 if by_index.dtype == jnp.float32 else 1e-11)


@pytest.mark.parametrize("x", [[0.0], [3.0]])
def test_softmatch_look_up_and_projection_are_attention_where_keys_repeat(x):
    softmatch = ma.SoftmatchKernel(ma.DotProduct(), REPEATED)
    kernel = ma.moment_projection(softmatch @ ma.LookupKernel(REPEATED, OUTCOMES))
    logits = float64(REPEATED)[:, 0] * x[0]
    assert_close(kernel(x).points[0], oracles.attention(logits, OUTCOMES))


def test_the_paper_s_sum_of_indicators_is_refused_where_a_key_occurs_twice():
    with pytest.raises(ValueError, match=r"4 keys hold only 2.*mass above one.*LookupKernel"):
        ma.lookup.indicator_lookup(REPEATED, OUTCOMES)


def test_the_paper_s_sum_of_indicators_does_not_give_attention_where_a_key_occurs_twice():
    logits = float64(REPEATED)[:, 0]
    p = oracles.softmatch(logits)
    same = float64(REPEATED) == float64(REPEATED).T
    naive = p @ (same @ float64(OUTCOMES))
    assert abs(naive - oracles.attention(logits, OUTCOMES)) > 1


def test_the_paper_s_sum_of_indicators_is_the_look_up_kernel_where_keys_are_distinct():
    kernel = ma.lookup.indicator_lookup(KEYS, VALUES)
    assert_close(ma.mean(kernel(KEYS[2])), float64(VALUES[2]))


def test_a_key_without_mass_still_counts_as_a_repeated_key():
    keys = ma.weighted([[1.0], [1.0]], [1.0, 0.0])
    with pytest.raises(ValueError, match="hold only 1"):
        ma.lookup.indicator_lookup(keys, [[1.0], [2.0]])


def test_tokens_can_be_keys_and_values():
    keys = ma.EmpiricalMeasure(ma.Token(jnp.arange(5.0), KEYS))
    kernel = ma.LookupKernel(keys, ma.Token(jnp.arange(5.0), VALUES))
    row = ma.compact(kernel(ma.Token(jnp.asarray(2.0), KEYS[2])))
    assert row.points.position.tolist() == [2.0]
    with pytest.raises(ValueError, match="no key"):
        kernel(ma.Token(jnp.asarray(3.0), KEYS[2]))


def test_look_up_works_under_jit_and_vmap():
    kernel = ma.LookupKernel(KEYS, VALUES)
    rows = jax.jit(jax.vmap(lambda k: ma.mean(kernel(k))))(KEYS)
    assert_close(rows, float64(VALUES))
