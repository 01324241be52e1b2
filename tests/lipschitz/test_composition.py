"""Bounds of stacks, residuals, heads, norms and feed-forward maps."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn.lipschitz import Ball, Everywhere, bound
from measattn.lipschitz.theorems.tokenwise import constant, image

pytestmark = pytest.mark.float64


def attention(matrix, value=None):
    """Attention with the score <Ax, y>."""
    return ma.SelfAttention(ma.Bilinear(matrix, jnp.eye(len(matrix))), value)


def inside(rng, n, centre, radius):
    """Points of a ball, half of them on its boundary."""
    x = rng.normal(size=(n, len(centre)))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return centre + radius * np.where(rng.random((n, 1)) < 0.5, 1, rng.random((n, 1))) * x


def test_heads_add_and_a_residual_adds_one():
    rng = np.random.default_rng(3)
    heads = [attention(rng.normal(size=(2, 2)), rng.normal(size=(2, 2))) for _ in range(3)]
    output = np.concatenate([np.eye(2), 2 * np.eye(2), -np.eye(2)], axis=1)
    parts = [bound(head, Ball(1.0)).value for head in heads]
    many = ma.MultiHead(heads, output)
    assert bound(many, Ball(1.0)).value == pytest.approx(parts[0] + 2 * parts[1] + parts[2])
    residual = bound(ma.Residual(many), Ball(1.0))
    assert residual.value == pytest.approx(1 + bound(many, Ball(1.0)).value)
    assert residual.theorem.startswith("1 + ")


def test_a_stack_multiplies_on_the_balls_that_its_layers_reach():
    first = attention(np.eye(2), 0.5 * np.eye(2))
    second = attention(-np.eye(2))
    stack = bound(ma.Stack([first, second]), Ball(2.0))
    product = bound(first, Ball(2.0)).value * bound(second, Ball(1.0)).value
    assert stack.value == pytest.approx(product, rel=1e-6)
    again = bound(ma.WeightShared(first, 3), Ball(2.0)).value
    each = [bound(first, Ball(radius)).value for radius in (2.0, 1.0, 0.5)]
    assert again == pytest.approx(math.prod(each), rel=1e-6)


def test_norms_and_feed_forward_maps_have_their_constants():
    domain = Ball(1.0)
    norm = ma.LayerNorm(np.array([2.0, 1.0, 1.0]), eps=0.25)
    assert bound(norm, domain).value == pytest.approx(4)
    up, down = np.diag([3.0, 1.0, 1.0]), 0.5 * np.eye(3)
    assert bound(ma.FeedForward(up, down, ma.layer.relu), domain).value == pytest.approx(1.5)
    with pytest.raises(ValueError, match="activation must be relu, gelu, gelu_tanh or silu"):
        bound(ma.FeedForward(up, down, jnp.tanh), domain)


@pytest.mark.parametrize(
    ("activation", "constant"),
    [(ma.layer.gelu, 1.12891), (ma.layer.gelu_tanh, 1.13), (ma.layer.silu, 1.1)],
)
def test_activations_are_no_steeper_than_their_constants(activation, constant):
    x = np.linspace(-8, 8, 400_001)
    slope = np.abs(np.diff(np.asarray(activation(jnp.asarray(x)))) / np.diff(x)).max()
    assert 0.999 * constant < slope <= constant


def test_a_feed_forward_map_keeps_its_images_in_the_ball_that_is_passed_on():
    rng = np.random.default_rng(4)
    up, down = rng.normal(size=(5, 3)), rng.normal(size=(3, 5))
    layer = ma.FeedForward(ma.Affine(up, rng.normal(size=5)), down, ma.layer.gelu)
    radius, centre = image(layer, 0.7, np.array([1.0, -1.0, 0.5]))
    x = rng.normal(size=(2000, 3))
    x = np.array([1.0, -1.0, 0.5]) + 0.7 * x / np.linalg.norm(x, axis=1, keepdims=True)
    out = np.asarray((ma.EmpiricalMeasure(x) @ layer).points)
    assert np.linalg.norm(out - centre, axis=1).max() <= radius


def test_the_slope_of_the_tanh_gelu_is_below_its_constant_by_more_than_the_grid_can_miss():
    x = np.linspace(0, 6, 600_001)
    c, a = math.sqrt(2 / math.pi), 0.044715
    u, du = c * (x + a * x**3), c * (1 + 3 * a * x**2)
    slope = (1 + np.tanh(u)) / 2 + x / 2 * du / np.cosh(u) ** 2
    curvature = du[-1] + 6 * (du[-1] ** 2 + 3 * c * a * 6)
    assert curvature <= 150
    assert slope.max() + 150 * 0.5e-5 < 1.13
    assert 2 * 6 * du[-1] * math.exp(-2 * u[-1]) < 1e-4
    f = np.asarray(ma.layer.gelu_tanh(jnp.asarray([2.0, -2.0])))
    assert f[0] - f[1] == pytest.approx(2)


@pytest.mark.parametrize("activation", [ma.layer.silu, ma.layer.gelu_tanh])
def test_a_gated_map_is_no_steeper_on_a_ball_than_its_constant(activation):
    rng = np.random.default_rng(0)
    up, gate = (ma.Affine(rng.normal(size=(5, 3)), rng.normal(size=5)) for _ in range(2))
    layer = ma.FeedForward(up, rng.normal(size=(3, 5)), activation, gate)
    centre, radius = np.array([0.5, -1.0, 2.0]), 0.6
    x, y = inside(rng, 4000, centre, radius), inside(rng, 4000, centre, radius)
    y = x + 1e-3 * (y - x)
    fx, fy = (np.asarray((ma.EmpiricalMeasure(z) @ layer).points) for z in (x, y))
    slope = np.linalg.norm(fx - fy, axis=1) / np.linalg.norm(x - y, axis=1)
    value = bound(layer, Ball(radius, centre)).value
    assert slope.max() <= value
    reach, middle = image(layer, radius, centre)
    assert np.linalg.norm(fx - middle, axis=1).max() <= reach


def test_a_gated_map_is_refused_on_all_of_space():
    gated = ma.FeedForward(np.eye(2), np.eye(2), ma.layer.silu, np.eye(2))
    with pytest.raises(ValueError, match="put a norm before it"):
        bound(gated, Everywhere())
    assert bound(ma.Stack([ma.RMSNorm(np.ones(2)), gated]), Everywhere()).value < math.inf


def test_a_norm_brings_all_of_space_into_a_ball():
    layer = attention(0.1 * np.eye(3))
    block = ma.layer.pre_norm([layer], [ma.LayerNorm(np.ones(3), eps=0.25)])
    found = bound(block, Everywhere())
    assert found.value == pytest.approx(1 + 2 * bound(layer, Ball(math.sqrt(3))).value)
    assert found.theorem == "1 + T1 · H6"
    with pytest.raises(ValueError, match="needs a bounded domain"):
        bound(layer, Everywhere())


@pytest.mark.parametrize(
    "norm", [ma.LayerNorm(np.array([2.0, 1.0, -1.0]), np.ones(3), eps=0.3), ma.RMSNorm(eps=0.2)]
)
@pytest.mark.parametrize("radius", [0.01, 5.0])
def test_a_norm_sends_small_balls_to_small_balls_and_large_ones_to_its_own(norm, radius):
    rng = np.random.default_rng(1)
    centre = np.array([1.0, -2.0, 0.5])
    reach, middle = image(norm, radius, centre)
    out = np.asarray((ma.EmpiricalMeasure(inside(rng, 2000, centre, radius)) @ norm).points)
    assert np.linalg.norm(out - middle, axis=1).max() <= reach
    largest = 1.0 if norm.weight is None else 2.0
    assert reach <= min(largest * math.sqrt(3), constant(norm, radius, centre) * radius) * 1.001


def test_what_leaves_a_block_lies_in_the_ball_that_the_next_layer_is_bounded_on():
    rng = np.random.default_rng(2)
    heads = [attention(rng.normal(size=(2, 2)), rng.normal(size=(2, 2))) for _ in range(2)]
    block = ma.Stack(
        [
            ma.Residual(ma.MultiHead(heads, ma.Affine(rng.normal(size=(2, 4)), np.ones(2)))),
            ma.LayerNorm(np.array([1.0, 2.0]), eps=0.5),
            ma.Residual(ma.FeedForward(rng.normal(size=(3, 2)), np.ones((2, 3)), ma.layer.gelu)),
        ]
    )
    centre = np.array([3.0, 1.0])
    for domain in (Ball(0.5, centre), Ball(2.0, centre)):
        value = bound(block, domain).value
        for _ in range(10):
            x = inside(rng, 3, centre, domain.radius)
            mu = ma.EmpiricalMeasure(x)
            y = inside(rng, 3, centre, domain.radius)
            nu = ma.EmpiricalMeasure(x + 0.01 * (y - x))
            before = ma.wasserstein.w1(mu, nu).upper
            assert ma.wasserstein.w1(mu @ block, nu @ block).lower <= value * before


def test_a_plain_function_between_layers_is_refused():
    layers = [attention(np.eye(2)), ma.Deterministic(jnp.sin)]
    with pytest.raises(ValueError, match="affine map"):
        bound(ma.Stack(layers), Ball(1.0))


def test_a_stack_with_one_masked_layer_is_bounded_in_the_position_wise_norm():
    layers = [ma.SelfAttention(f(ma.DotProduct(0.5))) for f in (ma.Causal, lambda a: a)]
    parts = [bound(layer, Ball(1.0), 1, dimension=2, atoms=4) for layer in layers]
    found = bound(ma.Stack(layers), Ball(1.0), 1, dimension=2, atoms=4)
    assert found.value == pytest.approx(parts[0].value * parts[1].value)
    assert found.metric == "W1, position-wise"
    assert found.theorem == "M1 · H6"
    block = ma.Residual(layers[1])
    twice = bound(
        ma.Stack([block, ma.Residual(ma.Deterministic(jnp.eye(2)))]), Ball(1.0), 1, dimension=2
    )
    assert twice.theorem == "(1 + H6) · (1 + T1)"
