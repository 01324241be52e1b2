"""Attention against NumPy, and its invariances as a map of measures."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import measattn as ma
from tests import oracles
from tests.core.closeness import assert_close, float64, normal, uniform
from tests.core.compiled import grad
from tests.strategies import bounded, clouds

N, M, D, V = 4, 5, 3, 2
Q, K, VALUES, WEIGHTS = normal(0, N, D), normal(1, M, D), normal(2, M, V), uniform(3, M)
q, k, v, w = map(float64, (Q, K, VALUES, WEIGHTS))
A, B, C = normal(4, D, D), normal(5, D, D), normal(6, V, D)
T = ma.SelfAttention(ma.Bilinear(A, B, 0.5), C)


def self_attention(x, weights=None):
    logits = 0.5 * (x @ float64(A).T) @ (x @ float64(B).T).T
    return oracles.attention(logits, x @ float64(C).T, weights)


def test_attention_on_arrays_is_scaled_dot_product_attention_by_default():
    assert_close(ma.attention(Q, K, VALUES), oracles.attention(q @ k.T / np.sqrt(D), v))


def test_attention_on_arrays_takes_lists_and_numpy_arrays():
    got = ma.attention(q.tolist(), k, jnp.asarray(v))
    assert_close(got, oracles.attention(q @ k.T / np.sqrt(D), v))


@pytest.mark.parametrize(
    ("potential", "logits"),
    [
        (ma.DotProduct(1.0), q @ k.T),
        (ma.Gaussian(0.5), oracles.gaussian_logits(q, k, 0.5)),
        (lambda x, y: x @ A @ y, q @ float64(A) @ k.T),
    ],
    ids=["dot product", "Gaussian", "function"],
)
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_attention_on_arrays_takes_a_potential_and_weights(potential, logits, weights):
    got = ma.attention(Q, K, VALUES, potential=potential, weights=weights)
    assert_close(got, oracles.attention(logits, v, None if weights is None else w))


def test_a_mask_says_which_keys_a_query_sees():
    mask = np.random.default_rng(0).random((N, M)) < 0.5
    mask[:, 2] = True
    logits = np.where(mask, q @ k.T / np.sqrt(D), -np.inf)
    for given_mask in (mask, jnp.asarray(mask), mask.tolist()):
        assert_close(ma.attention(Q, K, VALUES, mask=given_mask), oracles.attention(logits, v))
    got = ma.attention(Q, K, VALUES, mask=mask, weights=WEIGHTS)
    assert_close(got, oracles.attention(logits, v, w))


def test_a_mask_of_the_keys_alone_holds_for_all_queries():
    mask = np.array([True, False, True, True, False])
    got = ma.attention(Q, K, VALUES, mask=mask, potential=ma.Gaussian(1.0))
    logits = np.where(mask, oracles.gaussian_logits(q, k, 1.0), -np.inf)
    assert_close(got, oracles.attention(logits, v))


def test_a_masked_attention_on_arrays_can_be_differentiated():
    mask = np.tril(np.ones((N, M), bool))

    def energy(q):
        return jnp.sum(jnp.sin(ma.attention(q, K, VALUES, mask=mask)))

    def reference(q):
        logits = np.where(mask, q @ k.T / np.sqrt(D), -1e9)
        return np.sin(oracles.attention(logits, v)).sum()

    assert_close(grad(energy)(Q), oracles.jacobian(reference, q))


def test_a_mask_in_half_precision_reads_its_own_rows():
    n = 2100  # float16 cannot count beyond 2048
    values = jnp.asarray(np.arange(n)[:, None] % 7, jnp.float16)
    zeros = jnp.zeros((n, 1), jnp.float16)
    mask = jnp.zeros((64, n), bool).at[jnp.arange(64), n - 1 - jnp.arange(64)].set(True)
    got = ma.attention(zeros[:64], zeros, values, mask=mask)
    np.testing.assert_array_equal(got, values[::-1][:64])


def test_masks_can_be_batched():
    masks = jnp.stack([jnp.ones((N, M), bool), jnp.eye(N, M, dtype=bool)])
    both = jax.vmap(lambda mask: ma.attention(Q, K, VALUES, mask=mask))(masks)
    assert_close(both[0], oracles.attention(q @ k.T / np.sqrt(D), v))
    assert_close(both[1], v[:N])


def test_the_attention_kernel_is_the_dirac_at_attention():
    kernel = ma.AttentionKernel(ma.DotProduct(), ma.weighted(K, WEIGHTS), VALUES)
    row = kernel(Q[1])
    assert row.size == 1
    assert_close(row.points[0], oracles.attention(q[1] @ k.T, v, w))
    assert_close((ma.EmpiricalMeasure(Q) @ kernel).points, oracles.attention(q @ k.T, v, w))


@bounded
@given(clouds())
def test_the_attention_kernel_is_softmatch_look_up_and_projection(cloud):
    keys = ma.weighted(*cloud)
    values = jnp.arange(1.0, keys.size + 1)[:, None]
    parts = ma.SoftmatchKernel(ma.DotProduct(), keys) @ ma.LookupKernel(keys, values)
    x = jnp.asarray([1.0, -0.5])
    whole = ma.AttentionKernel(ma.DotProduct(), keys, values)(x).points
    assert_close(whole, float64(ma.moment_projection(parts)(x).points), scale=4)


def test_self_attention_moves_each_atom_to_its_average_of_values():
    mu = ma.weighted(K, WEIGHTS)
    out = mu @ T
    assert_close(out.points, self_attention(k, w))
    assert_close(out.weights, w / w.sum())


def test_without_a_value_map_self_attention_averages_the_states():
    out = ma.EmpiricalMeasure(K) @ ma.SelfAttention(ma.DotProduct())
    assert_close(out.points, oracles.attention(k @ k.T, k))


def test_the_kernel_of_self_attention_at_a_measure_moves_any_query():
    out = T.at(ma.weighted(K, WEIGHTS))(Q[0])
    x = q[0]
    logits = 0.5 * (x @ float64(A).T) @ (k @ float64(B).T).T
    assert_close(out.points[0], oracles.attention(logits, k @ float64(C).T, w))


def test_self_attention_of_a_dirac_moves_it_by_the_value_map():
    assert_close((ma.dirac(K[0]) @ T).points[0], float64(C) @ k[0])


def test_a_value_map_is_a_matrix_an_affine_map_or_a_function():
    mu = ma.EmpiricalMeasure(K)
    bias = normal(7, V)
    affine = mu @ ma.SelfAttention(ma.DotProduct(), ma.Affine(C, bias))
    linear = mu @ ma.SelfAttention(ma.DotProduct(), C)
    assert_close(affine.points, float64(linear.points) + float64(bias))
    squares = mu @ ma.SelfAttention(ma.DotProduct(), lambda x: x**2)
    assert_close(squares.points, oracles.attention(k @ k.T, k**2))


@bounded
@given(clouds(sizes=(4,)), clouds())
def test_cross_attention_reads_keys_and_values_off_the_memory(queries, memory):
    mu, nu = ma.weighted(*queries), ma.weighted(*memory)
    out = mu @ ma.CrossAttention(ma.DotProduct(), lambda y: y**3, nu)
    expected = oracles.attention(queries[0] @ memory[0].T, memory[0] ** 3, memory[1])
    assert_close(out.points, expected, scale=27)
    assert_close(out.weights, float64(mu.weights))


def network(seed):
    return eqx.nn.MLP(D, V, 4, 1, key=jax.random.key(seed))


def test_a_network_may_be_a_value_map_and_be_trained():
    mu = ma.weighted(K, WEIGHTS)

    def energy(layer):
        return jnp.sum(jnp.sin((mu @ layer).points))

    layer = ma.SelfAttention(ma.DotProduct(), network(0))
    values = float64(jax.vmap(network(0))(K))
    assert_close((mu @ layer).points, oracles.attention(k @ k.T, values, w))
    slope = eqx.filter_grad(energy)(layer).value.layers[-1].bias
    # a constant added to all values is added to the output
    assert_close(slope, np.cos(oracles.attention(k @ k.T, values, w)).sum(0))


def test_heads_may_hold_networks():
    mu = ma.weighted(K, WEIGHTS)
    heads = [ma.SelfAttention(ma.DotProduct(), network(h)) for h in (0, 1)]
    joined = np.concatenate([float64((mu @ head).points) for head in heads], axis=1)
    assert_close((mu @ ma.MultiHead(heads)).points, joined)


def test_a_memory_may_be_given_as_points():
    got = ma.EmpiricalMeasure(Q) @ ma.CrossAttention(ma.DotProduct(), None, K)
    assert_close(got.points, oracles.attention(q @ k.T, k))


def test_attention_on_arrays_is_batched_by_vmap():
    batch = [jnp.stack([a, -a]) for a in (Q, K, VALUES)]
    got = jax.vmap(ma.attention)(*batch)
    assert_close(got[1], -oracles.attention(q @ k.T / np.sqrt(D), v))


def test_several_heads_are_the_output_map_of_the_heads_side_by_side():
    heads = [
        ma.SelfAttention(
            ma.Bilinear(normal(h, 2, D), normal(h + 9, 2, D), 0.7), normal(h + 20, V, D)
        )
        for h in range(3)
    ]
    output, mu = normal(30, D, 3 * V), ma.weighted(K, WEIGHTS)
    joined = np.concatenate([float64((mu @ head).points) for head in heads], axis=1)
    assert_close((mu @ ma.MultiHead(heads)).points, joined)
    assert_close((mu @ ma.MultiHead(heads, output)).points, joined @ float64(output).T)


@pytest.mark.parametrize("potential", [ma.Gaussian(0.8), ma.Causal(ma.DotProduct(0.3))], ids=repr)
def test_several_heads_of_one_head_are_that_head(potential):
    mu = ma.EmpiricalMeasure(ma.Token(jnp.arange(float(M)), K))
    head = ma.SelfAttention(potential, C)
    got = mu @ ma.MultiHead([head])
    assert_close(got.points.state, float64((mu @ head).points.state))


def test_several_cross_attention_heads_share_a_memory():
    memory = ma.weighted(K, WEIGHTS)
    heads = [ma.CrossAttention(ma.DotProduct(s), None, memory) for s in (0.5, 1.0)]
    got = (ma.EmpiricalMeasure(Q) @ ma.MultiHead(heads)).points
    expected = [oracles.attention(s * q @ k.T, k, w) for s in (0.5, 1.0)]
    assert_close(got, np.concatenate(expected, axis=1))


def test_causal_self_attention_looks_at_no_later_position():
    positions = jnp.asarray([3.0, 0.0, 1.0, 4.0, 2.0])
    mu = ma.EmpiricalMeasure(ma.Token(positions, K), jnp.log(WEIGHTS))
    out = mu @ ma.SelfAttention(ma.Causal(ma.DotProduct()), C)
    seen = float64(positions)[None, :] <= float64(positions)[:, None]
    logits = np.where(seen, k @ k.T, -np.inf)
    assert_close(out.points.state, oracles.attention(logits, k @ float64(C).T, w))
    np.testing.assert_array_equal(out.points.position, positions)


def test_a_causal_stack_does_not_see_a_change_of_the_future():
    layer = ma.SelfAttention(
        ma.Causal(ma.Rotary(normal(8, 4, D), normal(9, 4, D))), normal(7, D, D)
    )
    stack = ma.Stack([ma.Residual(layer), ma.LayerNorm(), ma.Residual(layer)])
    positions = jnp.arange(float(M))
    before = ma.EmpiricalMeasure(ma.Token(positions, K)) @ stack
    after = ma.EmpiricalMeasure(ma.Token(positions, K.at[3:].add(1.0))) @ stack
    assert_close(after.points.state[:3], float64(before.points.state[:3]))
    assert float(jnp.abs(after.points.state[3:] - before.points.state[3:]).max()) > 0.1


def test_rotary_attention_does_not_change_when_all_positions_are_shifted():
    layer = ma.SelfAttention(ma.Causal(ma.Rotary(normal(8, 4, D), normal(9, 4, D))))
    near, far = (
        (ma.EmpiricalMeasure(ma.Token(jnp.arange(float(M)) + shift, K)) @ layer).points.state
        for shift in (0.0, 50.0)
    )
    assert_close(far, float64(near), scale=100)


BLOCK = ma.Stack([ma.Residual(ma.SelfAttention(ma.Gaussian(0.9), normal(7, D, D))), ma.LayerNorm()])


def test_self_attention_is_equivariant_under_permutations():
    order = np.array([3, 0, 4, 1, 2])
    mu, shuffled = ma.weighted(K, WEIGHTS), ma.weighted(K[order], WEIGHTS[order])
    assert_close((shuffled @ BLOCK).points, float64((mu @ BLOCK).points)[order])


def test_splitting_an_atom_changes_nothing():
    twice = jnp.concatenate([K, K[2:3]])
    shares = jnp.concatenate([WEIGHTS.at[2].mul(0.3), 0.7 * WEIGHTS[2:3]])
    split = ma.weighted(twice, shares) @ BLOCK
    whole = ma.weighted(K, WEIGHTS) @ BLOCK
    assert_close(split.points, float64(jnp.concatenate([whole.points, whole.points[2:3]])))


def test_merging_equal_atoms_commutes_with_attention():
    repeated = jnp.concatenate([K, K, K[:1]])
    after = ma.compact(ma.EmpiricalMeasure(repeated)) @ BLOCK
    whole = ma.EmpiricalMeasure(repeated) @ BLOCK
    assert_close(ma.mean(after), float64(ma.mean(whole)))
    assert_close(after.points, float64(whole.points[:M]))


def test_atoms_without_mass_are_not_seen_by_the_others():
    joined = jnp.concatenate([K, 100 + Q])
    out = ma.weighted(joined, jnp.concatenate([WEIGHTS, jnp.zeros(N)])) @ T
    assert_close(out.points[:M], self_attention(k, w))
    assert bool(jnp.all(jnp.isfinite(out.points)))


def test_a_common_shift_of_the_points_shifts_gaussian_attention():
    layer = ma.SelfAttention(ma.Gaussian(0.7))
    moved = ma.EmpiricalMeasure(K + 2) @ layer
    assert_close(moved.points, float64((ma.EmpiricalMeasure(K) @ layer).points) + 2)


@pytest.mark.parametrize("sigma", [0.7])
def test_attention_of_a_normal_law_is_the_closed_form(sigma):
    # F5: a quadrature of N(b, LLᵀ) stands for the normal law
    b, factor, x = np.array([0.2, -0.1]), np.array([[1.0, 0.0], [0.4, 0.7]]), np.array([0.5, -1.0])
    matrix, value = np.array([[0.3, 0.1], [-0.2, 0.25]]), np.array([[1.0, 0.5], [0.0, 0.8]])
    mu = ma.weighted(*oracles.gauss_hermite(b, factor, 24))
    x = jnp.asarray(x)
    dot = ma.SelfAttention(ma.Bilinear(matrix, np.eye(2)), value)
    assert_close(dot.at(mu)(x).points[0], [-0.04375, -0.246])
    covariance = factor @ factor.T
    gaussian = ma.SelfAttention(ma.Gaussian(3.0)).at(mu)(x).points[0]
    gain = covariance @ np.linalg.inv(covariance + 9.0 * np.eye(2))
    np.testing.assert_allclose(gaussian, b + gain @ (float64(x) - b), rtol=1e-5)


def test_heads_may_hold_modules_with_leaves_that_are_no_arrays():
    heads = [
        ma.SelfAttention(ma.DotProduct(0.5), eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(i)))
        for i in range(2)
    ]
    mu = ma.EmpiricalMeasure(normal(0, 5, 3))
    joined = (mu @ ma.MultiHead(heads)).points
    apart = jnp.concatenate([(mu @ head).points for head in heads], axis=1)
    assert_close(joined, apart)


def test_cross_attention_takes_an_array_as_memory():
    x, y = normal(0, 5, 3), normal(1, 7, 3)
    mu = ma.EmpiricalMeasure(x)
    array = mu @ ma.CrossAttention(ma.DotProduct(0.5), None, y)
    law = mu @ ma.CrossAttention(ma.DotProduct(0.5), None, ma.EmpiricalMeasure(y))
    assert_close(array.points, law.points)


def test_a_function_of_one_point_is_refused_where_blocks_are_averaged():
    kernel = ma.SoftmatchKernel(ma.DotProduct(), normal(0, 7, 3))
    with pytest.raises(ValueError, match="one value for each of 7 keys"):
        kernel.average(lambda p: p[0], normal(1, 5, 3))
