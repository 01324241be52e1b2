"""Replaced tokens, other parameters, the Boltzmann-Gibbs transformation: predicted, observed."""

import math
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn.lipschitz import Ball, Box, Everywhere, contamination, gibbs, parameters

pytestmark = pytest.mark.float64


def attention(matrix, value=None, shift=None):
    """Attention with the score <Ax + c, y>."""
    return ma.SelfAttention(ma.Bilinear(ma.Affine(matrix, shift), jnp.eye(len(matrix))), value)


def points(rng, n, radius, centre=0.0):
    x = rng.normal(size=(n, 2))
    x *= radius / np.linalg.norm(x, axis=1, keepdims=True)
    return centre + x * rng.random((n, 1)) ** 0.25


def outputs(layer, x, queries):
    return np.asarray(layer.push(ma.EmpiricalMeasure(x), jnp.asarray(queries)))


def test_the_bound_of_contamination_is_attained_on_a_segment():
    share, length = 0.1, 3.0
    layer = ma.SelfAttention(ma.DotProduct(1.0))
    # <x, y> with x = 0.5 oscillates by 0.75 on [-1.5, 1.5], less than the bound for all x
    clean, dirty = (
        ma.weighted(np.array([[-1.5], [y]]), np.array([1 - share, share])) for y in (-1.5, 1.5)
    )
    query = jnp.array([[1.5]])
    moved = np.abs(np.asarray(layer.push(clean, query) - layer.push(dirty, query))).item()
    found = contamination(layer, Ball(length / 2), share, dimension=1)
    assert moved == pytest.approx(found.output, rel=1e-8)
    assert moved <= found.output


@pytest.mark.parametrize("centre", [np.zeros(2), np.array([1.0, -2.0])])
def test_replaced_tokens_move_outputs_and_laws_by_no_more_than_predicted(centre):
    rng = np.random.default_rng(0)
    domain, n = Ball(0.8, centre), 6
    for k in (1, 2, 6):
        heads = [attention(rng.normal(size=(2, 2)), rng.normal(size=(2, 2))) for _ in range(2)]
        many = ma.MultiHead(heads, rng.normal(size=(2, 4)))
        gauss = ma.SelfAttention(ma.Gaussian(0.5), rng.normal(size=(2, 2)))
        for layer in (heads[0], many, gauss, ma.Residual(heads[1])):
            x = points(rng, n, 0.8, centre)
            y = x.copy()
            y[:k] = points(rng, k, 0.8, centre)
            found = contamination(layer, domain, k / n)
            queries = points(rng, 50, 0.8, centre)
            moved = outputs(layer, x, queries) - outputs(layer, y, queries)
            assert np.linalg.norm(moved, axis=1).max() <= found.output
            law = ma.wasserstein.w1(*(ma.EmpiricalMeasure(z) @ layer for z in (x, y))).lower
            assert law <= found.law


def test_nothing_replaced_moves_nothing_and_everything_replaced_the_whole_image():
    layer = attention(np.eye(2), 2 * np.eye(2))
    assert contamination(layer, Ball(1.0), 0.0).output == 0
    assert contamination(layer, Ball(1.0), 1.0).output == pytest.approx(4)
    # one token in n takes a row over once the scores oscillate by log n
    small, large = (contamination(layer, Ball(r), 1e-4).output / (4 * r) for r in (0.5, 5.0))
    assert small < 1e-3
    assert large > 0.99


def test_other_parameters_move_outputs_by_no_more_than_predicted():
    rng = np.random.default_rng(1)
    centre = np.array([0.5, 1.0])
    for size in (1e-3, 0.3):
        one, two = [], []
        for _ in range(2):
            matrix, value, shift = (rng.normal(size=s) for s in ((2, 2), (2, 2), (2,)))
            change = [size * rng.normal(size=s) for s in ((2, 2), (2, 2), (2,))]
            one.append(attention(matrix, value, shift))
            two.append(attention(matrix + change[0], value + change[1], shift + change[2]))
        output = rng.normal(size=(2, 4))
        pairs = [
            (one[0], two[0]),
            (ma.MultiHead(one, output), ma.MultiHead(two, ma.Affine(output, size * np.ones(2)))),
            (ma.SelfAttention(ma.Gaussian(1.0)), ma.SelfAttention(ma.Gaussian(1.0 + size))),
        ]
        for layer, other in pairs:
            found = parameters(layer, other, Ball(0.8, centre))
            x = points(rng, 6, 0.8, centre)
            moved = outputs(layer, x, x) - outputs(other, x, x)
            assert np.linalg.norm(moved, axis=1).max() <= found.output == found.law
            assert found.output <= 60 * size


def test_constants_that_cancel_far_from_the_origin_are_compared_without_loss():
    """V z + b of one token at z = 1e15, of which float64 sees multiples of 1/8 alone."""
    z, layers, true = 1e15, [], []
    for value in (0.3, 0.7 / 3):
        bias = -value * z
        layers.append(ma.SelfAttention(ma.DotProduct(0.0), ma.Affine([[value]], [bias])))
        true.append(Fraction(value) * Fraction(z) + Fraction(bias))
    found = parameters(*layers, Ball(1e-3, np.array([z]))).output
    moved = abs(float(true[0] - true[1]))
    assert 0 < moved <= found <= moved + 1e-3


def test_equal_parameters_move_nothing():
    layer = attention(np.eye(2))
    assert parameters(layer, attention(np.eye(2)), Ball(3.0)).output == 0


def test_the_constant_of_the_gibbs_transformation_is_attained_and_not_two_per_cent_less():
    # log g rises by omega with slope l at the end of [0, 1]: the extremal pair of A1
    omega, slope, light, step = 1.0, 4.0, 1e-7, 1e-5

    def log_g(x):
        return slope * jnp.maximum(x[0] - 1 + omega / slope, 0.0)

    mu, nu = (
        ma.weighted(np.array([[0.0], [y]]), np.array([1 - light, light])) for y in (1.0 - step, 1.0)
    )
    after = ma.wasserstein.w1(*(ma.boltzmann_gibbs(log_g, m) for m in (mu, nu))).value
    found = gibbs(slope, Box([0.0], [1.0]), omega).value
    assert found == pytest.approx(math.exp(omega) * (1 + slope))
    assert 0.98 * found < after / (light * step) <= found


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: contamination(attention(np.eye(2)), Ball(1.0), 1.5), "share must be a part"),
        (lambda: contamination(attention(np.eye(2)), Everywhere(), 0.5), "domain must be bounded"),
        (
            lambda: contamination(
                ma.CrossAttention(ma.DotProduct(), np.eye(2), np.ones((3, 2))), Ball(1.0), 0.5
            ),
            "layer must be self-attention",
        ),
        (
            lambda: parameters(attention(np.eye(2)), ma.SelfAttention(ma.Gaussian(1.0)), Ball(1.0)),
            "of the kinds of those of layer",
        ),
        (
            lambda: parameters(attention(np.eye(2)), ma.Residual(attention(np.eye(2))), Ball(1.0)),
            "the heads and the residual",
        ),
        (lambda: gibbs(-1.0, Ball(1.0)), "slope and oscillation must be at least 0"),
    ],
)
def test_questions_that_make_no_sense_are_refused_with_words(ask, words):
    with pytest.raises(ValueError, match=words):
        ask()


LOST = 1e-17
"""Beside 1 it is nothing in float64."""


def scores(e):
    return ma.SelfAttention(ma.Bilinear(np.array([[1.0], [e]]), np.ones((2, 1))))


def values(e):
    head = ma.SelfAttention(ma.DotProduct(1.0), np.array([[1.0], [e]]))
    return ma.MultiHead([head], np.ones((1, 2)))


def constants(e):
    value = ma.Affine(np.ones((2, 1)), np.array([1.0, e]))
    return ma.MultiHead([ma.SelfAttention(ma.DotProduct(1.0), value)], np.ones((1, 2)))


# of the tokens -1 and 1, at the query 1, whose mean is tanh of the score
@pytest.mark.parametrize(
    ("layer", "slope"),
    [(scores, 1 / math.cosh(1) ** 2), (values, math.tanh(1)), (constants, 1.0)],
)
def test_layers_whose_products_are_equal_once_rounded_are_told_apart(layer, slope):
    found = parameters(layer(LOST), layer(-LOST), Ball(1.0), dimension=1)
    assert 2 * LOST * slope <= found.output <= 1e-9
