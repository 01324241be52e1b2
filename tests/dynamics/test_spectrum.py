"""The linearisation at a measure: its eigenvalues against the dense Jacobian and observed rates."""

import jax
import numpy as np
import pytest

import measattn as ma
from measattn import dynamics as dyn

pytestmark = pytest.mark.float64

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n", [10, 100])
def test_the_eigenvalues_are_those_of_the_jacobian(n):
    layer = ma.SelfAttention(ma.DotProduct(0.5), RNG.normal(size=(3, 3)))
    mu = ma.EmpiricalMeasure(RNG.normal(size=(n, 3)))
    dense = jax.jacfwd(lambda x: (ma.EmpiricalMeasure(x) @ layer).points)(mu.points)
    expected = np.linalg.eigvals(np.asarray(dense).reshape(3 * n, 3 * n))
    got = dyn.spectrum(layer, mu, 4)
    np.testing.assert_allclose(np.abs(got.values), np.sort(np.abs(expected))[::-1][:4], rtol=1e-8)
    assert got.residuals.max() <= 1e-8
    assert str(n) not in repr(got)


def test_the_radius_at_a_fixed_point_is_the_observed_rate():
    value = np.diag([0.6, 0.3, 0.1])
    layer, inputs = ma.SelfAttention(ma.DotProduct(0.05), value), RNG.normal(size=(20, 3)) / 3
    injected = dyn.Injected(layer, inputs)
    end = dyn.equilibrium(layer, inputs, 1e-13)
    path = dyn.iterate(injected, ma.EmpiricalMeasure(inputs), 25)
    assert abs(dyn.spectrum(injected, end.measure, 2).radius - path.rate().value) <= 0.01


def test_equal_tokens_have_the_spectrum_of_the_values_and_zeros():
    value = RNG.normal(size=(2, 2))
    layer = ma.SelfAttention(ma.DotProduct(1.0), value)
    got = dyn.spectrum(layer, ma.EmpiricalMeasure(np.ones((4, 2))), 8)
    expected = np.sort(np.abs(np.concatenate([np.linalg.eigvals(value), np.zeros(6)])))[::-1]
    np.testing.assert_allclose(np.abs(got.values), expected, atol=1e-7)


def test_a_count_that_is_none_is_refused():
    with pytest.raises(ValueError, match="count must be a whole number from 1 to 6, got 7"):
        dyn.spectrum(ma.SelfAttention(ma.DotProduct(1.0)), ma.EmpiricalMeasure(np.ones((3, 2))), 7)
