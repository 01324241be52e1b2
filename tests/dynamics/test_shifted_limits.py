"""C5 and C7: how far a limit moves with its inputs and with its layer."""

import math

import numpy as np
import pytest

import measattn as ma
from measattn import dynamics as dyn
from measattn.dynamics.contraction import norm
from measattn.lipschitz import parameters

from .test_fixed_point import contractive

pytestmark = pytest.mark.float64


def apart(p, x, y):
    """The distance of two clouds of equal atoms in the p-norm."""
    return norm(float(p), np.asarray(x) - np.asarray(y), np.full(len(x), 1 / len(x)))


def solved(layer, inputs):
    return np.asarray(dyn.equilibrium(layer, inputs, 1e-12).measure.points)


@pytest.mark.parametrize("p", [1, 2, math.inf])
@pytest.mark.parametrize("seed", range(3))
def test_other_inputs_move_the_limit_no_farther_than_certified(p, seed):
    layer, inputs = contractive(seed, q=0.6)
    moves = np.random.default_rng(seed).normal(size=inputs.shape)
    proof = dyn.contraction(dyn.Injected(layer, inputs), ma.EmpiricalMeasure(inputs), p)
    for size in (-0.3, 0.05):
        other = inputs * (1 + size) if size < 0 else 0.95 * inputs + 0.02 * size * moves
        allowed = proof.shift(apart(p, inputs, other))
        assert apart(p, solved(layer, inputs), solved(layer, other)) <= allowed


def test_the_bound_is_attained_by_a_common_shift_where_attention_is_a_mean():
    inputs = np.random.default_rng(0).normal(size=(8, 2)) * 0.1
    layer = ma.SelfAttention(ma.Bilinear(np.zeros((2, 2)), np.eye(2)), 0.5 * np.eye(2))
    proof = dyn.contraction(dyn.Injected(layer, inputs), ma.EmpiricalMeasure(inputs), 1)
    moved = apart(1, solved(layer, inputs), solved(layer, inputs + np.array([0.01, 0.0])))
    assert proof.value == pytest.approx(0.5)
    assert moved == pytest.approx(proof.shift(0.01), rel=1e-8)
    assert moved > 1.9 * proof.shift(0.0)  # a factor of one, without 1 - q, would not do
    assert moved > 1.5 * 0.01


def test_another_layer_moves_the_limit_no_farther_than_certified():
    layer, inputs = contractive(1)
    score = layer.potential.query.weight
    value = layer.value.weight
    rng = np.random.default_rng(1)
    proof = dyn.contraction(dyn.Injected(layer, inputs), ma.EmpiricalMeasure(inputs), math.inf)
    for size in (1e-3, 1e-2):
        change = size * rng.normal(size=value.shape)
        change /= 1 + np.linalg.norm(change, 2)
        other = ma.SelfAttention(ma.Bilinear(score - change, np.eye(3)), 0.97 * value - change)
        allowed = proof.shift(parameters(layer, other, proof.domain).output)
        found = solved(other, inputs)
        assert np.linalg.norm(found, axis=1).max() <= proof.domain.radius
        assert apart(math.inf, solved(layer, inputs), found) <= allowed


@pytest.mark.parametrize("change", [-1.0, math.nan, math.inf])
def test_a_change_that_is_no_length_is_refused(change):
    layer, inputs = contractive(0)
    proof = dyn.contraction(dyn.Injected(layer, inputs), ma.EmpiricalMeasure(inputs), math.inf)
    with pytest.raises(ValueError, match="change must be a length"):
        proof.shift(change)
