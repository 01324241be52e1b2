"""w1 as its users meet it: certificates, reductions, statuses, refusals, negative controls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn.wasserstein import (
    Assignment,
    Auto,
    ColumnGeneration,
    Line,
    NetworkSimplex,
    Plan,
    Sinkhorn,
    TransportError,
    ground,
    solve,
    tiles,
    transport_problem,
    w1,
    wp,
)
from measattn.wasserstein.certificate import certify
from measattn.wasserstein.ground import Euclidean
from measattn.wasserstein.pricing import c_transform, nearest
from measattn.wasserstein.problem import pose_measures
from measattn.wasserstein.solvers import Run
from measattn.wasserstein.w1 import solve_posed
from tests import oracles
from tests.transport.clouds import arrays, by_program, cloud, mapped

pytestmark = pytest.mark.float64

TOKENS = ma.EmpiricalMeasure(ma.Token(jnp.arange(3.0), jnp.ones((3, 2))))
BATCH = jax.vmap(ma.EmpiricalMeasure)(jnp.ones((2, 3, 2)))


@pytest.mark.parametrize("scale", [1e-200, 1e-8, 1.0, 1e8, 1e200])
def test_the_value_follows_the_scale_of_the_points(scale):
    mu, nu = cloud(4, 40, 3), cloud(5, 30, 3, weighted=True)
    scaled = w1(*(mapped(lambda x: scale * x, measure) for measure in (mu, nu)))
    assert abs(scaled.value / scale - w1(mu, nu).value) <= 1e-12 * w1(mu, nu).value
    assert scaled.lower <= scaled.value <= scaled.upper


@pytest.mark.parametrize("solver", [Assignment(), NetworkSimplex(), ColumnGeneration()])
def test_a_common_shift_is_what_w1_measures_even_far_from_the_origin(solver):
    shift = np.array([3.0, 4.0, 0.0, 0.0])
    for offset in (0.0, 1e6):
        mu = mapped(lambda x, c=offset: x + c, cloud(6, 50, 4))
        solution = w1(mu, mapped(lambda x: x + shift, mu), solver=solver)
        assert abs(solution.value - 5.0) <= 1e-8


def test_light_atoms_that_move_a_little_keep_their_digits():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3))
    y = x.copy()
    y[:2, 0] += 1e-6
    weights = np.ones(50)
    weights[:2] = 48e-12
    mu = ma.weighted(x, weights)
    moved = np.linalg.norm(y - x, axis=1)[:2]
    expected = np.asarray(mu.weights)[:2] @ moved
    solution = w1(mu, ma.weighted(y, weights))
    assert abs(solution.value - expected) <= 1e-9 * expected
    assert solution.gap <= 1e-9 * expected


@pytest.mark.parametrize("p", [1.5, 2, 3])
@pytest.mark.parametrize("solver", [Line(), NetworkSimplex()])
def test_light_atoms_that_move_a_little_on_the_line_keep_their_digits_for_every_order(solver, p):
    x = np.random.default_rng(0).normal(size=(50, 1))
    y = x.copy()
    y[:2] += 1e-6
    weights = np.ones(50)
    weights[:2] = 48e-12
    mu = ma.weighted(x, weights)
    exact = (np.asarray(mu.weights)[:2] @ np.abs(y - x)[:2, 0] ** p) ** (1 / p)
    solution = wp(mu, ma.weighted(y, weights), p, solver=solver)
    assert abs(solution.value - exact) <= 1e-9 * exact
    assert solution.gap <= 1e-9 * exact


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("n", [1, 3, 50])
def test_a_measure_is_at_distance_zero_from_itself_however_it_is_written(n, d):
    for mu in (cloud(n, n, d), cloud(n, n, d, weighted=True)):
        order = np.random.default_rng(0).permutation(n)
        shuffled = ma.weighted(np.asarray(mu.points)[order], np.asarray(mu.weights)[order])
        for same in (shuffled, ma.mixture([mu, shuffled])):
            solution = w1(mu, same)
            assert solution.lower <= 1e-15  # weights that are computed twice differ by rounding
            assert solution.upper <= 1e-12


def test_minus_zero_is_zero():
    assert w1(ma.dirac([0.0, 1.0]), ma.dirac([-0.0, 1.0])).value == 0


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("kind", ["general", "grid", "coincident"])
def test_plan_and_potentials_are_those_of_the_atoms_as_they_were_given(kind, p):
    mu, nu = cloud(8, 40, 2, True, kind), cloud(8, 30, 2, True, kind)
    solution = wp(mu, nu, p)
    x, y, a, b = arrays(mu, nu)
    rows, cols, mass = solution.plan
    np.testing.assert_allclose(np.bincount(rows, mass, 40), a, atol=1e-15)
    np.testing.assert_allclose(np.bincount(cols, mass, 30), b, atol=1e-15)
    cost = oracles.distances(x, y) ** p
    assert abs(cost[rows, cols] @ mass - solution.value**p) <= 1e-14
    u, v = solution.potentials
    assert (cost - u[:, None] - v).min() >= -1e-14
    assert abs(a @ u + b @ v - solution.value**p) <= 2e-13


def test_a_truncated_simplex_is_caught_and_its_bracket_holds():
    mu, nu = cloud(10, 200, 8), cloud(11, 150, 8)
    exact = by_program(mu, nu)
    for solver in (NetworkSimplex(pivots=20), ColumnGeneration(neighbours=1, rounds=1)):
        with pytest.raises(TransportError, match="did not close the gap") as caught:
            w1(mu, nu, solver=solver)
        assert caught.value.solution.lower <= exact <= caught.value.solution.upper


def broken(change):
    """The bracket of a right solution that was tampered with, and the right value."""
    mu, nu = cloud(12, 30, 2), cloud(13, 30, 2)
    problem, good = pose_measures(mu, nu).problem, Assignment()
    proposal = good.solve(problem, Run())
    value = certify(problem, proposal.plan, proposal.u).above.value
    return certify(problem, *change(proposal.plan, proposal.u)), value


def test_a_plan_that_leaves_mass_behind_cannot_certify_too_small_a_value():
    bracket, value = broken(lambda plan, u: (Plan(*(part[:15] for part in plan)), u))
    assert bracket.above.upper >= value
    assert bracket.gap > 1e-3 * value


def test_negative_mass_cannot_make_a_plan_too_cheap():
    def cycle(plan, u):
        i, j = plan.rows[:2], plan.cols[:2]
        rows, cols = np.concatenate([plan.rows, i, i]), np.concatenate([plan.cols, j, j[::-1]])
        return Plan(rows, cols, np.concatenate([plan.mass, [1.0, 1.0], [-1.0, -1.0]])), u

    bracket, value = broken(cycle)
    assert bracket.above.upper >= value
    assert bracket.gap > 1e-3 * value


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1e300])
def test_potentials_that_are_no_numbers_certify_nothing(bad):
    bracket, value = broken(lambda plan, u: (plan, np.where(np.arange(len(u)) % 3, u, bad)))
    assert 0 <= bracket.below.lower <= value


def test_potentials_that_violate_a_constraint_cannot_certify_too_large_a_value():
    bracket, value = broken(lambda plan, u: (plan, 3 * u))
    assert bracket.below.lower <= value
    assert bracket.gap > 1e-3 * value


def test_costs_that_cancel_do_not_pass_for_the_distance():
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    y = x + np.float32(1e-6)
    square = (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * x @ y.T
    cancelled = solve(transport_problem(np.sqrt(np.maximum(square, 0)))).value
    true = w1(ma.EmpiricalMeasure(x.astype(float)), ma.EmpiricalMeasure(y.astype(float)))
    assert abs(cancelled - true.value) > 10 * true.value
    assert true.gap <= 1e-9 * true.value


ISSUE_229 = [
    [2.50275352e02, 3.74653218e02, 2.41352736e03, 1e32, 1.51751540e-03],
    [2.13082030e02, 3.28812836e02, 2.29487946e03, 1e32, 1.37109800e-01],
    [1.97333083e02, 3.09175848e02, 2.24250550e03, 1e32, 2.46506283e00],
    [1e32, 1e32, 1e32, 5.26223432e00, 2.5e31],
    [3.84690152e01, 8.09465684e01, 3.33064175e02, 2.5e31, 0.0],
]
"""From POT's issue 229: `ot.emd` takes a plan of cost 88.5 for optimal."""


@pytest.mark.parametrize("solver", [Auto(), NetworkSimplex(), ColumnGeneration()])
def test_costs_that_mislead_pots_simplex_are_solved_or_refused(solver):
    masses = [0.125, 0.125, 0.125, 0.125, 0.5]
    expected = 57.54321038317501
    bracket = solved_or_refused(transport_problem(ISSUE_229, masses, masses), solver)
    assert bracket.lower <= expected * (1 + 1e-12)
    assert bracket.upper >= expected * (1 - 1e-12)
    refused = bracket.gap > 1e-9 * expected
    assert refused or bracket.value <= expected * (1 + 1e-12)


def test_huge_costs_are_solved_or_refused_but_never_wrong():
    small = np.random.default_rng(3).random((5, 5)) * 100
    cost = np.where(np.random.default_rng(4).random((5, 5)) < 0.4, 1e32, small)
    np.fill_diagonal(cost, np.diag(small))
    expected = float(oracles.least_permutation(cost)) / 5
    bracket = solved_or_refused(transport_problem(cost))
    assert bracket.lower <= expected * (1 + 1e-9)
    assert bracket.upper >= expected * (1 - 1e-9)


def solved_or_refused(problem, solver=None):
    try:
        return solve(problem, solver=solver)
    except TransportError as error:
        return error.solution


@pytest.mark.parametrize("run", [tiles.compiled, tiles.on_the_host])
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_the_filtered_c_transform_is_exact(monkeypatch, run, p, offset):
    monkeypatch.setattr(ground, "WORTH_FILTERING", 0)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 5)) / 8 + offset, rng.normal(size=(170, 5)) / 8 + offset
    y[:40] = x[:40] + 1e-9
    u = rng.normal(size=300) / 20
    costs = Euclidean(x, y, p, run)
    reduced = costs.block(slice(None), slice(None)) - u[:, None]
    priced = c_transform(costs, u)
    np.testing.assert_array_equal(priced.v, reduced.min(axis=0))
    np.testing.assert_array_equal(reduced[priced.at, np.arange(170)], priced.v)
    for cols, bounds in costs.minima(u):
        for g, group in enumerate(costs.groups):
            assert np.all(bounds[g] <= reduced[group, cols].min(axis=0))
    rows, cols = nearest(costs, u, 4)
    found = np.full(170, np.inf)
    np.minimum.at(found, cols, reduced[rows, cols])
    np.testing.assert_array_equal(found, priced.v)


def test_the_c_transform_of_many_points_on_the_line_is_never_too_large():
    rng = np.random.default_rng(5)
    x, y = (
        np.round(rng.normal(size=(2000, 1)), 2) + 1e5,
        np.round(rng.normal(size=(1500, 1)), 2) + 1e5,
    )
    u = 0.3 * rng.normal(size=2000)
    costs = Euclidean(x, y, 1.0, tiles.compiled)
    reduced = costs.block(slice(None), slice(None)) - u[:, None]
    priced = c_transform(costs, u)
    assert np.all(priced.v <= reduced.min(axis=0))
    np.testing.assert_allclose(priced.v, reduced.min(axis=0), atol=1e-9)
    np.testing.assert_allclose(reduced[priced.at, np.arange(1500)], priced.v, atol=1e-9)


def test_a_hundred_thousand_points_on_the_line_are_certified():
    rng = np.random.default_rng(6)
    mu, nu = (ma.weighted(rng.normal(size=(100_000, 1)), rng.random(100_000)) for _ in range(2))
    x, y, a, b = arrays(mu, nu)
    expected = oracles.wasserstein_on_the_line(x[:, 0], y[:, 0], a, b)
    solution = w1(mu, nu)
    assert abs(solution.value - expected) <= 1e-10 * expected
    assert solution.gap <= 1e-9 * expected


def test_pairs_below_the_ceiling_are_found(monkeypatch):
    monkeypatch.setattr(ground, "WORTH_FILTERING", 0)
    rng = np.random.default_rng(1)
    costs = Euclidean(rng.normal(size=(200, 3)), rng.normal(size=(90, 3)), 1.0, tiles.compiled)
    reduced = costs.block(slice(None), slice(None))
    ceiling = reduced.min(axis=0) * 1.2
    priced = c_transform(costs, np.zeros(200), ceiling)
    least = {g: reduced[group].argmin(axis=0) for g, group in enumerate(costs.groups)}
    found = set(zip(priced.rows.tolist(), priced.cols.tolist(), strict=True))
    for g, group in enumerate(costs.groups):
        for j in range(90):
            i = int(group[least[g][j]])
            assert reduced[i, j] >= ceiling[j] or (i, j) in found


def test_sinkhorn_is_an_estimate_whose_bracket_holds():
    mu, nu = cloud(22, 80, 2), cloud(23, 70, 2, weighted=True)
    solution, exact = w1(mu, nu, solver=Sinkhorn()), w1(mu, nu).value
    assert "estimate" in solution.status
    assert solution.lower <= exact <= solution.upper
    assert solution.gap > 1e-6 * exact


def test_a_metric_of_ones_own_may_look_at_positions():
    def metric(x, y):
        return jnp.abs(x.position - y.position) + jnp.sum(jnp.abs(x.state - y.state))

    rng = np.random.default_rng(0)
    s, t = rng.normal(size=(9, 2)), rng.normal(size=(7, 2))
    mu = ma.EmpiricalMeasure(ma.Token(jnp.arange(9.0), jnp.asarray(s)))
    nu = ma.EmpiricalMeasure(ma.Token(jnp.arange(7.0), jnp.asarray(t)))
    cost = np.abs(np.arange(9.0)[:, None] - np.arange(7)) + np.abs(s[:, None] - t).sum(-1)
    expected = oracles.transport(cost, np.full(9, 1 / 9), np.full(7, 1 / 7))[0]
    assert abs(w1(mu, nu, metric=metric).value - expected) <= 1e-12 * expected


def test_auto_takes_the_dense_simplex_where_columns_stall(monkeypatch):
    from measattn.wasserstein.solvers import auto

    monkeypatch.setattr(auto, "ROUNDS", 1)
    mu, nu = cloud(26, 500, 8), cloud(27, 500, 8)
    solution = w1(mu, nu)
    assert solution.solver.startswith("NetworkSimplex (column generation left a gap")
    assert abs(solution.value - w1(mu, nu, solver=Assignment()).value) <= 1e-12 * solution.value


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: w1(cloud(0, 3, 2), cloud(0, 3, 3)), "dimensions 2 and 3"),
        (lambda: w1(TOKENS, cloud(0, 3, 2)), "states"),
        (lambda: w1(TOKENS, cloud(0, 3, 2)), "conditional"),
        (lambda: jax.jit(lambda m: w1(m, m).value)(cloud(0, 3, 2)), "distance"),
        (lambda: w1(cloud(0, 3, 2), cloud(1, 4, 2), solver=Assignment()), "NetworkSimplex"),
        (lambda: w1(cloud(0, 3, 2), cloud(1, 4, 2), solver=Line()), "d = 1"),
        (lambda: w1(cloud(0, 3, 2), BATCH), "batch"),
        (lambda: w1(cloud(0, 3, 2), cloud(1, 3, 2), tol=-1), "tol"),
        (lambda: w1(cloud(0, 3, 2), cloud(1, 3, 2), metric=lambda x, y: x), "scalar"),
        (lambda: w1(cloud(0, 3, 2), cloud(1, 3, 2), metric=lambda x, y: -1.0 + 0 * x[0]), "metric"),
        (lambda: wp(cloud(0, 3, 2), cloud(1, 3, 2), 0.5), "at least 1"),
        (lambda: wp(cloud(0, 3, 2), cloud(1, 3, 2), np.inf), "w_inf"),
        (lambda: transport_problem([[1.0, np.nan]]), "finite"),
        (lambda: transport_problem([[1.0, -2.0]]), "negative"),
        (lambda: transport_problem([[1.0, 2.0]], [1.0], [1.0, 1.0]), "same sum"),
        (lambda: transport_problem([1.0, 2.0]), "matrix"),
        (
            lambda: w1(
                cloud(0, 20_000, 2, True), cloud(1, 20_000, 2, True), solver=NetworkSimplex()
            ),
            "ColumnGeneration",
        ),
    ],
)  # fmt: skip
def test_what_has_no_answer_is_refused_with_words(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_points_that_became_nan_are_refused():
    mu = cloud(0, 3, 2)
    bad = jax.tree.map(lambda leaf: leaf * jnp.nan, mu)
    with pytest.raises(ValueError, match="NaN"):
        w1(bad, mu)


def test_the_solver_must_be_one():
    with pytest.raises(ValueError, match="solver must be"):
        solve_posed(
            pose_measures(cloud(0, 3, 2), cloud(1, 3, 2)), "simplex", tol=0, start=None, watch=None
        )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Sinkhorn(epsilon=0), "epsilon must be positive"),
        (lambda: Sinkhorn(iterations=0), "iterations must be a whole number"),
        (lambda: NetworkSimplex(pivots=0), "pivots must be a whole number"),
        (lambda: ColumnGeneration(neighbours=0), "neighbours must be a whole number"),
        (lambda: ColumnGeneration(rounds=0), "rounds must be a whole number"),
    ],
)
def test_options_of_solvers_are_checked_when_they_are_made(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_masses_that_were_normalised_in_single_precision_are_accepted():
    a, b = (np.full(n, 1 / n, np.float32) for n in (3, 7))
    assert solve(transport_problem(np.ones((3, 7)), a, b)).value == pytest.approx(1, rel=1e-6)


def test_a_metric_may_count():
    mu, nu = cloud(40, 6, 2, kind="grid"), cloud(41, 5, 2, kind="grid")
    hamming = w1(mu, nu, metric=lambda x, y: jnp.sum(x != y))
    real = w1(mu, nu, metric=lambda x, y: jnp.sum(x != y).astype(x.dtype))
    assert hamming.value == pytest.approx(real.value, rel=1e-12)
