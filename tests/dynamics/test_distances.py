"""Distances along a path: to its start and other references, started warm where that pays."""

import numpy as np
import pytest

import measattn as ma
from measattn import dynamics as dyn
from measattn.dynamics import distances
from measattn.wasserstein import w1

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


def test_a_problem_starts_from_the_one_before_it_where_that_searched_for_arcs(monkeypatch):
    seen = []

    def recorded(*args, start, **options):
        solution = w1(*args, start=start, **options)
        seen.append((start, solution))
        return solution

    monkeypatch.setattr(distances, "w1", recorded)
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
