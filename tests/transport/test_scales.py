"""Units and origins: sizes from 1e-200 to 1e200, and clouds far from the origin."""

from fractions import Fraction

import numpy as np
import pytest

import measattn as ma
from measattn.wasserstein import NetworkSimplex, TransportError, w1, w_inf, wp
from measattn.wasserstein.certificate import certify
from measattn.wasserstein.problem import pose_measures
from measattn.wasserstein.solvers import Run
from measattn.wasserstein.solvers.refine import refined
from tests import oracles
from tests.transport.clouds import arrays, by_program, cloud, mapped, solvers_for

pytestmark = pytest.mark.float64

SCALES = (1e-200, 1e-8, 1e8, 1e200)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
@pytest.mark.parametrize("scale", SCALES)
def test_the_distance_follows_the_scale_of_the_points(scale, p):
    for d, n, m, weighted in ((1, 20, 13, True), (3, 15, 15, False), (8, 1, 9, True)):
        mu, nu = cloud(n, n, d, weighted), cloud(m + 1, m, d, weighted)
        expected = scale * by_program(mu, nu, p)
        mu, nu = (mapped(lambda x: scale * x, measure) for measure in (mu, nu))
        for solver in solvers_for(mu, nu, p):
            solution = wp(mu, nu, p, solver=solver)
            assert abs(solution.value - expected) <= 1e-12 * expected, solver
            assert solution.lower <= expected * (1 + 1e-12), solver
            assert solution.upper >= expected * (1 - 1e-12), solver


@pytest.mark.parametrize("scale", [1e-8, 1e8])
@pytest.mark.parametrize("p", [1, 2])
def test_the_potentials_follow_the_scale_of_the_points(scale, p):
    mu, nu = cloud(1, 12, 2, True), cloud(2, 9, 2, True)
    scaled = [mapped(lambda x: scale * x, measure) for measure in (mu, nu)]
    _, _, a, b = arrays(mu, nu)
    u, v = wp(*scaled, p).potentials
    assert abs(a @ u + b @ v - wp(*scaled, p).value ** p) <= 1e-12 * wp(*scaled, p).value ** p


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_potentials_of_order_one_exist_at_every_scale(scale):
    mu, nu = (mapped(lambda x: scale * x, cloud(seed, 9, 2)) for seed in (3, 4))
    solution = w1(mu, nu)
    u, v = solution.potentials
    assert abs(u.mean() + v.mean() - solution.value) <= 1e-12 * solution.value


def test_sizes_that_differ_by_hundreds_of_orders_meet_in_one_problem():
    mu = ma.EmpiricalMeasure(np.array([[0.0, 0.0], [1e-250, 0.0]]))
    nu = ma.EmpiricalMeasure(np.array([[1e250, 0.0], [0.0, 1e-250]]))
    assert abs(w1(mu, nu).value - 5e249) <= 1e-12 * 5e249


def test_a_common_shift_is_what_w1_measures_even_far_from_the_origin():
    mu = cloud(6, 50, 4)
    shift = np.array([3.0, 4.0, 0.0, 0.0])
    for offset in (0.0, 1e6):
        moved = mapped(lambda x, c=offset: x + c, mu)
        assert abs(w1(moved, mapped(lambda x: x + shift, moved)).value - 5.0) <= 1e-8


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
@pytest.mark.parametrize("offset", [1e6, -1e12])
def test_an_offset_costs_only_what_it_rounds_away(offset, p):
    # integers and halves, so that the shifted points are exact
    mu, nu = (mapped(lambda x: np.round(4 * x) / 4, cloud(seed, 14, 3, True)) for seed in (7, 8))
    expected = by_program(mu, nu, p)
    mu, nu = (mapped(lambda x: x + offset, measure) for measure in (mu, nu))
    for solver in solvers_for(mu, nu, p):
        assert abs(wp(mu, nu, p, solver=solver).value - expected) <= 1e-12 * expected, solver


@pytest.mark.parametrize("d", [1, 3])
def test_the_bracket_of_a_tiny_shift_holds_the_exact_value(d):
    mu = cloud(18, 20, d)
    nu = mapped(lambda x: x + 1e-7 * np.eye(d)[0], mu)
    # what the rounded points are apart, in fractions
    cost = oracles.exact_cost(mu.points, nu.points, 1)
    exact = sum(cost[i][i] for i in range(20)) / 20
    solution = w1(mu, nu)
    assert Fraction(solution.lower) <= exact <= Fraction(solution.upper)
    assert solution.gap <= 1e-12 * solution.value


@pytest.mark.parametrize(
    ("n", "shift", "p"), [(1000, 1e-2, 2), (1000, 1e-2, 3), (10_000, 1e-2, 2), (50_000, 1e-3, 1)]
)
def test_many_weighted_atoms_moved_by_little_are_certified(n, shift, p):
    rng = np.random.default_rng(0)
    points, weights = rng.normal(size=(n, 1)), rng.random(n)
    mu, nu = ma.weighted(points, weights), ma.weighted(points + shift, weights)
    assert abs(wp(mu, nu, p).value - shift) <= 1e-9 * shift


@pytest.mark.parametrize("p", [1, 2])
def test_many_weighted_atoms_of_the_plane_moved_by_little_are_certified(p):
    mu = cloud(1, 3000, 2, True)
    solution = wp(mu, mapped(lambda x: x + np.array([3e-3, 4e-3]), mu), p)
    assert abs(solution.value - 5e-3) <= 1e-9 * 5e-3


@pytest.mark.parametrize("change", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("p", [1, 1.5, 2, 2.5, 4])
@pytest.mark.parametrize("n", [350, 900])
def test_measures_whose_weights_nearly_agree_are_certified(n, p, change):
    rng = np.random.default_rng(0)
    points, weights = rng.normal(size=(n, 1)), 0.1 + rng.random(n)
    others = weights * (1 + change * rng.normal(size=n))
    # on a line in the plane, where Line is the oracle and does not apply itself
    direction = np.array([0.6, 0.8])
    solution = wp(
        ma.weighted(points * direction, weights), ma.weighted(points * direction, others), p
    )
    on_the_line = wp(ma.weighted(points, weights), ma.weighted(points, others), p)
    assert solution.gap <= 1e-3 * solution.value
    assert solution.lower <= on_the_line.value <= solution.upper + on_the_line.gap


def test_refinement_recovers_the_digits_that_the_simplex_leaves():
    rng = np.random.default_rng(0)
    points, weights = rng.normal(size=(300, 2)), 0.1 + rng.random(300)
    others = ma.weighted(points, weights * (1 + 1e-6 * rng.normal(size=300)))
    problem = pose_measures(ma.weighted(points, weights), others, p=2).problem
    proposal = NetworkSimplex().solve(problem, Run())
    plain = certify(problem, proposal.plan, proposal.u)
    better = refined(problem, plain)
    assert better.gap <= 0.1 * plain.gap
    assert plain.below.lower <= better.below.lower <= better.above.upper <= plain.above.upper


@pytest.mark.parametrize("p", [50, 100, 308, 2000])
def test_an_order_whose_costs_leave_float64_is_refused_or_right(p):
    mu = ma.EmpiricalMeasure(np.array([[0.0, 0.0], [10.0, 0.0]]))
    pairs = [(mu, mapped(lambda x: x + np.array([1.0, 0.0]), mu), 1.0)]
    general = cloud(1, 12, 2), cloud(2, 9, 2)
    pairs.append((*general, None))
    for first, second, exact in pairs:
        try:
            solution = wp(first, second, p)
        except TransportError as error:
            solution = error.solution
        else:
            assert solution.gap <= 1e-4 * 12
        largest = w_inf(first, second).upper if exact is None else exact
        assert solution.lower <= largest * (1 + 1e-12)
        assert exact is None or solution.lower <= exact <= solution.upper * (1 + 1e-12)
