"""H6: its parts against brute force, and the mass N of H3 at measures that make it large."""

import math

import numpy as np
import pytest

import measattn as ma
from measattn.lipschitz import Ball, bounds
from measattn.lipschitz.theorems import weighted_column as column

pytestmark = pytest.mark.float64


def matrices(rng, d):
    """Scores of all kinds, of norm one."""
    free = rng.normal(size=(d, d))
    kinds = (free, free @ free.T, free - free.T, np.linalg.qr(free)[0], np.eye(d), -np.eye(d))
    return [matrix / np.linalg.norm(matrix, 2) for matrix in kinds if np.linalg.norm(matrix) > 0]


def in_ball(rng, *shape):
    x = rng.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True) * rng.random((*shape[:-1], 1)) ** 0.3


def weighted_mass(matrix, shift, x, weights, y, u):
    """N of H3 on the unit ball."""
    queries = x @ matrix.T + shift
    scores = queries @ x.T
    rows = weights * np.exp(scores - scores.max(axis=1, keepdims=True))
    rows /= rows.sum(axis=1, keepdims=True)
    density = np.exp(queries @ y) / (np.exp(scores) @ weights)
    moved = u + (y - rows @ x) * (queries @ u)[:, None]
    return float(weights * density @ np.linalg.norm(moved, axis=1))


def claimed(matrix, shift):
    tilt = float(np.linalg.norm(shift))
    size = float(np.linalg.norm(matrix, 2))
    top = column._maximum(column.exponent(matrix, shift, 1.0), size, tilt)
    return math.exp(top)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_no_measure_has_more_mass_than_claimed(d, scale):
    rng = np.random.default_rng(d)
    for matrix in matrices(rng, d):
        for shift in (np.zeros(d), 0.4 * rng.normal(size=d)):
            bound, worst = claimed(scale * matrix, shift), 0.0
            for _ in range(60):
                x, weights = in_ball(rng, 3, d), rng.dirichlet(np.full(3, 0.4))
                y = in_ball(rng, 8, d)
                y /= np.linalg.norm(y, axis=1, keepdims=True)  # N is largest on the sphere
                for end in y:
                    u = rng.normal(size=d)
                    u /= np.linalg.norm(u)
                    for unit in (u, end):
                        found = weighted_mass(scale * matrix, shift, x, weights, end, unit)
                        worst = max(worst, found)
            assert worst <= bound, (matrix, shift)


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
def test_a_dirac_mass_attains_it_for_a_repelling_score(scale):
    x = np.array([[0.6, -0.8]])
    found = weighted_mass(-scale * np.eye(2), np.zeros(2), x, np.ones(1), -x[0], x[0])
    assert found == pytest.approx(math.exp(2 * scale) * (1 + 2 * scale))
    assert found <= claimed(-scale * np.eye(2), np.zeros(2)) <= found * math.exp(1e-3)


def test_the_exponent_bounds_what_it_is_said_to_bound():
    rng = np.random.default_rng(0)
    tightest = {}
    for d in (1, 2, 4):
        for k, matrix in enumerate(matrices(rng, d)):
            for tilt in (0.0, 0.6):
                shift = np.zeros(d)
                shift[0] = tilt
                bounds_ = column.exponent(1.7 * matrix, shift, 1.0)
                mean, y = in_ball(rng, 2000, d), in_ball(rng, 2000, d)
                w = y - mean
                sizes = np.stack([np.linalg.norm(w, axis=1), np.linalg.norm(mean, axis=1)])
                got = np.einsum("ni,ni->n", w, 1.7 * mean @ matrix.T + shift)
                # with H and log(1 + 2ℓ') taken off again
                reach = 1.7 + tilt
                chi = column._chi(reach * sizes[0], (1.7 * sizes[1] + tilt) / reach)
                rest = np.minimum(column._log_and_shift(chi, reach), math.log1p(2 * reach))
                rise = column._above(sizes, np.zeros((2, 1)), bounds_, 1.7, tilt) - rest
                assert (got <= rise + 1e-9).all()
                tightest[d, k, tilt] = float((rise - got).min())
    assert max(least for key, least in tightest.items() if key[2] == 0) < 0.2
    assert max(tightest.values()) < 0.3


def test_a_box_bounds_its_points():
    rng = np.random.default_rng(1)
    for matrix in matrices(rng, 3):
        bounds_ = column.exponent(2 * matrix, np.full(3, 0.1), 1.0)
        # some are at places that do not exist, D > m + 1
        centre = rng.random((2, 200)) * np.array([[1.8], [0.9]]) + 0.05
        inside = centre + 0.05 * rng.uniform(-1, 1, size=centre.shape)
        box = column._above(centre, np.full((2, 1), 0.05), bounds_, 2.0, 0.3)
        assert (column._above(inside, np.zeros((2, 1)), bounds_, 2.0, 0.3) <= box).all()


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 1.0])
def test_chi_is_the_largest_over_all_angles(share):
    s = np.linspace(0, 8, 81)
    along = s[:, None] * np.linspace(0, 1, 4001)
    ahead, behind = (np.sqrt(1 + s[:, None] ** 2 + 2 * k * along) for k in (1, -1))
    largest = ((1 + share) / 2 * ahead + (1 - share) / 2 * behind).max(axis=1)
    np.testing.assert_allclose(column._chi(s, np.full(81, share)), largest, rtol=1e-6)
    assert (column._chi(s, np.full(81, share)) >= largest - 1e-12).all()


@pytest.mark.parametrize("radius", [0.3, 1.0, 2.0])
def test_it_is_never_above_b1_b3_and_h4(radius):
    rng = np.random.default_rng(2)
    for matrix in matrices(rng, 3):
        layer = ma.SelfAttention(
            ma.Bilinear(ma.Affine(matrix, 0.1 * rng.normal(size=3)), np.eye(3))
        )
        rows = {row.theorem: row for row in bounds(layer, Ball(radius))}
        room = 1 + 4e-4 * (1 + radius**2)
        for name in ("B1", "B3", "H4"):
            other = getattr(rows[name], "value", math.inf)
            assert getattr(rows["H6"], "value", math.inf) <= other * room, name


def test_h_is_the_largest_over_all_shifts():
    chi, delta = np.linspace(1, 9, 17)[:, None], np.linspace(0, 2, 20001)
    largest = (np.log(chi + 1.3 * delta) - delta**2 / 2).max(axis=1)
    np.testing.assert_allclose(column._log_and_shift(chi[:, 0], 1.3), largest, rtol=1e-8)


@pytest.mark.parametrize("scale", [0.5, 2.0, 8.0])
def test_branch_and_bound_ends_above_a_fine_grid_and_close_to_it(scale):
    for matrix in matrices(np.random.default_rng(3), 2):
        bounds_ = column.exponent(scale * matrix, np.array([0.12, 0.16]), 1.0)
        axes = np.meshgrid(np.linspace(0, 2, 801), np.linspace(0, 1, 401), indexing="ij")
        points = np.stack([axis.ravel() for axis in axes])
        grid = float(column._above(points, np.zeros((2, 1)), bounds_, scale, 0.2).max())
        top = column._maximum(bounds_, scale, 0.2)
        assert grid <= top <= grid + 2e-3 * (1 + scale)
