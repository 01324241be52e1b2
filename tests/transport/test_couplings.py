"""What a plan does to the atoms, and that it is not taken for one between other measures."""

import itertools
import pickle

import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn.wasserstein import (
    barycentric_map,
    conditional,
    displacement,
    solve,
    transport_problem,
    w1,
    w_inf,
    wp,
)
from tests import oracles
from tests.transport.clouds import arrays, cloud
from tests.transport.test_relatives import tokens

pytestmark = pytest.mark.float64


@pytest.mark.parametrize("p", [1, 2])
def test_displacement_is_a_geodesic_of_constant_speed(p):
    mu, nu = cloud(5, 12, 2, True), cloud(6, 9, 2, True)
    solution = wp(mu, nu, p)
    path = [displacement(solution, mu, nu, t) for t in (0, 0.25, 0.6, 1)]
    for (s, left), (t, right) in itertools.pairwise(zip((0, 0.25, 0.6, 1), path, strict=True)):
        assert abs(wp(left, right, p).value - (t - s) * solution.value) <= 1e-12
    assert wp(path[0], mu, p).value <= 1e-7


def test_the_barycentric_map_has_the_mean_of_the_target():
    mu, nu = cloud(7, 20, 3, True), cloud(8, 15, 3, True)
    image = barycentric_map(w1(mu, nu), mu, nu)
    x, y, a, b = arrays(mu, nu)
    np.testing.assert_allclose(a @ np.asarray(image), b @ y, atol=1e-14)
    np.testing.assert_array_equal(np.asarray(image)[a == 0], x[a == 0])


@pytest.mark.parametrize("n", [6, 9])
def test_the_displacement_along_a_bottleneck_plan_is_a_geodesic_of_w_inf(n):
    mu, nu = cloud(5, n, 2), cloud(6, n, 2)
    solution = w_inf(mu, nu)
    path = [displacement(solution, mu, nu, t) for t in (0, 0.25, 0.6, 1)]
    for (s, left), (t, right) in itertools.pairwise(zip((0, 0.25, 0.6, 1), path, strict=True)):
        assert abs(w_inf(left, right).value - (t - s) * solution.value) <= 1e-14


def solved_by():
    mu, nu = cloud(9, 6, 2), cloud(10, 6, 2)
    at = np.arange(6) % 2
    yield w1(mu, nu)
    yield wp(mu, nu, 2)
    yield w_inf(mu, nu)
    yield w1(mu, nu, metric=lambda x, y: jnp.sum(jnp.abs(x - y)))
    yield conditional(tokens(at, mu.points), tokens(at, nu.points))
    yield pickle.loads(pickle.dumps(w1(mu, nu)))


@pytest.mark.parametrize("which", range(6))
def test_a_plan_belongs_to_its_measures(which):
    solution = list(solved_by())[which]
    mu, nu = cloud(9, 6, 2), cloud(10, 6, 2)
    x, y = (np.asarray(measure.points) for measure in (mu, nu))
    narrow = ma.EmpiricalMeasure(np.asarray(x, np.float32))
    assert barycentric_map(solution, mu, nu).shape == (6, 2)
    assert displacement(solution, mu, nu, 0.5).dimension == 2
    for source, target, name in (
        (cloud(9, 3, 2), nu, "mu"),
        (mu, mu, "nu"),
        (ma.EmpiricalMeasure(x[::-1]), nu, "mu"),
        (narrow, nu, "mu"),
        (mu, ma.EmpiricalMeasure(np.nextafter(y, 9)), "nu"),
        (mu, ma.EmpiricalMeasure(y[:, :1]), "nu"),
    ):
        for use in (barycentric_map, lambda s, mu, nu: displacement(s, mu, nu, 0.5)):
            with pytest.raises(ValueError, match=f"^{name} must .*pass the measures that it was"):
                use(solution, source, target)


def test_equal_points_are_the_same_in_any_dtype_and_of_either_sign_of_zero():
    x = np.array([[0.0, 1.5], [-2.0, 0.25]])
    mu, nu = ma.EmpiricalMeasure(x), cloud(0, 3, 2)
    solution = w1(mu, nu)
    for same in (x.astype(np.float32), np.where(x == 0, -0.0, x), x.tolist()):
        assert barycentric_map(solution, ma.EmpiricalMeasure(same), nu).shape == (2, 2)


def test_a_plan_of_a_matrix_of_costs_knows_how_many_atoms_it_joins():
    mu, nu = cloud(9, 6, 2), cloud(10, 5, 2)
    solution = solve(transport_problem(oracles.distances(mu.points, nu.points)))
    np.testing.assert_allclose(
        barycentric_map(solution, mu, nu), barycentric_map(w1(mu, nu), mu, nu), atol=1e-12
    )
    for more in (7, 5):
        with pytest.raises(ValueError, match=f"mu must have the 6 atoms .*got {more}: pass the"):
            barycentric_map(solution, cloud(9, more, 2), nu)


def test_a_time_outside_the_geodesic_is_refused():
    mu, nu = cloud(9, 6, 2), cloud(10, 6, 2)
    with pytest.raises(ValueError, match="t must lie"):
        displacement(w1(mu, nu), mu, nu, 1.5)
