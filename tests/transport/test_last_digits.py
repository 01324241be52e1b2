"""Brackets against exact rational arithmetic, where float64 has just lost a digit."""

import pickle
from fractions import Fraction
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn.wasserstein import (
    Auto,
    ColumnGeneration,
    TransportError,
    conditional,
    distance,
    solve,
    transport_problem,
    w1,
    wp,
)
from measattn.wasserstein.masses import difference, exact_sums
from measattn.wasserstein.problem import normalised, pose_points, weights
from measattn.wasserstein.tiles import on_the_host
from measattn.wasserstein.w1 import solve_posed

pytestmark = pytest.mark.float64


@pytest.mark.parametrize("p", [1.5, 3, 5, 6, 7, 10])
def test_the_root_of_a_cost_is_rounded_outwards(p):
    for k in range(4, 50):
        h = 2.0**-k
        mu = ma.EmpiricalMeasure([[0.0], [1.0]])
        nu = ma.EmpiricalMeasure([[h], [1 + h]])
        try:
            solution = wp(mu, nu, p)
        except TransportError as error:
            solution = error.solution
        assert solution.lower <= h <= solution.upper
        assert solution.lower <= solution.value <= solution.upper


def exact_w1_on_the_line(mu, nu):
    """W1 of the float64 weights divided by their exact sums, in rational arithmetic."""
    jumps = {}
    for sign, measure in ((1, mu), (-1, nu)):
        masses = [Fraction(float(a)) for a in normalised("m", weights("m", measure))]
        for x, mass in zip(np.asarray(measure.points)[:, 0], masses, strict=True):
            jumps[float(x)] = jumps.get(float(x), 0) + sign * mass
    sites, height, total = sorted(jumps), Fraction(0), Fraction(0)
    for left, right in pairwise(sites):
        height += jumps[left]
        total += abs(height) * (Fraction(right) - Fraction(left))
    # what the two sums differ by may be anywhere
    return total, abs(sum(jumps.values())) * (Fraction(sites[-1]) - Fraction(sites[0]))


@pytest.mark.parametrize("seed", range(60))
def test_masses_of_repeated_atoms_are_summed_without_loss(seed):
    rng = np.random.default_rng(seed)
    n, sites = int(rng.integers(6, 40)), rng.normal(size=3)
    x, masses = sites[rng.integers(0, 3, n)], rng.integers(1, 12, n).astype(float)
    y, order = x.copy(), rng.permutation(n)
    y[0] += 2.0 ** -int(rng.integers(10, 50)) * (seed % 3 > 0)
    mu, nu = ma.weighted(x[:, None], masses), ma.weighted(y[order][:, None], masses[order])
    exact, vague = exact_w1_on_the_line(mu, nu)
    solution = w1(mu, nu)
    assert Fraction(solution.lower) <= exact + vague
    assert exact - vague <= Fraction(solution.upper)
    assert solution.gap <= 1e-15 * np.ptp(sites) + 1e-9 * solution.value


def test_what_rounding_of_a_sum_hides_is_charged_to_the_bracket():
    # 1/2 + 2^-55 and 1/2 - 2^-55 both round to 1/2: the masses that are left agree, W1 is 2^-55
    x, a = np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([0.5, 2.0**-55, 0.25, 0.25 - 2.0**-55])
    y, b = np.array([[0.0], [1.0]]), np.array([0.5, 0.5])
    posed = pose_points(x, a, y, b, 1.0, run=on_the_host)
    solution = solve_posed(posed, Auto(), tol=1e-9, start=None, watch=None)
    assert solution.lower <= 2.0**-55 <= solution.upper


def test_sums_and_differences_of_masses_say_exactly_what_they_lose():
    rng = np.random.default_rng(0)
    for _ in range(200):
        mass, index = rng.random(12) ** 6, rng.integers(0, 3, 12)
        sums = exact_sums(index, mass, np.zeros(3))
        lost = exact_sums(index, mass, sums)
        for k in range(3):
            exact = sum((Fraction(float(m)) for m in mass[index == k]), Fraction(0))
            assert sums[k] == float(exact)
            assert lost[k] == float(exact - Fraction(float(sums[k])))
        less = mass * rng.random(12) ** 6
        out, total = difference(mass, less)
        pairs = zip(mass.tolist(), less.tolist(), out.tolist(), strict=True)
        exact = sum(abs(Fraction(a) - Fraction(b) - Fraction(c)) for a, b, c in pairs)
        assert total == float(exact)


def test_the_same_atoms_in_another_order_are_the_same_measure():
    masses, x, order = np.array([9.0, 6, 7, 9, 6, 7]), np.arange(6) % 2 * 1.0, [5, 0, 4, 1, 3, 2]
    mu, nu = ma.weighted(x[:, None], masses), ma.weighted(x[order][:, None], masses[order])
    solution = w1(mu, nu)
    assert solution.lower == solution.value == 0


def test_position_masses_that_differ_by_rounding_give_one_bracket_for_both_orders():
    def tokens(states, masses):
        points = ma.Token(jnp.arange(2.0), jnp.asarray(states))
        return ma.EmpiricalMeasure(points, np.log(masses))

    mu = tokens([[0.0], [0.0]], np.array([0.5, 0.5]))
    nu = tokens([[1.0], [100.0]], np.array([0.5 + 5e-15, 0.5 - 5e-15]))
    first, second = conditional(mu, nu), conditional(nu, mu)
    for solution in (first, second):
        for share in (0.5, 0.5 - 5e-15):
            assert solution.lower <= (1 - share) + 100 * share <= solution.upper


@pytest.mark.parametrize("p", [1, 2, 3])
def test_clouds_that_are_one_point_are_at_distance_zero(p):
    mu, nu = (ma.EmpiricalMeasure(jnp.ones((n, 4))) for n in (8, 5))
    solution = wp(mu, nu, p)
    assert (solution.lower, solution.upper) == (0, 0)
    np.testing.assert_allclose(solution.plan.dense((8, 5)).sum(axis=1), 1 / 8)

    def f(x):
        return distance(ma.EmpiricalMeasure(x), nu, p)

    value, slope = jax.jit(jax.value_and_grad(f))(mu.points)
    assert value == 0
    np.testing.assert_array_equal(slope, 0)


def test_a_token_that_alone_changed_is_seen_by_the_conditional_distance():
    states = np.random.default_rng(0).normal(size=(5, 3))
    other = states.copy()
    other[-1, 0] += 1.0
    mu, nu = (
        ma.EmpiricalMeasure(ma.Token(jnp.arange(5.0), jnp.asarray(s))) for s in (states, other)
    )
    assert abs(conditional(mu, nu, 2).value - np.sqrt(1 / 5)) <= 1e-12


def test_costs_of_zero_and_of_any_scale_are_solved():
    assert solve(transport_problem(np.zeros((3, 3)))).upper == 0
    cost = np.random.default_rng(0).random((4, 4))
    expected = solve(transport_problem(cost)).value
    got = solve(transport_problem(1e-160 * cost)).value
    assert abs(got / (1e-160 * expected) - 1) <= 1e-12
    with pytest.raises(ValueError, match="scale it down"):
        transport_problem(1.7e308 * np.ones((2, 2)))


@pytest.mark.parametrize("scale", [1e150, 1e-150])
def test_potentials_that_leave_float64_stop_neither_pickles_nor_warm_starts(scale):
    x = scale * np.random.default_rng(0).normal(size=(30, 3))
    mu, nu = ma.EmpiricalMeasure(x), ma.EmpiricalMeasure(x + 0.1 * x[::-1])
    solution = wp(mu, nu, 3)
    again = wp(mu, nu, 3, start=pickle.loads(pickle.dumps(solution)), solver=ColumnGeneration())
    assert abs(again.value / solution.value - 1) <= 1e-9


def test_points_that_leave_no_room_for_distances_are_refused():
    with pytest.raises(ValueError, match="scale both measures down"):
        w1(ma.EmpiricalMeasure([[3e307]]), ma.EmpiricalMeasure([[-3e307]]))


def test_a_plan_that_misses_mass_has_a_value_inside_its_bracket():
    rng = np.random.default_rng(0)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, y = 1e3 * rng.normal(size=(60, 5)) + 1e6, 1e3 * rng.normal(size=(50, 5)) + 1e6
        mu, nu = ma.weighted(x, rng.random(60)), ma.weighted(y, rng.random(50))
        for p in (1, 3):
            solution = wp(mu, nu, p, solver=ColumnGeneration())
            assert solution.lower <= solution.value <= solution.upper
