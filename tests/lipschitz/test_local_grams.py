"""Sums of norms of several heads: lengths, gradients and S_w against the dense Jacobian."""

import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn.lipschitz.derivatives import grams, mixed
from measattn.lipschitz.derivatives.blocks import block_norms
from measattn.lipschitz.derivatives.families import columns, outputs
from measattn.lipschitz.derivatives.parts import parts
from measattn.lipschitz.derivatives.rows import thin
from measattn.points import Token
from tests.lipschitz import dense

pytestmark = pytest.mark.float64

N, D = 7, 4


def heads(rng, mask=lambda potential: potential, ranks=(1, 3)):
    """Heads of different ranks, of values and of scores, with an output map."""

    def one(rank):
        left, right = rng.normal(size=(3, 3, rank)), rng.normal(size=(3, rank, D))
        query, key, value = left @ right
        return ma.SelfAttention(mask(ma.Bilinear(query, key)), value)

    return ma.MultiHead([one(rank) for rank in ranks], rng.normal(size=(D, 3 * len(ranks))))


def gaussian(rng):
    both = [ma.SelfAttention(ma.Gaussian(s), rng.normal(size=(2, D))) for s in (1.5, 2.0)]
    return ma.MultiHead(both, rng.normal(size=(D, 4)))


def norm(rng):
    return ma.LayerNorm(rng.normal(size=D))


LAYERS = {
    "heads": heads,
    "masked": lambda rng: heads(rng, ma.Causal),
    "Gaussian": gaussian,
    "norm after": lambda rng: ma.layer.post_norm([heads(rng)], [norm(rng)]),
    "norm before": lambda rng: ma.layer.pre_norm([heads(rng)], [norm(rng)]),
    "Gaussian, norms": lambda rng: ma.Stack([norm(rng), gaussian(rng), norm(rng)]),
}
KINDS = pytest.mark.parametrize("kind", LAYERS)
SIDES = pytest.mark.parametrize("side", ["columns", "outputs"])


def family(kind, side, seed=0):
    """The family, and the terms of problem k as they stand in the Jacobian, the own one last."""
    rng = np.random.default_rng(seed)
    layer, weights = LAYERS[kind](rng), rng.random(N) + 0.1
    points = Token(jnp.arange(float(N)), jnp.asarray(rng.normal(size=(N, D))))
    mu = ma.weighted(points, weights)
    weights = np.asarray(mu.weights)
    derivative, jacobian = parts(layer, mu), dense.jacobian(layer, mu)
    blocks = block_norms(derivative)

    def terms(k):
        if side == "outputs":
            found = jacobian[k].transpose(1, 2, 0)
        else:
            found = jacobian[:, :, k] * (weights / weights[k])[:, None, None]
        others = np.where(np.arange(N)[:, None, None] == k, 0, found)
        return np.concatenate([others, found[k][None]])

    if side == "outputs":
        return outputs(derivative, blocks), terms
    return columns(derivative, weights, blocks, False), terms


@KINDS
@SIDES
def test_lengths_values_and_terms_are_those_of_the_jacobian(kind, side):
    sums, terms = family(kind, side)
    u = np.random.default_rng(1).normal(size=(N, D))
    lengths = sums.norms(np.arange(N), u)
    for k in range(N):
        expected = np.linalg.norm(terms(k) @ u[k], axis=1)
        np.testing.assert_allclose(lengths[:, k], expected, rtol=1e-7, atol=1e-9)
        assert sums.value(k, u[k]) == pytest.approx(expected.sum(), rel=1e-11)
        np.testing.assert_allclose(sums.matrices(k), terms(k), rtol=1e-9, atol=1e-11)


@KINDS
@SIDES
def test_steps_climb_along_the_gradient(kind, side):
    sums, terms = family(kind, side)
    index, u = np.array([4, 0, 4]), np.random.default_rng(2).normal(size=(3, D))
    further, values = sums.ascend(index, u, 1)
    for k, start, end, value in zip(index, u, further, values, strict=True):
        n = terms(k)
        images = n @ start
        lengths = np.linalg.norm(images, axis=1, keepdims=True)
        images = images / np.where(lengths > 0, lengths, 1)
        expected = np.einsum("mvd,mv->d", n, images)
        np.testing.assert_allclose(end, expected / np.linalg.norm(expected), atol=1e-8)
        assert value == pytest.approx(np.linalg.norm(n @ end, axis=1).sum(), rel=1e-9)


def errors(sums, terms, w):
    """How far S_w is off, in norm, in parts of the rounding that is allowed for."""
    found, rounding = sums.gram(np.arange(N), w)
    for k in range(N):
        seen = w[:, k] > 0
        n = terms(k)[seen]
        gram = np.einsum("mvd,mve,m->de", n, n, 1 / w[seen, k])
        yield np.linalg.norm(found[k] - gram, 2) / rounding[k]


@KINDS
@SIDES
def test_the_matrix_of_the_certificate_is_right_to_its_rounding(kind, side):
    sums, terms = family(kind, side)
    w = np.random.default_rng(3).random((N + 1, N)) * (sums.sizes > 0)
    w[2, 3] = 0  # a term that is left out
    # the oracle's own rounding, by reverse mode, is of the same size
    assert max(errors(sums, terms, w)) < 5


def test_tokens_may_be_taken_in_several_tiles(monkeypatch):
    monkeypatch.setattr(grams, "ENTRIES", 3 * N * 2**2 * 3)  # three tokens at a time, of seven
    grams.of_moved.clear_cache()
    sums, terms = family("norm after", "columns")
    assert max(errors(sums, terms, np.ones((N + 1, N)) * (sums.sizes > 0))) < 5
    grams.of_moved.clear_cache()


@SIDES
@pytest.mark.parametrize("name", ["means", "left", "p", "images"])
def test_an_array_that_is_wrong_in_the_ninth_digit_is_caught(side, name):
    sums, terms = family("heads", side)
    array = getattr(sums._arrays, name)
    sums._arrays = sums._arrays._replace(**{name: array * (1 + 1e-9)})
    w = np.random.default_rng(3).random((N + 1, N)) * (sums.sizes > 0)
    assert max(errors(sums, terms, w)) > 50


def test_problems_are_filled_up_to_few_lengths():
    index = np.arange(5)
    assert mixed.filled(index, 16).tolist() == [0, 1, 2, 3, 4, 4, 4, 4]
    assert len(mixed.filled(np.arange(16), 16)) == len(mixed.filled(np.arange(9), 16)) == 16


def test_factors_are_thin_and_multiply_to_the_matrix():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(6, 2)) @ rng.normal(size=(2, 5))
    left, right = thin(matrix)
    assert left.shape[1] == 2
    np.testing.assert_allclose(left @ right, matrix, atol=1e-14)
