"""W1: its value, its certificate, and what it refuses."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn.wasserstein import Assignment, Line, NetworkSimplex, TransportError, w1
from measattn.wasserstein.problem import problem
from measattn.wasserstein.solution import Plan, c_transform, certify
from tests import oracles

pytestmark = pytest.mark.float64


TOKENS = ma.EmpiricalMeasure(ma.Token(jnp.arange(3.0), jnp.ones((3, 2))))
BATCH = jax.vmap(ma.EmpiricalMeasure)(jnp.ones((2, 3, 2)))


def cloud(seed, n, d, weighted=False):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, d))
    return ma.weighted(points, rng.random(n)) if weighted else ma.EmpiricalMeasure(points)


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize(("n", "m", "weighted"), [(6, 6, False), (7, 4, True), (1, 5, True)])
def test_w1_is_the_value_of_the_linear_program(n, m, d, weighted):
    mu, nu = cloud(0, n, d, weighted), cloud(1, m, d, weighted)
    solution = w1(mu, nu)
    expected = oracles.w1_by_linear_program(mu.points, nu.points, mu.weights, nu.weights)
    assert abs(solution.value - expected) <= 1e-12 * expected
    assert solution.lower <= expected * (1 + 1e-14)
    assert solution.upper >= expected * (1 - 1e-14)


@pytest.mark.parametrize("d", [1, 3])
def test_all_solvers_that_apply_agree(d):
    mu, nu = cloud(2, 60, d), cloud(3, 60, d)
    solvers = [Assignment(), NetworkSimplex()] + ([Line()] if d == 1 else [])
    values = [w1(mu, nu, solver=s).value for s in solvers]
    np.testing.assert_allclose(values, values[0], rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_value_follows_the_scale_of_the_points(scale):
    mu, nu = cloud(4, 40, 3), cloud(5, 30, 3, weighted=True)
    scaled = w1(ma.pushforward(lambda x: scale * x, mu), ma.pushforward(lambda x: scale * x, nu))
    assert abs(scaled.value - scale * w1(mu, nu).value) <= 1e-12 * scaled.value


def test_a_common_shift_is_what_w1_measures_even_far_from_the_origin():
    mu = cloud(6, 50, 4)
    shift = jnp.array([3.0, 4.0, 0.0, 0.0])
    for offset in (0.0, 1e6):
        moved = ma.pushforward(lambda x, c=offset: x + c, mu)
        target = ma.pushforward(lambda x: x + shift, moved)
        assert abs(w1(moved, target).value - 5.0) <= 1e-8


def test_distance_to_a_dirac_is_the_mean_distance():
    mu = cloud(7, 30, 3, weighted=True)
    expected = float(ma.integrate(lambda x: jnp.linalg.norm(x), mu))
    assert abs(w1(mu, ma.dirac(jnp.zeros(3))).value - expected) <= 1e-13


def test_scipys_documented_values_are_reproduced():
    line = lambda x: ma.EmpiricalMeasure(np.asarray(x, float)[:, None])  # noqa: E731
    assert abs(w1(line([0, 1, 3]), line([5, 6, 8])).value - 5.0) <= 1e-14
    mu = ma.weighted(np.array([[3.4], [3.9], [7.5], [7.8]]), [1.4, 0.9, 3.1, 7.2])
    nu = ma.weighted(np.array([[4.5], [1.4]]), [3.2, 3.5])
    assert abs(w1(mu, nu).value - 4.078133143804786) <= 1e-13


def test_equal_measures_are_at_distance_zero_with_coincident_points():
    points = np.repeat(np.arange(4.0)[:, None], 3, axis=0) @ np.ones((1, 2))
    mu = ma.EmpiricalMeasure(points)
    solution = w1(mu, ma.EmpiricalMeasure(points[::-1].copy()))
    assert solution.value == 0
    assert solution.lower == 0


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("n", [1, 3, 5, 50])
def test_a_measure_is_at_distance_zero_from_itself_however_it_is_written(n, d):
    for mu in (cloud(n, n, d), cloud(n, n, d, weighted=True)):
        order = np.random.default_rng(0).permutation(n)
        shuffled = ma.weighted(np.asarray(mu.points)[order], np.asarray(mu.weights)[order])
        for same in (mu, shuffled, ma.mixture([mu, shuffled])):
            solution = w1(mu, same)
            assert solution.lower == 0
            assert solution.upper <= 1e-12


@pytest.mark.parametrize("d", [1, 3])
def test_a_tiny_shift_is_certified_to_the_resolution_of_float64(d):
    mu = cloud(18, 20, d)
    shift = 1e-7 * np.eye(d)[0]
    solution = w1(mu, ma.EmpiricalMeasure(np.asarray(mu.points) + shift))
    assert abs(solution.value - 1e-7) <= 1e-15
    assert solution.lower <= 1e-7 <= solution.upper
    assert solution.gap <= 1e-12


def test_negative_mass_cannot_make_a_plan_too_cheap():
    mu, nu = cloud(19, 8, 2), cloud(20, 8, 2)
    posed, good = problem(mu, nu), w1(mu, nu)
    i, j = good.plan.rows[:2], good.plan.cols[:2]
    cycle = Plan(
        np.concatenate([good.plan.rows, i, i]),
        np.concatenate([good.plan.cols, j, j[::-1]]),
        np.concatenate([good.plan.mass, [1.0, 1.0], [-1.0, -1.0]]),
    )
    with pytest.raises(TransportError):
        certify(posed, cycle, good.potentials[0], "broken", tol=1e-9)


def test_atoms_without_mass_do_not_count():
    mu = ma.weighted(np.array([[0.0], [1.0], [1e9]]), [1.0, 1.0, 0.0])
    nu = ma.EmpiricalMeasure(np.array([[0.0], [2.0]]))
    assert abs(w1(mu, nu).value - 0.5) <= 1e-15


def test_plan_has_the_marginals_and_potentials_are_feasible():
    mu, nu = cloud(8, 20, 2, weighted=True), cloud(9, 25, 2, weighted=True)
    s = w1(mu, nu)
    np.testing.assert_allclose(np.bincount(s.plan.rows, s.plan.mass), mu.weights, atol=1e-15)
    np.testing.assert_allclose(np.bincount(s.plan.cols, s.plan.mass), nu.weights, atol=1e-15)
    u, v = s.potentials
    slack = problem(mu, nu).cost - u[:, None] - v[None]
    assert slack.min() >= -1e-15


def test_a_truncated_simplex_is_refused_by_its_certificate():
    mu, nu = cloud(10, 200, 8), cloud(11, 150, 8)
    with pytest.raises(TransportError, match="did not close the gap") as caught:
        w1(mu, nu, solver=NetworkSimplex(iterations=20))
    exact = w1(mu, nu).value
    assert caught.value.solution.lower <= exact <= caught.value.solution.upper


def test_a_plan_with_wrong_marginals_cannot_certify_too_small_a_value():
    mu, nu = cloud(12, 30, 2), cloud(13, 30, 2)
    posed, good = problem(mu, nu), w1(mu, nu)
    cheap = Plan(good.plan.rows[:15], good.plan.cols[:15], good.plan.mass[:15])
    with pytest.raises(TransportError) as caught:
        certify(posed, cheap, good.potentials[0], "broken", tol=1e-9)
    assert caught.value.solution.upper >= good.value


def test_infeasible_potentials_cannot_certify_too_large_a_value():
    mu, nu = cloud(14, 30, 2), cloud(15, 30, 2)
    posed, good = problem(mu, nu), w1(mu, nu)
    with pytest.raises(TransportError) as caught:
        certify(posed, good.plan, 3 * good.potentials[0], "broken", tol=1e-9)
    assert caught.value.solution.lower <= good.value


def test_the_c_transform_is_the_largest_feasible_potential():
    posed = problem(cloud(16, 9, 2), cloud(17, 5, 2))
    u = np.linspace(-1, 1, 9)
    v, _ = c_transform(posed, u)
    np.testing.assert_array_equal(v, (posed.cost - u[:, None]).min(axis=0))


def test_float32_measures_are_compared_in_float64():
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    mu, nu = ma.EmpiricalMeasure(x), ma.EmpiricalMeasure(x + np.float32(1e-3))
    uniform = np.ones(20) / 20
    expected = oracles.w1_by_linear_program(mu.points, nu.points, uniform, uniform)
    assert abs(w1(mu, nu).value - expected) <= 1e-12 * expected


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: w1(cloud(0, 3, 2), cloud(0, 3, 3)), "dimensions 2 and 3"),
        (lambda: w1(TOKENS, cloud(0, 3, 2)), "states"),
        (lambda: jax.jit(lambda m: w1(m, m).value)(cloud(0, 3, 2)), "outside"),
        (lambda: w1(cloud(0, 3, 2), cloud(1, 4, 2), solver=Assignment()), "NetworkSimplex"),
        (lambda: w1(cloud(0, 3, 2), cloud(1, 4, 2), solver=Line()), "dimension 2"),
        (
            lambda: problem(cloud(0, 3, 2), jax.vmap(ma.EmpiricalMeasure)(jnp.ones((2, 3, 2)))),
            "batch",
        ),
        (lambda: w1(cloud(0, 20_000, 2, True), cloud(1, 20_000, 2, True)), "20000"),
    ],
)
def test_what_has_no_answer_is_refused_with_words(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_importing_the_library_imports_neither_pot_nor_matplotlib():
    heavy = ("ot", "torch", "matplotlib")
    code = f"import sys, measattn; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    assert out.stderr == ""
