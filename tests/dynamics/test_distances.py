"""Distances along a path: to its start and other references, started warm where that pays."""

import numpy as np
import pytest

import measattn as ma
from measattn import dynamics as dyn
from measattn.dynamics import distances
from measattn.wasserstein import ColumnGeneration, NetworkSimplex, w1

pytestmark = pytest.mark.float64

RNG = np.random.default_rng(0)
CLOUD = ma.weighted(RNG.normal(size=(40, 3)), RNG.random(40))
LAYER = ma.SelfAttention(ma.DotProduct(0.7), 0.8 * np.eye(3))
OTHER = ma.EmpiricalMeasure(RNG.normal(size=(7, 3)))


@pytest.mark.parametrize("reference", [CLOUD, OTHER])
def test_the_distance_to_a_reference_is_that_of_each_measure(reference):
    path = dyn.iterate(LAYER, CLOUD, 4, keep="all", distances=False, reference=reference)
    expected = [w1(mu, reference).value for mu in path]
    np.testing.assert_allclose(path.reference.w1, expected, rtol=1e-9, atol=1e-15)
    assert np.all(path.reference.lower <= path.reference.w1)
    assert np.all(path.reference.w1 <= path.reference.upper)
    assert len(path.w1) == 0


def test_a_path_begins_at_its_start_and_has_no_reference_unless_it_is_given_one():
    path = dyn.through([LAYER, LAYER], CLOUD, reference=CLOUD)
    assert path.reference.w1[0] == 0
    assert path.reference.w1[1] == path.w1[0] > 0
    assert [len(part) for part in dyn.iterate(LAYER, CLOUD, 2).reference] == [0, 0, 0]


def test_a_path_that_ends_early_keeps_the_distances_of_its_good_measures():
    growing = ma.SelfAttention(ma.DotProduct(1.0), 1e60 * np.eye(3))
    path = dyn.iterate(growing, CLOUD, 20, observe=False, distances=False, reference=CLOUD)
    assert 0 < path.steps < 20
    assert len(path.reference.w1) == path.steps + 1
    assert np.isfinite(path.reference.upper).all()


@pytest.fixture
def seen(monkeypatch):
    """The starts and the solutions of all problems along a path."""
    seen = []

    def recorded(*args, start, **options):
        solution = w1(*args, start=start, **options)
        seen.append((start, solution))
        return solution

    monkeypatch.setattr(distances, "w1", recorded)
    return seen


def test_a_problem_starts_from_the_one_before_it_where_that_searched_for_arcs(seen):
    mu = ma.EmpiricalMeasure(RNG.normal(size=(400, 3)))
    sphere = ma.post_norm([ma.SelfAttention(ma.DotProduct(1.0), 0.1 * np.eye(3))], [ma.LayerNorm()])
    path = dyn.iterate(sphere, mu, 4, distances=False, reference=mu, observe=False, keep="all")
    starts, solutions = zip(*seen, strict=True)
    assert starts[:2] == (None, None)  # equal laws left nothing to start from
    assert all(start is before for start, before in zip(starts[2:], solutions[1:], strict=False))
    assert all(solution.iterations > 0 for solution in solutions[1:])
    cold = [w1(law, mu).value for law in path]
    np.testing.assert_allclose(path.reference.w1, cold, rtol=1e-8)
    seen.clear()
    still = ma.Residual(ma.SelfAttention(ma.DotProduct(1.0), 1e-6 * np.eye(3)))
    dyn.iterate(still, mu, 3, observe=False)
    assert [start for start, _ in seen] == [None] * 3


@pytest.mark.parametrize("reference", [np.ones((3, 3)), ma.EmpiricalMeasure(np.ones((3, 2)))])
def test_a_reference_must_be_a_measure_of_the_same_dimension(reference):
    with pytest.raises(ValueError, match="reference must be .* dimension 3"):
        dyn.iterate(LAYER, CLOUD, 2, reference=reference)


@pytest.mark.parametrize("keep", ["some", [3], [-1]])
def test_steps_that_cannot_be_kept_are_refused(keep):
    with pytest.raises(ValueError, match="keep"):
        dyn.iterate(LAYER, CLOUD, 2, keep=keep)


def test_steps_that_become_short_are_solved_cold_again_and_long_ones_warm(seen):
    mu = ma.EmpiricalMeasure(RNG.normal(size=(400, 3)))
    attention = ma.SelfAttention(ma.DotProduct(1.0), np.eye(3))
    long, short = (
        ma.Residual(ma.SelfAttention(ma.DotProduct(0.5), s * np.eye(3))) for s in (1, 1e-6)
    )
    dyn.through([attention, long, *[short] * 4, long, long], mu, observe=False)
    rounds = [len(solution.trace) for _, solution in seen]
    starts = [start is not None for start, _ in seen]
    assert min(rounds[0], rounds[-2]) > 0
    # warm while the steps before needed rounds, cold after the first that a cold try found short
    assert starts[1]
    assert rounds[5] == 0
    assert starts[5:] == [False, False, True]


def test_a_reference_that_is_far_away_costs_no_cold_tries(seen):
    mu = ma.EmpiricalMeasure(RNG.normal(size=(400, 3)))
    slow = ma.post_norm([ma.SelfAttention(ma.DotProduct(1.0), 0.1 * np.eye(3))], [ma.LayerNorm()])
    dyn.iterate(slow, mu, 12, distances=False, reference=mu, observe=False)
    assert [start is None for start, _ in seen] == [True, True] + [False] * 11


def test_a_distance_whose_gap_stays_open_is_kept_with_its_bracket_and_so_is_the_path(monkeypatch):
    done = []

    def tired(*args, **options):
        done.append(args)
        given_up = len(done) in (2, 3)
        return w1(*args, **options, **({"solver": NetworkSimplex(pivots=1)} if given_up else {}))

    monkeypatch.setattr(distances, "w1", tired)
    path = dyn.iterate(LAYER, CLOUD, 5, keep="all")
    exact = np.array([w1(path[step], path[step + 1]).value for step in range(5)])
    assert path.steps == 5
    assert len(path.kept) == 6
    assert path.status == (
        "All steps were made. The distances of steps 2, 3 have wider brackets than tol asks for."
    )
    assert np.all(path.lower <= exact * (1 + 1e-12))
    assert np.all(exact <= path.upper * (1 + 1e-12))
    wide = path.upper - path.lower > 1e-9 * path.w1
    assert wide.tolist() == [False, True, True, False, False]
    monkeypatch.undo()
    fine = dyn.iterate(LAYER, CLOUD, 5)
    assert fine.status == "All steps were made."


def test_a_problem_does_not_start_from_one_whose_gap_stayed_open(monkeypatch):
    starts = []

    def tired(*args, start, **options):
        starts.append(start)
        return w1(*args, **options, solver=ColumnGeneration(rounds=1, neighbours=1))

    monkeypatch.setattr(distances, "w1", tired)
    chain, clouds = distances.Chain(1e-9), RNG.normal(size=(2, 400, 3))
    for _ in range(2):
        chain.add(*map(ma.EmpiricalMeasure, clouds))
    assert chain.wide == [0, 1]
    assert starts == [None, None]


def test_a_reference_whose_gap_stays_open_is_named_by_its_step(monkeypatch):
    monkeypatch.setattr(
        distances,
        "w1",
        lambda *args, **options: w1(*args, **options, solver=NetworkSimplex(pivots=1)),
    )
    path = dyn.iterate(LAYER, CLOUD, 2, reference=OTHER, distances=False)
    assert "The distances to the reference after steps 0, 1, 2 have wider brackets" in path.status
    assert len(path.reference.upper) == 3
    end = dyn.fixed_point(LAYER, CLOUD, steps=3)
    assert "wider than" in end.residual.status


def test_states_too_large_for_distances_end_no_path():
    growing = ma.SelfAttention(ma.DotProduct(0.0), 1e102 * np.eye(3))
    path = dyn.iterate(growing, ma.EmpiricalMeasure(np.ones((2, 3))), 3, observe=False)
    assert path.steps == 3
    assert np.abs(path[-1].points).max() > 1e305
    assert np.isfinite(path.w1[:2]).all()
    assert np.isnan(path.w1[2])
    assert (path.lower[2], path.upper[2]) == (0, np.inf)
    assert "The distances of steps 3 have wider brackets" in path.status
