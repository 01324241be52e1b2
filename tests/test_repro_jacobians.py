"""The Jacobians of attention that claims are checked against: automatic derivatives agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from paper_repro import jacobians

pytestmark = pytest.mark.float64


def automatic(layer, x):
    return np.asarray(jax.jacfwd(lambda z: layer.push(ma.EmpiricalMeasure(z)))(jnp.asarray(x)))


def test_blocks_agree_with_automatic_derivatives():
    rng = np.random.default_rng(0)
    x, (A, V) = rng.normal(size=(5, 3)), rng.normal(size=(2, 3, 3))
    dot = jacobians.jacobian(x, jacobians.dot_slopes(x, A), V)
    gauss = jacobians.jacobian(x, jacobians.gaussian_slopes(x, 0.7), V)
    np.testing.assert_allclose(
        dot, automatic(ma.SelfAttention(ma.Bilinear(A, np.eye(3)), V), x), rtol=1e-10, atol=1e-12
    )
    np.testing.assert_allclose(
        gauss, automatic(ma.SelfAttention(ma.Gaussian(0.7), V), x), rtol=1e-10, atol=1e-12
    )


def test_a_mask_leaves_no_derivative_in_what_a_row_does_not_see():
    rng = np.random.default_rng(1)
    x, A = rng.normal(size=(4, 2)), rng.normal(size=(2, 2))
    J = jacobians.jacobian(x, jacobians.dot_slopes(x, A, np.tril(np.ones((4, 4), bool))))
    assert np.all(J[0, :, 1:] == 0)
    assert np.allclose(J[0, :, 0], np.eye(2))


def test_norms_of_displacements_are_attained_and_no_smaller_than_on_a_circle():
    rng = np.random.default_rng(2)
    J = rng.normal(size=(3, 2, 4, 2))
    angle = np.linspace(0, np.pi, 721)
    units = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    by_rows = np.linalg.norm(np.einsum("iajb,ua->uijb", J, units), axis=3).sum(axis=2).max()
    by_columns = np.linalg.norm(np.einsum("iajb,ub->ujia", J, units), axis=3).sum(axis=2).max()
    assert jacobians.largest(J, rng) == pytest.approx(by_rows, rel=1e-4)
    assert jacobians.mean(J, rng) == pytest.approx(by_columns, rel=1e-4)
