"""The local constant Anywhere in few dimensions, by branch and bound."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

import measattn as ma
from measattn import lipschitz as lip
from measattn.lipschitz import Anywhere, Ball, Box, Sphere, branch, local
from measattn.lipschitz.cubes import Bounds
from measattn.lipschitz.derivatives.parts import parts
from measattn.lipschitz.forms import form
from measattn.lipschitz.masses import masses
from measattn.lipschitz.net import directions
from tests.lipschitz.exact import Head, case, layer, lengths, summands

pytestmark = pytest.mark.float64


def prepared(kind, d):
    """A layer, a measure, and what branch and bound takes of them."""
    heads, residual, mu = case(kind, d)
    made = layer(heads, residual)
    return made, mu, (parts(made, mu), form(made, d), masses(mu))


def seen(kind, d, points):
    """The largest of the sums at some points, over many directions."""
    heads, residual, mu = case(kind, d)
    u = np.random.default_rng(0).normal(size=(200, d))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    return max(
        lengths(summands(heads, residual, mu.points, masses(mu), y), u).max() for y in points
    )


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("fine", [True, False])
def test_the_net_bounds_every_norm_and_needs_its_factor(d, fine):
    net = directions(d, fine)
    assert np.allclose(np.linalg.norm(net.directions, axis=1), 1, atol=1e-15)
    rng, needed = np.random.default_rng(0), 1.0
    for _ in range(300):
        matrix = np.outer(*rng.normal(size=(2, d))) + 1e-3 * rng.normal(size=(d, d))
        seen = np.linalg.norm(net.directions @ matrix.T, axis=1).max()
        needed = max(needed, np.linalg.norm(matrix, 2) / seen)
    assert 1 + (net.ratio - 1) / 3 < needed <= net.ratio


@pytest.mark.parametrize(("kind", "d", "tol"), [("dot", 1, 1e-3), ("heads", 2, 1e-2)])
def test_on_the_line_and_in_the_plane_both_ends_meet(kind, d, tol):
    made, mu, _ = prepared(kind, d)
    found = local(made, mu, 1, Anywhere(Ball(1.0)), tol=tol, starts=6, steps=60)
    assert found.value <= found.upper <= found.value * (1 + tol)
    assert "branch and bound" in found.how
    some = np.random.default_rng(0).normal(size=(300, d))
    some /= np.maximum(np.linalg.norm(some, axis=1, keepdims=True), 1)
    assert found.value * 0.97 <= seen(kind, d, some) <= found.upper


@pytest.mark.parametrize("domain", [Box([-1.0, -0.5], [0.5, 1.0]), Sphere(1.0)])
def test_other_domains_are_covered(domain):
    _, _, given = prepared("dot", 2)
    t = np.clip(np.random.default_rng(0).uniform(-0.1, 1.1, size=(1000, 2)), 0, 1)
    x = domain.low + t * (domain.high - domain.low) if isinstance(domain, Box) else t - 0.5
    if isinstance(domain, Sphere):
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    attained = seen("dot", 2, x)
    found = branch.branch_and_bound(*given, domain, attained, 1e-2)
    assert attained <= found.upper <= attained * 1.02


def test_in_space_it_finds_what_ascent_misses():
    rng = np.random.default_rng(0)
    x = rng.uniform(-0.6, 0.6, size=(6, 3))
    a = 3 * rng.normal(size=(3, 3))
    made, mu = layer([Head(a, np.zeros(3), np.eye(3))]), ma.EmpiricalMeasure(x)
    given = parts(made, mu), form(made, 3), masses(mu)
    ceiling = branch.branch_and_bound(*given, Ball(1.2), 0.0, 0.1)
    assert ceiling.value <= ceiling.upper < ceiling.value * 1.2
    there = summands([Head(a, np.zeros(3), np.eye(3))], False, x, given[2], ceiling.point)
    assert lengths(there, ceiling.direction[:, None].T)[0] == pytest.approx(ceiling.value)
    assert ceiling.upper < lip.bound(made, Ball(1.2), dimension=3).value / 2
    # one start of one step: the ascent is as good as nothing
    found = local(made, mu, 1, Anywhere(Ball(1.2)), tol=0.1, starts=1, steps=1)
    assert ceiling.value * (1 - 1e-8) <= found.value <= ceiling.upper


def test_a_budget_that_ends_early_leaves_a_bound_that_holds():
    _, _, given = prepared("dot", 2)
    uppers = [
        branch.branch_and_bound(*given, Ball(1.0), 0.0, 1e-3, budget).upper
        for budget in (1, 10**5, 10**6, 10**9)
    ]
    assert uppers == sorted(uppers, reverse=True)
    assert uppers[-1] < uppers[0] / 2
    angle = np.arange(1000) * (2 * np.pi / 1000)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    value = seen("dot", 2, np.vstack([circle, 0.99 * circle]))
    assert value <= uppers[-1] <= value * 1.003


@pytest.mark.parametrize("domain", [Box([0.1], [0.4]), Box([3e8], [3e8 + 1 / 3]), Ball(0.3, [3e8])])
def test_far_from_the_origin_the_rounded_cubes_still_cover_the_domain(domain, monkeypatch):
    levels = []

    def open_everywhere(derivative, known, weights, middles, reach, net):
        levels.append((middles[:, 0], reach))
        here = np.ones(len(middles))
        return Bounds(here, np.ones((len(middles), 1)), 2 * here)

    monkeypatch.setattr(branch, "on_balls", open_everywhere)
    _, _, given = prepared("dot", 1)
    branch.branch_and_bound(*given, domain, 0.0, 0.1, 10**5)
    assert len(levels) > 9
    if isinstance(domain, Box):
        low, high = Fraction(domain.low[0]), Fraction(domain.high[0])
    else:
        low, high = (Fraction(domain.centre[0]) + s * Fraction(domain.radius) for s in (-1, 1))
    for middles, reach in levels:
        exact = sorted(Fraction(float(m)) for m in middles)
        reach = Fraction(reach)
        assert exact[0] - reach <= low
        assert exact[-1] + reach >= high
        assert all(b - a <= 2 * reach for a, b in pairwise(exact))


@pytest.mark.parametrize("domain", [Box([3e8], [3e8 + 1 / 3]), Ball(0.3, [3e8])])
def test_cubes_at_the_edge_of_a_far_domain_are_kept_however_small(domain, monkeypatch):
    high = domain.high[0] if isinstance(domain, Box) else domain.centre[0] + domain.radius
    levels = []

    def open_at_the_edge(derivative, known, weights, middles, reach, net):
        levels.append((middles[:, 0], reach))
        here = np.ones(len(middles))
        near = np.abs(middles[:, 0] - high) <= 4 * reach
        return Bounds(here, np.ones((len(middles), 1)), np.where(near, 2.0, 1.05))

    monkeypatch.setattr(branch, "on_balls", open_at_the_edge)
    _, _, given = prepared("dot", 1)
    branch.branch_and_bound(*given, domain, 0.0, 0.1, 10**5)
    assert levels[-1][1] < 1e-5
    for middles, reach in levels:
        assert Fraction(float(middles.max())) + Fraction(reach) >= Fraction(high)


def test_the_balls_about_the_cubes_of_the_plane_cover_their_corners(monkeypatch):
    levels = []

    def open_everywhere(derivative, known, weights, middles, reach, net):
        levels.append((middles, reach))
        here = np.ones(len(middles))
        return Bounds(here, np.ones((len(middles), 2)), 2 * here)

    monkeypatch.setattr(branch, "on_balls", open_everywhere)
    _, _, given = prepared("dot", 2)
    branch.branch_and_bound(*given, Box([-1.0, -1.0], [0.5, 1.0]), 0.0, 0.1, 10**5)
    x = np.random.default_rng(0).uniform([-1, -1], [0.5, 1], size=(500, 2))
    assert len(levels) > 3
    for middles, reach in levels:
        assert np.linalg.norm(x[:, None] - middles, axis=2).min(axis=1).max() <= reach
