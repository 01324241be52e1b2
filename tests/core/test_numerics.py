"""Right values and finite derivatives where floating point is tempted to fail."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from tests import oracles
from tests.core.closeness import X64, assert_close, float64, normal
from tests.core.compiled import grad, jacfwd, jacrev

TAIL = 4.248354255291589e-18
"""e^-40 / (1 + e^-40)^2, the derivative of the softmax at logits (40, 0) in all entries."""
SIGNS = np.array([[1.0, -1.0], [-1.0, 1.0]])
DEEP, DEEP_TAIL = (40.0, TAIL) if X64 else (20.0, float(np.exp(-20.0) / (1 + np.exp(-20.0)) ** 2))
"""In float32 the same happens at (20, 0): e^-20 is below half a rounding of 1."""


def tilt(logits):
    mu = ma.EmpiricalMeasure(jnp.eye(2, dtype=logits.dtype))
    return ma.boltzmann_gibbs(lambda x: jnp.dot(x, logits), mu).weights


def attend(logits):
    one = jnp.ones((1, 1), logits.dtype)
    eye = jnp.eye(2, dtype=logits.dtype)
    return ma.attention(one, logits[:, None], eye, potential=ma.DotProduct(1.0))[0]


def layer(logits):
    keys = ma.pairs(logits[:, None], jnp.eye(2, dtype=logits.dtype))
    kernel = ma.AttentionKernel(ma.DotProduct(), keys.points.key, keys.points.value)
    return kernel(jnp.ones(1, logits.dtype)).points[0]


def softmatch(logits):
    kernel = ma.SoftmatchKernel(ma.DotProduct(), ma.EmpiricalMeasure(logits[:, None]))
    return kernel(jnp.ones(1, logits.dtype)).weights


def by_weights(logits):
    return ma.mean(ma.EmpiricalMeasure(jnp.eye(2, dtype=logits.dtype), logits))


@pytest.mark.parametrize("mode", [jacfwd, jacrev])
@pytest.mark.parametrize("f", [tilt, attend, layer, softmatch, by_weights])
def test_the_derivative_keeps_its_tail(f, mode):
    got = mode(f)(jnp.asarray([DEEP, 0.0]))
    assert_close(got, DEEP_TAIL * SIGNS)


@pytest.mark.parametrize("mode", [jacfwd, jacrev])
def test_the_derivative_of_the_log_weights_keeps_its_tail(mode):
    small = float(np.exp(-DEEP) / (1 + np.exp(-DEEP)))
    got = mode(lambda a: ma.EmpiricalMeasure(jnp.eye(2), a).log_weights)(jnp.asarray([DEEP, 0.0]))
    assert_close(got[0], [small, -small])
    assert_close(got[1], [small - 1, 1 - small])


@pytest.mark.float64
@pytest.mark.parametrize("mode", [jacfwd, jacrev])
@pytest.mark.parametrize("f", [tilt, attend])
def test_the_tail_at_forty_is_right_to_the_last_digits(f, mode):
    got = mode(f)(jnp.asarray([40.0, 0.0]))
    np.testing.assert_allclose(got, TAIL * SIGNS, rtol=8 * np.finfo(float).eps)


@pytest.mark.float64
def test_a_textbook_softmax_loses_the_tail():
    got = jacrev(jax.nn.softmax)(jnp.asarray([40.0, 0.0]))
    assert np.abs(np.asarray(got) - TAIL * SIGNS).max() > 0.1 * TAIL


@pytest.mark.parametrize("order", [[40.0, 0.0, 39.0], [0.0, 40.0, 40.0]])
def test_the_tail_of_several_logits_is_that_of_a_complex_step(order):
    logits = jnp.asarray(order) / (1 if X64 else 2)
    p = oracles.softmax(float64(logits))
    expected = p[:, None] * (np.eye(3) - p[None, :])
    # no cancellation in the diagonal: 1 - p_i is the sum of the others
    np.fill_diagonal(expected, p * [p[1] + p[2], p[0] + p[2], p[0] + p[1]])
    got = float64(jacrev(lambda a: tilt3(a))(logits))
    eps = float(jnp.finfo(logits.dtype).eps)
    np.testing.assert_allclose(got, expected, rtol=512 * eps)


def tilt3(logits):
    mu = ma.EmpiricalMeasure(jnp.eye(3, dtype=logits.dtype))
    return ma.boltzmann_gibbs(lambda x: jnp.dot(x, logits), mu).weights


SCALE = 1e4
LARGE = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]])


@pytest.mark.parametrize(("sign", "mode"), [(1.0, jacfwd), (-1.0, jacrev)])
def test_logits_of_ten_thousand_give_the_limit_and_finite_derivatives(sign, mode):
    def push(points, scale):
        return (ma.EmpiricalMeasure(points) @ ma.SelfAttention(ma.DotProduct(scale))).points

    logits = sign * SCALE * float64(LARGE) @ float64(LARGE).T
    assert_close(push(LARGE, sign * SCALE), oracles.attention(logits, LARGE))
    by_points, by_scale = mode(push, argnums=(0, 1))(LARGE, jnp.asarray(sign * SCALE))
    assert_close(by_scale, np.zeros((4, 2)), scale=1)
    expected = oracles.jacobian(
        lambda x: oracles.attention(sign * SCALE * x @ x.T, x), float64(LARGE)
    )
    assert_close(by_points, expected)


@pytest.mark.parametrize("constant", [1e4, -1e4])
def test_a_constant_of_ten_thousand_in_the_logits_changes_nothing(constant):
    x, y = normal(0, 3, 2), normal(1, 4, 2)
    got = ma.attention(x, y, y, potential=lambda x, y: x @ y + constant)
    assert_close(got, oracles.attention(float64(x) @ float64(y).T, y), scale=1e4)


def test_weights_of_1e_300_are_normalised():
    mu = ma.weighted(normal(0, 3, 2), [1e-300, 1e-300, 2e-300])
    assert_close(mu.weights, [0.25, 0.25, 0.5], scale=690)


def test_a_weight_of_1e_300_beside_one_keeps_its_logarithm():
    mu = ma.weighted(normal(0, 2, 2), [1.0, 1e-300])
    assert_close(mu.log_weights, [0.0, np.log(1e-300)])


def test_a_weight_of_1e_300_is_seen_where_the_logits_make_up_for_it():
    keys = ma.weighted([[0.0], [1.0]], [1.0, 1e-300])
    kernel = ma.AttentionKernel(ma.DotProduct(), keys, [[0.0], [1.0]])
    query = jnp.asarray([-np.log(1e-300)])
    share = 1 / (1 + np.exp(-(float(query[0]) + np.log(1e-300))))
    assert_close(kernel(query).points[0], [share], scale=690)
    slope = grad(lambda q: kernel(q).points[0, 0])(query)
    assert_close(slope, [share * (1 - share)], scale=690)


@pytest.mark.parametrize(
    "potential",
    [ma.DotProduct(), ma.Gaussian(0.5), ma.Additive(np.eye(1), np.eye(1), [1.0])],
    ids=["dot product", "Gaussian", "additive"],
)
def test_one_atom_in_dimension_one_stays_with_the_identity_jacobian(potential):
    layer = ma.SelfAttention(potential)

    def push(x):
        return (ma.EmpiricalMeasure(x) @ layer).points

    x = jnp.asarray([[0.7]])
    assert_close(push(x), [[0.7]])
    assert_close(jacrev(push)(x), np.ones((1, 1, 1, 1)))
    assert_close(jacfwd(push)(x), np.ones((1, 1, 1, 1)))


@pytest.mark.parametrize("potential", [ma.DotProduct(), ma.Gaussian(0.5)], ids=["dot", "L2"])
@pytest.mark.parametrize("point", [0.0, 3.0])
def test_coincident_atoms_move_together_with_finite_derivatives(potential, point):
    layer = ma.SelfAttention(potential)

    def push(x):
        return (ma.weighted(x, [1.0, 2.0, 0.0]) @ layer).points

    x = jnp.full((3, 2), point)
    assert_close(push(x), np.full((3, 2), point), scale=1)
    expected = np.einsum("ij,ab->iajb", np.ones((3, 1)) * [1 / 3, 2 / 3, 0], np.eye(2))
    got = jacrev(push)(x)
    # the atom without mass moves no other, but it is moved by its own query
    assert_close(got[:, :, :2], expected[:, :, :2], scale=10)
    assert np.isfinite(got).all()


def test_zero_masses_get_finite_derivatives_and_give_none_to_others():
    x, y = normal(0, 3, 2), normal(1, 4, 2)

    def energy(y):
        keys = ma.weighted(y, [1.0, 0.0, 2.0, 0.0])
        return jnp.sum(jnp.sin(ma.AttentionKernel(ma.Gaussian(0.7), keys, y).send(x)))

    slope = grad(energy)(y)
    np.testing.assert_array_equal(slope[jnp.array([1, 3])], 0)
    kept = grad(
        lambda y: jnp.sum(
            jnp.sin(ma.AttentionKernel(ma.Gaussian(0.7), ma.weighted(y, [1.0, 2.0]), y).send(x))
        )
    )(y[jnp.array([0, 2])])
    assert_close(slope[jnp.array([0, 2])], float64(kept))


def test_a_massless_atom_where_the_potential_is_huge_changes_nothing():
    keys = ma.weighted([[1.0], [2.0], [1e4]], [1, 1, 0])
    out = ma.AttentionKernel(ma.DotProduct(), keys, [[1.0], [2.0], [3.0]])([1e4])
    assert_close(out.points, [[2.0]])


def test_a_mask_that_leaves_one_atom_gives_its_value_and_finite_derivatives():
    mask = np.eye(3, dtype=bool)
    q, k, v = normal(0, 3, 2), normal(1, 3, 2), normal(2, 3, 2)

    def attend(q, k, v):
        return ma.attention(q, k, v, mask=mask)

    assert_close(attend(q, k, v), float64(v))
    for mode in (jacfwd, jacrev):
        by_q, by_k, by_v = mode(attend, argnums=(0, 1, 2))(q, k, v)
        np.testing.assert_array_equal(by_q, 0)
        np.testing.assert_array_equal(by_k, 0)
        assert_close(by_v, np.einsum("ij,ab->iajb", np.eye(3), np.eye(2)))


@pytest.mark.parametrize("kind", ["lambda", "Masked"])
@pytest.mark.parametrize("jit", [True, False])
def test_a_blind_query_without_mass_has_a_finite_value_and_no_derivative(kind, jit):
    if kind == "lambda":
        potential = ma.Interaction(lambda x, y: jnp.where(x[0] > 50, -jnp.inf, x @ y))
    else:
        potential = ma.Masked(ma.DotProduct(), lambda x, y: x[0] < 50)
    points = normal(0, 4, 2).at[3, 0].set(100.0)

    def push(x):
        return (ma.weighted(x, [1, 2, 3, 0]) @ ma.SelfAttention(potential)).points

    def energy(x):
        return jnp.sum(jnp.sin(push(x)))

    value = (jax.jit(push) if jit else push)(points)
    slope = (grad(energy) if jit else jax.grad(energy))(points)
    assert np.isfinite(value).all()
    assert np.isfinite(slope).all()
    np.testing.assert_array_equal(slope[3], 0)
    alone = float64(points)[:3]
    assert_close(value[:3], oracles.attention(alone @ alone.T, alone, [1, 2, 3]))


def test_a_row_that_underflows_without_a_mask_is_not_turned_into_zeros_silently():
    y = normal(0, 3, 2).astype(jnp.float32)
    out = None
    try:
        out = ma.attention(y + 1, y, y, potential=ma.Gaussian(1e-25))
    except (ValueError, RuntimeError):
        return
    assert np.isnan(out).all()


@pytest.mark.parametrize("d", [1, 2])
def test_extreme_points_keep_attention_inside_the_hull_of_the_values(d):
    x = 1e6 * normal(3, 6, d)
    out = (ma.EmpiricalMeasure(x) @ ma.SelfAttention(ma.DotProduct())).points
    low, high = float64(x).min(0), float64(x).max(0)
    assert np.all((float64(out) >= low - 1) & (float64(out) <= high + 1))
