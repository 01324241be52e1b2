"""Local constants of several heads, masks and whole blocks against the dense Jacobian."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn.lipschitz import Split, local
from measattn.points import Token
from tests.lipschitz import dense

pytestmark = pytest.mark.float64

ORDERS = pytest.mark.parametrize("p", [1, 2, math.inf])
N, D = 5, 3


def heads(rng, mask=lambda potential: potential, scale=1.0):
    """Two heads of width two on R^3, with an output map."""

    def one():
        query, key, value = rng.normal(size=(3, 2, D))
        return ma.SelfAttention(mask(ma.Bilinear(query, key, scale)), value)

    return ma.MultiHead([one(), one()], rng.normal(size=(D, 4)))


def feed_forward(rng):
    return ma.FeedForward(rng.normal(size=(5, D)), rng.normal(size=(D, 5)), ma.layer.gelu)


LAYERS = {
    "two heads": heads,
    "saturated": lambda rng: heads(rng, scale=100.0),
    "residual": lambda rng: ma.Residual(heads(rng)),
    "one head, residual": lambda rng: ma.Residual(dense.head(rng, D, D)),
    "one head, norm before": lambda rng: ma.Stack([ma.LayerNorm(), dense.head(rng, D, D)]),
    "pre-norm block": lambda rng: ma.layer.pre_norm(
        [heads(rng), feed_forward(rng)], [ma.LayerNorm(rng.normal(size=D)), ma.RMSNorm()]
    ),
    "post-norm block": lambda rng: ma.layer.post_norm(
        [heads(rng), feed_forward(rng)], [ma.LayerNorm(), ma.LayerNorm(rng.normal(size=D))]
    ),
    "feed-forward": feed_forward,
}


def assert_holds(found, expected):
    assert found.value <= found.upper
    assert expected <= found.upper * (1 + 1e-10)
    assert found.value >= expected * (1 - 1e-4)


CASES = [(kind, 1) for kind in LAYERS]
CASES += [(kind, p) for kind in ("saturated", "pre-norm block") for p in (2, math.inf)]
CASES += [("one head, norm before", math.inf), ("feed-forward", math.inf), ("post-norm block", 2)]


@pytest.mark.parametrize(("kind", "p"), CASES)
def test_both_ends_hold_for_whole_blocks(kind, p):
    rng = np.random.default_rng(0)
    layer, mu = LAYERS[kind](rng), ma.weighted(rng.normal(size=(N, D)), rng.random(N) + 0.1)
    found = local(layer, mu, p)
    assert_holds(found, dense.whole(layer, mu, p))
    assert dense.shown(layer, mu, found) == pytest.approx(found.value, rel=1e-6)


@pytest.mark.parametrize("kind", ["two heads", "one head, residual"])
def test_parts_of_atoms_move_through_several_heads(kind):
    rng = np.random.default_rng(1)
    layer, mu = LAYERS[kind](rng), ma.EmpiricalMeasure(rng.normal(size=(N, D)))
    assert_holds(local(layer, mu, 1, Split()), dense.split(layer, mu))


def tokens(rng):
    return ma.EmpiricalMeasure(Token(jnp.arange(float(N)), jnp.asarray(rng.normal(size=(N, D)))))


@ORDERS
def test_masked_heads_have_constants_in_the_position_wise_metric(p):
    rng = np.random.default_rng(2)
    layer, mu = ma.Residual(heads(rng, ma.Causal)), tokens(rng)
    found = local(layer, mu, p)
    assert_holds(found, dense.whole(layer, mu, p))
    assert found.metric.endswith("position-wise")


def test_another_mask_is_seen_by_one_head():
    rng = np.random.default_rng(3)
    near = ma.Masked(ma.DotProduct(1.0), lambda x, y: jnp.sum((x - y) ** 2) < 4)
    layer, mu = ma.SelfAttention(near), ma.EmpiricalMeasure(rng.normal(size=(N, D)))
    assert_holds(local(layer, mu), dense.whole(layer, mu, 1))


def test_a_causal_mask_without_positions_says_what_it_needs():
    layer = ma.SelfAttention(ma.Causal(ma.DotProduct(1.0)))
    with pytest.raises(ValueError, match="positions"):
        local(layer, ma.EmpiricalMeasure(np.eye(2)))
