"""Bounds of the local constant Anywhere on small balls, against its summands in sixty digits."""

import math
from dataclasses import replace

import numpy as np
import pytest

import measattn as ma
from measattn.lipschitz import Ball, cubes
from measattn.lipschitz.closed import anywhere_bound
from measattn.lipschitz.derivatives.parts import parts
from measattn.lipschitz.forms import form
from measattn.lipschitz.masses import masses
from measattn.lipschitz.net import Net, directions
from tests.lipschitz import dense
from tests.lipschitz.exact import KINDS, Head, case, layer, lengths, numbers, summands

pytestmark = pytest.mark.float64


def cancelling(kind):
    """Scores whose slopes Ax + c are what is left of numbers of the size 1e8."""
    rng = np.random.default_rng(3)
    head = Head(np.array([[1.1e8]]), np.array([-1.3e8]), np.ones((1, 1)))
    root = 1.3 / 1.1
    if kind == "query":  # of the query, among keys that lie apart
        keys = np.array([[-1.0], [0.7]])
        return [head._replace(memory=keys)], ma.weighted([[0.3]], [1.0]), root
    if kind == "far":  # of the coordinates of a far query, at right angles to the keys
        keys = np.array([[0.8, 0.6], [-0.8, -0.6], [-0.8, -0.6]])
        head = Head(None, None, np.eye(2), sigma=1.0, memory=keys)
        return [head], ma.weighted([[0.1, 0.2]], [1.0]), 1e6 * np.array([-0.6, 0.8])
    # of all atoms, for a new key that lies apart
    return [head], ma.weighted(root + 1e-8 * rng.normal(size=(3, 1)), np.ones(3)), 0.4


def prepared(heads, residual, mu):
    made = layer(heads, residual)
    return parts(made, mu), form(made, mu.dimension), masses(mu)


def bounds(given, middles, reach, net):
    return cubes.on_balls(*given, np.asarray(middles), reach, net)


def without_charge(given, monkeypatch):
    monkeypatch.setattr(cubes, "UNIT", 0.0)
    heads = tuple(head._replace(error=0.0) for head in given[0].heads)
    return (replace(given[0], heads=heads), *given[1:])


@pytest.mark.parametrize("kind", ["heads", "gausses", "memory"])
def test_the_oracle_is_what_a_very_light_atom_does(kind):
    heads, residual, mu = case(kind, 2)
    y, w = np.array([0.3, -0.5]), np.asarray(mu.weights)
    more = ma.weighted(np.vstack([mu.points, y]), np.append(w, 1e-10))
    j, w = dense.jacobian(layer(heads, residual), more), np.asarray(more.weights)
    want = j[:, :, -1] * (w / w[-1])[:, None, None]
    found = summands(heads, residual, mu.points, mu.weights, y)
    assert np.abs(found - want).max() <= 1e-7 * np.abs(want).max()


@pytest.mark.parametrize(
    "kind",
    [
        *((kind, d) for kind in KINDS for d in (1, 3)),
        ("still", 3),
        ("query", 1),
        ("key", 1),
        ("far", 2),
    ],
    ids=str,
)
def test_a_bound_that_charges_its_rounding_holds_to_sixty_digits(kind, monkeypatch):
    name, d = kind
    rng = np.random.default_rng(1)
    if name in KINDS or name == "still":
        heads, residual, mu = case("gauss" if name == "still" else name, d)
        if name == "still":  # the residual alone
            heads = [heads[0]._replace(v=0 * heads[0].v)]
        middles = rng.uniform(-1, 1, size=(16, d))
    else:
        heads, mu, middle = cancelling(name)
        residual, middles = False, middle + 1e-8 * rng.normal(size=(8, d))
    given, net = prepared(heads, residual, mu), Net(directions(d, fine=False).directions, 1.0)
    monkeypatch.setattr(cubes, "UP", 1.0)  # the charge alone has to do
    found = bounds(given, middles, 0.0, net).upper
    exact = np.array(
        [
            lengths(
                summands(heads, residual, mu.points, given[2], m, exact=True), net.directions
            ).max()
            for m in middles
        ]
    )
    assert all(numbers(found) >= exact)
    room = 1e-4 if name in ("query", "key", "far") else 1e-11
    assert np.all(found <= exact.astype(float) * (1 + room))
    # what it charges is needed: without it most bounds are too small
    bare = bounds(without_charge(given, monkeypatch), middles, 0.0, net).upper
    assert any(numbers(bare) < exact)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reach", [0.4, 1e-3])
def test_what_rounding_adds_to_a_bound_is_far_below_its_other_slack(kind, reach, monkeypatch):
    heads, residual, mu = case(kind, 2)
    given, net = prepared(heads, residual, mu), directions(2)
    middles = np.random.default_rng(2).uniform(-1, 1, size=(50, 2))
    found = bounds(given, middles, reach, net).upper
    bare = bounds(without_charge(given, monkeypatch), middles, reach, net).upper
    added = found / bare - 1
    assert np.all(added > 0)
    assert added.max() < 5e-11


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_no_point_of_a_ball_exceeds_its_bound(kind, d):
    heads, residual, mu = case(kind, d)
    given, net, rng = prepared(heads, residual, mu), directions(d), np.random.default_rng(0)
    u, grown = rng.normal(size=(100, d)), []
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    for middle, reach in ((np.zeros(d), 0.4), (np.full(d, 0.5), 0.05), (np.full(d, -0.3), 0.01)):
        found = bounds(given, middle[None], reach, net)
        away = rng.normal(size=(10, d))
        away *= reach / np.linalg.norm(away, axis=1, keepdims=True)
        there = [
            lengths(summands(heads, residual, mu.points, given[2], y), u).max()
            for y in np.vstack([middle + away, middle - away])
        ]
        assert max(there) <= found.upper[0]
        here = summands(heads, residual, mu.points, given[2], middle)
        grown.append(max(there) > lengths(here, u).max() * 1.001)
        assert found.value[0] == pytest.approx(lengths(here, net.directions).max(), rel=1e-9)
        assert found.value[0] == pytest.approx(lengths(here, found.direction)[0], rel=1e-9)
    assert any(grown)  # the bound of the middle alone would not do


def on_an_interval(heads, mu, middle, reach):
    """On the line: the bound, what its ends attain, the value at its middle."""
    given = prepared(heads, False, mu)
    found = bounds(given, [[middle]], reach, directions(1))
    ends = [
        lengths(summands(heads, False, mu.points, given[2], np.array([y])), np.ones((1, 1)))[0]
        for y in (middle - reach, middle + reach)
    ]
    return found.upper[0], max(ends), found.value[0]


KEYS = np.array([[-0.5], [1.5]])
STEEP = Head(np.array([[3.0]]), np.array([-1.0]), np.array([[-2.0]]), memory=KEYS)


def where(share):
    """The query of STEEP that gives the first key this share."""
    return (math.log((1 - share) / share) / 2 + 1) / 3


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("share", [(1 - 1 / math.sqrt(3)) / 2, 1e-6])
def test_two_keys_of_one_share_need_the_whole_change_of_their_covariance(count, share):
    # the third moment is largest at the first share, and the variance times D at small ones
    alone = ma.weighted([[0.3]], [1.0])
    upper, attained, value = on_an_interval([STEEP] * count, alone, where(share), 1e-4)
    assert value < attained <= upper <= value + 1.002 * (attained - value)


def test_keys_of_little_mass_need_the_growth_of_their_law():
    alone = ma.weighted([[0.3]], [1.0])
    # the change along the ball is A D rho = 1: e against 1 + e
    upper, attained, value = on_an_interval([STEEP], alone, where(1e-6), 1 / 6)
    assert attained == pytest.approx(math.e * value, rel=1e-4)
    assert attained < upper <= value * (1 + math.e) * (1 + 1e-4)
    assert attained > value * 2 * (1 + 1e-4)  # what the growth of the law at the middle allows


def test_the_slope_of_a_single_atom_needs_the_growth_of_density_and_lever():
    head = Head(np.array([[2.0]]), np.array([0.5]), np.array([[-1.5]]))
    upper, attained, value = on_an_interval([head], ma.weighted([[0.4]], [1.0]), 0.4, 0.3)
    assert value == pytest.approx(1.5)
    assert upper == pytest.approx(attained, rel=1e-9)
    assert attained <= upper


def test_heads_that_cancel_need_the_growth_of_each():
    flat = Head(np.zeros((1, 1)), np.zeros(1), np.array([[1.5]]))
    head = flat._replace(c=np.array([1.3]), v=-flat.v)
    upper, attained, value = on_an_interval([head, flat], ma.weighted([[0.4]], [1.0]), 0.4, 0.3)
    assert value == pytest.approx(0, abs=1e-12)
    assert upper == pytest.approx(attained, rel=1e-9)
    assert attained <= upper


def test_gaussian_heads_that_cancel_need_the_fall_of_each_density():
    wide, narrow = (Head(None, None, np.eye(1), sigma=sigma) for sigma in (1e3, 0.7))
    heads = [wide, narrow._replace(v=-wide.v)]
    # at its own place the slope of an atom is 0; it changes with the density, by z and z/2
    upper, attained, value = on_an_interval(heads, ma.weighted([[0.4]], [1.0]), 0.4, 1e-3)
    assert value == pytest.approx(0, abs=1e-15)
    assert attained <= upper <= attained * 1.001


def test_a_light_atom_needs_the_change_of_its_gaussian_slope():
    # of its own density the slope is 0 at itself: only the lever to the heavy atom makes it grow
    mu, sigma, reach = ma.weighted([[0.0], [1.0]], [0.01, 0.99]), 0.7, 1e-3
    head = Head(None, None, np.array([[1.0]]), sigma=sigma)
    derivative, _, w = prepared([head], False, mu)
    found = cubes._key_part(derivative.heads[0], np.zeros((1, 1)), reach, 16)
    here, *ends = (
        abs(summands([head], False, mu.points, w, np.array([y]))[0, 0, 0] / w[0])
        for y in (0.0, -reach, reach)
    )
    upper = found.factor[0, 0] * found.blocks[0, 0, 0, 0] + found.change[0, 0]
    assert max(ends) <= upper <= here + 1.01 * (max(ends) - here)


def test_a_matrix_of_rank_one_between_two_directions_needs_the_ratio_of_the_net():
    net = directions(2)
    middle = net.directions[3] + net.directions[4]
    flat = Head(np.zeros((2, 2)), np.zeros(2), np.outer([0.6, 0.8], middle))
    given = prepared([flat], False, ma.weighted([[0.1, 0.2]], [1.0]))
    found = bounds(given, [[0.5, 0.1]], 0.0, net)
    assert found.upper[0] == pytest.approx(np.linalg.norm(middle), rel=1e-9)
    assert found.upper[0] >= np.linalg.norm(middle)


def test_a_slope_that_cancelled_is_taken_to_be_as_steep_as_it_may_be(monkeypatch):
    monkeypatch.setattr(cubes, "UP", 1.0)
    (head,), _, _ = cancelling("key")
    short = []
    for x in 1.3 / 1.1 + 1e-8 * np.random.default_rng(0).normal(size=20):
        mu = ma.weighted([[x]], [1.0])
        upper = bounds(prepared([head], False, mu), [[x]], 0.5, directions(1)).upper
        slope = abs(numbers(head.a) * numbers(x) + numbers(head.c))[0, 0]
        half = numbers(0.5).item()
        exact = (slope * half).exp() * (1 + half * slope)
        assert numbers(upper)[0] >= exact
        given = prepared([head], False, mu)
        assert numbers(anywhere_bound(*given, Ball(0.5, [x]))).item() >= exact
        near = abs(float(head.a[0, 0] * x + head.c[0])) / 2
        short.append(math.exp(near) * (1 + near) < exact)
    assert any(short)  # the slope as it was computed would not do
