"""The local constant Anywhere in few dimensions, by branch and bound."""

import numpy as np
import pytest

import measattn as ma
from measattn import lipschitz as lip
from measattn.lipschitz import Anywhere, Ball, Box, Sphere, branch, local
from measattn.lipschitz.derivatives.parts import parts
from measattn.lipschitz.forms import form
from measattn.lipschitz.quotient import masses
from tests.lipschitz import dense

pytestmark = pytest.mark.float64


def layers(d):
    rng = np.random.default_rng(d)
    a, v = rng.normal(size=(2, d, d))
    memory = rng.uniform(-0.8, 0.8, size=(5, d))
    heads = ma.MultiHead(
        [ma.SelfAttention(ma.DotProduct(s), s * v) for s in (1.0, -1.5)], np.hstack([v, a])
    )
    return {
        "dot": ma.SelfAttention(ma.Bilinear(a, np.eye(d)), v),
        "affine": ma.SelfAttention(ma.Bilinear(ma.Affine(a, np.ones(d)), np.eye(d)), v),
        "gauss": ma.Residual(ma.SelfAttention(ma.Gaussian(0.6), v)),
        "memory": ma.Residual(ma.CrossAttention(ma.Bilinear(a, np.eye(d)), v, memory)),
        "heads": ma.Residual(heads),
    }


def cloud(d, n=4):
    rng = np.random.default_rng(10 + d)
    return ma.weighted(rng.uniform(-0.6, 0.6, size=(n, d)), rng.random(n) + 0.2)


def new_atom(layer, mu, y):
    """What a very light atom at y adds up to, from the Jacobian by reverse mode."""
    w = np.asarray(mu.weights)
    more = ma.weighted(np.vstack([mu.points, y]), np.append(w, 1e-9))
    j, w = dense.jacobian(layer, more), np.asarray(more.weights)
    return dense.largest_sum(j[:, :, -1] * (w / w[-1])[:, None, None])


@pytest.mark.parametrize("kind", ["dot", "affine", "gauss", "memory", "heads"])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_no_point_of_a_cube_exceeds_its_bound(kind, d):
    layer, mu = layers(d)[kind], cloud(d)
    known, derivative = form(layer, d), parts(layer, mu)
    rng, net, grown = np.random.default_rng(0), branch.directions(d), []
    for middle, reach in ((np.zeros(d), 0.4), (np.full(d, 0.5), 0.05), (np.full(d, -0.3), 0.01)):
        found = branch._on_cubes(derivative, known, masses(mu), middle[None], reach, net)
        away = rng.normal(size=(4, d))
        away *= reach / np.linalg.norm(away, axis=1, keepdims=True)
        there = np.array(
            [new_atom(layer, mu, y) for y in np.vstack([middle + away, middle - away])]
        )
        assert there.max() <= found.upper[0] * (1 + 1e-7)
        grown.append(there.max() > found.value[0])
        here = new_atom(layer, mu, middle)
        assert found.value[0] <= here * (1 + 1e-6)
        assert here <= found.value[0] * net.ratio * (1 + 1e-6)
    assert any(grown)  # the bound of the middle alone would not do


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("fine", [True, False])
def test_the_net_bounds_every_norm_and_needs_its_factor(d, fine):
    net = branch.directions(d, fine)
    assert np.allclose(np.linalg.norm(net.directions, axis=1), 1, atol=1e-15)
    rng, needed = np.random.default_rng(0), 1.0
    for _ in range(300):
        matrix = np.outer(*rng.normal(size=(2, d))) + 1e-3 * rng.normal(size=(d, d))
        seen = np.linalg.norm(net.directions @ matrix.T, axis=1).max()
        needed = max(needed, np.linalg.norm(matrix, 2) / seen)
    assert 1 + (net.ratio - 1) / 3 < needed <= net.ratio


@pytest.mark.parametrize(("kind", "d", "tol"), [("dot", 1, 1e-3), ("heads", 2, 1e-2)])
def test_on_the_line_and_in_the_plane_both_ends_meet(kind, d, tol):
    layer, mu = layers(d)[kind], cloud(d)
    found = local(layer, mu, 1, Anywhere(Ball(1.0)), tol=tol, starts=6, steps=60)
    assert found.value <= found.upper <= found.value * (1 + tol)
    some = np.random.default_rng(0).normal(size=(10, d))
    some /= np.maximum(np.linalg.norm(some, axis=1, keepdims=True), 1)
    assert max(new_atom(layer, mu, y) for y in some) <= found.upper * (1 + 1e-7)


@pytest.mark.parametrize("domain", [Box([-1.0, -0.5], [0.5, 1.0]), Sphere(1.0)])
def test_other_domains_are_covered(domain):
    layer, mu = layers(2)["dot"], cloud(2)
    if isinstance(domain, Sphere):
        x = np.asarray(mu.points)
        mu = ma.weighted(x / np.linalg.norm(x, axis=1, keepdims=True), np.asarray(mu.weights))
    found = local(layer, mu, 1, Anywhere(domain), tol=1e-2, starts=6, steps=60)
    assert found.upper <= found.value * 1.01
    assert "branch and bound" in found.how


def test_in_space_it_finds_what_ascent_misses():
    rng = np.random.default_rng(0)
    x = rng.uniform(-0.6, 0.6, size=(6, 3))
    layer = ma.SelfAttention(ma.Bilinear(3 * rng.normal(size=(3, 3)), np.eye(3)))
    mu = ma.EmpiricalMeasure(x)
    # one start of one step: the ascent is as good as nothing
    known, derivative = form(layer, 3), parts(layer, mu)
    ceiling = branch.branch_and_bound(derivative, known, masses(mu), Ball(1.2), 0.0, 0.1)
    found = local(layer, mu, 1, Anywhere(Ball(1.2)), tol=0.1, starts=1, steps=1)
    assert ceiling.value * (1 - 1e-8) <= found.value <= ceiling.upper
    assert new_atom(layer, mu, ceiling.point) == pytest.approx(ceiling.value, rel=0.02)
    assert ceiling.value <= ceiling.upper < ceiling.value * 1.2
    assert ceiling.upper < lip.bound(layer, Ball(1.2), dimension=3).value / 2


def test_a_budget_that_ends_early_leaves_a_bound_that_holds():
    layer, mu = layers(2)["dot"], cloud(2)
    known, derivative, w = form(layer, 2), parts(layer, mu), masses(mu)
    uppers = [
        branch.branch_and_bound(derivative, known, w, Ball(1.0), 0.0, 1e-3, budget).upper
        for budget in (1, 10**5, 10**6, 10**9)
    ]
    assert uppers == sorted(uppers, reverse=True)
    assert uppers[-1] < uppers[0] / 2
    value = local(layer, mu, 1, Anywhere(Ball(1.0)), starts=6, steps=60).value
    assert value <= uppers[-1] <= value * 1.002
