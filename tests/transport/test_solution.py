"""A solution as any other Python object: printed, compared, kept in files."""

import copy
import pickle

import jax.numpy as jnp
import numpy as np
import pytest

from measattn.wasserstein import (
    ColumnGeneration,
    TransportError,
    conditional,
    transport_problem,
    w1,
    w_inf,
    wp,
)
from measattn.wasserstein.plan import Arcs
from measattn.wasserstein.problem import pose_measures
from tests.transport.clouds import cloud
from tests.transport.test_relatives import tokens

pytestmark = pytest.mark.float64


def kinds():
    mu, nu = cloud(0, 30, 2), cloud(1, 25, 2, True)
    yield w1(mu, nu)
    yield wp(mu, nu, 2, solver=ColumnGeneration())
    yield w1(mu, nu, metric=lambda x, y: jnp.sum(jnp.abs(x - y)))
    yield conditional(tokens([0, 0, 1], np.eye(3)), tokens([0, 0, 1], 2 * np.eye(3)))


@pytest.mark.parametrize("which", range(4))
def test_a_solution_survives_pickling_with_its_plan_and_its_potentials(which):
    solution = list(kinds())[which]
    for kept in (pickle.loads(pickle.dumps(solution)), copy.deepcopy(solution)):
        assert repr(kept) == repr(solution)
        for before, after in zip(solution.plan, kept.plan, strict=True):
            np.testing.assert_array_equal(before, after)
        for before, after in zip(solution.potentials, kept.potentials, strict=True):
            np.testing.assert_array_equal(before, after)


def test_a_pickled_solution_starts_a_nearby_problem():
    mu, nu = cloud(0, 300, 2), cloud(1, 250, 2, True)
    kept = pickle.loads(pickle.dumps(w1(mu, nu, solver=ColumnGeneration())))
    assert w1(mu, nu, start=kept).value == pytest.approx(kept.value, rel=1e-12)


def test_an_error_survives_pickling_with_its_bracket():
    with pytest.raises(TransportError) as caught:
        w1(cloud(0, 60, 2), cloud(1, 60, 2), solver=ColumnGeneration(neighbours=1, rounds=1))
    kept = pickle.loads(pickle.dumps(caught.value))
    assert str(kept) == str(caught.value)
    assert kept.solution.lower == caught.value.solution.lower


def test_solutions_and_problems_are_equal_to_themselves_alone_and_go_into_sets():
    mu, nu = cloud(0, 9, 2), cloud(1, 7, 2)
    for make in (
        lambda: w1(mu, nu),
        lambda: w_inf(mu, nu),
        lambda: transport_problem(np.ones((2, 3))),
        lambda: pose_measures(mu, nu).problem.ground,
    ):
        one, other = make(), make()
        assert one == one
        assert one != other
        assert len({one, other, one}) == 2


def test_what_holds_many_numbers_is_printed_in_one_short_line():
    mu, nu = cloud(0, 3000, 8), cloud(1, 2000, 8)
    problem = transport_problem(np.ones((3000, 2000)))
    solution = w1(cloud(0, 300, 2), cloud(1, 200, 2))
    for item in (
        problem,
        pose_measures(mu, nu).problem,
        pose_measures(mu, nu, metric=lambda x, y: jnp.max(jnp.abs(x - y))).problem,
        solution,
        solution.plan,
        Arcs(*solution.plan[:2]),
        w_inf(cloud(0, 300, 2), cloud(1, 200, 2)),
    ):
        assert len(repr(item)) < 200, repr(item)
        assert "\n" not in repr(item)
    assert repr(problem) == "Problem(p=1, mass 1, ground=Table(n=3000, m=2000))"
