"""F5: attention to one log-concave law, against quadrature; and laws that are not log-concave."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn.lipschitz import log_concave

pytestmark = pytest.mark.float64

LINE = np.linspace(-12, 12, 4001)


def steepest(layer, energy, reach=5.0):
    """The largest slope of the layer at the law e^(-U) on the line, over a grid of queries."""
    log = -energy(LINE)
    law = ma.EmpiricalMeasure(LINE[:, None], log - np.max(log))
    slope = jax.vmap(jax.grad(lambda x: layer.push(law, x[None, None])[0, 0]))
    return float(jnp.abs(slope(jnp.linspace(-reach, reach, 101))).max())


def dot(a, value=None, shift=0.0):
    return ma.SelfAttention(
        ma.Bilinear(ma.Affine([[a]], [shift]), jnp.eye(1)), None if value is None else [[value]]
    )


@pytest.mark.parametrize("m", [-0.4, 0.3, 2.0])
@pytest.mark.parametrize("sigma", [0.7, 1.2])
def test_a_normal_law_attains_the_gaussian_bound(m, sigma):
    layer = ma.SelfAttention(ma.Gaussian(sigma), [[-3.0]])
    found = log_concave(layer, m, dimension=1)
    got = steepest(layer, lambda y: m * y**2 / 2, reach=1.0)
    assert got == pytest.approx(3 / (1 + m * sigma**2), rel=1e-6)
    assert found.value == pytest.approx(got, rel=1e-6)


@pytest.mark.parametrize("m", [0.5, 2.0])
def test_a_normal_law_attains_the_bound_for_dot_products(m):
    layer = dot(-1.5, 2.0, shift=0.3)
    found = log_concave(layer, m)
    assert steepest(layer, lambda y: m * y**2 / 2, 1.0) == pytest.approx(found.value, rel=1e-6)


def test_convex_energies_stay_below_and_bumps_do_not():
    gauss, product = ma.SelfAttention(ma.Gaussian(1.0)), dot(1.0)
    for energy, m in (
        (lambda y: 0.25 * y**2 + 0.1 * y**4, 0.5),
        (lambda y: np.cosh(y), 1.0),
        (lambda y: 0.3 * y**2 + np.abs(y - 1), 0.6),  # a kink
        (lambda y: 0.5 * y**2 + 0.4 * np.cos(y), 0.6),
    ):
        assert steepest(gauss, energy) <= log_concave(gauss, m, dimension=1).value
        assert steepest(product, energy) <= log_concave(product, m).value
    # taken for convex, two bumps exceed it

    def bumps(y):
        return (y**2 - 4) ** 2 / 8

    assert steepest(gauss, bumps) > log_concave(gauss, 0.0, dimension=1).value
    assert steepest(product, bumps) > log_concave(product, 0.6).value


def test_heads_add_and_a_residual_adds_one():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 3, 3))
    heads = [ma.SelfAttention(ma.Bilinear(*rng.normal(size=(2, 2, 3))), v) for v in values]
    alone = [log_concave(head, 2.0).value for head in heads]
    many = ma.MultiHead(heads, np.hstack([np.eye(3), np.eye(3)]))
    assert log_concave(many, 2.0).value == pytest.approx(sum(alone))
    assert log_concave(ma.Residual(many), 2.0).value == pytest.approx(1 + sum(alone))
    assert log_concave(many, 2.0, math.inf).metric == "W_inf of queries"


def test_what_it_does_not_speak_of():
    gauss = ma.SelfAttention(ma.Gaussian(2.0))
    with pytest.raises(ValueError, match=r"above -1/sigma² = -0.25, got -0.25"):
        log_concave(gauss, -0.25, dimension=1)
    third = ma.SelfAttention(ma.Gaussian(3.0))
    with pytest.raises(ValueError, match=r"-0.1111111111111111, got -0.1111112"):
        log_concave(third, -0.1111112, dimension=1)
    with pytest.raises(ValueError, match="convexity must be above 0"):
        log_concave(dot(1.0), 0.0)
    with pytest.raises(ValueError, match="convexity must be a finite number, got nan"):
        log_concave(gauss, math.nan, dimension=1)
    with pytest.raises(ValueError, match="p must be"):
        log_concave(gauss, 1.0, 0.5, dimension=1)
    with pytest.raises(ValueError, match="give dimension"):
        log_concave(gauss, 1.0)
    memory = ma.EmpiricalMeasure(np.eye(2))
    with pytest.raises(ValueError, match="without mask"):
        log_concave(ma.CrossAttention(ma.Gaussian(1.0), None, memory), 1.0)
    with pytest.raises(ValueError, match="without mask"):
        log_concave(ma.SelfAttention(ma.Causal(ma.Gaussian(1.0))), 1.0, dimension=2)
