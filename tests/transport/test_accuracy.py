"""All solvers against the linear program, closed forms and one another."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance

import measattn as ma
from measattn.wasserstein import ColumnGeneration, NetworkSimplex, w1, wp
from tests import oracles
from tests.transport.clouds import KINDS, arrays, by_program, cloud, line, mapped, solvers_for

pytestmark = pytest.mark.float64

ORDERS = (1, 1.5, 2, 3)
SHAPES = ((12, 12, False), (13, 7, True), (1, 9, True), (9, 1, False))


def assert_all_solvers_give(expected, mu, nu, p=1, rtol=1e-10):
    for solver in solvers_for(mu, nu, p):
        solution = wp(mu, nu, p, solver=solver)
        assert abs(solution.value - expected) <= rtol * expected, solver
        assert solution.lower <= expected * (1 + rtol), solver
        assert solution.upper >= expected * (1 - rtol), solver


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("d", [1, 2, 8, 64, 384])
def test_every_solver_attains_the_value_of_the_linear_program(d, p):
    for seed, (n, m, weighted) in enumerate(SHAPES):
        mu, nu = cloud(2 * seed, n, d, weighted), cloud(2 * seed + 1, m, d, weighted)
        assert_all_solvers_give(by_program(mu, nu, p), mu, nu, p)


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_ties_and_coincident_points_change_nothing(kind, p):
    for d, (n, m, weighted) in itertools.product((1, 2, 8), SHAPES[:2]):
        mu, nu = cloud(n, n, d, weighted, kind), cloud(m + 1, m, d, weighted, kind)
        assert_all_solvers_give(by_program(mu, nu, p), mu, nu, p)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_a_few_atoms_agree_with_all_permutations(p):
    for seed, d in itertools.product(range(5), (1, 3)):
        mu, nu = cloud(seed, 6, d, kind="grid"), cloud(seed + 100, 6, d, kind="grid")
        cost = oracles.exact_cost(mu.points, nu.points, p)
        expected = float(oracles.least_permutation(cost) / 6) ** (1 / p)
        assert_all_solvers_give(expected, mu, nu, p, rtol=1e-13)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_line_is_scipys(kind, weighted):
    mu, nu = cloud(1, 1200, 1, weighted, kind), cloud(2, 900, 1, weighted, kind)
    x, y, a, b = arrays(mu, nu)
    expected = wasserstein_distance(x[:, 0], y[:, 0], a, b)
    assert abs(w1(mu, nu).value - expected) <= 1e-10 * expected


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_line_is_the_integral_of_the_quantiles(kind, p):
    mu, nu = cloud(3, 1100, 1, True, kind), cloud(4, 700, 1, True, kind)
    x, y, a, b = arrays(mu, nu)
    expected = oracles.wasserstein_on_the_line(x[:, 0], y[:, 0], a, b, p)
    assert abs(wp(mu, nu, p).value - expected) <= 1e-10 * expected


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("d", [1, 3])
def test_the_distance_to_a_shifted_copy_is_the_length_of_the_shift(d, weighted, p):
    mu = cloud(5, 150, d, weighted)
    shift = np.full(d, 0.37)
    nu = mapped(lambda x: x + shift, mu)
    assert_all_solvers_give(np.linalg.norm(shift), mu, nu, p)


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("d", [1, 4])
def test_the_distance_to_a_dilated_copy_is_that_of_the_radii(d, p):
    # | |x| - |y| | ≤ |x - y|, and radii are matched in their order
    mu = cloud(6, 120, d, True)
    x, _, a, _ = arrays(mu, mu)
    expected = 0.7 * (a @ np.linalg.norm(x, axis=1) ** p) ** (1 / p)
    assert_all_solvers_give(expected, mu, mapped(lambda x: 1.7 * x, mu), p)


def test_the_distance_of_order_two_to_a_linear_image_is_that_of_the_map():
    # x -> Ax is optimal for p = 2 where A is symmetric and positive
    mu = cloud(7, 150, 3)
    factor = np.random.default_rng(0).normal(size=(3, 3))
    matrix = factor @ factor.T
    x = np.asarray(mu.points)
    expected = np.sqrt(np.mean(np.sum((x @ matrix - x) ** 2, axis=1)))
    assert_all_solvers_give(expected, mu, mapped(lambda x: x @ matrix, mu), 2)


@pytest.mark.parametrize("p", ORDERS)
def test_distance_to_a_dirac_is_the_mean_power_of_the_distances(p):
    mu, y = cloud(8, 30, 3, weighted=True), jnp.ones(3)
    x, _, a, _ = arrays(mu, mu)
    expected = (a @ np.linalg.norm(x - 1, axis=1) ** p) ** (1 / p)
    assert_all_solvers_give(expected, mu, ma.dirac(y), p, rtol=1e-13)
    assert_all_solvers_give(expected, ma.dirac(y), mu, p, rtol=1e-13)


def test_two_diracs_are_as_far_apart_as_their_points():
    mu, nu = ma.dirac(jnp.zeros(2)), ma.dirac(jnp.array([3.0, 4.0]))
    assert wp(mu, nu, 1).value == 5
    assert wp(mu, nu, 2).value == 5


def test_scipys_documented_values_are_reproduced():
    assert abs(w1(line(0, 1, 3), line(5, 6, 8)).value - 5.0) <= 1e-14
    mu = ma.weighted(np.array([[3.4], [3.9], [7.5], [7.8]]), [1.4, 0.9, 3.1, 7.2])
    nu = ma.weighted(np.array([[4.5], [1.4]]), [3.2, 3.5])
    assert abs(w1(mu, nu).value - 4.078133143804786) <= 1e-13


def test_float32_measures_are_compared_in_float64():
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    y = x + np.float32(1e-3)
    uniform = np.full(20, 1 / 20)
    expected = oracles.wasserstein(x, y, uniform, uniform)
    assert abs(w1(ma.EmpiricalMeasure(x), ma.EmpiricalMeasure(y)).value - expected) <= (
        1e-12 * expected
    )


@pytest.mark.parametrize("p", [1, 2])
def test_column_generation_agrees_with_the_dense_simplex_at_medium_size(p):
    for d, kind in ((2, "general"), (2, "grid"), (8, "general")):
        mu, nu = cloud(9, 500, d, True, kind), cloud(10, 400, d, True, kind)
        few, all_ = (wp(mu, nu, p, solver=s).value for s in (ColumnGeneration(), NetworkSimplex()))
        assert abs(few - all_) <= 1e-10 * all_


@pytest.mark.slow
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize(
    ("d", "kind"), [(2, "general"), (2, "grid"), (8, "general"), (64, "general"), (384, "general")]
)
def test_two_thousand_atoms_agree_with_scipys_assignment(d, kind, p):
    mu, nu = cloud(11, 2000, d, kind=kind), cloud(12, 2000, d, kind=kind)
    cost = cdist(np.asarray(mu.points), np.asarray(nu.points)) ** p
    expected = cost[linear_sum_assignment(cost)].mean() ** (1 / p)
    assert abs(wp(mu, nu, p).value - expected) <= 1e-10 * expected


@pytest.mark.slow
@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("kind", ["general", "clustered"])
def test_two_thousand_weighted_atoms_agree_between_solvers(kind, p):
    mu, nu = cloud(13, 2000, 3, True, kind), cloud(14, 1500, 3, True, kind)
    few, all_ = (wp(mu, nu, p, solver=s).value for s in (ColumnGeneration(), NetworkSimplex()))
    assert abs(few - all_) <= 1e-10 * all_
