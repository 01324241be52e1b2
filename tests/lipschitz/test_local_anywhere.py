"""Local constants where a little mass may sit anywhere in a domain."""

import numpy as np
import pytest

import measattn as ma
from measattn import lipschitz as lip
from measattn.lipschitz import Anywhere, Ball, Box, Split, local
from measattn.lipschitz.closed import anywhere_bound
from measattn.lipschitz.derivatives.parts import parts
from measattn.lipschitz.forms import form
from measattn.lipschitz.masses import masses
from tests.lipschitz import dense

pytestmark = pytest.mark.float64

QUICK = {"starts": 6, "steps": 60}


def line(points):
    return ma.EmpiricalMeasure(np.array(points, float)[:, None])


def by_formula(x, y, slope):
    """L at y for V = 1 and a = slope x y on the line, straight from G1."""
    gains = []
    for point in y:
        p = np.exp(slope * x * point - (slope * x * point).max())
        p /= p.sum()
        spread = abs(slope) * (p @ x**2 - (p @ x) ** 2)
        score = slope * np.outer(x, x)
        means = (np.exp(score) @ x) / np.exp(score).sum(axis=1)
        density = np.exp(slope * x * point) / np.exp(score).mean(axis=1)
        gains.append(spread + np.mean(density * np.abs(1 + (point - means) * slope * x)))
    return np.array(gains)


@pytest.mark.parametrize(
    ("slope", "points", "split", "anywhere"),
    [(-2.0, [1.0, 0.9], 1.19, 195.0), (-1.0, [1.0, 0.5, -0.2], 1.82, 4.17)],
)
def test_a_little_mass_elsewhere_does_much_more_than_the_atoms(slope, points, split, anywhere):
    layer, mu = ma.SelfAttention(ma.DotProduct(slope)), line(points)
    found = local(layer, mu, 1, Anywhere(Ball(1.0)), **QUICK)
    grid = by_formula(np.array(points), np.linspace(-1, 1, 4001), slope).max()
    assert found.value == pytest.approx(grid, rel=1e-5)
    assert found.value == pytest.approx(anywhere, rel=1e-2)
    assert local(layer, mu, 1, Split()).value == pytest.approx(split, rel=1e-2)
    assert found.value <= found.upper <= lip.bound(layer, Ball(1.0), dimension=1).value
    assert "certified by" in found.how
    assert "Anywhere" in repr(found)


def test_a_finite_pair_comes_near_the_value():
    layer, x = ma.SelfAttention(ma.DotProduct(-1.0)), np.array([1.0, 0.5, -0.2])
    found = local(layer, line(x), 1, Anywhere(Ball(1.0)), **QUICK)
    mass, h = 1e-4, 1e-4
    weights = np.append(np.full(3, (1 - mass) / 3), mass)
    start = found.witness.point[0] * (1 - 1e-3)
    mu, nu = (
        ma.weighted(np.append(x, y)[:, None], weights) for y in (start, start - h * np.sign(start))
    )
    w1 = ma.wasserstein.w1
    assert w1(mu @ layer, nu @ layer).value / w1(mu, nu).value == pytest.approx(
        found.value, rel=1e-2
    )


def test_the_classes_are_ordered_in_the_plane():
    rng = np.random.default_rng(0)
    layer = ma.SelfAttention(ma.Bilinear(rng.normal(size=(2, 2)), np.eye(2)))
    mu = ma.EmpiricalMeasure(rng.uniform(-0.7, 0.7, size=(4, 2)))
    domain = Box([-1.0, -1.0], [1.0, 1.0])
    classes = (lip.Whole(), Split(), Anywhere(domain))
    values = [local(layer, mu, 1, moves, **QUICK).value for moves in classes]
    assert values[0] <= values[1] * (1 + 1e-9) <= values[2] * (1 + 2e-9)


@pytest.mark.parametrize("kind", ["dot", "gauss", "memory"])
def test_the_upper_end_from_the_atoms_is_above_the_constant_of_a_new_light_atom(kind):
    rng = np.random.default_rng(0)
    x, value = rng.uniform(-0.6, 0.6, size=(4, 2)), rng.normal(size=(2, 2))
    weights, domain = rng.random(4) + 0.2, Ball(1.2, [0.1, -0.2])
    mass = 1e-9
    for scale in (0.3, 2.0):
        layer = {
            "dot": ma.SelfAttention(ma.Bilinear(scale * rng.normal(size=(2, 2)), np.eye(2)), value),
            "gauss": ma.SelfAttention(ma.Gaussian(1 / scale), value),
            "memory": ma.CrossAttention(ma.DotProduct(scale), value, x + 0.2),
        }[kind]
        layer = ma.Residual(layer)
        law = ma.weighted(x, weights)
        upper = anywhere_bound(parts(layer, law), form(layer, 2), masses(law), domain)
        for y in 1.2 * rng.normal(size=(40, 2)):
            y = domain.centre + y * min(1, 1.2 / np.linalg.norm(y))
            more = ma.weighted(np.vstack([x, y]), np.append(weights / weights.sum(), mass))
            j, w = dense.jacobian(layer, more), np.asarray(more.weights)
            terms = j[:, :, -1] * (w / w[-1])[:, None, None]
            assert dense.largest_sum(terms) <= upper * (1 + 1e-6)


def test_a_layer_that_no_theorem_reads_has_a_value_and_no_upper_end():
    layer = ma.SelfAttention(lambda x, y: -2 * x @ y, lambda y: y)
    found = local(layer, line([1.0, 0.9]), 1, Anywhere(Ball(1.0)), **QUICK)
    assert found.value == pytest.approx(195.0, rel=1e-2)
    assert found.upper == np.inf
    assert "nothing" in found.how
    assert "nothing certified" in repr(found)


def test_a_domain_that_does_not_hold_the_measure_is_refused():
    with pytest.raises(ValueError, match="mu must lie in the domain"):
        local(
            ma.SelfAttention(ma.DotProduct(1.0)), line([0.0, 2.0]), 1, Anywhere(Ball(1.0)), **QUICK
        )
    with pytest.raises(ValueError, match="must have the dimension 1 of mu"):
        local(ma.SelfAttention(ma.DotProduct(1.0)), line([0.0]), 1, Anywhere(Box([0, 0], [1, 1])))
    with pytest.raises(ValueError, match="must be a bounded domain"):
        local(ma.SelfAttention(ma.DotProduct(1.0)), line([0.0]), 1, Anywhere(lip.Everywhere()))


def test_a_mask_does_not_go_with_mass_anywhere():
    near = ma.Masked(ma.DotProduct(1.0), lambda x, y: (x - y) @ (x - y) < 4)
    with pytest.raises(ValueError, match="masked layer"):
        local(ma.SelfAttention(near), line([0.0, 0.5]), 1, Anywhere(Ball(1.0)))


def test_where_all_cubes_left_touch_the_domain_from_outside_the_search_ends():
    """The supremum lies on the sphere: balls about the last cubes meet it, their parts do not."""
    layer, mu = ma.SelfAttention(ma.DotProduct(1.0)), ma.EmpiricalMeasure([[1.0, 0.0]])
    found = local(layer, mu, 1, Anywhere(Ball(1.5)))
    # one atom x: a little mass at y is seen with the density e^{<x, y> - |x|²}
    y = 1.5 * np.stack([np.cos(angles := np.linspace(-3, 3, 10**4)), np.sin(angles)])
    slopes = np.eye(2)[:, :, None] + (y - [[1.0], [0.0]])[:, None] * np.array([1.0, 0.0])[:, None]
    attained = np.exp(y[0] - 1) * np.linalg.norm(np.moveaxis(slopes, 2, 0), 2, axis=(1, 2))
    assert 0.999 * attained.max() <= found.value <= attained.max() * (1 + 1e-9)
    assert attained.max() <= found.upper <= 1.002 * attained.max()


def test_a_layer_without_values_has_the_constant_zero():
    layer = ma.SelfAttention(ma.DotProduct(1.0), [[0.0]])
    found = local(layer, line([0.5]), 1, Anywhere(Ball(2.0)), **QUICK)
    assert found.value == 0 == found.upper
