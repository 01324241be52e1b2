"""Column generation: its rounds, its start from a nearby problem, its degenerate potentials."""

import numpy as np
import pytest

import measattn as ma
from measattn.wasserstein import ColumnGeneration, NetworkSimplex, w1
from measattn.wasserstein.problem import pose_measures
from measattn.wasserstein.solvers.candidates import Candidates
from tests.transport.clouds import by_program, cloud, mapped

pytestmark = pytest.mark.float64


def test_a_start_gives_the_same_value():
    mu, nu = cloud(20, 600, 3), cloud(21, 600, 3)
    cold = w1(mu, nu, solver=ColumnGeneration())
    near = mapped(lambda x: x + 1e-4 * np.sin(x), nu)
    warm = w1(mu, near, solver=ColumnGeneration(), start=cold)
    assert abs(warm.value - w1(mu, near).value) <= 1e-9 * warm.value
    assert warm.iterations <= cold.iterations
    with pytest.raises(ValueError, match="start must be"):
        w1(mu, cloud(3, 500, 3), start=cold)


def test_the_brackets_of_column_generation_hold_and_close():
    seen = []
    mu, nu = cloud(24, 600, 2), cloud(25, 500, 2, weighted=True)
    solution = w1(mu, nu, watch=seen.append, solver=ColumnGeneration(neighbours=2))
    assert len(seen) == solution.iterations > 1
    assert tuple(seen) == solution.trace
    lowers = [bracket.lower for bracket in seen]
    assert lowers == sorted(lowers)
    assert all(b.lower <= solution.value <= b.upper * (1 + 1e-12) for b in seen)


def test_a_start_spares_rounds_whoever_solved_the_problem_before():
    mu, nu = cloud(30, 400, 3), cloud(31, 300, 3, weighted=True)
    near = mapped(lambda x: x + 1e-3 * np.cos(x), nu)
    cold = w1(mu, near, solver=ColumnGeneration())
    for before in (ColumnGeneration(), NetworkSimplex()):
        start = w1(mu, nu, solver=before)
        warm = w1(mu, near, solver=ColumnGeneration(), start=start)
        assert warm.iterations < cold.iterations
        assert abs(warm.value - cold.value) <= 1e-10 * cold.value


def test_a_start_of_atoms_that_merge_and_cancel_is_carried_over():
    mu, nu = cloud(32, 60, 2, kind="coincident"), cloud(33, 50, 2, kind="grid")
    for other in (nu, mapped(lambda x: x + 0.25, mu), mu):
        start = w1(mu, other, solver=ColumnGeneration())
        solution = w1(mu, other, solver=ColumnGeneration(), start=start)
        assert abs(solution.value - by_program(mu, other)) <= 1e-12


def test_many_atoms_against_few_clumps_are_certified():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 16))
    y = 3 * rng.normal(size=(5, 16))[rng.integers(0, 5, 800)] + 1e-2 * rng.normal(size=(800, 16))
    mu, nu = ma.EmpiricalMeasure(x), ma.EmpiricalMeasure(y)
    solution = w1(mu, nu, solver=ColumnGeneration())
    exact = w1(mu, nu, solver=NetworkSimplex()).value
    assert abs(solution.value - exact) <= 1e-10 * exact


@pytest.mark.parametrize("weighted", [False, True])
def test_potentials_near_given_ones_are_feasible_and_tight_on_the_plan(weighted):
    problem = pose_measures(cloud(34, 40, 2), cloud(35, 40 - 3 * weighted, 2, weighted)).problem
    n, m = problem.ground.shape
    every = Candidates.none().grown(problem, np.arange(n * m))
    base = np.random.default_rng(0).normal(size=n)
    plan, u, v = every.solve(problem, (base, np.zeros(m)), 10**9)
    slack = problem.cost - u[:, None] - v[None, :]
    assert slack.min() >= -1e-12
    assert np.abs(slack[plan.rows, plan.cols]).max() <= 1e-12
    if len(plan.rows) < n + m - 1:  # the largest with u <= base touch it somewhere
        assert abs((base - u).min()) <= 1e-12
