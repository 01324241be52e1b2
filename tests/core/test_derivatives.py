"""Derivatives of attention against closed forms: B7 of the theory, and complex steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from tests import oracles
from tests.core.closeness import assert_close, float64, normal, uniform
from tests.core.compiled import grad, hessian, jacfwd, jacrev

M, D, V = 5, 3, 2
X, Y, W = normal(0, D), normal(1, M, D), uniform(2, M)
A, VALUE = normal(3, D, D), normal(4, V, D)
x, y, w, a, v = map(float64, (X, Y, W, A, VALUE))
NU = ma.weighted(Y, W)
P = oracles.softmatch(x @ a @ y.T, w)
"""Weights of the potential ⟨x, Ay⟩ at x."""


def output(potential, x, keys=NU):
    return ma.SelfAttention(potential, VALUE).at(keys)(x).points[0]


def bilinear(x, y):
    return x @ A @ y


@pytest.mark.parametrize("mode", [jacfwd, jacrev])
def test_the_derivative_in_the_query_is_the_covariance_of_the_keys(mode):
    got = mode(lambda x: output(bilinear, x))(X)
    assert_close(got, v @ oracles.covariance(y, P) @ a.T)


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_the_derivative_of_gaussian_attention_in_the_query_is_the_scaled_covariance(sigma):
    p = oracles.softmatch(oracles.gaussian_logits(x[None], y, sigma)[0], w)
    got = jacrev(lambda x: output(ma.Gaussian(sigma), x))(X)
    assert_close(got, v @ oracles.covariance(y, p) / sigma**2)


def test_the_derivative_in_a_key_is_the_wasserstein_derivative_times_its_weight():
    got = jacrev(lambda keys: output(bilinear, X, ma.weighted(keys, W)))(Y)
    centred = y - P @ y
    for j in range(M):
        expected = P[j] * v @ (np.eye(D) + np.outer(centred[j], a.T @ x))
        assert_close(got[:, j], expected, scale=1)


def test_the_derivative_in_the_matrix_of_the_score_is_a_covariance():
    got = jacrev(lambda a: output(lambda x, y: x @ a @ y, X))(A)
    expected = np.einsum("ve,ed,c->vcd", v, oracles.covariance(y, P), x)
    assert_close(got, expected)


def test_the_derivative_in_the_inverse_temperature_is_the_covariance_with_the_score():
    p = oracles.softmatch(0.6 * y @ x, w)
    expected = v @ oracles.covariance(y, p, (y @ x)[:, None])[:, 0]
    assert_close(jacfwd(lambda s: output(ma.DotProduct(s), X))(0.6), expected)
    assert_close(jacrev(lambda s: output(ma.DotProduct(s), X))(0.6), expected)


def test_the_derivative_in_the_bandwidth_is_that_of_a_complex_step():
    def reference(sigma):
        logits = -((x - y) ** 2).sum(-1) / (2 * sigma**2)
        return oracles.softmatch(logits, w) @ y @ v.T

    got = jacrev(lambda s: output(ma.Gaussian(s), X))(0.8)
    assert_close(got, oracles.directional(reference, 0.8, 1.0))


def test_the_second_derivative_in_the_query_is_the_third_cumulant():
    got = hessian(lambda x: ma.SelfAttention(ma.DotProduct()).at(NU)(x).points[0])(X)
    p = oracles.softmatch(y @ x, w)
    centred = y - p @ y
    assert_close(got, np.einsum("j,ja,jb,jc->abc", p, centred, centred, centred), scale=5)


def test_derivatives_in_the_log_weights_are_centred_and_sum_to_zero():
    def f(log_weights):
        return output(bilinear, X, ma.EmpiricalMeasure(Y, log_weights))

    got = jacrev(f)(jnp.log(W))
    assert_close(got, (P[:, None] * (y - P @ y) @ v.T).T)
    assert_close(jnp.sum(got, axis=1), np.zeros(V), scale=1)


def test_derivatives_in_the_weights_are_those_of_the_normalised_law():
    got = jacrev(lambda w: output(bilinear, X, ma.weighted(Y, w)))(W)
    assert_close(got, (P[:, None] / w[:, None] * (y - P @ y) @ v.T).T)


def test_the_gradient_in_the_scores_is_reversed_attention():
    # scores S = q kᵀ with k the identity
    scores, values, upstream = normal(5, 4, M), normal(6, M, V), normal(7, 4, V)

    def attend(s):
        keys = jnp.eye(M, dtype=s.dtype)
        return ma.attention(s, keys, values, potential=ma.DotProduct(1.0))

    gradient = jax.vjp(attend, scores)[1](upstream)[0]
    p = oracles.softmax(float64(scores))
    out = p @ float64(values)
    delta = float64(upstream)
    expected = p * (delta @ float64(values).T - (delta * out).sum(1, keepdims=True))
    assert_close(gradient, expected)
    assert_close(jnp.sum(gradient, axis=1), np.zeros(4), scale=1)


def test_tweedie_gaussian_attention_is_a_step_up_the_smoothed_log_density():
    sigma = 0.7
    score = grad(lambda x: ma.log_normaliser(ma.Gaussian(sigma), NU, x))(X)
    moved = ma.SelfAttention(ma.Gaussian(sigma)).at(NU)(X).points[0]
    assert_close(moved, x + sigma**2 * float64(score), scale=3)


@pytest.mark.parametrize("potential", [ma.DotProduct(0.5), ma.Gaussian(0.8)], ids=["dot", "L2"])
def test_at_a_consensus_the_jacobian_of_self_attention_is_the_mean_times_the_value_map(potential):
    n, value = 4, normal(8, D, D)
    layer = ma.SelfAttention(potential, value)

    def push(points):
        return (ma.EmpiricalMeasure(points) @ layer).points

    got = jacrev(push)(jnp.broadcast_to(X, (n, D)))
    expected = np.einsum("ij,ab->iajb", np.full((n, n), 1 / n), float64(value))
    assert_close(got, expected, scale=10)


def test_the_jacobian_of_self_attention_is_that_of_a_complex_step():
    def reference(points):
        return oracles.attention(points @ a @ points.T, points, w) @ v.T

    def push(points):
        return (ma.weighted(points, W) @ ma.SelfAttention(bilinear, VALUE)).points

    assert_close(jacrev(push)(Y), oracles.jacobian(reference, y))
    assert_close(jacfwd(push)(Y), oracles.jacobian(reference, y))


def test_the_weights_after_softmatch_can_be_differentiated():
    def f(queries):
        return (ma.EmpiricalMeasure(queries) @ ma.SoftmatchKernel(ma.DotProduct(), NU)).weights

    def reference(queries):
        return oracles.softmatch(queries @ y.T, w).mean(0)

    queries = normal(9, 4, D)
    got = jacrev(f)(queries)
    assert_close(got, oracles.jacobian(reference, float64(queries)))
    assert_close(jnp.sum(got, axis=0), np.zeros((4, D)), scale=1)


def test_the_gradient_of_a_whole_measure_is_a_measure_of_gradients():
    def energy(mu):
        return jnp.sum(jnp.sin((mu @ ma.SelfAttention(bilinear, VALUE)).points))

    slope = grad(energy)(NU)
    by_parts = grad(lambda y, l: energy(ma.EmpiricalMeasure(y, l)), argnums=(0, 1))
    points, log_weights = by_parts(NU.points, NU.log_weights)
    assert_close(slope.points, float64(points))
    assert_close(slope.log_weights, float64(log_weights), scale=1)


def test_the_gradient_of_a_whole_layer_is_a_layer_of_gradients():
    layer = ma.Residual(ma.SelfAttention(ma.Bilinear(A, jnp.eye(D), 0.5), normal(8, D, D)))

    def energy(layer):
        return jnp.sum(jnp.sin((NU @ layer).points))

    slope = grad(energy)(layer)

    def reference(matrix):
        logits = 0.5 * y @ matrix.T @ y.T
        return np.sin(y + oracles.attention(logits, y @ float64(normal(8, D, D)).T, w)).sum()

    got = slope.layer.potential.query.weight
    assert_close(got, oracles.jacobian(reference, a))


def test_layers_can_be_scanned_over_and_differentiated():
    scales = jnp.asarray([0.1, 0.2, 0.3])
    layers = jax.vmap(lambda s: ma.SelfAttention(ma.DotProduct(s)))(scales)

    def energy(layers):
        last, _ = jax.lax.scan(lambda mu, layer: (mu @ layer, None), NU, layers)
        return jnp.sum(jnp.sin(ma.mean(last)))

    def unrolled(scales):
        stack = ma.Stack(ma.SelfAttention(ma.DotProduct(s)) for s in scales)
        return jnp.sum(jnp.sin(ma.mean(NU @ stack)))

    assert_close(grad(energy)(layers).potential.scale, float64(grad(unrolled)(scales)))


def test_potentials_can_be_batched_over_their_bandwidth():
    sigmas = jnp.asarray([0.3, 0.8, 2.0])
    together = jax.vmap(lambda s: output(ma.Gaussian(s), X))(sigmas)
    for sigma, got in zip(sigmas, together, strict=True):
        assert_close(got, float64(output(ma.Gaussian(float(sigma)), X)))


def test_masks_and_causality_pass_through_derivatives():
    positions = jnp.arange(float(M))
    layer = ma.SelfAttention(ma.Causal(lambda x, y: x.state @ A @ y.state), VALUE)

    def push(states):
        return (ma.EmpiricalMeasure(ma.Token(positions, states)) @ layer).points.state

    seen = np.tril(np.ones((M, M), bool))
    got = jacrev(push)(Y)

    def reference(states):
        scores = states @ a @ states.T
        return oracles.softmax(np.where(seen, scores, -1e300)) @ states @ v.T

    assert_close(got, oracles.jacobian(reference, y))
    np.testing.assert_array_equal(got[0, :, 1:], 0)


def test_several_heads_are_differentiated_together():
    heads = [ma.SelfAttention(ma.Bilinear(normal(h, 2, D), normal(h + 3, 2, D))) for h in (10, 11)]
    output_map = normal(20, D, 2 * D)

    def reference(points):
        outs = [
            oracles.attention(
                (points @ float64(normal(h, 2, D)).T) @ (points @ float64(normal(h + 3, 2, D)).T).T,
                points,
            )
            for h in (10, 11)
        ]
        return np.concatenate(outs, axis=1) @ float64(output_map).T

    layer = ma.MultiHead(heads, output_map)
    got = jacrev(lambda points: (ma.EmpiricalMeasure(points) @ layer).points)(Y)
    assert_close(got, oracles.jacobian(reference, y))
