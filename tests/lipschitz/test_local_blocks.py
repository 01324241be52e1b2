"""Local constants of several heads, masks and whole blocks against the dense Jacobian."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn.lipschitz import Split, local
from measattn.lipschitz.derivatives.blocks import deflated, spectral
from measattn.points import Token
from tests.lipschitz import dense

pytestmark = pytest.mark.float64

SQUARES = {
    "random": lambda rng, d: rng.normal(size=(20, d, d)),
    "equal": lambda rng, d: np.tile(np.eye(d), (20, 1, 1)),
    "nearly equal": lambda rng, d: np.eye(d) + 1e-3 * rng.normal(size=(20, d, d)),
    "rank one": lambda rng, d: rng.normal(size=(20, d, 1)) * rng.normal(size=(20, 1, d)),
    "two largest": lambda rng, d: np.tile(
        np.diag(np.r_[2.0, 2.0, np.full(d, 0.1)][:d]), (20, 1, 1)
    ),
    "graded": lambda rng, d: rng.normal(size=(20, d, d)) * np.exp(-np.arange(d))[:, None],
    "tiny": lambda rng, d: 1e-120 * rng.normal(size=(20, d, d)),
}


@pytest.mark.parametrize("d", [1, 2, 8, 64, 97])
@pytest.mark.parametrize("kind", SQUARES)
def test_norms_without_eigenvalues_are_at_least_norms_and_a_hundredth_more_at_most(kind, d):
    matrices = SQUARES[kind](np.random.default_rng(0), d)
    norms, found = np.linalg.norm(matrices, 2, axis=(1, 2)), spectral(matrices)
    assert (norms <= found).all()
    assert (found <= 1.0101 * norms).all()


@pytest.mark.parametrize("squarings", [0, 1, 2])
@pytest.mark.parametrize("kind", SQUARES)
def test_eigenvalues_are_bounded_from_one_vector_and_the_rest(kind, squarings):
    matrices = SQUARES[kind](np.random.default_rng(1), 12)
    grams = np.matmul(matrices, matrices.swapaxes(1, 2))
    about, above = (np.asarray(a) for a in deflated(jnp.asarray(grams), squarings))
    top = np.linalg.eigvalsh(grams)[:, -1]
    assert (about <= top * (1 + 1e-12)).all()
    assert (top <= above).all()
    scale = np.abs(grams).max()  # squares of the smallest are below what float64 knows
    assert (above <= scale * np.linalg.norm(grams / scale, axis=(1, 2)) * (1 + 1e-6)).all()


def test_a_matrix_that_is_zero_has_the_norm_zero_among_others():
    matrices = np.random.default_rng(2).normal(size=(9, 3, 3))
    matrices[4] = 0
    found = spectral(matrices)
    assert found[4] == 0
    assert (np.delete(found, 4) > 0).all()


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
    "one head, wide values": lambda rng: dense.head(rng, D, 5),
    "one head, values of rank one": lambda rng: ma.SelfAttention(
        ma.Bilinear(*rng.normal(size=(2, D, D)), 1.0), np.outer(*rng.normal(size=(2, D)))
    ),
}


def assert_holds(found, expected):
    assert found.value <= found.upper
    assert expected <= found.upper * (1 + 1e-10)
    assert found.value >= expected * (1 - 1e-4)


CASES = [(kind, 1) for kind in LAYERS]
CASES += [(kind, p) for kind in ("saturated", "pre-norm block") for p in (2, math.inf)]
CASES += [(kind, 2) for kind in LAYERS if kind.startswith("one head, ")]
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
    found = local(layer, mu)
    assert found.value == pytest.approx(dense.whole(layer, mu, 1), rel=1e-4)
    assert found.upper == math.inf
    assert "on its edge the layer jumps" in found.how
    band = ma.Masked(ma.DotProduct(1.0), lambda x, y: jnp.abs(x.position - y.position) < 2)
    layer, mu = ma.SelfAttention(band), tokens(rng)
    assert_holds(local(layer, mu), dense.whole(layer, mu, 1))


def test_a_causal_mask_without_positions_says_what_it_needs():
    layer = ma.SelfAttention(ma.Causal(ma.DotProduct(1.0)))
    with pytest.raises(ValueError, match="positions"):
        local(layer, ma.EmpiricalMeasure(np.eye(2)))
