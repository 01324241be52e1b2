"""Bounds of the literature: listed with what they are about, evaluated against Jacobians."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn.lipschitz import Ball, Everywhere, Refused, bound, bounds, yudin

pytestmark = pytest.mark.float64


def jacobian_norm(layer):
    """The spectral norm of the Jacobian of all outputs in all tokens, as a function of them."""
    f = jax.jit(jax.jacfwd(lambda z: layer.push(ma.EmpiricalMeasure(z)).reshape(-1)))
    return lambda x: np.linalg.norm(np.asarray(f(jnp.asarray(x))).reshape(-1, x.size), 2)


def test_the_bound_at_one_input_is_above_the_jacobian_there():
    rng = np.random.default_rng(0)
    query, value = ma.Affine(rng.normal(size=(2, 2)), np.ones(2)), rng.normal(size=(2, 2))
    layer = ma.SelfAttention(ma.Bilinear(query, np.eye(2)), value)
    many = ma.Residual(ma.MultiHead([layer, layer], rng.normal(size=(2, 4))))
    for each in (layer, many):
        attained = jacobian_norm(each)
        for size in (0.1, 1.0, 4.0):
            x = size * rng.normal(size=(5, 2)) + 3
            assert attained(x) <= yudin(each, ma.EmpiricalMeasure(x)) < math.inf


def test_one_token_alone_has_the_norm_of_its_value_map():
    layer = ma.SelfAttention(ma.DotProduct(), 3 * np.eye(2))
    assert yudin(layer, ma.EmpiricalMeasure(np.ones((1, 2)))) == pytest.approx(3)


def test_the_bound_at_one_input_is_refused_where_it_says_nothing():
    x = np.ones((2, 2))
    with pytest.raises(ValueError, match="equal weight"):
        yudin(ma.SelfAttention(ma.DotProduct()), ma.weighted(x, np.array([0.1, 0.9])))
    with pytest.raises(ValueError, match="of which alone this bound speaks"):
        yudin(ma.SelfAttention(ma.Gaussian(1.0)), ma.EmpiricalMeasure(x))


def test_what_is_not_about_layers_on_domains_is_listed_with_its_reason():
    rows = bounds(ma.SelfAttention(ma.DotProduct()), Ball(1.0), 2, dimension=2)
    refused = {row.theorem: row.reason for row in rows if isinstance(row, Refused)}
    assert "yudin(layer, mu) evaluates it" in refused["Yudin"]
    assert "logits" in refused["Nair"]


def test_the_bound_of_the_largest_entry_is_quoted_on_the_line_and_never_the_bound():
    layer = ma.SelfAttention(ma.Gaussian(0.7))
    rows = {r.theorem: r for r in bounds(layer, Everywhere(atoms=5), math.inf, dimension=1)}
    assert not rows["Kim L2, p = inf"].proved
    assert rows["Kim L2, p = inf"].value == pytest.approx(rows["F1"].value)
    assert bound(layer, Everywhere(atoms=5), math.inf, dimension=1).theorem == "F1"
    plane = {r.theorem: r for r in bounds(layer, Everywhere(atoms=5), math.inf, dimension=2)}
    assert isinstance(plane["Kim L2, p = inf"], Refused)
