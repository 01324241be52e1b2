"""Layers against NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn.layer import gelu, gelu_tanh, relu, silu
from tests import oracles
from tests.core.closeness import assert_close, float64, normal, uniform

N, D, F = 4, 6, 5
X = normal(0, N, D)
x = float64(X)
MU = ma.EmpiricalMeasure(X)
POSITIONS = jnp.asarray([0.0, 2.0, 1.0, 5.0])
TOKENS = ma.EmpiricalMeasure(ma.Token(POSITIONS, X))
G, B = uniform(1, D), normal(2, D)
UP, DOWN, GATE, BIAS = normal(3, F, D), normal(4, D, F), normal(5, F, D), normal(6, F)
up, down, gate, g, b = map(float64, (UP, DOWN, GATE, G, B))
ATTENTION = ma.SelfAttention(ma.Bilinear(normal(7, 3, D), normal(8, 3, D), 0.5), normal(9, D, D))

FEED = ma.FeedForward(UP, DOWN, relu)


def attend(x):
    logits = 0.5 * (x @ float64(normal(7, 3, D)).T) @ (x @ float64(normal(8, 3, D)).T).T
    return oracles.attention(logits, x @ float64(normal(9, D, D)).T)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (ma.LayerNorm(), oracles.layer_norm(x)),
        (ma.LayerNorm(G, B, eps=1e-3), oracles.layer_norm(x, g, b, 1e-3)),
        (ma.LayerNorm(G), oracles.layer_norm(x, g)),
        (ma.LayerNorm(None, B), oracles.layer_norm(x, bias=b)),
        (ma.RMSNorm(), oracles.rms_norm(x)),
        (ma.RMSNorm(G, eps=1e-3), oracles.rms_norm(x, g, 1e-3)),
        (ma.FeedForward(UP, DOWN, relu), np.maximum(x @ up.T, 0) @ down.T),
        (ma.FeedForward(UP, DOWN, gelu), oracles.gelu(x @ up.T) @ down.T),
        (ma.FeedForward(UP, DOWN, gelu_tanh), oracles.gelu_tanh(x @ up.T) @ down.T),
        (
            ma.FeedForward(ma.Affine(UP, BIAS), ma.Affine(DOWN, B), gelu),
            oracles.gelu(x @ up.T + float64(BIAS)) @ down.T + b,
        ),
        (
            ma.FeedForward(UP, DOWN, silu, gate=GATE),
            (oracles.silu(x @ gate.T) * (x @ up.T)) @ down.T,
        ),
        (ma.FeedForward(UP, DOWN, jnp.tanh), np.tanh(x @ up.T) @ down.T),
        (ma.Residual(ATTENTION), x + attend(x)),
        (ma.Residual(ma.RMSNorm()), x + oracles.rms_norm(x)),
        (
            ma.post_norm([ATTENTION, FEED], [ma.LayerNorm(G), ma.LayerNorm()]),
            (lambda y: oracles.layer_norm(y + np.maximum(y @ up.T, 0) @ down.T))(
                oracles.layer_norm(x + attend(x), g)
            ),
        ),
        (
            ma.pre_norm([ATTENTION, FEED], [ma.RMSNorm(G), ma.RMSNorm()]),
            (lambda y: y + np.maximum(oracles.rms_norm(y) @ up.T, 0) @ down.T)(
                x + attend(oracles.rms_norm(x, g))
            ),
        ),
    ],
    ids=[
        "layer norm", "layer norm, weight, bias, eps", "layer norm, weight", "layer norm, bias",
        "rms norm", "rms norm, weight, eps", "relu", "gelu", "gelu, tanh form", "affine gelu",
        "swiglu", "any activation", "residual", "residual of a norm", "post-norm", "pre-norm",
    ],
)  # fmt: skip
def test_a_layer_is_its_formula(layer, expected):
    assert_close((MU @ layer).points, expected, scale=max(1, np.abs(expected).max()))


@pytest.mark.parametrize("layer", [ma.LayerNorm(G, B), ma.FeedForward(UP, DOWN, gelu), ATTENTION])
def test_layers_change_the_states_of_tokens_and_leave_their_positions(layer):
    out = TOKENS @ layer
    assert_close(out.points.state, float64((MU @ layer).points))
    np.testing.assert_array_equal(out.points.position, POSITIONS)


def test_the_two_forms_of_gelu_are_not_the_same():
    assert 1e-5 < float(jnp.abs(gelu(X) - gelu_tanh(X)).max()) < 1e-2


@pytest.mark.parametrize("d", [1, 5, 6])
def test_sinusoidal_positions_are_those_of_the_paper(d):
    mu = ma.EmpiricalMeasure(ma.Token(POSITIONS, jnp.zeros((N, d))))
    got = (mu @ ma.Sinusoidal()).points
    assert_close(got.state, oracles.sinusoidal(float64(POSITIONS), d))
    np.testing.assert_array_equal(got.position, POSITIONS)


def test_sinusoidal_positions_are_added_with_any_base():
    got = (TOKENS @ ma.Sinusoidal(100)).points.state
    assert_close(got, x + oracles.sinusoidal(float64(POSITIONS), D, 100.0))


def test_learnt_positions_add_the_row_of_the_table():
    table = normal(10, 6, D)
    assert_close((TOKENS @ ma.Learned(table)).points.state, x + float64(table)[[0, 2, 1, 5]])


def test_the_norms_do_not_see_the_scale_of_a_point():
    for layer in (ma.LayerNorm(eps=1e-20), ma.RMSNorm(eps=1e-20)):
        big = ma.pushforward(lambda x: 1e3 * x, MU) @ layer
        assert_close(big.points, float64((MU @ layer).points))


@pytest.mark.parametrize("point", [np.zeros(D), np.full(D, 1e3)])
def test_the_norms_are_finite_with_finite_derivatives_at_constant_vectors(point):
    point = jnp.asarray(point)
    for layer in (ma.LayerNorm(), ma.RMSNorm()):
        value, slope = jax.value_and_grad(lambda p, f=layer: jnp.sum(jnp.sin(f(p).points)))(point)
        assert np.isfinite(value)
        assert np.isfinite(slope).all()


def test_equinox_linear_layers_are_maps():
    linear = eqx.nn.Linear(D, F, key=jax.random.key(0))
    free = eqx.nn.Linear(F, D, use_bias=False, key=jax.random.key(1))
    got = (MU @ ma.FeedForward(linear, free, relu)).points
    expected = np.maximum(x @ float64(linear.weight).T + float64(linear.bias), 0)
    assert_close(got, expected @ float64(free.weight).T)


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_shared_weights_are_the_layer_again_and_again(depth):
    block = ma.post_norm([ATTENTION], [ma.LayerNorm(G, B)])
    shared = MU @ ma.WeightShared(block, depth)
    stacked = MU @ ma.Stack([block] * depth)
    assert_close(shared.points, float64(stacked.points))


def test_shared_weights_move_a_query_as_the_repeated_stack_does():
    block = ma.post_norm([ATTENTION], [ma.LayerNorm(G, B)])
    query = normal(11, D)
    shared = ma.WeightShared(block, 3).at(MU)(query).points
    assert_close(shared, float64(ma.Stack([block] * 3).at(MU)(query).points))


def test_shared_weights_over_tokens_and_numpy_depths():
    layer = ma.Residual(ma.SelfAttention(ma.Causal(ma.DotProduct(0.1))))
    shared = TOKENS @ ma.WeightShared(layer, np.int64(2))
    assert_close(shared.points.state, float64((TOKENS @ ma.Stack([layer, layer])).points.state))


def test_shared_weights_are_traced_once_whatever_the_depth():
    calls = []

    def counted(x):
        calls.append(1)
        return 0.5 * x

    MU @ ma.WeightShared(ma.Deterministic(counted), 2)
    shallow = len(calls)
    MU @ ma.WeightShared(ma.Deterministic(counted), 50)
    assert len(calls) == 2 * shallow


def test_an_encoder_and_decoder_block_is_the_paper_s():
    memory = ma.EmpiricalMeasure(normal(12, 3, D))
    cross = ma.CrossAttention(ma.DotProduct(0.4), None, memory)
    feed = ma.FeedForward(UP, DOWN, relu)
    block = ma.post_norm(
        [ma.SelfAttention(ma.Causal(ma.DotProduct(0.3))), cross, feed], [ma.LayerNorm()] * 3
    )
    seen = float64(POSITIONS)[None] <= float64(POSITIONS)[:, None]
    y = oracles.layer_norm(x + oracles.attention(np.where(seen, 0.3 * x @ x.T, -np.inf), x))
    z = float64(memory.points)
    y = oracles.layer_norm(y + oracles.attention(0.4 * y @ z.T, z))
    y = oracles.layer_norm(y + np.maximum(y @ up.T, 0) @ down.T)
    assert_close((TOKENS @ block).points.state, y)


def test_a_deep_stack_under_jit_is_the_eager_one():
    stack = ma.pre_norm([ATTENTION, ma.FeedForward(UP, DOWN, gelu)] * 2, [ma.LayerNorm(G, B)] * 4)
    eager = (MU @ stack).points
    assert_close(jax.jit(lambda mu, stack: mu @ stack)(MU, stack).points, float64(eager))


@pytest.mark.float64
def test_the_gradient_of_a_deep_stack_is_a_difference_quotient():
    stack = ma.pre_norm([ATTENTION, ma.FeedForward(UP, DOWN, gelu)] * 2, [ma.LayerNorm(G, B)] * 4)

    @jax.jit
    def energy(points):
        return jnp.sum(jnp.sin((ma.EmpiricalMeasure(points) @ stack).points))

    step, direction = 1e-5, normal(13, N, D)
    slope = float(jnp.vdot(jax.grad(energy)(X), direction))
    difference = energy(X + step * direction) - energy(X - step * direction)
    assert abs(float(difference) / (2 * step) - slope) <= 1e-6 * abs(slope)
