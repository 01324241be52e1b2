"""The helpers that all tests lean on fail when they must."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests import oracles
from tests.core.closeness import DTYPES, ROUNDINGS, assert_close


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_rounding_is_allowed_and_twice_the_tolerance_is_not(dtype):
    eps = float(jnp.finfo(dtype).eps)
    assert_close(jnp.asarray([1 + eps, 2], dtype), [1.0, 2.0])
    with pytest.raises(AssertionError, match="off by"):
        assert_close(jnp.asarray([1 + 4 * ROUNDINGS * eps, 2], dtype), [1.0, 2.0])


def test_a_small_answer_is_compared_at_its_own_size():
    with pytest.raises(AssertionError, match="off by"):
        assert_close(jnp.asarray([1e-20]), [2e-20])


@pytest.mark.parametrize("wrong", [jnp.nan, jnp.inf])
def test_a_value_that_is_not_finite_is_never_close(wrong):
    with pytest.raises(AssertionError, match="off by"):
        assert_close(jnp.asarray([wrong]), [1.0])


def test_equal_numbers_in_another_shape_are_not_close():
    with pytest.raises(AssertionError, match="shape"):
        assert_close(jnp.ones((2, 1)), np.ones(2))


def test_the_complex_step_gives_the_derivative_of_a_softmax():
    logits = np.log([0.7, 0.2, 0.1])
    p = oracles.softmax(logits)
    np.testing.assert_allclose(
        oracles.jacobian(oracles.softmax, logits), np.diag(p) - np.outer(p, p), atol=1e-16
    )


def test_the_softmax_jacobian_has_the_norms_that_are_known_in_closed_form():
    for weights, norm in [((0.5, 0.5), 0.5), ((0.7, 0.2, 0.1), 0.33440306508910556)]:
        jacobian = oracles.jacobian(oracles.softmax, np.log(weights))
        assert abs(np.linalg.norm(jacobian, 2) - norm) <= 1e-15


def test_the_quadrature_integrates_a_normal_law():
    mean, factor = np.array([0.2, -0.1]), np.array([[1.0, 0.0], [0.4, 0.7]])
    points, weights = oracles.gauss_hermite(mean, factor, 12)
    weights = weights / weights.sum()
    np.testing.assert_allclose(weights @ points, mean, atol=1e-14)
    np.testing.assert_allclose(oracles.covariance(points, weights), factor @ factor.T, atol=1e-13)
