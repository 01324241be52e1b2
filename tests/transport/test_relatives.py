"""What lies beside the solvers: W_inf, total variation, closed forms, positions, couplings."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

import measattn as ma
from measattn.wasserstein import (
    bottleneck,
    conditional,
    total_variation,
    w1,
    w1_to_gaussian,
    w2_gaussians,
    w_inf,
    wp,
)
from tests import oracles
from tests.transport.clouds import arrays, cloud, line

pytestmark = pytest.mark.float64


def tokens(positions, states):
    return ma.EmpiricalMeasure(ma.Token(jnp.asarray(positions, float), jnp.asarray(states)))


@pytest.mark.parametrize(("n", "m"), [(5, 5), (6, 3), (4, 6), (1, 4)])
@pytest.mark.parametrize("kind", ["general", "grid"])
def test_the_bottleneck_is_the_least_over_all_permutations_of_equal_parts(n, m, kind):
    mu, nu = cloud(0, n, 2, kind=kind), cloud(1, m, 2, kind=kind)
    parts = np.lcm(n, m)
    if parts > 6:
        parts = None
    cost = oracles.distances(mu.points, nu.points)
    solution = w_inf(mu, nu)
    rows, cols, mass = solution.plan
    np.testing.assert_allclose(np.bincount(rows, mass, n), 1 / n, rtol=1e-14)
    np.testing.assert_allclose(np.bincount(cols, mass, m), 1 / m, rtol=1e-14)
    assert abs(cost[rows, cols].max() - solution.value) <= 1e-14
    near = (cost[solution.blocking] < solution.value * (1 - 1e-14)).any(axis=0)
    assert len(solution.blocking) / n > near.sum() / m
    if parts:
        whole = np.repeat(np.repeat(cost, parts // n, 0), parts // m, 1)
        steps = range(parts)
        least = min(max(whole[i, s[i]] for i in steps) for s in itertools.permutations(steps))
        assert abs(solution.value - least) <= 1e-14


def test_the_bottleneck_is_at_least_every_other_order():
    mu, nu = cloud(2, 60, 3), cloud(3, 60, 3)
    values = [wp(mu, nu, p).value for p in (1, 2, 4, 8)] + [w_inf(mu, nu).value]
    assert values == sorted(values)


@pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 30), (31, 40)])
@pytest.mark.parametrize("kind", ["general", "grid", "clustered"])
def test_the_bottleneck_is_the_same_when_it_is_sought_on_a_part_of_the_arcs(
    monkeypatch, n, m, kind
):
    mu, nu = cloud(4, n, 2, kind=kind), cloud(5, m, 2, kind=kind)
    whole = w_inf(mu, nu)
    monkeypatch.setattr(bottleneck, "MANY", 50)
    part = w_inf(mu, nu)
    assert part.value == whole.value
    cost = oracles.distances(mu.points, nu.points)
    near = (cost[part.blocking] < part.value * (1 - 1e-14)).any(axis=0)
    assert len(part.blocking) / n > near.sum() / m


def test_atoms_without_mass_do_not_count_in_the_bottleneck():
    mu = ma.weighted([[9.0], [0.0], [1.0]], [0.0, 1.0, 1.0])
    nu = ma.weighted([[0.5], [3.0], [-7.0]], [1.0, 1.0, 0.0])
    solution = w_inf(mu, nu)
    assert solution.value == 2
    assert sorted(solution.plan.rows) == [1, 2]
    assert sorted(solution.plan.cols) == [0, 1]
    assert set(solution.blocking) <= {1, 2}


def test_the_brackets_of_the_bottleneck_hold_and_close():
    seen = []
    rng = np.random.default_rng(6)
    mu, nu = (ma.EmpiricalMeasure(rng.random((70, 2))) for _ in range(2))
    solution = w_inf(mu, nu, watch=seen.append)
    assert len(seen) > 1
    assert all(bracket.lower <= solution.value <= bracket.upper for bracket in seen)
    assert (seen[-1].lower, seen[-1].upper) == (solution.lower, solution.upper)


def test_weights_have_no_bottleneck_of_whole_units():
    with pytest.raises(ValueError, match="uniform"):
        w_inf(cloud(0, 9, 2, weighted=True), cloud(1, 4, 2))


def test_total_variation_is_half_the_sum_of_the_differences():
    mu = ma.weighted([[0.0], [1.0], [2.0]], [1.0, 1.0, 2.0])
    nu = ma.weighted([[0.0], [-0.0], [2.0]], [1.0, 2.0, 2.0])
    assert abs(total_variation(mu, nu) - 0.35) <= 1e-15
    assert total_variation(mu, mu) == 0
    assert abs(total_variation(line(0, 1), line(2, 3)) - 1) <= 1e-15


def test_total_variation_of_tokens_counts_the_positions():
    states = np.ones((2, 1))
    assert abs(total_variation(tokens([0, 1], states), tokens([1, 2], states)) - 0.5) <= 1e-15


def test_total_variation_needs_one_space():
    with pytest.raises(ValueError, match="one space"):
        total_variation(tokens([0.0], np.ones((1, 1))), line(0))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("mean", "sd"), [(0.0, 1.0), (0.3, 1.7), (-40.0, 0.1)])
def test_w1_to_a_gaussian_on_the_line_is_the_integral_of_the_distribution_functions(
    mean, sd, weighted
):
    mu = cloud(4, 12, 1, weighted)
    x, _, a, _ = arrays(mu, mu)
    order = np.argsort(x[:, 0])
    ends, height = x[order, 0], np.concatenate([[0], np.cumsum(a[order])])
    ends = np.concatenate([[min(ends[0], mean - 12 * sd)], ends, [max(ends[-1], mean + 12 * sd)]])
    expected = 0.0
    for c, lo, hi in zip(height, ends[:-1], ends[1:], strict=True):
        cuts = np.clip([mean - 6 * sd, mean, mean + 6 * sd, stats.norm.ppf(c, mean, sd)], lo, hi)
        for s, t in itertools.pairwise(np.sort([lo, *cuts, hi])):
            gap = lambda z, c=c: abs(c - stats.norm.cdf(z, mean, sd))  # noqa: E731
            expected += integrate.quad(gap, s, t, epsabs=1e-13)[0]
    assert abs(w1_to_gaussian(mu, mean, sd) - expected) <= 1e-10 * max(expected, 1)


@pytest.mark.parametrize("d", [2, 5, 64])
@pytest.mark.parametrize("shift", [0.0, 0.7, 6.0])
def test_w1_of_a_dirac_to_a_gaussian_is_the_mean_of_the_noncentral_chi(d, shift):
    point = np.zeros(d)
    point[0] = shift
    sd = 1.3
    square = stats.ncx2(d, (shift / sd) ** 2) if shift else stats.chi2(d)
    expected = sd * integrate.quad(lambda t: square.sf(t * t), 0, 20 + shift, epsabs=1e-12)[0]
    got = w1_to_gaussian(ma.dirac(point), np.zeros(d), sd)
    assert abs(got - expected) <= 1e-8 * expected


def test_several_atoms_in_the_plane_have_no_closed_form():
    with pytest.raises(ValueError, match="no closed form"):
        w1_to_gaussian(cloud(0, 4, 2), 0.0, 1.0)


def test_w2_of_gaussians_is_that_of_their_axes_and_of_bures():
    assert abs(w2_gaussians([0, 0], np.eye(2), [1, 0], np.diag([4.0, 9.0])) - 6**0.5) <= 1e-14
    rng = np.random.default_rng(0)
    s, t = (f @ f.T for f in rng.normal(size=(2, 3, 3)))
    values, vectors = np.linalg.eigh(s)
    root = vectors * np.sqrt(values) @ vectors.T
    middle = np.sqrt(np.linalg.eigvalsh(root @ t @ root)).sum()
    expected = np.sqrt(np.trace(s) + np.trace(t) - 2 * middle)
    assert abs(w2_gaussians(np.zeros(3), s, np.zeros(3), t) - expected) <= 1e-12
    assert w2_gaussians(np.zeros(3), s, np.zeros(3), s) <= 1e-14


def test_one_token_at_each_position_is_compared_with_its_namesake():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 9, 3))
    order = rng.permutation(9)
    mu, nu = tokens(np.arange(9), x), tokens(np.arange(9)[order], y[order])
    for p in (1, 2):
        expected = np.mean(np.linalg.norm(x - y, axis=1) ** p) ** (1 / p)
        assert abs(conditional(mu, nu, p).value - expected) <= 1e-14


def test_the_position_wise_distance_is_the_mean_over_the_positions():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 8, 2))
    mu, nu = tokens(np.repeat([0, 1], 4), x), tokens(np.repeat([0, 1], 4), y)
    halves = [
        w1(ma.EmpiricalMeasure(x[s]), ma.EmpiricalMeasure(y[s])).value
        for s in (slice(4), slice(4, 8))
    ]
    solution = conditional(mu, nu)
    assert abs(solution.value - np.mean(halves)) <= 1e-14
    assert solution.lower <= solution.value <= solution.upper
    assert solution.value >= w1(ma.states(mu), ma.states(nu)).value - 1e-14
    np.testing.assert_allclose(np.bincount(solution.plan.rows, solution.plan.mass), 1 / 8)


@pytest.mark.parametrize("p", [1, 2])
def test_potentials_are_feasible_at_each_position_and_centred_there(p):
    rng = np.random.default_rng(2)
    at = np.repeat([0, 1, 2], [5, 3, 4])
    x, y = rng.normal(size=(2, 12, 2)) * np.array([1.0, 10.0, 100.0])[at][:, None]
    solution = conditional(tokens(at, x), tokens(at, y), p)
    u, v = solution.potentials
    slack = oracles.distances(x, y) ** p - u[:, None] - v
    assert slack[at[:, None] == at].min() >= -1e-10
    assert abs((u.sum() + v.sum()) / 12 - solution.value**p) <= 1e-10 * solution.value**p
    for s in range(3):
        assert abs(u[at == s].sum() - v[at == s].sum()) <= 1e-10 * np.abs(u[at == s]).sum()


def test_mass_does_not_move_between_positions():
    with pytest.raises(ValueError, match="same mass at each position"):
        conditional(tokens([0, 1], np.ones((2, 1))), tokens([0, 2], np.ones((2, 1))))
    with pytest.raises(ValueError, match="tokens"):
        conditional(line(0), line(1))
