"""Diameters of token clouds in depth: observed against proved."""

import numpy as np
import pytest

import measattn as ma
from measattn import dynamics as dyn

pytestmark = pytest.mark.float64


def layer(seed, heads=1, size=0.6):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(heads):
        score, value = rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
        value *= size / np.linalg.norm(value, 2)
        made.append(ma.SelfAttention(ma.Bilinear(score, np.eye(3)), value))
    return made


@pytest.mark.parametrize("seed", range(5))
def test_the_observed_diameter_never_exceeds_the_recursion(seed):
    (one,) = layer(seed, size=1.0)
    cloud = ma.EmpiricalMeasure(0.4 * np.random.default_rng(seed).normal(size=(20, 3)))
    path = dyn.iterate(one, cloud, 4, distances=False)
    bound = dyn.diameter_bound(one, path.diameter[0], 4, dimension=3)
    assert np.all(path.diameter <= bound * (1 + 1e-9) + 1e-15)
    # doubly exponential: the exponents triple
    assert bound[4] <= bound[0] * 1e-6 or path.diameter[0] > 1


def test_a_residual_keeps_the_cloud_from_collapsing():
    (one,) = layer(0)
    assert dyn.diameter_bound(ma.Residual(one), 1.0, 3, dimension=3)[-1] >= 1


def test_the_product_of_attention_matrices_is_near_one_of_rank_one():
    rng = np.random.default_rng(1)
    x, product, layers, diameters = 0.7 * rng.normal(size=(15, 3)), np.eye(15), [], []
    for seed in range(3):
        (one,) = layer(seed, size=0.9)
        logits = x @ np.asarray(one.potential.query.weight).T @ x.T
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        product = weights @ product
        layers.append(one)
        diameters.append(float(dyn.diameter(ma.EmpiricalMeasure(x))))
        x = np.asarray((ma.EmpiricalMeasure(x) @ one).points)
    distance = np.abs(product - product.mean(axis=0)).sum(axis=1).max()
    assert distance <= dyn.rank_one_bound(layers, diameters, dimension=3)


def test_what_the_recursion_does_not_speak_of_is_refused():
    masked = ma.SelfAttention(ma.Causal(ma.DotProduct(1.0)))
    with pytest.raises(ValueError, match="without mask"):
        dyn.diameter_bound(masked, 1.0, 2, dimension=3)
    with pytest.raises(ValueError, match="bilinear"):
        dyn.diameter_bound(ma.SelfAttention(ma.Gaussian(1.0)), 1.0, 2, dimension=3)
