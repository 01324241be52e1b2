"""Every potential against NumPy, at points and on blocks of them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from tests import oracles
from tests.core.closeness import assert_close, float64, normal

N, M, D, E = 4, 5, 3, 2
X, Y = normal(0, N, D), normal(1, M, D)
Q, K = normal(2, E, D), normal(3, E, D)
B, C = normal(4, E), normal(5, E)
W, A = normal(6, E), normal(7, D, D)
S, T = jnp.round(3 * normal(8, N)), jnp.round(3 * normal(9, M))
T = T.at[:2].set(S[:2])  # a token sees what is at its own position
x, y, q, k, b, c, w, a, s, t = map(float64, (X, Y, Q, K, B, C, W, A, S, T))


def with_bias(weight, bias):
    linear = eqx.nn.Linear(D, E, key=jax.random.key(0))
    return eqx.tree_at(lambda m: (m.weight, m.bias), linear, (weight, bias))


def rotary_logits():
    query, key = normal(10, 4, D), normal(11, 4, D)
    expected = [
        [
            0.5
            * oracles.rotate(float64(query) @ x[i], s[i], 100.0)
            @ oracles.rotate(float64(key) @ y[j], t[j], 100.0)
            for j in range(M)
        ]
        for i in range(N)
    ]
    return ma.Rotary(query, key, 0.5, base=100.0), np.array(expected)


PLAIN = {
    "dot product": (ma.DotProduct(), x @ y.T),
    "scaled dot product": (ma.DotProduct(0.25), 0.25 * x @ y.T),
    "bilinear": (ma.Bilinear(Q, K, 0.7), 0.7 * (x @ q.T) @ (y @ k.T).T),
    "bilinear, affine": (
        ma.Bilinear(with_bias(Q, B), with_bias(K, C), 0.7),
        0.7 * (x @ q.T + b) @ (y @ k.T + c).T,
    ),
    "bilinear, maps": (
        ma.Bilinear(jnp.sin, ma.Affine(jnp.eye(D)), 0.7),
        0.7 * np.sin(x) @ y.T,
    ),
    "Gaussian": (ma.Gaussian(0.7), oracles.gaussian_logits(x, y, 0.7)),
    "additive": (
        ma.Additive(Q, K, W),
        np.tanh((x @ q.T)[:, None] + (y @ k.T)[None]) @ w,
    ),
    "additive, affine": (
        ma.Additive(with_bias(Q, B), K, W),
        np.tanh((x @ q.T + b)[:, None] + (y @ k.T)[None]) @ w,
    ),
    "relation": (ma.Relation(jnp.sin, lambda y: y**2), np.sin(x) @ (y**2).T),
    "any function": (ma.potential.as_potential(lambda x, y: x @ A @ y), x @ a @ y.T),
    "masked": (
        ma.Masked(ma.DotProduct(), lambda x, y: x[0] <= y[0]),
        np.where(x[:, None, 0] <= y[None, :, 0], x @ y.T, -np.inf),
    ),
}
TOKENS = {
    "dot product of tokens": (ma.DotProduct(), x @ y.T),
    "causal": (ma.Causal(ma.DotProduct()), np.where(t <= s[:, None], x @ y.T, -np.inf)),
    "causal bilinear": (
        ma.Causal(ma.Bilinear(Q, K)),
        np.where(t <= s[:, None], (x @ q.T) @ (y @ k.T).T, -np.inf),
    ),
    "causal additive": (
        ma.Causal(ma.Additive(Q, K, W)),
        np.where(t <= s[:, None], np.tanh((x @ q.T)[:, None] + (y @ k.T)[None]) @ w, -np.inf),
    ),
    "causal Gaussian": (
        ma.Causal(ma.Gaussian(0.7)),
        np.where(t <= s[:, None], oracles.gaussian_logits(x, y, 0.7), -np.inf),
    ),
    "causal function of tokens": (
        ma.Causal(lambda x, y: x.position * y.position + x.state[0]),
        np.where(t <= s[:, None], np.outer(s, t) + x[:, :1], -np.inf),
    ),
    "causal twice": (
        ma.Causal(ma.Causal(ma.Bilinear(Q, K))),
        np.where(t <= s[:, None], (x @ q.T) @ (y @ k.T).T, -np.inf),
    ),
    "a window of positions": (
        ma.Masked(ma.DotProduct(), lambda x, y: jnp.abs(x.position - y.position) <= 3),
        np.where(np.abs(s[:, None] - t) <= 3, x @ y.T, -np.inf),
    ),
    "causal in a window": (
        ma.Causal(ma.Masked(ma.Bilinear(Q, K), lambda x, y: x.position - y.position <= 3)),
        np.where((t <= s[:, None]) & (s[:, None] - t <= 3), (x @ q.T) @ (y @ k.T).T, -np.inf),
    ),
    "relation that looks at positions": (
        ma.Relation(lambda p: p.state * p.position, lambda p: p.state),
        (x * s[:, None]) @ y.T,
    ),
    "rotary": rotary_logits(),
    "causal rotary": (
        ma.Causal(rotary_logits()[0]),
        np.where(t <= s[:, None], rotary_logits()[1], -np.inf),
    ),
}


def compare(potential, queries, keys, expected):
    block = jax.jit(lambda p: p.block(queries, keys))(potential)
    at = jax.vmap(lambda x: jax.vmap(lambda y: potential(x, y))(keys))(queries)
    core, query_map, key_map = potential.factor()
    factored = core.block(jax.vmap(query_map)(queries), jax.vmap(key_map)(keys))
    np.testing.assert_array_equal(np.isneginf(block), np.isneginf(expected))
    allowed = np.isfinite(expected)
    for got in (block, at, factored):
        assert got.dtype == jnp.zeros(()).dtype
        assert_close(np.where(allowed, got, 0), np.where(allowed, expected, 0))
        np.testing.assert_array_equal(np.isneginf(got), ~allowed)


@pytest.mark.parametrize("name", PLAIN)
def test_a_potential_of_points_is_its_formula_point_by_point_and_on_blocks(name):
    potential, expected = PLAIN[name]
    compare(potential, X, Y, expected)


@pytest.mark.parametrize("name", TOKENS)
def test_a_potential_of_tokens_is_its_formula_point_by_point_and_on_blocks(name):
    potential, expected = TOKENS[name]
    compare(potential, ma.Token(S, X), ma.Token(T, Y), expected)


def test_a_potential_on_keys_looks_at_the_key_of_a_pair_alone():
    joint = ma.Pair(Y, normal(12, M, 1))
    potential = ma.OnKey(ma.Bilinear(Q, K))
    compare(potential, X, joint, (x @ q.T) @ (y @ k.T).T)


def test_rotary_logits_depend_on_the_difference_of_positions_alone():
    potential = ma.Rotary(normal(0, 4, D), normal(1, 4, D))
    at = [
        potential(ma.Token(jnp.asarray(s), X[0]), ma.Token(jnp.asarray(t), Y[0]))
        for s, t in [(5.0, 2.0), (105.0, 102.0)]
    ]
    assert_close(at[0], float(at[1]), scale=100)


def test_rotary_positions_pair_the_halves_of_a_vector():
    turned = ma.potential.rotate(
        jnp.asarray([1.0, 0.0, 0.0, 0.0]), jnp.asarray(1.0), jnp.asarray(1e4)
    )
    assert_close(turned, [np.cos(1), 0, np.sin(1), 0])


@pytest.mark.parametrize(
    ("potential", "masks"),
    [
        (ma.DotProduct(), False),
        (ma.Gaussian(1.0), False),
        (ma.Causal(ma.DotProduct()), True),
        (ma.Masked(ma.DotProduct(), lambda x, y: True), True),
        (ma.Interaction(lambda x, y: 0.0), True),
        (ma.OnKey(ma.DotProduct()), False),
        (ma.OnKey(ma.Causal(ma.DotProduct())), True),
    ],
    ids=["dot", "L2", "causal", "masked", "function", "on key", "causal on key"],
)
def test_what_may_forbid_a_pair_says_so(potential, masks):
    assert potential.masks is masks


@pytest.mark.parametrize("value", [0, 1])
def test_a_function_that_returns_an_integer_is_a_potential(value):
    out = ma.attention(X, Y, Y, potential=lambda x, y: value)
    assert_close(out, np.broadcast_to(y.mean(0), (N, D)))


@pytest.mark.float64
def test_a_function_that_answers_in_float64_keeps_the_dtype_of_the_points():
    narrow = [v.astype(jnp.float32) for v in (X, Y, Y)]
    out = ma.attention(*narrow, potential=lambda x, y: (2 * x @ y).astype(jnp.float64))
    assert out.dtype == jnp.float32
    assert_close(out, oracles.attention(2 * x @ y.T, y))


def test_a_potential_of_ones_own_needs_one_method_alone():
    class Cosine(ma.AbstractPotential):
        temperature: jax.Array

        def __call__(self, x, y):
            return self.temperature * jnp.cos(jnp.sum(x) - jnp.sum(y))

    out = ma.attention(X, Y, Y, potential=Cosine(jnp.asarray(2.0)))
    logits = 2 * np.cos(x.sum(1)[:, None] - y.sum(1)[None])
    assert_close(out, oracles.attention(logits, y))


def test_a_plain_function_is_compared_by_identity():
    def f(x, y):
        return x @ y

    assert ma.Interaction(f) == ma.Interaction(f)
    assert ma.Interaction(f) != ma.Interaction(lambda x, y: x @ y)


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (np.array([[1.0, 2.0], [3.0, 4.0]]), [5.0, 11.0]),
        ([[1, 2], [3, 4]], [5.0, 11.0]),
        (ma.Affine([[1, 2], [3, 4]], [10, 20]), [15.0, 31.0]),
        (lambda v: v[::-1], [2.0, 1.0]),
        (ma.maps.Identity(), [1.0, 2.0]),
    ],
    ids=["matrix", "list", "affine", "function", "identity"],
)
def test_one_converter_makes_maps_of_matrices_modules_and_functions(f, expected):
    assert_close(ma.maps.as_map(f)(jnp.asarray([1.0, 2.0])), expected)
