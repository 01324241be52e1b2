"""Iterations that run off until rounding stops them, and scales at the ends of float64."""

import math

import jax
import numpy as np
import pytest

import measattn as ma
from measattn import dynamics as dyn
from measattn.lipschitz import Ball, Refused, bounds

pytestmark = pytest.mark.float64

INPUTS = np.random.default_rng(0).normal(size=(5, 2))
SHIFT = ma.layer.Residual(
    ma.SelfAttention(ma.DotProduct(0.0), ma.Affine(np.zeros((2, 2)), np.array([1.0, 0.0])))
)


@pytest.mark.parametrize("strength", [0.0, 1.0, 3.0])
def test_anderson_that_runs_off_finds_no_equilibrium(strength):
    # x = u + mean(x) + ... has none, since the mean of u is not 0
    layer = ma.SelfAttention(ma.DotProduct(strength), np.eye(2))
    for inputs in (INPUTS, INPUTS[:1]):
        found = dyn.equilibrium(layer, inputs, steps=200)
        assert found.verdict not in ("converged", "certified"), found
        assert found.error == math.inf
        with pytest.raises(RuntimeError, match="no equilibrium was reached"):
            dyn.equilibrium_points(layer, inputs)
        with pytest.raises(Exception, match="no equilibrium was reached"):
            jax.block_until_ready(jax.jit(dyn.equilibrium_points)(layer, inputs))


def test_a_cloud_that_drifts_for_ever_does_not_converge_by_rounding():
    mu = ma.EmpiricalMeasure(INPUTS)
    found = dyn.fixed_point(SHIFT, mu, solver=dyn.Anderson(atol=1e-10), steps=200)
    assert found.verdict not in ("converged", "certified")
    if "rounding is as large" in found.status:
        assert "whether there is a limit is not known" in found.status


def test_a_far_limit_is_still_found():
    value, shift = (1 - 1e-5) * np.eye(2), np.array([1.0, 0.0])
    layer = ma.SelfAttention(ma.DotProduct(1e-14), ma.Affine(value, shift))
    found = dyn.fixed_point(layer, ma.EmpiricalMeasure(np.zeros((3, 2))), solver=dyn.Anderson())
    assert found.verdict in ("converged", "certified")
    np.testing.assert_allclose(found.measure.points, [[1e5, 0.0]] * 3, rtol=1e-6)


@pytest.mark.parametrize("tol", [1e-120, 1e-165, 1e-300])
def test_an_error_is_certified_where_squares_underflow(tol):
    layer = ma.SelfAttention(ma.DotProduct(0.1), 0.1 * np.eye(2))
    found = dyn.fixed_point(layer, ma.EmpiricalMeasure(INPUTS), tol)
    away = np.abs(np.asarray(found.measure.points)).max()
    assert found.verdict == "certified"
    assert 0 < away <= found.error


@pytest.mark.parametrize("strength", [1e160, 1e300])
def test_scores_beyond_float64_leave_a_result_without_proof(strength):
    layer = ma.SelfAttention(ma.DotProduct(strength), 0.5 * np.eye(2))
    found = dyn.fixed_point(layer, ma.EmpiricalMeasure(INPUTS), steps=20)
    assert found.contraction is None
    rows = bounds(layer, Ball(1.0), dimension=2)
    assert all(isinstance(row, Refused) or row.value > 0 for row in rows)


def test_the_rate_of_a_cloud_that_grows_is_fitted():
    layer = ma.SelfAttention(ma.DotProduct(1e-30), 1.5 * np.eye(2))
    found = dyn.fixed_point(layer, ma.EmpiricalMeasure(INPUTS), steps=40)
    assert found.rate is not None
    assert found.rate.value == pytest.approx(1.5)


def test_a_collapse_that_was_cut_short_says_so():
    layer = ma.SelfAttention(ma.DotProduct(0.1), 0.5 * np.eye(2))
    found = dyn.fixed_point(layer, ma.EmpiricalMeasure(INPUTS), steps=28)
    assert found.verdict == "collapse"
    assert found.status.startswith("Not converged in 28 steps")


def test_one_atom_drifts_and_does_not_collapse():
    found = dyn.fixed_point(SHIFT, ma.EmpiricalMeasure(INPUTS[:1]), steps=40)
    assert found.verdict == "drift"
    still = dyn.fixed_point(
        ma.SelfAttention(ma.DotProduct(0.1), 0.5 * np.eye(2)), ma.EmpiricalMeasure(INPUTS[:1])
    )
    assert still.verdict == "certified"
    assert "of its diameter" not in still.status


def test_copies_of_an_eigenvalue_are_all_found():
    x = np.repeat(np.random.default_rng(0).normal(size=(6, 5)) * 4, 10, axis=0)
    layer = ma.SelfAttention(ma.DotProduct(1.0), np.eye(5))
    dense = jax.jacfwd(lambda x: (ma.EmpiricalMeasure(x) @ layer).points)(x).reshape(300, 300)
    expected = np.sort(np.abs(np.linalg.eigvals(np.asarray(dense))))[::-1][:10]
    found = dyn.spectrum(layer, ma.EmpiricalMeasure(x), 10)
    np.testing.assert_allclose(np.abs(found.values), expected, rtol=1e-6)
    assert len(dyn.spectrum(layer, ma.EmpiricalMeasure(x[:1])).values) == 5
