"""What is accepted as points."""

import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn.points import state, with_state
from tests.core.closeness import assert_close, normal

DEFAULT = jnp.zeros(()).dtype


class Foreign:
    """An array of another library: nothing but the DLPack protocol."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.mark.parametrize(
    "points",
    [
        [[1, 2], [3, 4]],
        [[1.0, 2.0], [3.0, 4.0]],
        ((1, 2), (3, 4)),
        [np.array([1, 2]), np.array([3, 4])],
        np.array([[1, 2], [3, 4]]),
        np.array([[1, 2], [3, 4]], np.uint8),
        np.array([[1.0, 2.0], [3.0, 4.0]], np.float32),
        np.array([[1.0, 3.0], [2.0, 4.0]], np.float32).T,
        np.arange(1.0, 9.0, dtype=np.float32).reshape(2, 4)[:, [0, 1]] - [[0], [2]],
        jnp.array([[1, 2], [3, 4]]),
        Foreign(np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)),
    ],
    ids=lambda points: type(points).__name__,
)
def test_lists_numpy_jax_and_dlpack_arrays_are_points(points):
    mu = ma.EmpiricalMeasure(points)
    assert jnp.issubdtype(mu.points.dtype, jnp.floating)
    assert_close(mu.points, [[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint16])
def test_integer_points_are_converted_to_floats(dtype):
    mu = ma.EmpiricalMeasure(np.array([[1, 2], [3, 4]], dtype))
    assert mu.dtype == mu.points.dtype == DEFAULT


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_float_points_keep_their_dtype(dtype):
    mu = ma.EmpiricalMeasure(jnp.ones((2, 3), dtype))
    assert mu.points.dtype == mu.log_weights.dtype == mu.weights.dtype == dtype


@pytest.mark.float64
def test_a_float64_array_of_another_library_stays_float64():
    mu = ma.EmpiricalMeasure(Foreign(np.array([[1.0, 1 / 3]])))
    assert mu.dtype == jnp.float64
    assert float(mu.points[0, 1]) == 1 / 3


def test_tokens_are_made_from_lists_and_numpy_arrays():
    mu = ma.EmpiricalMeasure(ma.Token([0, 1], [[1.0, 2.0], [3.0, 4.0]]))
    nu = ma.EmpiricalMeasure(ma.Token(np.arange(2), np.array([[1.0, 2.0], [3.0, 4.0]])))
    for measure in (mu, nu):
        assert measure.size == 2
        assert_close(measure.points.position, [0.0, 1.0])
        assert_close(measure.points.state, [[1.0, 2.0], [3.0, 4.0]])


def test_pairs_of_pairs_are_points():
    inner = ma.Pair(normal(0, 3, 1), normal(1, 3, 2))
    mu = ma.EmpiricalMeasure(ma.Pair(normal(2, 3, 4), inner))
    assert (mu.size, mu.dimension) == (3, 2)


def test_the_state_of_a_pair_is_that_of_its_value():
    token = ma.Token(jnp.asarray(3.0), jnp.asarray([1.0, 2.0]))
    pair = ma.Pair(jnp.zeros(5), token)
    assert_close(state(pair), [1.0, 2.0])
    moved = with_state(pair, jnp.asarray([7.0]))
    assert_close(moved.value.state, [7.0])
    assert float(moved.value.position) == 3.0
    assert moved.key.shape == (5,)


def test_the_dtype_of_tokens_is_that_of_their_states():
    states = jnp.ones((4, 3), jnp.float32)
    mu = ma.EmpiricalMeasure(ma.Token(np.arange(4), states))
    moved = mu @ ma.SelfAttention(ma.Causal(ma.DotProduct()))
    assert mu.dtype == moved.points.state.dtype == jnp.float32
