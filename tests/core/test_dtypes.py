"""dtype in = dtype out, in half, single and double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from tests import oracles
from tests.core.closeness import DTYPES, assert_close, float64, normal, uniform

every_dtype = pytest.mark.parametrize("dtype", DTYPES)
W23 = normal(2, 2, 3)
ATTENTION = ma.SelfAttention(ma.Bilinear(W23, W23, 0.5), normal(3, 3, 3))
# parameters in JAX's default dtype, points in any
LAYERS = {
    "self-attention": ATTENTION,
    "Gaussian": ma.SelfAttention(ma.Gaussian(0.7)),
    "additive": ma.SelfAttention(ma.Additive(W23, W23, jnp.ones(2))),
    "function": ma.SelfAttention(lambda x, y: 0.5 * jnp.dot(x.state, y.state)),
    "rotary": ma.SelfAttention(ma.Causal(ma.Rotary(normal(4, 4, 3), normal(5, 4, 3)))),
    "heads": ma.MultiHead([ATTENTION, ATTENTION], normal(6, 3, 6)),
    "norms": ma.Stack([ma.LayerNorm(uniform(0, 3), uniform(1, 3)), ma.RMSNorm(uniform(2, 3))]),
    "feed-forward": ma.FeedForward(W23, W23.T, ma.layer.gelu),
    "positions": ma.Stack([ma.Sinusoidal(), ma.Learned(normal(7, 6, 3))]),
    "residual": ma.pre_norm([ATTENTION], [ma.LayerNorm()]),
    "shared": ma.WeightShared(ma.Residual(ATTENTION), 2),
    "matrix": ma.Deterministic(lambda p: ma.Token(p.position, 2 * p.state)),
}


def tokens(dtype):
    return ma.EmpiricalMeasure(
        ma.Token(jnp.arange(4.0, dtype=dtype), normal(0, 4, 3).astype(dtype)),
        normal(1, 4).astype(dtype),
    )


@every_dtype
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_answers_in_the_dtype_of_the_points(name, dtype):
    out = tokens(dtype) @ LAYERS[name]
    assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype(dtype)}


@pytest.mark.float64
@pytest.mark.parametrize("name", LAYERS)
def test_single_precision_is_double_precision_up_to_rounding(name):
    narrow, wide = (tokens(dtype) @ LAYERS[name] for dtype in DTYPES)
    assert_close(narrow.points.state, float64(wide.points.state))


@every_dtype
def test_measures_and_their_integrals_answer_in_the_dtype_of_the_points(dtype):
    points = normal(0, 4, 2).astype(dtype)
    mu = ma.weighted(points, [1, 2, 3, 4])
    nu = ma.EmpiricalMeasure(points)
    for made in (
        mu,
        nu,
        ma.mixture([mu, nu]),
        ma.product(mu, nu),
        ma.pairs(mu, points),
        ma.compact(mu),
        ma.dirac(points[0]),
        ma.boltzmann_gibbs(lambda x: x[0], mu),
        ma.pushforward(lambda x: x[:1], mu),
        ma.SoftmatchKernel(ma.DotProduct(), mu)(points[0]),
        mu @ ma.SoftmatchKernel(ma.Gaussian(1.0), nu),
        ma.LookupKernel(mu, points)(points[0]),
        mu @ ma.LookupKernel(mu, points),
        ma.moment.project(mu),
        ma.AttentionKernel(ma.DotProduct(), mu, points)(points[0]),
    ):
        assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype(dtype)}
    for value in (
        mu.weights,
        ma.mean(mu),
        ma.covariance(mu),
        ma.integrate(lambda x: x[0] > 0, mu),
        ma.log_normaliser(ma.DotProduct(), mu, points[0]),
        ma.gibbs.influence(ma.DotProduct(), mu, points[0], points[1]),
        ma.gibbs.relative_entropy(mu, nu),
        ma.attention(points, points, points),
        ma.attention(points, points, points, mask=np.eye(4, dtype=bool)),
    ):
        assert value.dtype == dtype


@every_dtype
def test_gradients_have_the_dtype_of_what_is_differentiated(dtype):
    points = normal(0, 4, 3).astype(dtype)

    def energy(points, layer):
        return jnp.sum((ma.EmpiricalMeasure(points) @ layer).points)

    slope = jax.grad(energy)(points, ATTENTION)
    assert slope.dtype == dtype
    by_layer = jax.grad(energy, argnums=1)(points, ATTENTION)
    assert by_layer.value.weight.dtype == ATTENTION.value.weight.dtype


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_kept_and_right_to_its_own_rounding(dtype):
    points = normal(0, 4, 3).astype(dtype)
    out = ma.EmpiricalMeasure(points) @ ma.SelfAttention(ma.DotProduct(0.5))
    assert out.points.dtype == out.log_weights.dtype == dtype
    x = float64(points)
    error = np.abs(float64(out.points) - oracles.attention(0.5 * x @ x.T, x)).max()
    assert error <= 16 * float(jnp.finfo(dtype).eps) * np.abs(x).max()


@pytest.mark.float64
def test_arrays_of_two_dtypes_are_refused_or_brought_to_the_wider_one():
    x, y, v = normal(0, 3, 2), normal(1, 4, 2), normal(2, 4, 2)
    narrow = [a.astype(jnp.float32) for a in (x, y, v)]
    expected = oracles.attention(float64(narrow[0]) @ float64(narrow[1]).T / np.sqrt(2), v)
    for arrays in [(narrow[0], narrow[1], v), (x, narrow[1], narrow[2]), (narrow[0], y, narrow[2])]:
        try:
            out = ma.attention(*arrays)
        except ValueError as error:
            assert "float32" in str(error)  # noqa: PT017
            assert "float64" in str(error)  # noqa: PT017
            assert "promotion" not in str(error)  # noqa: PT017 - our words, not those of JAX
        else:
            np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.float64
def test_measures_of_two_dtypes_are_mixed_or_refused_in_our_words():
    mu = ma.EmpiricalMeasure(normal(0, 3, 2))
    nu = ma.EmpiricalMeasure(normal(0, 3, 2).astype(jnp.float32))
    try:
        mixed = ma.mixture([mu, nu])
    except ValueError as error:
        assert "float32" in str(error)  # noqa: PT017
        assert "promotion" not in str(error)  # noqa: PT017
    else:
        np.testing.assert_allclose(ma.mean(mixed), ma.mean(mu), atol=1e-6)
