"""θ: closed forms, brute force from below, pairs that attain."""

import numpy as np
import pytest

from measattn.lipschitz import theta
from measattn.lipschitz.families import extremal_pair
from measattn.lipschitz.forms import Dot
from measattn.lipschitz.theorems.span import within_span
from measattn.lipschitz.theorems.weighted_column import exponent

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


@pytest.mark.parametrize("radius", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("length", [1e-9, 0.1, 1.0, 1e3])
def test_theta_has_its_closed_forms_with_a_shift(radius, length):
    shift, identity = length * np.array([0.6, 0, -0.8]), np.eye(3)
    attracting = 0.75 * (radius + length / 3) ** 2  # with both points on the line of c
    if length > 9 * radius:
        attracting = 2 * radius * (length - 3 * radius)
    for matrix, expected in (
        (-3 * identity, 2 * radius * (3 * radius + length)),
        (0 * identity, 2 * radius * length),
        (3 * identity, attracting),
    ):
        assert theta(matrix, shift, radius) == pytest.approx(expected, rel=1e-8)
        assert theta(matrix, shift, radius) >= expected


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
            assert attained <= theta(matrix, c, 1.0) <= attained * (1 + 1e-3)


def test_shifts_add_no_more_than_their_lengths():
    rng = np.random.default_rng(1)
    for d in (1, 2, 5, 9):
        for length in (0.03, 0.3, 3.0):
            matrix, shift = rng.normal(size=(d, d)), rng.normal(size=d)
            shift *= length / np.linalg.norm(shift)
            _, _, attained = extremal_pair(Dot(matrix, shift), 1.3)
            found, without = theta(matrix, shift, 1.3), theta(matrix, np.zeros(d), 1.3)
            assert attained <= found <= without + 2.6 * length + 1e-8
            assert found <= attained * 1.01


def test_the_pair_that_a_search_starts_from_attains_theta():
    rng = np.random.default_rng(5)
    for d in (1, 2, 3, 5):
        matrix, zero = rng.normal(size=(d, d)), np.zeros(d)
        x, y, attained = extremal_pair(Dot(matrix, zero), 1.3)
        assert max(np.linalg.norm(x), np.linalg.norm(y)) <= 1.3 * (1 + 1e-9)
        assert attained == pytest.approx(x @ matrix.T @ (y - x))
        assert attained <= theta(matrix, zero, 1.3) <= attained * (1 + 1e-3)


@pytest.mark.parametrize("kind", ["random", "symmetric", "identity", "noise"])
def test_matrices_of_small_rank_are_looked_at_in_their_span(kind):
    rng = np.random.default_rng(6)
    left, right = rng.normal(size=(2, 3, 40))
    matrix = {
        "random": left.T @ right,
        "symmetric": left.T @ left,
        "identity": np.diag(np.r_[np.ones(3), np.zeros(37)]),
        "noise": left.T @ right + 1e-14 * rng.normal(size=(40, 40)),
    }[kind]
    inner, basis, lost = within_span(matrix)
    assert len(inner) == 6
    values = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(np.linalg.svd(inner, compute_uv=False)[:3], values[:3])
    assert values[3:].max() <= lost <= 1e-11 * values[0]
    bounds = exponent(matrix, np.zeros(40), 1.0)
    norms = [np.linalg.norm(matrix - 2 * nu * np.eye(40), 2) for nu in bounds.multipliers]
    assert (bounds.norms >= norms).all()
    np.testing.assert_allclose(bounds.norms, norms, rtol=1e-8)
    # in another order of magnitude of the rank nothing is left out
    full = matrix + 1e-9 * values[0] * np.eye(40)
    assert within_span(full).inner is full
    for shift in (np.zeros(40), rng.normal(size=40), 5 * basis[:, 0]):
        assert theta(matrix, shift, 1.3) == pytest.approx(theta(full, shift, 1.3), rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.eye(2), np.zeros(2), -1.0), "radius must be"),
        ((np.eye(2), np.zeros(3), 1.0), "got shapes"),
        ((np.full((2, 2), np.nan), np.zeros(2), 1.0), "both finite"),
    ],
)
def test_what_is_no_score_or_radius_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        theta(*arguments)
