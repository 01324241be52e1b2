"""What iterations do that have no proof: verdicts near the origin and far from it."""

import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn import dynamics as dyn

pytestmark = pytest.mark.float64

RNG = np.random.default_rng(0)
CLOUD = ma.EmpiricalMeasure(RNG.normal(size=(30, 3)))
SINGLE, DOUBLE = jnp.float32, jnp.float64


def at(shift, dtype):
    """Twenty-four points within 1 of (shift, shift)."""
    x = np.random.default_rng(4).normal(size=(24, 2))
    x /= np.maximum(1, np.linalg.norm(x, axis=1))[:, None]
    return ma.EmpiricalMeasure(jnp.asarray(x + shift, dtype))


def affine(factor, shift, dtype):
    return ma.Affine(factor * jnp.eye(2, dtype=dtype), jnp.full(2, shift, dtype))


def averaging(factor, shift, dtype):
    """Attention that brings the tokens together, and then the affine map."""
    return ma.SelfAttention(ma.Gaussian(jnp.asarray(0.5, dtype)), affine(factor, shift, dtype))


PLACES = [(0.0, DOUBLE), (1e3, DOUBLE), (1e6, DOUBLE), (0.0, SINGLE), (1e3, SINGLE), (1e6, SINGLE)]


@pytest.mark.parametrize(("shift", "dtype"), PLACES)
def test_a_point_that_moves_on_is_a_collapse_wherever_it_is(shift, dtype):
    end = dyn.fixed_point(averaging(1.0, 1.0, dtype), at(shift, dtype), 1e-6, steps=64)
    assert end.verdict == "collapse"


@pytest.mark.parametrize(("shift", "dtype"), PLACES)
def test_a_cloud_that_moves_on_drifts_wherever_it_is(shift, dtype):
    layer = ma.Deterministic(affine(1.0, 1.0, dtype))
    assert dyn.fixed_point(layer, at(shift, dtype), 1e-6, steps=64).verdict == "drift"


@pytest.mark.parametrize(("roundings", "verdict"), [(1, "collapse"), (100, "drift")])
def test_tokens_that_rounding_alone_keeps_apart_are_one_point(roundings, verdict):
    apart = roundings * np.spacing(np.float32(1e3)) * np.eye(2, dtype=np.float32)
    mu = ma.EmpiricalMeasure(jnp.asarray(np.float32(1e3) + apart))
    end = dyn.fixed_point(ma.Deterministic(affine(1.0, 0.5, SINGLE)), mu, 1e-6, steps=20)
    assert dyn.diameter(end.measure) == dyn.diameter(mu) > 0
    assert end.verdict == verdict


@pytest.mark.parametrize(("shift", "dtype"), [(1e6, DOUBLE), (1e3, SINGLE), (1e6, SINGLE)])
def test_moves_that_are_rounding_are_no_cycle_but_the_end(shift, dtype):
    layer = averaging(0.5, 0.5 * shift, dtype)
    end = dyn.fixed_point(layer, at(shift, dtype), 1e-15, steps=400)
    assert end.verdict == "converged"
    assert end.residuals[-1] <= 1e-15 or "which is rounding" in end.status
    np.testing.assert_allclose(end.measure.points, shift, rtol=8 * float(jnp.finfo(dtype).eps))


@pytest.mark.parametrize(("shift", "dtype"), PLACES)
def test_reflections_are_cycles_of_two_wherever_they_are(shift, dtype):
    layer = ma.Deterministic(affine(-1.0, 2 * shift, dtype))
    end = dyn.fixed_point(layer, at(shift, dtype), 1e-6, steps=64)
    assert (end.verdict, end.period) == ("cycle", 2)


@pytest.mark.parametrize(("shift", "dtype"), [(1e3, DOUBLE), (1e6, DOUBLE), (1e3, SINGLE)])
def test_a_slow_step_that_rounding_can_show_has_not_converged(shift, dtype):
    # two roundings a step: sixteen steps go further than rounding does
    step = 2 * shift * float(jnp.finfo(dtype).eps)
    layer = ma.Deterministic(affine(1.0, step, dtype))
    end = dyn.fixed_point(layer, at(shift, dtype), 1e-15, steps=64)
    assert end.verdict == "drift"


def test_a_layer_that_changes_the_dimension_is_refused_before_any_step():
    wide = ma.SelfAttention(ma.DotProduct(1.0), np.ones((5, 3)))
    with pytest.raises(ValueError, match="dimension 3 became 5"):
        dyn.fixed_point(wide, CLOUD)


def test_a_sign_that_flips_is_a_cycle_of_two():
    found = dyn.fixed_point(ma.SelfAttention(ma.DotProduct(1.0), -np.eye(3)), _one_point())
    assert (found.verdict, found.period) == ("cycle", 2)


def test_a_rotation_by_a_third_is_a_cycle_of_three():
    c, s = np.cos(2 * np.pi / 3), np.sin(2 * np.pi / 3)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    found = dyn.fixed_point(ma.SelfAttention(ma.DotProduct(0.0), turn), _one_point())
    assert (found.verdict, found.period) == ("cycle", 3)


def _one_point():
    return ma.EmpiricalMeasure(np.array([[1.0, 2.0, 3.0]]))


def test_growth_beyond_floats_is_reported_with_the_last_good_measure():
    found = dyn.fixed_point(ma.SelfAttention(ma.DotProduct(1.0), 1e60 * np.eye(3)), CLOUD)
    assert found.verdict == "diverged"
    assert np.isfinite(found.measure.points).all()
    assert found.error == np.inf
    layer = ma.SelfAttention(ma.DotProduct(1.0), 1e60 * np.eye(3))
    assert not np.isfinite((found.measure @ layer).points).all()
    assert f"Step {found.steps} has states that are not finite" in found.status


def test_one_point_that_moves_on_is_a_collapse_and_a_cloud_that_moves_on_a_drift():
    shift = ma.Deterministic(ma.Affine(np.eye(3), np.ones(3)))
    attracted = ma.Stack((ma.SelfAttention(ma.DotProduct(1e-4)), shift))
    assert dyn.fixed_point(attracted, CLOUD, steps=40).verdict == "collapse"
    assert dyn.fixed_point(ma.Stack((shift,)), CLOUD, steps=40).verdict == "drift"


def test_tokens_that_alternate_about_a_limit_are_in_no_cycle_and_a_swinging_mean_does_not_drift():
    swing = ma.SelfAttention(ma.DotProduct(0.0), -0.95 * np.eye(2))
    start = ma.EmpiricalMeasure(np.array([[1.0, 0.0], [0.0, 2.0]]))
    assert dyn.fixed_point(swing, start, 1e-6, steps=400).verdict in {"converged", "certified"}
    inputs = np.array([[1.0, 0.0], [0.0, 2.0]])
    wide = ma.SelfAttention(ma.DotProduct(0.0), -1.05 * np.eye(2))
    end = dyn.fixed_point(dyn.Injected(wide, inputs), start, 1e-6, steps=64)
    assert end.verdict == "undecided"


@pytest.mark.parametrize(("options", "words"), [({"tol": 0}, "tol"), ({"steps": 0}, "steps")])
def test_options_that_end_nothing_are_refused(options, words):
    with pytest.raises(ValueError, match=f"{words} must be"):
        dyn.fixed_point(ma.SelfAttention(ma.DotProduct(1.0)), CLOUD, **options)
