"""Local constants of layers without closed form, and what is refused."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn.lipschitz import Split, local
from tests.lipschitz import dense

pytestmark = pytest.mark.float64

ORDERS = pytest.mark.parametrize("p", [1, 2, math.inf])


def stack(rng):
    return ma.Stack([ma.Residual(dense.head(rng, 3, 3)), ma.LayerNorm(), dense.head(rng, 3, 3)])


@ORDERS
def test_a_stack_attains_what_its_jacobian_says_and_certifies_nothing(p):
    rng = np.random.default_rng(0)
    layer, mu = stack(rng), ma.weighted(rng.normal(size=(5, 3)), rng.random(5) + 0.1)
    found = local(layer, mu, p, atoms=None if p == 2 else range(5))
    assert found.value == pytest.approx(dense.whole(layer, mu, p), rel=1e-6)
    assert dense.shown(layer, mu, found) == pytest.approx(found.value, rel=1e-6)
    assert found.upper == math.inf
    assert "Nothing is certified" in found.how


def test_fewer_atoms_attain_no_more():
    rng = np.random.default_rng(1)
    layer, mu = stack(rng), ma.EmpiricalMeasure(rng.normal(size=(5, 3)))
    few = local(layer, mu, atoms=[2])
    assert few.witness.atom == 2
    assert few.value <= local(layer, mu, atoms=[0, 1, 2, 3]).value


def test_a_foreign_map_inside_attention_goes_through_derivatives():
    layer = ma.SelfAttention(lambda x, y: jnp.sin(x @ y), lambda y: jnp.tanh(y))
    mu = ma.EmpiricalMeasure(np.random.default_rng(2).normal(size=(3, 2)))
    found = local(layer, mu, atoms=[0, 1, 2])
    assert found.value == pytest.approx(dense.whole(layer, mu, 1), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "atoms must name"),
        ({"atoms": [7]}, "got 7"),
        ({"moves": Split()}, "needs a layer with one attention sublayer"),
    ],
)
def test_a_layer_without_closed_form_says_what_it_needs(options, words):
    rng = np.random.default_rng(3)
    with pytest.raises(ValueError, match=words):
        local(stack(rng), ma.EmpiricalMeasure(rng.normal(size=(5, 3))), **options)


HEAD = ma.SelfAttention(ma.DotProduct(1.0))
MU = ma.EmpiricalMeasure([[0.0, 1.0], [1.0, 0.5]])


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((HEAD, MU, 3), {}, "p must be 1, 2 or infinity.*got 3"),
        ((HEAD, MU, True), {}, "p must be 1, 2 or infinity"),
        ((HEAD, MU), {"tol": 0.0}, "tol must be positive and finite.*got 0.0"),
        ((HEAD, MU), {"tol": math.nan}, "tol must be positive"),
        ((HEAD, MU), {"tol": math.inf}, "tol must be positive"),
        ((HEAD, MU, 2), {"probability": 1.1}, "probability must be between"),
        ((HEAD, MU, 2), {"probability": 0.0}, "probability must be between"),
        ((HEAD, MU), {"starts": 0}, "starts must be a whole number of at least 1, got 0"),
        ((HEAD, MU), {"steps": -1}, "steps must be a whole number of at least 1, got -1"),
        ((HEAD, MU), {"steps": True}, "steps must be a whole number"),
        ((HEAD, MU), {"seed": -3}, "seed must be a whole number of at least 0, got -3"),
        ((HEAD, MU), {"atoms": [0]}, "atoms must be None"),
    ],
)
def test_bad_arguments_are_named_with_the_remedy(arguments, options, words):
    with pytest.raises(ValueError, match=words):
        local(*arguments, **options)


@pytest.mark.parametrize("arguments", [(HEAD, np.eye(2)), (HEAD, MU, 1, "whole")])
def test_what_is_no_measure_or_no_class_of_moves_is_refused(arguments):
    # under the hook of the tests, which checks types, before it is our turn
    with pytest.raises(Exception, match="mu|moves"):
        local(*arguments)


def test_a_derivative_that_is_not_finite_names_its_atom():
    layer = ma.Stack([ma.FeedForward(np.eye(2), np.eye(2), lambda x: jnp.sqrt(jnp.abs(x))), HEAD])
    mu = ma.EmpiricalMeasure([[1.0, 1.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match="not finite at atom 1"):
        local(layer, mu)
    with pytest.raises(ValueError, match="not finite at atom 1"):
        local(ma.Stack([layer, HEAD]), mu, atoms=[1])
