"""Lower bounds by search, and the bracket: exact where theory says so, loud where it must be."""

import math
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn.lipschitz import Ball, Box, Everywhere, Sphere, bound, bracket, search
from measattn.lipschitz.exact import outputs, rounded
from measattn.lipschitz.forms import form
from measattn.lipschitz.quotient import evaluate

pytestmark = pytest.mark.float64

KEY = jax.random.key(0)
QUICK = {"starts": 8, "steps": 60}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "radius", "lower", "ratio"),
    [(-1.0, 0.5, 2.47, 1.12), (-1.0, 2.0, 26820.0, 1.001), (1.0, 1.0, 2.1649, 1.39)],
)
def test_the_bracket_on_a_ball_is_as_narrow_as_the_theory_allows(scale, radius, lower, ratio):
    layer = ma.SelfAttention(ma.DotProduct(scale))
    found = bracket(layer, Ball(radius), key=KEY, dimension=2)
    assert found.lower >= lower
    assert found.lower <= found.upper <= ratio * found.lower
    assert found.estimate.exact


def test_the_witness_lies_in_the_domain_and_shows_the_value():
    layer = ma.SelfAttention(ma.Bilinear(np.array([[1.0, -2.0], [0.5, 0.3]]), np.eye(2)))
    domain = Ball(1.0, [0.3, -0.2])
    found = search(layer, domain, key=KEY, **QUICK)
    mu, nu, before, after = found.witness
    for measure in (mu, nu):
        domain.check(measure)
    assert found.value == pytest.approx(after / before)
    assert ma.wasserstein.w1(mu, nu).value <= before * (1 + 1e-9)
    # the outputs in floats carry their rounding; the value does not
    again = ma.wasserstein.w1(mu @ layer, nu @ layer, tol=1e-3).value / before
    assert again == pytest.approx(found.value, rel=1e-3)


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_the_identity_is_attained_and_nothing_more(p):
    memoryless = ma.Stack([ma.Residual(ma.SelfAttention(ma.DotProduct(0.0), np.zeros((2, 2))))])
    found = search(memoryless, Ball(1.0), key=KEY, p=p, **QUICK)
    assert 1 - 1e-9 <= found.value <= 1


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_random_heads_are_never_found_above_their_bound(p):
    rng = np.random.default_rng(0)
    for _trial in range(2):
        matrix, value = rng.normal(size=(2, 2, 2))
        layer = ma.SelfAttention(ma.Bilinear(matrix, np.eye(2)), value)
        assert (
            search(layer, Ball(1.0), key=KEY, p=p, **QUICK).value
            <= bound(layer, Ball(1.0), p).value
        )


def test_a_bracket_whose_ends_cross_is_an_error(monkeypatch):
    layer = ma.SelfAttention(ma.DotProduct(-1.0))
    low = SimpleNamespace(value=1.5, theorem="a wrong one")
    module = sys.modules["measattn.lipschitz.bracket"]  # the package has the function by that name
    monkeypatch.setattr(module, "bound", lambda *a, **k: low)
    with pytest.raises(RuntimeError, match="one of them is wrong"):
        bracket(layer, Ball(1.0), key=KEY, dimension=1, **QUICK)


def test_outputs_in_decimals_are_those_of_the_layer():
    rng = np.random.default_rng(1)
    layer = ma.Residual(
        ma.MultiHead(
            [ma.SelfAttention(ma.Bilinear(*rng.normal(size=(2, 2, 3)))) for _ in range(2)],
            rng.normal(size=(3, 6)),
        )
    )
    mu = ma.weighted(rng.normal(size=(4, 3)), rng.random(4))
    rows = outputs(form(layer, 3), np.asarray(mu.points), np.asarray(mu.weights))
    found = rounded(rows, rows[0], 0.0)
    expected = np.asarray((mu @ layer).points)
    assert np.abs(found.points - (expected - expected[0])).max() <= 1e-13
    assert found.error.max() <= 1e-14


def test_a_search_on_all_of_space_needs_a_radius():
    layer = ma.SelfAttention(ma.Gaussian(1.0))
    with pytest.raises(ValueError, match="radius="):
        search(layer, Everywhere(), key=KEY, dimension=1)
    few = search(layer, Everywhere(), key=KEY, dimension=1, radius=2.0, **QUICK)
    many = search(layer, Everywhere(), key=KEY, dimension=1, radius=6.0, **QUICK)
    assert 1 <= few.value < many.value


def test_a_layer_of_plain_functions_is_searched_and_its_value_is_no_certificate():
    layer = ma.SelfAttention(lambda x, y: jnp.sin(x @ y), lambda y: jnp.tanh(y))
    found = search(layer, Ball(1.0), key=KEY, dimension=2, **QUICK)
    assert not found.exact
    assert "up to the rounding" in repr(found)


def test_a_constant_layer_is_refused():
    layer = ma.SelfAttention(ma.DotProduct(1.0), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="constant"):
        search(layer, Ball(1.0), key=KEY, **QUICK)


def test_the_search_reports_its_progress():
    seen = []
    search(
        ma.SelfAttention(ma.DotProduct(1.0)),
        Ball(1.0),
        key=KEY,
        dimension=1,
        watch=lambda *args: seen.append(args),
        **QUICK,
    )
    assert len(seen) == 10
    assert seen[-1][:2] == (60, 60)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"key": jnp.zeros(2)}, "key must be a random key such as"),
        ({"steps": 0}, "steps must be a whole number of at least 1"),
        ({"atoms": 0}, "atoms must be a whole number"),
    ],
)
def test_what_a_search_cannot_use_is_named(options, words):
    layer = ma.SelfAttention(ma.DotProduct(1.0))
    with pytest.raises(ValueError, match=words):
        search(layer, **({"domain": Ball(1.0), "dimension": 1, "key": KEY} | options))


@pytest.mark.parametrize("p", [1.0, 2.0, 7.0, math.inf])
@pytest.mark.parametrize("size", [1e-170, 1e100])
def test_moves_whose_powers_leave_float64_are_measured(size, p):
    """Values double what moves; half of one atom's moves comes from itself."""
    x = size * np.array([[1.0, 0.0], [-1.0, 2.0]])
    layer = ma.SelfAttention(ma.DotProduct(0.0), 2 * np.eye(2))
    pair = evaluate(layer, form(layer, 2), x, x * (1 + 1e-3), np.full(2, 0.5), p)
    assert 0 < pair.value <= 2
    assert pair.before >= 1e-3 * size


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_on_a_sphere_atoms_move_along_it(p):
    """Where the layer stretches most, straight outwards, there is no way on the sphere."""
    layer, sphere = ma.SelfAttention(ma.DotProduct(1.0)), Sphere(1.0)
    found = search(layer, sphere, p=p, atoms=5, dimension=2, key=KEY, **QUICK)
    assert 0.5 < found.value <= bound(layer, sphere, p, atoms=5, dimension=2).value
    for law in found.witness[:2]:
        assert sphere.excess(np.asarray(law.points)).max() <= 1e-14


@pytest.mark.parametrize("p", [1.0, math.inf])
def test_far_from_the_origin_no_rounding_puts_the_witness_outside(p):
    centre, layer = np.array([-2568.3, -8120.2]), ma.SelfAttention(ma.Gaussian(1.0))
    for domain in (
        Ball(0.7, centre),
        Box(centre - np.array([0.3, 0.5]), centre + np.array([0.1, 0.4])),
    ):
        found = search(layer, domain, p=p, key=KEY, starts=4, steps=30)
        for law in found.witness[:2]:
            assert domain.excess(np.asarray(law.points)).max() == 0
