"""Local constants of one head for whole atoms: the two ends hold what brute force finds."""

import math

import jax
import numpy as np
import pytest

import measattn as ma
from measattn import lipschitz as lip
from measattn.lipschitz import Whole, local
from tests.lipschitz import dense

pytestmark = pytest.mark.float64

ORDERS = pytest.mark.parametrize("p", [1, 2, math.inf])


def assert_holds(found, expected):
    """Nothing crosses, and the lower end is what brute force finds."""
    assert found.value <= found.upper
    assert expected <= found.upper * (1 + 1e-12)
    assert found.value >= expected * (1 - 1e-4) - 1e-12


@ORDERS
@pytest.mark.parametrize("scale", [0.0, 1.0, 40.0])
def test_both_ends_of_a_head_agree_with_the_whole_jacobian(p, scale):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        layer, mu = (
            dense.head(rng, scale=scale, bias=seed % 2),
            ma.EmpiricalMeasure(rng.normal(size=(5, 3))),
        )
        found = local(layer, mu, p)
        assert_holds(found, dense.whole(layer, mu, p))
        assert dense.shown(layer, mu, found) == pytest.approx(found.value, rel=1e-6, abs=1e-12)
        assert found.ratio <= 1.002 or found.value < 1e-12


@ORDERS
@pytest.mark.parametrize("kind", ["one atom", "coincident", "no values", "saturated", "far away"])
def test_both_ends_hold_where_a_head_degenerates(p, kind):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        x, layer = rng.normal(size=(5, 3)), dense.head(rng)
        if kind == "one atom":
            x = x[:1]
        if kind == "coincident":
            x[1:] = x[0]
            x[3] += 1e-9
        if kind == "no values":
            layer = ma.SelfAttention(layer.potential, np.zeros((3, 3)))
        if kind == "saturated":
            layer = dense.head(rng, scale=300.0)
        if kind == "far away":
            x += 1e3
            layer = ma.SelfAttention(ma.DotProduct(1e-3), layer.value)
        mu = ma.EmpiricalMeasure(x)
        found = local(layer, mu, p)
        expected = dense.whole(layer, mu, p)
        assert found.value <= found.upper
        assert expected <= found.upper + 1e-9 * expected
        assert found.value >= expected * (1 - 1e-4) - 1e-9


@ORDERS
def test_weights_count_and_atoms_without_mass_do_not(p):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        weights = rng.random(5) ** 4
        x, layer = rng.normal(size=(5, 3)), dense.head(rng)
        full = local(layer, ma.weighted(x, weights), p)
        assert_holds(full, dense.whole(layer, ma.weighted(x, weights), p))
        more = ma.weighted(np.insert(x, 2, 9.0, axis=0), np.insert(weights, 2, 0.0))
        again = local(layer, more, p)
        assert again.value == pytest.approx(full.value, rel=1e-9)
        if p != 2:
            assert again.witness.atom == full.witness.atom + (full.witness.atom >= 2)


@ORDERS
@pytest.mark.parametrize(("d", "v", "e"), [(1, 1, 1), (5, 3, 1)])
def test_dimensions_of_points_values_and_keys_may_differ(p, d, v, e):
    rng = np.random.default_rng(d)
    layer, mu = dense.head(rng, d, v, e), ma.EmpiricalMeasure(rng.normal(size=(5, d)))
    assert_holds(local(layer, mu, p), dense.whole(layer, mu, p))


@ORDERS
def test_gaussian_scores_have_their_own_slopes(p):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        layer = ma.SelfAttention(ma.Gaussian(0.7), rng.normal(size=(3, 3)))
        mu = ma.EmpiricalMeasure(rng.normal(size=(5, 3)))
        assert_holds(local(layer, mu, p), dense.whole(layer, mu, p))


@ORDERS
def test_a_fixed_memory_moves_with_nobody(p):
    rng = np.random.default_rng(0)
    memory = ma.EmpiricalMeasure(rng.normal(size=(3, 3)))
    layer = ma.CrossAttention(ma.DotProduct(1.0), rng.normal(size=(3, 3)), memory)
    mu = ma.EmpiricalMeasure(rng.normal(size=(5, 3)))
    assert_holds(local(layer, mu, p), dense.whole(layer, mu, p))


def test_the_bound_by_random_lanczos_holds_and_says_its_probability():
    rng = np.random.default_rng(0)
    layer, mu = dense.head(rng, 8, 8, 8, 0.3), ma.EmpiricalMeasure(rng.normal(size=(130, 8)))
    found = local(layer, mu, 2)
    expected = dense.whole(layer, mu, 2)
    assert found.value <= expected * (1 + 1e-12)
    assert expected <= found.upper <= 1.001 * found.value
    assert 0 < 1 - found.probability <= 1.01e-10
    assert "probability" in repr(found)


def test_a_bound_without_chance_is_wider_and_holds():
    rng = np.random.default_rng(0)
    layer, mu = dense.head(rng, 8, 8, 8, 0.3), ma.EmpiricalMeasure(rng.normal(size=(130, 8)))
    chance, schur = local(layer, mu, 2), local(layer, mu, 2, probability=1)
    assert schur.probability == 1
    assert "Schur" in schur.how
    assert chance.upper < schur.upper < 10 * chance.upper
    assert schur.value == pytest.approx(chance.value, rel=1e-12)


def test_small_measures_have_a_deterministic_bound_for_p_2():
    rng = np.random.default_rng(1)
    found = local(dense.head(rng), ma.EmpiricalMeasure(rng.normal(size=(5, 3))), 2)
    assert found.probability == 1
    assert found.upper <= found.value * (1 + 1e-6)


def test_the_quotient_of_two_measures_reaches_the_value():
    rng = np.random.default_rng(3)
    layer, x = dense.head(rng), rng.normal(size=(5, 3))
    found = local(layer, ma.EmpiricalMeasure(x), 1)
    y = x.copy()
    y[found.witness.atom] += 1e-5 * found.witness.direction
    mu, nu = ma.EmpiricalMeasure(x), ma.EmpiricalMeasure(y)
    w1 = ma.wasserstein.w1
    assert w1(mu @ layer, nu @ layer).value / w1(mu, nu).value == pytest.approx(
        found.value, rel=1e-3
    )


def test_every_result_says_its_class_and_what_its_numbers_are():
    rng = np.random.default_rng(4)
    found = local(dense.head(rng), ma.EmpiricalMeasure(rng.normal(size=(5, 3))))
    assert found.moves == Whole()
    assert found.metric == "W1"
    for word in ("Whole()", "attained", "certified"):
        assert word in repr(found)
    assert found.how.endswith(".")


def test_atoms_whose_mass_float32_does_not_hold_count():
    """Their logarithms do: 1e-40 is a mass like any other."""
    layer, points = ma.SelfAttention(ma.DotProduct(-3.0)), np.array([[-0.2], [-0.1], [0.3]])
    with jax.enable_x64(False):
        light, lighter = (
            local(layer, ma.weighted(points, [mass, 0.5, 0.5]), 1) for mass in (1e-30, 1e-40)
        )
    assert lighter.witness.atom == light.witness.atom == 0
    assert lighter.value == pytest.approx(light.value, rel=1e-6)
    with jax.enable_x64(False), pytest.raises(ValueError, match="lies outside"):
        lip.Ball(0.2).check(ma.weighted(points, [0.5, 0.5, 1e-40]))


def test_what_is_no_layer_no_number_or_not_known_yet_is_refused():
    layer, mu = ma.SelfAttention(ma.DotProduct(1.0)), ma.EmpiricalMeasure(np.eye(2))
    with pytest.raises(ValueError, match="layer must be a nonlinear or Dirac-valued kernel"):
        local(lambda m: m, mu)
    with pytest.raises(ValueError, match="got traced values"):
        jax.jit(lambda x: local(layer, ma.EmpiricalMeasure(x)).value)(np.eye(2))
    broken = ma.SelfAttention(ma.DotProduct(1.0), [[np.nan, 0.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match="NaN or infinity in the value map"):
        local(broken, mu)
