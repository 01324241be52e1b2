"""The distance inside JAX: jit, vmap, grad, and what happens when it fails."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn.wasserstein import NetworkSimplex, Sinkhorn, TransportError, distance, wp
from tests.transport.clouds import cloud

pytestmark = pytest.mark.float64

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(6, 2)), RNG.normal(size=(5, 2))
A, B = 0.2 + RNG.random(6), 0.2 + RNG.random(5)


def energy(p):
    return lambda x, a, y, b: distance(ma.weighted(x, a), ma.weighted(y, b), p)


def differences(f, arguments, which, h=1e-6):
    out = np.zeros_like(arguments[which])
    for index in np.ndindex(out.shape):
        sides = []
        for step in (h, -h):
            moved = [np.array(argument) for argument in arguments]
            moved[which][index] += step
            sides.append(float(f(*moved)))
        out[index] = (sides[0] - sides[1]) / (2 * h)
    return out


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
@pytest.mark.parametrize("which", range(4))
def test_the_gradient_is_that_of_finite_differences(which, p):
    f = energy(p)
    got = jax.jit(jax.grad(f, argnums=which))(X, A, Y, B)
    np.testing.assert_allclose(got, differences(f, (X, A, Y, B), which), atol=1e-8)


def test_forward_mode_agrees_with_reverse_mode():
    f = energy(1)
    forward, backward = (jax.jit(mode(f))(X, A, Y, B) for mode in (jax.jacfwd, jax.jacrev))
    np.testing.assert_allclose(forward, backward, atol=1e-15)


def test_the_gradient_in_the_log_weights_sums_to_zero():
    got = jax.grad(lambda l: distance(ma.EmpiricalMeasure(X, l), ma.weighted(Y, B)))(np.log(A))
    assert abs(got.sum()) <= 1e-14
    assert np.abs(got).max() > 1e-2


def test_the_value_is_that_of_the_certified_solver():
    mu, nu = cloud(0, 40, 3, True), cloud(1, 30, 3, True)
    for p in (1, 2):
        assert abs(jax.jit(distance, static_argnums=2)(mu, nu, p) - wp(mu, nu, p).value) <= 1e-14


def test_a_batch_is_the_loop_over_its_members():
    xs, ys = RNG.normal(size=(7, 6, 2)), RNG.normal(size=(5, 2))

    def f(x, y):
        return distance(ma.EmpiricalMeasure(x), ma.EmpiricalMeasure(y))

    values = jax.jit(jax.vmap(f, in_axes=(0, None)))(xs, ys)
    np.testing.assert_allclose(values, [f(x, ys) for x in xs], rtol=1e-14)
    slopes = jax.jit(jax.vmap(jax.grad(f), in_axes=(0, None)))(xs, ys)
    np.testing.assert_allclose(slopes, [jax.grad(f)(x, ys) for x in xs], atol=1e-14)


def test_inside_a_ray_the_gradient_at_coincident_points_is_that_of_the_ray():
    # the mass that stays at 1 may as well be passed on: both atoms pull by a half
    nu = ma.EmpiricalMeasure(jnp.array([[1.0, 0.0], [2.0, 0.0]]))
    x = jnp.array([[0.0, 0.0], [1.0, 0.0]])
    got = jax.grad(lambda x: distance(ma.EmpiricalMeasure(x), nu))(x)
    np.testing.assert_allclose(got, [[-0.5, 0.0], [-0.5, 0.0]], atol=1e-15)


def test_at_a_kink_the_gradient_is_zero_and_never_nan():
    mu = cloud(2, 8, 3)
    for other in (mu, cloud(2, 8, 3, kind="coincident")):
        got = jax.grad(lambda x, y=other: distance(ma.EmpiricalMeasure(x), y))(mu.points)
        assert np.isfinite(got).all()
    got = jax.grad(lambda x: distance(ma.EmpiricalMeasure(x), mu))(mu.points)
    np.testing.assert_array_equal(got, 0)


def moved(arguments, which, index, step):
    copies = [np.array(argument) for argument in arguments]
    copies[which][index] += step
    return copies


@pytest.mark.parametrize(("p", "massless"), [(1, False), (1, True), (1.5, False), (2, True)])
def test_all_blocks_of_the_hessian_are_those_of_finite_differences(p, massless):
    arguments, slope = [X, A.copy(), Y, B.copy()], jax.jit(jax.grad(energy(p), argnums=range(4)))
    if massless:  # weights of 0 cannot be moved to both sides
        arguments[1][2] = arguments[3][1] = 0
    hessian = jax.jit(jax.jacfwd(jax.grad(energy(p), argnums=range(4)), argnums=range(4)))
    got, h = hessian(*arguments), 1e-7
    for which in (0, 2) if massless else range(4):
        for index in np.ndindex(arguments[which].shape):
            up, down = (slope(*moved(arguments, which, index, step)) for step in (h, -h))
            for row in range(4):
                expected = (np.asarray(up[row]) - down[row]) / (2 * h)
                np.testing.assert_allclose(got[row][which][(..., *index)], expected, atol=1e-6)


def test_reverse_over_reverse_and_a_batch_give_the_same_hessian():
    slope = jax.grad(energy(2), argnums=(0, 1))
    forward = jax.jit(jax.jacfwd(slope, argnums=(0, 1)))
    backward = jax.jit(jax.vmap(jax.jacrev(slope, argnums=(0, 1)), in_axes=(0, None, None, None)))
    expected, got = forward(X, A, Y, B), backward(np.stack([X, X + 1]), A, Y, B)
    jax.tree.map(lambda e, g: np.testing.assert_allclose(g[0], e, atol=1e-13), expected, got)


def test_a_cost_that_moves_meets_the_weight_that_pays_it():
    # W1(a δ_x + (1 - a) δ_0, δ_0) = a x
    zero = ma.EmpiricalMeasure(jnp.zeros((1, 1)))

    def f(x, a):
        return distance(ma.weighted(jnp.stack([x, 0 * x])[:, None], jnp.stack([a, 1 - a])), zero)

    mixed = jax.jit(jax.grad(jax.grad(f), argnums=1))
    assert abs(mixed(2.0, 0.3) - 1) <= 1e-14


def test_arcs_of_length_zero_curve_as_the_square_of_the_distance():
    def f(x):  # one of two atoms stays at its target: W2² = (1 + |x|²) / 2
        mu = ma.EmpiricalMeasure(jnp.stack([x, jnp.array([9.0, 0.0])]))
        nu = ma.EmpiricalMeasure(jnp.array([[0.0, 0.0], [9.0, 1.0]]))
        return distance(mu, nu, 2) ** 2

    np.testing.assert_allclose(jax.jit(jax.hessian(f))(jnp.zeros(2)), np.eye(2), atol=1e-12)


def test_eager_failures_carry_the_bracket():
    mu, nu = cloud(3, 60, 4), cloud(4, 50, 4)
    with pytest.raises(TransportError) as caught:
        distance(mu, nu, solver=NetworkSimplex(pivots=5))
    assert caught.value.solution.upper > caught.value.solution.lower


def test_float32_goes_in_and_comes_out():
    x = X.astype(np.float32)
    value, slope = jax.value_and_grad(lambda x: distance(ma.EmpiricalMeasure(x), ma.dirac(x[0])))(x)
    assert value.dtype == slope.dtype == jnp.float32


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: distance(cloud(0, 3, 2), cloud(0, 3, 3)), "dimensions 2 and 3"),
        (lambda: distance(cloud(0, 3, 2), cloud(1, 3, 2), solver=Sinkhorn()), "exact"),
        (lambda: distance(cloud(0, 3, 2), cloud(1, 3, 2), 0.5), "at least 1"),
        (
            lambda: distance(
                cloud(0, 3, 2), ma.EmpiricalMeasure(ma.Token(jnp.arange(3.0), jnp.ones((3, 2))))
            ),
            "states",
        ),
    ],
)
def test_what_has_no_answer_is_refused_with_words(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_solver_that_fails_is_heard_at_run_time():
    mu, nu = cloud(3, 60, 4), cloud(4, 50, 4)
    with pytest.raises(RuntimeError, match="did not close the gap"):
        jax.jit(lambda: distance(mu, nu, solver=NetworkSimplex(pivots=5)))().block_until_ready()


def test_points_that_became_nan_are_refused_at_run_time():
    def f(x):
        mu = jax.tree.map(lambda leaf: leaf * x, cloud(5, 4, 2))
        return distance(mu, cloud(6, 4, 2))

    with pytest.raises(RuntimeError, match="NaN"):
        jax.jit(f)(jnp.nan).block_until_ready()


MANY = """
import jax, jax.numpy as jnp
import measattn as ma
key = jax.random.split(jax.random.key(0), 16)
clouds = jax.vmap(lambda k: jax.random.normal(k, (1024, 4)))(key)
f = lambda x: ma.wasserstein.distance(ma.EmpiricalMeasure(x), ma.EmpiricalMeasure(x[::-1] * 1.1))
print(jax.jit(lambda xs: jnp.stack([f(x) for x in xs]))(clouds).sum())
print(jax.jit(jax.vmap(jax.grad(f)))(clouds).sum())
print(jax.jit(lambda xs: jax.lax.scan(lambda c, x: (c + f(x), None), 0.0, xs))(clouds)[0])
"""


@pytest.mark.slow
def test_many_callbacks_in_one_program_do_not_wait_for_one_another():
    done = subprocess.run(
        [sys.executable, "-c", MANY], capture_output=True, text=True, timeout=240, check=True
    )
    first, _, last = (float(line) for line in done.stdout.split())
    assert abs(first - last) <= 1e-4 * abs(last)
