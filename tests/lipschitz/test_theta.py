"""θ: closed forms, brute force from below, pairs that attain."""

import numpy as np
import pytest

from measattn.lipschitz import theta
from measattn.lipschitz.families import extremal_pair
from measattn.lipschitz.forms import Dot

pytestmark = pytest.mark.float64


@pytest.mark.parametrize("radius", [0.5, 1.0, 2.0])
def test_theta_has_its_closed_forms(radius):
    square, zero = radius**2, np.zeros(4)
    skew = np.kron(np.eye(2), [[0.0, -1.0], [1.0, 0.0]])
    for matrix, expected in (
        (-3 * np.eye(4), 6 * square),
        (np.diag([3.0, 1, 0.5, 0]), 0.75 * square),
        (3 * skew, 3 * square),
    ):
        assert theta(matrix, zero, radius) == pytest.approx(expected, rel=1e-6)
        assert theta(matrix, zero, radius) >= expected


def test_theta_is_no_less_than_what_points_of_the_ball_attain_and_tight_in_the_plane():
    rng = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 4001)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for _ in range(10):
        matrix, shift = rng.normal(size=(2, 2)), rng.normal(size=2)
        x = (circle[:, None, :] * np.linspace(0, 1, 101)[:, None]).reshape(-1, 2)
        for c in (np.zeros(2), shift):
            query = x @ matrix.T + c
            attained = (np.linalg.norm(query, axis=1) - np.sum(query * x, axis=1)).max()
            assert attained <= theta(matrix, c, 1.0)
            if not c.any():
                assert attained >= theta(matrix, c, 1.0) * (1 - 1e-3)


def test_the_pair_that_a_search_starts_from_attains_theta():
    rng = np.random.default_rng(5)
    for d in (1, 2, 3, 5):
        matrix, zero = rng.normal(size=(d, d)), np.zeros(d)
        x, y, attained = extremal_pair(Dot(matrix, zero), 1.3)
        assert max(np.linalg.norm(x), np.linalg.norm(y)) <= 1.3 * (1 + 1e-9)
        assert attained == pytest.approx(x @ matrix.T @ (y - x))
        assert attained <= theta(matrix, zero, 1.3) <= attained * (1 + 1e-3)
