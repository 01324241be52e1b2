"""Gaussian potentials do not cancel: against direct differences in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn import tiling
from tests import oracles
from tests.core.closeness import assert_close, float64

SIGMA = 0.05


def cloud(spread, n=40, d=4, dtype=jnp.float32):
    """Points offset by 100, with neighbours at the distance of the bandwidth."""
    rng = np.random.default_rng(0)
    centres = spread * rng.normal(size=(n // 4, 1, d))
    points = 100 + centres + SIGMA * rng.normal(size=(n // 4, 4, d))
    return jnp.asarray(points.reshape(n, d), dtype)


# the radius over sigma is about 2, 20 and 400: the product form, its edge, the differences
SPREADS = [0.0, 0.5, 10.0]


@pytest.fixture(params=[(1024, 512), (7, 9)], ids=str)
def tiles(request, monkeypatch):
    # each test attends with a lambda of its own, so nothing that was compiled before is met again
    monkeypatch.setattr(tiling, "TILES", {jax.default_backend(): request.param})


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(tiling, "TILES", {jax.default_backend(): (7, 9)})


def rounding(x):
    """What one rounding of the result's size is worth: all arithmetic is on differences."""
    return 64 * float(jnp.finfo(x.dtype).eps)


@pytest.mark.parametrize("spread", SPREADS)
def test_logits_of_close_points_far_from_the_origin_are_right(spread):
    x = cloud(spread)
    got = float64(ma.Gaussian(SIGMA).block(x, x))
    expected = oracles.gaussian_logits(x, x, SIGMA)
    near = expected > -50
    assert near.sum() > len(x)
    # within the product form the error is that of a dot product of norm r² ≤ 256
    assert np.abs(got - expected)[near].max() <= 256 * rounding(x)
    assert np.abs(np.diag(got)).max() <= 256 * rounding(x)


@pytest.mark.parametrize("spread", [SPREADS[0], SPREADS[-1]])
def test_displacements_by_attention_far_from_the_origin_are_right(tiles, spread):
    x = cloud(spread)
    wide = float64(x)
    got = (ma.EmpiricalMeasure(x) @ ma.SelfAttention(ma.Gaussian(SIGMA), lambda y: y - 100)).points
    p = oracles.softmatch(oracles.gaussian_logits(x, x, SIGMA))
    assert_close(got, p @ (wide - 100), scale=max(1.0, np.abs(wide - 100).max()))


@pytest.mark.parametrize("spread", SPREADS)
def test_the_gradient_far_from_the_origin_is_right(small_tiles, spread):
    x = cloud(spread)

    def energy(x):
        layer = ma.SelfAttention(ma.Gaussian(SIGMA), lambda y: y - 100)
        return jnp.sum(jnp.sin((ma.EmpiricalMeasure(x) @ layer).points))

    def reference(x):
        logits = -(((x[:, None] - x[None]) / SIGMA) ** 2).sum(-1) / 2
        return np.sin(oracles.attention(logits, x - 100)).sum()

    got = jax.jit(jax.grad(energy))(x)
    expected = oracles.jacobian(reference, float64(x))
    assert_close(got, expected, scale=max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("spread", SPREADS)
def test_the_softmatch_row_of_an_atom_far_from_the_origin_is_right(spread):
    x = cloud(spread)
    row = ma.SoftmatchKernel(ma.Gaussian(SIGMA), x)(x[0])
    assert_close(row.weights, oracles.softmatch(oracles.gaussian_logits(x[:1], x, SIGMA))[0])


def test_the_matrix_product_without_centring_would_cancel():
    x = cloud(0.0) / SIGMA
    squares = jnp.sum(x * x, axis=1)
    naive = x @ x.T - squares[:, None] / 2 - squares[None] / 2
    expected = oracles.gaussian_logits(cloud(0.0), cloud(0.0), SIGMA)
    assert np.abs(float64(naive) - expected).max() > 1


@pytest.mark.parametrize("spread", [SPREADS[0], SPREADS[-1]])
def test_the_derivative_in_sigma_far_from_the_origin_is_right(spread):
    x = cloud(spread)
    wide = float64(x)

    def energy(sigma):
        layer = ma.SelfAttention(ma.Gaussian(sigma), lambda y: y - 100)
        return jnp.sum(jnp.sin((ma.EmpiricalMeasure(x) @ layer).points))

    def reference(sigma):
        logits = -((wide[:, None] - wide[None]) ** 2).sum(-1) / (2 * sigma**2)
        return np.sin(oracles.softmax(logits) @ (wide - 100)).sum()

    got = jax.jit(jax.grad(energy))(jnp.asarray(SIGMA, jnp.float32))
    expected = oracles.directional(reference, float(np.float32(SIGMA)), 1.0)
    assert_close(got, expected, scale=max(10.0, abs(expected)))


@pytest.mark.parametrize("spread", [SPREADS[0], SPREADS[-1]])
def test_a_hessian_vector_product_far_from_the_origin_is_that_of_float64(spread):
    x = cloud(spread, n=12, d=2)
    u = jnp.asarray(np.random.default_rng(1).normal(size=x.shape), jnp.float32)

    def energy(x):
        layer = ma.SelfAttention(ma.Gaussian(SIGMA), lambda y: y - 100)
        return jnp.sum(jnp.sin((ma.EmpiricalMeasure(x) @ layer).points))

    def reference(x):
        logits = -(((x[:, None] - x[None]) / SIGMA) ** 2).sum(-1) / 2
        return np.sin(oracles.attention(logits, x - 100)).sum()

    got = jax.jit(lambda x: jax.jvp(jax.grad(energy), (x,), (u,))[1])(x)
    step = 1e-6
    ahead, behind = (
        oracles.jacobian(reference, float64(x) + s * step * float64(u)) for s in (1, -1)
    )
    expected = (ahead - behind) / (2 * step)
    assert_close(got, expected, scale=max(10.0, np.abs(expected).max()))
