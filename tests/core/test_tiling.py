"""The streamed softmax: the same numbers whatever the tiles, in all modes of differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn import tiling
from tests import oracles
from tests.core.closeness import X64, assert_close, float64, normal, uniform
from tests.core.compiled import grad, jacfwd

N, M, D = 7, 11, 3
X, Y, VALUES, WEIGHTS = normal(0, N, D), normal(1, M, D), normal(2, M, 2), uniform(3, M)
A = normal(4, D, D)
TILES = [(1, 1), (3, 4), (7, 11), (2, 100)]
"""One by one, no divisors of the sizes, the whole, and more columns than there are."""


@pytest.fixture(params=TILES, ids=str)
def tiles(request, monkeypatch):
    monkeypatch.setattr(tiling, "TILES", {jax.default_backend(): request.param})
    return request.param


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(tiling, "TILES", {jax.default_backend(): (3, 4)})


def streamed(x, y, log_w, v, matrix):
    return tiling.softmax_mean(lambda x, y: x @ matrix @ y.T, x, y, log_w, v)


def dense(x, y, log_w, v, matrix):
    logits = x @ matrix @ y.T + log_w[None, :]
    return jax.nn.softmax(logits, axis=1) @ v, jax.scipy.special.logsumexp(logits, axis=1)


ARGUMENTS = (X, Y, jnp.log(WEIGHTS), VALUES, A)
DIRECTIONS = tuple(normal(10 + k, *np.shape(a)) for k, a in enumerate(ARGUMENTS))


def test_means_and_normalisers_do_not_depend_on_the_tiles(tiles):
    mean, log_z = streamed(*ARGUMENTS)
    logits = float64(X) @ float64(A) @ float64(Y).T
    assert_close(mean, oracles.attention(logits, VALUES, WEIGHTS))
    total = float64(WEIGHTS).sum()
    assert_close(log_z, oracles.log_normaliser(logits, WEIGHTS) + np.log(total))


def test_the_score_never_sees_more_than_a_tile(tiles):
    seen = set()

    def score(x, y):
        seen.add((len(x), len(y)))
        return x @ y.T

    def energy(x):
        return tiling.softmax_mean(score, x, Y, jnp.log(WEIGHTS), VALUES)[0].sum()

    jax.make_jaxpr(jax.grad(energy))(X)
    assert max(rows for rows, _ in seen) == min(tiles[0], N)
    assert max(columns for _, columns in seen) == min(tiles[1], M)


@pytest.mark.parametrize("tiles", [(3, 4), (2, 100)], ids=str, indirect=True)
def test_derivatives_do_not_depend_on_the_tiles(tiles):
    def both(f):
        tangent = jax.jvp(f, ARGUMENTS, DIRECTIONS)[1]
        value, pull = jax.vjp(f, *ARGUMENTS)
        return tangent, pull(tuple(jnp.cos(v) for v in value))

    got, expected = jax.jit(lambda: both(streamed))(), jax.jit(lambda: both(dense))()
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert_close(a, float64(b), scale=max(1, float(jnp.abs(b).max())))


def energy(f):
    def of(*arguments):
        mean, log_z = f(*arguments)
        return jnp.sum(jnp.sin(mean)) + jnp.sum(jnp.cos(log_z))

    return of


@pytest.mark.parametrize("large", [0, 1, 2])
def test_the_tail_of_the_derivative_survives_wherever_the_largest_logit_is(monkeypatch, large):
    monkeypatch.setattr(tiling, "TILES", {jax.default_backend(): (1, 1)})
    depth = 40.0 if X64 else 20.0
    logits = jnp.zeros(3).at[large].set(depth)

    def weights(logits):
        one = jnp.ones((1, 1))
        return streamed(one, logits[:, None], jnp.zeros(3), jnp.eye(3), jnp.ones((1, 1)))[0][0]

    small = float(np.exp(-depth) / (1 + 2 * np.exp(-depth)))
    got = float64(jax.jit(jax.jacrev(weights))(logits))[large]
    expected = np.full(3, -small * (1 - 2 * small))
    expected[large] = 2 * small * (1 - 2 * small)
    assert_close(jnp.asarray(got), expected)


@pytest.mark.parametrize("argument", [0, 4], ids=["queries", "closure"])
def test_hessians_are_those_of_the_dense_softmax(small_tiles, argument):
    def hessian(f):
        def of_one(a):
            arguments = [*ARGUMENTS[:argument], a, *ARGUMENTS[argument + 1 :]]
            return energy(f)(*arguments)

        return jax.jit(jax.hessian(of_one))(ARGUMENTS[argument])

    expected = float64(hessian(dense))
    assert_close(hessian(streamed), expected, scale=max(1, np.abs(expected).max()))


def test_forward_over_reverse_over_all_arguments_is_that_of_the_dense_softmax(small_tiles):
    def second(f):
        gradient = jax.grad(energy(f), argnums=tuple(range(5)))
        return jax.jit(lambda: jax.jvp(gradient, ARGUMENTS, DIRECTIONS)[1])()

    for a, b in zip(second(streamed), second(dense), strict=True):
        assert_close(a, float64(b), scale=max(1, float(jnp.abs(b).max())))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["reverse over reverse", "reverse over forward"])
def test_reverse_mode_over_either_mode_is_forward_over_reverse(small_tiles, mode):
    u = DIRECTIONS[0]

    def of(x):
        return energy(streamed)(x, *ARGUMENTS[1:])

    def slope(x):
        if mode == "reverse over reverse":
            return jnp.vdot(jax.grad(of)(x), u)
        return jax.jvp(of, (x,), (u,))[1]

    expected = jax.jit(lambda x: jax.jvp(jax.grad(of), (x,), (u,))[1])(X)
    assert_close(jax.jit(jax.grad(slope))(X), float64(expected))


@pytest.mark.slow
@pytest.mark.float64
def test_a_third_derivative_is_the_difference_of_second_derivatives(small_tiles):
    def of(t):
        return energy(streamed)(X + t * DIRECTIONS[0], *ARGUMENTS[1:])

    second = jax.jit(jax.jacfwd(jax.grad(of)))
    third = jax.jit(jax.jacfwd(jax.jacfwd(jax.grad(of))))(0.0)
    h = 1e-4
    assert abs(float(second(h) - second(-h)) / (2 * h) - float(third)) <= 1e-5 * abs(float(third))


def test_checkpointing_does_not_change_the_gradient(small_tiles):
    def of(x):
        return energy(streamed)(x, *ARGUMENTS[1:])

    plain = jax.jit(jax.grad(of))(X)
    assert_close(jax.jit(jax.grad(jax.checkpoint(of)))(X), float64(plain))


def test_a_batch_of_problems_is_vmapped(small_tiles):
    matrices = normal(5, 4, D, D)

    def one(matrix):
        return jax.value_and_grad(lambda a: energy(streamed)(*ARGUMENTS[:4], a))(matrix)

    together, one = jax.jit(jax.vmap(one))(matrices), jax.jit(one)
    for k in range(4):
        alone = one(matrices[k])
        assert_close(together[0][k], float(alone[0]))
        assert_close(together[1][k], float64(alone[1]))


def test_without_values_only_the_normaliser_is_computed(small_tiles):
    mean, log_z = streamed(X, Y, jnp.log(WEIGHTS), jnp.zeros((M, 0), X.dtype), A)
    assert mean.shape == (N, 0)
    assert_close(log_z, float64(streamed(*ARGUMENTS)[1]))


def test_a_row_without_any_key_has_mean_zero_and_derivative_zero(small_tiles):
    def blind(x):
        def score(x, y):
            return jnp.where(x[:, :1] > 50, -jnp.inf, x @ y.T)

        return tiling.softmax_mean(score, x, Y, jnp.log(WEIGHTS), VALUES)

    far = X.at[4, 0].set(100.0)
    mean, log_z = blind(far)
    assert float(log_z[4]) == -np.inf
    np.testing.assert_array_equal(mean[4], 0)
    slope = jax.jit(jax.grad(lambda x: jnp.sum(blind(x)[0])))(far)
    np.testing.assert_array_equal(slope[4], 0)
    assert np.isfinite(slope).all()
    tangent = jax.jit(lambda x: jax.jvp(lambda x: blind(x)[0], (x,), (jnp.ones_like(x),))[1])(far)
    np.testing.assert_array_equal(tangent[4], 0)


def test_points_may_be_tokens(small_tiles):
    queries, keys = ma.Token(jnp.arange(float(N)), X), ma.Token(jnp.arange(float(M)), Y)

    def score(x, y):
        return jnp.where(y.position[None] <= x.position[:, None], x.state @ y.state.T, -jnp.inf)

    mean, _ = tiling.softmax_mean(score, queries, keys, jnp.log(WEIGHTS), VALUES)
    seen = np.arange(M)[None] <= np.arange(N)[:, None]
    logits = np.where(seen, float64(X) @ float64(Y).T, -np.inf)
    assert_close(mean, oracles.attention(logits, VALUES, WEIGHTS))


class TestClosures:
    """What a user's function closes over is an argument like any other."""

    @staticmethod
    def energy(potential):
        return jnp.sum(jnp.sin(ma.attention(X, Y, VALUES, potential=potential)))

    @staticmethod
    def reference(matrix):
        return np.sin(oracles.attention(float64(X) @ matrix @ float64(Y).T, VALUES)).sum()

    @pytest.mark.parametrize(
        "transform",
        [lambda f: f, jax.jit, lambda f: jax.jit(jax.checkpoint(f))],
        ids=["eager", "jit", "checkpoint"],
    )
    def test_a_matrix_in_a_lambda_can_be_differentiated(self, transform):
        got = transform(jax.grad(lambda a: self.energy(lambda x, y: x @ a @ y)))(A)
        assert_close(got, oracles.jacobian(self.reference, A))

    def test_in_forward_mode_too(self):
        got = jacfwd(lambda a: self.energy(lambda x, y: x @ a @ y))(A)
        assert_close(got, oracles.jacobian(self.reference, A))

    def test_in_a_jitted_function_that_is_differentiated_from_outside(self):
        inner = jax.jit(lambda a: jax.jit(lambda b: self.energy(lambda x, y: x @ a @ y * b))(1.0))
        assert_close(grad(inner)(A), oracles.jacobian(self.reference, A))

    def test_for_a_batch_of_matrices(self):
        both = jax.vmap(grad(lambda a: self.energy(lambda x, y: x @ a @ y)))(jnp.stack([A, -A]))
        assert_close(both[0], oracles.jacobian(self.reference, A))
        assert_close(both[1], oracles.jacobian(self.reference, -float64(A)))

    def test_integers_and_booleans_are_closed_over_while_others_are_differentiated(self):
        order = jnp.array([2, 0, 1])
        keep = jnp.array([True, False, True])

        def potential(matrix, order, keep):
            return lambda x, y: (x @ matrix)[order] @ jnp.where(keep, y, 0)

        def f(matrix, order, keep):
            return self.energy(potential(matrix, order, keep))

        expected = oracles.jacobian(
            lambda a: np.sin(
                oracles.attention(
                    (float64(X) @ a)[:, [2, 0, 1]] @ (float64(Y) * [1, 0, 1]).T, VALUES
                )
            ).sum(),
            A,
        )
        assert_close(grad(f)(A, order, keep), expected)
        batch = jax.vmap(grad(f), in_axes=(None, 0, None))(A, jnp.stack([order, order]), keep)
        assert_close(batch[1], expected)

    def test_in_a_loop_over_an_index(self):
        def f(scale):
            def step(total, i):
                return total + self.energy(lambda x, y: scale * x[i] * y[i]), None

            return jax.lax.scan(step, jnp.zeros(()), jnp.arange(D))[0]

        def reference(scale):
            logits = [scale * np.outer(float64(X)[:, i], float64(Y)[:, i]) for i in range(D)]
            return sum(np.sin(oracles.attention(a, VALUES)).sum() for a in logits)

        assert_close(grad(f)(0.7), oracles.directional(reference, 0.7, 1.0))
