"""Sinkhorn: an estimate with a certified bracket, quick and of a known accuracy."""

import numpy as np
import pytest

import measattn as ma
from measattn.wasserstein import Sinkhorn, w1, wp
from tests import oracles
from tests.transport.clouds import arrays, cloud

pytestmark = pytest.mark.float64


@pytest.mark.parametrize(("d", "p", "width"), [(2, 1, 0.03), (2, 2, 0.35), (8, 1, 0.005)])
def test_the_default_estimate_is_as_accurate_as_its_description_says(d, p, width):
    mu, nu = cloud(0, 500, d), cloud(1, 400, d, weighted=True)
    estimate, exact = wp(mu, nu, p, solver=Sinkhorn()), wp(mu, nu, p)
    assert estimate.lower <= exact.value <= estimate.upper
    assert 0 < estimate.gap <= width * exact.value
    assert estimate.iterations < 2000


def test_a_lower_temperature_gives_a_narrower_bracket():
    mu, nu = cloud(2, 60, 2), cloud(3, 50, 2)
    widths = [w1(mu, nu, solver=Sinkhorn(epsilon=epsilon)).gap for epsilon in (0.1, 0.01, 1e-3)]
    assert widths == sorted(widths, reverse=True)
    assert widths[2] < 0.1 * widths[0]


def test_the_iterations_end_where_they_are_told_to():
    mu, nu = cloud(2, 60, 2), cloud(3, 50, 2)
    estimate = w1(mu, nu, solver=Sinkhorn(epsilon=1e-6, iterations=7))
    assert estimate.iterations == 7
    assert estimate.lower <= w1(mu, nu).value <= estimate.upper


@pytest.mark.parametrize("seed", [58, 73, 218])
def test_masses_near_the_smallest_float_and_temperatures_near_zero_leave_the_bracket_right(seed):
    rng = np.random.default_rng(seed)
    x, y = (rng.normal(size=(n, 1)) * 10.0 ** rng.integers(-8, 3, (n, 1)) for n in (9, 7))
    mu, nu = (ma.weighted(z, 10.0 ** rng.uniform(-300, 0, len(z))) for z in (x, y))
    x, y, a, b = arrays(mu, nu)
    exact = oracles.wasserstein_on_the_line(x[:, 0], y[:, 0], a, b)
    for epsilon in (1e-12, 1e-9, 1e-3, 1.0, 1e3):
        estimate = w1(mu, nu, solver=Sinkhorn(epsilon=epsilon))
        assert estimate.lower <= exact * (1 + 1e-9)
        assert estimate.upper >= exact * (1 - 1e-9)
