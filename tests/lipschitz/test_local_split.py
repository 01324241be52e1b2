"""Local constants where a part of an atom may move."""

import numpy as np
import pytest

import measattn as ma
from measattn.lipschitz import Split, local
from tests.lipschitz import dense

pytestmark = pytest.mark.float64


def line(points):
    return ma.EmpiricalMeasure(np.array(points, float)[:, None])


@pytest.mark.parametrize("scale", [0.5, 40.0])
def test_a_part_of_an_atom_reaches_what_brute_force_finds(scale):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        layer, mu = dense.head(rng, scale=scale), ma.EmpiricalMeasure(rng.normal(size=(5, 3)))
        found, expected = local(layer, mu, 1, Split()), dense.split(layer, mu)
        assert found.value <= found.upper
        assert expected <= found.upper * (1 + 1e-12)
        assert found.value >= expected * (1 - 1e-4)
        assert local(layer, mu).upper <= found.upper * (1 + 1e-9)


def test_a_pair_that_splits_an_atom_exceeds_the_constant_of_whole_atoms():
    layer, x, h = ma.SelfAttention(ma.DotProduct(-1.0)), np.array([1.0, 0.5, -0.2]), 1e-5
    whole, split = local(layer, line(x)), local(layer, line(x), 1, Split())
    assert whole.upper == pytest.approx(1.35, abs=0.01)
    assert split.value == pytest.approx(1.82, abs=0.01)
    atom, part = split.witness.atom, 1e-3
    points = np.append(x, x[atom])
    weights = np.append(np.full(3, 1 / 3), part)
    weights[atom] -= part
    moved = points.copy()
    moved[3] += h
    mu, nu = (ma.weighted(a[:, None], weights) for a in (points, moved))
    w1 = ma.wasserstein.w1
    quotient = w1(mu @ layer, nu @ layer).lower / w1(mu, nu).upper
    assert quotient > 1.3 * whole.upper
    assert quotient <= split.upper * (1 + 1e-2)


def test_split_is_refused_for_other_orders():
    with pytest.raises(ValueError, match=r"p must be 1 for moves=Split\(\), got 2"):
        local(ma.SelfAttention(ma.DotProduct(1.0)), line([0, 1]), 2, Split())
