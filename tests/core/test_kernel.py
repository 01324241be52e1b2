"""Markov kernels: their two actions, composition, and what transport evaluates."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from tests.core.closeness import assert_close, float64, normal, uniform

X, KEYS, VALUES = normal(0, 3, 2), normal(1, 4, 2), normal(2, 4, 2)
MU = ma.weighted(X, uniform(3, 3))
MU2 = ma.weighted(-X, uniform(5, 3))
NU = ma.weighted(KEYS, uniform(4, 4))


class Spread(ma.AbstractMarkovKernel):
    """A kernel of no special shape: its atoms and weights depend on the point."""

    base: ma.EmpiricalMeasure

    def __call__(self, x):
        row = ma.SoftmatchKernel(ma.DotProduct(), self.base)(x)
        return ma.pushforward(lambda y: x[::-1] + y * x, row)


class Tally:
    """A mutable count that is compared by identity, so that it may be static."""

    def __init__(self):
        self.calls = 0


class Counted(ma.AbstractNonlinearKernel):
    """Counts how often the layer that it wraps is evaluated."""

    layer: ma.AbstractNonlinearKernel
    tally: Tally = eqx.field(static=True)

    def push(self, mu, block=None):
        self.tally.calls += 1
        return self.layer.push(mu, block)


SPREAD = Spread(ma.EmpiricalMeasure([[0.5, 0.0], [0.0, -1.0], [1.0, 1.0]]))
SOFTMATCH = ma.SoftmatchKernel(ma.DotProduct(0.5), NU)
LOOKUP = ma.LookupKernel(NU, VALUES)
KERNELS = {
    "deterministic": ma.Deterministic(lambda x: jnp.sin(x)),
    "general": SPREAD,
    "softmatch": SOFTMATCH,
    "masked softmatch": ma.SoftmatchKernel(
        ma.Masked(ma.DotProduct(), lambda x, y: jnp.linalg.norm(x - y) < 3), NU
    ),
    "softmatch, look-up": SOFTMATCH @ LOOKUP,
    "attention": ma.AttentionKernel(ma.Gaussian(1.0), NU, VALUES),
    "frozen self-attention": ma.SelfAttention(ma.DotProduct()).at(NU),
    "projection": ma.moment_projection(SOFTMATCH),
    "general, general": SPREAD @ SPREAD,
    "softmatch, general": SOFTMATCH @ SPREAD,
    "deterministic, softmatch": ma.Deterministic(jnp.sin) @ SOFTMATCH,
    "softmatch, deterministic": SOFTMATCH @ ma.Deterministic(jnp.sin),
}


def f(x):
    return jnp.stack([jnp.sin(3 * x[0]), x[1], x[0] * x[1]])


@eqx.filter_jit
def integrals(mu):
    """What tells two laws apart, whatever their atoms and order."""
    return ma.integrate(lambda x: jnp.concatenate([f(x), jnp.cos(x), jnp.exp(x)]), mu)


def same_law(got, expected):
    assert_close(integrals(got), float64(integrals(expected)), scale=10)


@pytest.mark.parametrize("name", KERNELS)
def test_the_two_actions_of_a_kernel_are_dual(name):
    kernel = KERNELS[name]
    left = float64(integrals(MU @ kernel))
    right = float64(MU.weights) @ np.stack([integrals(kernel(x)) for x in X])
    assert_close(kernel.average(jax.vmap(f), X).T @ MU.weights, left[:3], scale=10)
    assert_close(jnp.asarray(right), left, scale=10)


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_at_a_point_is_a_law_and_transports_the_dirac_there(name):
    row = KERNELS[name](X[0])
    assert isinstance(row, ma.EmpiricalMeasure)
    assert_close(jnp.sum(row.weights), 1.0)
    same_law(ma.dirac(X[0]) @ KERNELS[name], row)


def test_expect_is_the_integral_against_the_row():
    g = ma.expect(SOFTMATCH, f)
    assert_close(g(X[0]), float64(ma.integrate(f, SOFTMATCH(X[0]))))
    assert_close(jax.vmap(g)(X), float64(SOFTMATCH.average(jax.vmap(f), X)))


@pytest.mark.parametrize("name", ["deterministic", "general", "softmatch", "attention"])
def test_transport_is_linear_in_the_measure(name):
    kernel = KERNELS[name]
    mixed = integrals(ma.mixture([MU, MU2], [0.25, 0.75]) @ kernel)
    one, two = (float64(integrals(mu @ kernel)) for mu in (MU, MU2))
    assert_close(mixed, 0.25 * one + 0.75 * two, scale=10)


def test_transport_and_matmul_are_one_thing():
    same_law(ma.transport(MU, SOFTMATCH), MU @ SOFTMATCH)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("deterministic", "softmatch"),
        ("general", "general"),
        ("general", "attention"),
        ("softmatch", "deterministic"),
        ("softmatch", "general"),
        ("attention", "softmatch"),
    ],
)
def test_transport_by_a_composition_is_two_transports(first, second):
    one, two = KERNELS[first], KERNELS[second]
    same_law(MU @ (one @ two), (MU @ one) @ two)


def test_composition_is_associative():
    one, two, three = (KERNELS[name] for name in ("general", "softmatch", "deterministic"))
    same_law(MU @ ((one @ two) @ three), MU @ (one @ (two @ three)))


def test_a_composition_at_a_point_is_the_integral_of_the_second_kernel():
    one, two = KERNELS["general"], KERNELS["softmatch"]
    same_law((one @ two)(X[0]), one(X[0]) @ two)


def test_a_deterministic_kernel_transports_to_the_image_measure():
    out = MU @ ma.Deterministic(f)
    assert_close(out.points, float64(jax.vmap(f)(X)))
    assert_close(out.weights, float64(MU.weights))


def test_a_matrix_is_a_deterministic_kernel():
    matrix = normal(5, 3, 2)
    assert_close((MU @ ma.Deterministic(matrix)).points, float64(X) @ float64(matrix).T)


@pytest.mark.parametrize(
    ("name", "atoms"),
    [("deterministic", 3), ("softmatch", 4), ("general", 9), ("attention", 3)],
)
def test_transport_has_no_more_atoms_than_the_shape_of_the_kernel_needs(name, atoms):
    assert (MU @ KERNELS[name]).size == atoms


def test_dirac_valued_kernels_compose_to_a_dirac_valued_kernel():
    kernel = ma.Deterministic(jnp.sin) @ ma.LayerNorm() @ ma.Deterministic(jnp.cos)
    assert isinstance(kernel, ma.AbstractDiracKernel)
    assert kernel(X[0]).size == 1


T1 = ma.SelfAttention(ma.DotProduct(0.5), normal(6, 2, 2))
T2 = ma.SelfAttention(ma.Gaussian(1.0))


def test_a_nonlinear_kernel_transports_by_the_kernel_at_the_measure():
    same_law(MU @ T1, MU @ T1.at(MU))


def test_nonlinear_kernels_compose_first_to_last():
    same_law(MU @ (T1 @ T2), (MU @ T1) @ T2)
    with pytest.raises(AssertionError):
        same_law(MU @ (T1 @ T2), (MU @ T2) @ T1)


def test_the_kernel_of_a_composition_at_a_measure_moves_points_along_with_it():
    x = X[2] + 1
    out = (T1 @ T2).at(NU)(x)
    after = T1.at(NU)(x).points[0]
    same_law(out, T2.at(NU @ T1)(after))


@pytest.mark.parametrize("token_map", [ma.LayerNorm(), ma.Deterministic(jnp.sin)])
def test_nonlinear_and_dirac_valued_kernels_compose_in_both_orders(token_map):
    same_law(MU @ (T1 @ token_map), (MU @ T1) @ token_map)
    same_law(MU @ (token_map @ T1), (MU @ token_map) @ T1)
    same_law(MU @ (token_map @ T1 @ token_map), ((MU @ token_map) @ T1) @ token_map)


def test_the_empty_stack_moves_nothing():
    same_law(MU @ ma.Stack([]), MU)


def test_transport_over_a_stack_evaluates_each_layer_once():
    tallies = [Tally() for _ in range(5)]
    layers = [Counted(T, tally) for T, tally in zip([T1, T2, T1, T2, T1], tallies, strict=True)]
    MU @ ma.Stack(layers)
    assert [tally.calls for tally in tallies] == [1] * 5
    same_law(MU @ ma.Stack(layers), MU @ ma.Stack([T1, T2, T1, T2, T1]))


def test_transport_over_nested_stacks_and_residuals_evaluates_each_layer_once():
    tallies = [Tally() for _ in range(3)]
    one, two, three = (Counted(T, t) for T, t in zip([T1, T2, T1], tallies, strict=True))
    MU @ ma.Stack([ma.Stack([one, ma.Residual(two)]), ma.Residual(ma.Stack([three]))])
    assert [tally.calls for tally in tallies] == [1, 1, 1]


def test_a_point_moved_through_a_stack_costs_two_evaluations_a_layer_and_one_at_the_end():
    tallies = [Tally() for _ in range(3)]
    stack = ma.Stack(Counted(T1, tally) for tally in tallies)
    stack.at(MU)(X[0])
    assert [tally.calls for tally in tallies] == [2, 2, 1]


def test_a_layer_is_compiled_once_whatever_its_parameters_and_measure():
    traced = eqx.debug.assert_max_traces(lambda mu, layer: (mu @ layer).points, max_traces=1)
    for seed in range(4):
        mu = ma.weighted(normal(seed, 3, 2), uniform(seed, 3))
        layer = ma.SelfAttention(ma.DotProduct(0.1 * (1 + seed)), normal(seed, 2, 2))
        eqx.filter_jit(traced)(mu, layer)


def test_expect_takes_functions_with_values_of_any_structure():
    got = ma.expect(SOFTMATCH, lambda y: {"sum": y[0] + y[1], "sign": y[0] > 0})(X[0])
    weights = float64(SOFTMATCH(X[0]).weights)
    assert_close(got["sum"], weights @ float64(KEYS).sum(1))
    assert_close(got["sign"], weights[float64(KEYS)[:, 0] > 0].sum())


def test_a_kernel_is_called_with_lists_numpy_and_jax_vectors():
    expected = float64(SOFTMATCH(jnp.asarray([1.0, 2.0])).weights)
    for x in ([1.0, 2.0], (1, 2), np.array([1.0, 2.0]), np.array([1, 2])):
        assert_close(SOFTMATCH(x).weights, expected)
