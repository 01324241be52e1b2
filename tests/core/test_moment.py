"""Moment encodings and the moment projection."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import measattn as ma
from tests import oracles
from tests.core.closeness import assert_close, float64, normal, uniform
from tests.strategies import bounded, clouds

GEOMETRIC = ma.MomentEncoding(jnp.log, jnp.exp)
"""On the positive half line: the projection is the geometric mean."""

SIMPLEX = ma.MomentEncoding(
    lambda x: jnp.log(x[:-1]) - jnp.log(x[-1:]),
    lambda m: jax.nn.softmax(jnp.concatenate([m, jnp.zeros(1, m.dtype)])),
)
"""Log-ratios of a distribution on three letters: Aitchison's mean."""

CIRCLE = ma.MomentEncoding(
    lambda t: jnp.concatenate([jnp.cos(t), jnp.sin(t)]),
    lambda m: jnp.arctan2(m[1:], m[:1]),
)
"""An angle by its point on the circle: only Diracs have the moments of a point."""


@bounded
@given(clouds())
def test_the_projection_with_the_identity_is_the_dirac_at_the_mean(cloud):
    points, weights = cloud
    out = ma.moment.project(ma.weighted(points, weights))
    assert out.size == 1
    assert_close(out.points[0], np.average(points, axis=0, weights=weights), scale=3)


def test_the_projection_with_logarithms_is_the_dirac_at_the_geometric_mean():
    mu = ma.weighted([[1.0], [8.0]], [1, 2])
    assert_close(ma.moment.project(mu, GEOMETRIC).points, [[4.0]])


def test_the_projection_on_the_simplex_is_the_normalised_geometric_mean():
    points = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    expected = np.sqrt(points[0] * points[1])
    out = ma.moment.project(ma.EmpiricalMeasure(points), SIMPLEX)
    assert_close(out.points[0], expected / expected.sum())


@pytest.mark.parametrize(
    ("encoding", "point"),
    [(GEOMETRIC, [3.0]), (SIMPLEX, [0.2, 0.3, 0.5]), (CIRCLE, [2.5]), (None, [1.0, -1.0])],
)
def test_a_dirac_is_its_own_projection(encoding, point):
    assert_close(ma.moment.project(ma.dirac(point), encoding).points, [point])


def test_a_measure_outside_the_moment_subspace_is_refused():
    with pytest.raises(ValueError, match="outside the moment subspace"):
        ma.moment.project(ma.EmpiricalMeasure([[0.0], [1.0]]), CIRCLE)


def test_a_kernel_with_values_outside_the_moment_subspace_is_refused():
    keys = jnp.asarray([[0.0], [1.0], [2.0]])
    kernel = ma.moment_projection(ma.SoftmatchKernel(ma.DotProduct(), keys), CIRCLE)
    with pytest.raises(ValueError, match="outside the moment subspace"):
        kernel([0.3])
    with pytest.raises(RuntimeError, match="outside the moment subspace"):
        jax.block_until_ready(jax.jit(lambda x: kernel(x).points)(jnp.asarray([0.3])))


def test_the_moments_are_the_integrals_of_the_encoding():
    mu = ma.EmpiricalMeasure([[0.0], [1.0]])
    expected = [(1 + np.cos(1)) / 2, np.sin(1) / 2]
    assert_close(ma.moment.moment(CIRCLE, mu), expected)


def test_the_projection_of_softmatch_is_the_mean_of_its_rows():
    keys, x = ma.weighted(normal(0, 5, 2), uniform(1, 5)), normal(2, 2)
    kernel = ma.moment_projection(ma.SoftmatchKernel(ma.DotProduct(), keys))
    p = oracles.softmatch(float64(keys.points) @ float64(x), keys.weights)
    out = kernel(x)
    assert out.size == 1
    assert_close(out.points[0], p @ float64(keys.points))


def test_attention_with_logarithms_is_a_weighted_geometric_mean():
    keys, values = normal(0, 5, 2), uniform(1, 5, 1)
    mixed = ma.SoftmatchKernel(ma.DotProduct(), keys) @ ma.LookupKernel(keys, values)
    out = ma.moment_projection(mixed, GEOMETRIC)(normal(2, 2)).points[0]
    p = oracles.softmatch(float64(keys) @ float64(normal(2, 2)))
    assert_close(out, np.exp(p @ np.log(float64(values))))


def test_an_encoding_may_return_a_pytree():
    encoding = ma.MomentEncoding(
        lambda x: {"a": x[:1], "b": jnp.log(x[1:])},
        lambda m: jnp.concatenate([m["a"], jnp.exp(m["b"])]),
    )
    out = ma.moment.project(ma.EmpiricalMeasure([[0.0, 1.0], [2.0, 4.0]]), encoding)
    assert_close(out.points, [[1.0, 2.0]])


def test_an_encoding_sees_the_state_of_a_token():
    mu = ma.EmpiricalMeasure(ma.Token(jnp.arange(2.0), jnp.asarray([[1.0], [4.0]])))
    assert_close(ma.moment.project(mu, GEOMETRIC).points, [[2.0]])


def test_the_projection_can_be_differentiated():
    def geometric_mean(x):
        return ma.moment.project(ma.EmpiricalMeasure(x), GEOMETRIC).points[0, 0]

    slope = jax.grad(geometric_mean)(jnp.asarray([[1.0], [4.0]]))
    assert_close(slope, [[1.0], [0.25]])
