"""Upper bounds: closed forms, hypotheses, refusals, composition, and pairs that must not exceed."""

import dataclasses
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

import measattn as ma
from measattn.lipschitz import Ball, Bound, Box, Everywhere, Refused, Simplex, Sphere, bound, bounds
from measattn.lipschitz.forms import form
from measattn.lipschitz.theorems import THEOREMS

pytestmark = pytest.mark.float64

INF = math.inf
BOOLEAN = jax.ShapeDtypeStruct((), bool)
CONTRACTING, ATTRACTING = (ma.SelfAttention(ma.DotProduct(s)) for s in (-1.0, 1.0))


def table(layer, domain, p=1, **kwargs):
    """The rows of `bounds` by name."""
    return {row.theorem: row for row in bounds(layer, domain, p, **kwargs)}


def attention(matrix, value=None, shift=None):
    """Attention with the score <Ax + c, y>."""
    query = ma.Affine(matrix, shift)
    return ma.SelfAttention(ma.Bilinear(query, jnp.eye(len(matrix))), value)


@pytest.mark.parametrize(
    ("t", "b1", "h2", "h4", "h6"),
    [
        (0.25, 2.723082, 1.847, 1.529, 1.412),
        (1.0, 23.167168, 4.853, 3.400, 2.987),
        (2.25, 497.344, 10.59, 7.567, 6.800),
        (4.0, 26832.6, 22.10, 16.71, 15.50),
    ],
)
def test_the_bounds_have_the_values_of_the_table_of_theory(t, b1, h2, h4, h6):
    rows = table(ATTRACTING, Ball(math.sqrt(t)), dimension=3)
    assert rows["B1"].value == pytest.approx(b1, rel=2e-6)
    assert rows["H2"].value == pytest.approx(h2, rel=5e-4)
    assert rows["H4"].value == pytest.approx(h4, rel=1e-3)
    assert rows["H6"].value == pytest.approx(h6, rel=2e-3)
    assert bound(ATTRACTING, Ball(math.sqrt(t)), dimension=3).value == rows["H6"].value


def test_a_general_positive_score_has_the_constant_of_the_general_case():
    layer = attention(np.diag([1.0, 0.5]))
    rows = table(layer, Ball(1.0))
    assert rows["H4"].value == pytest.approx(4.261, rel=5e-4)
    assert rows["H6"].value < 0.985 * rows["H4"].value


def random_pair(rng, n, d, radius):
    """Two weighted measures in the ball, one of them with a light atom that moves a little."""
    points = rng.normal(size=(n, d))
    points *= radius * rng.random((n, 1)) ** 0.3 / np.linalg.norm(points, axis=1, keepdims=True)
    weights = rng.random(n) ** 4 + 1e-3
    other = points.copy()
    other[0] *= 1 - 1e-3 * rng.random()
    return (ma.weighted(p, weights) for p in (points, other))


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("radius", [0.7, 1.5])
def test_no_pair_of_measures_is_driven_farther_apart_than_a_bound_says(radius, p):
    rng = np.random.default_rng(1)
    for trial in range(25):
        matrix, shift = rng.normal(size=(2, 2)), rng.normal(size=2) * (trial % 2)
        value = rng.normal(size=(2, 2))
        layers = (
            attention(matrix, value, shift),
            attention(matrix @ matrix.T, value),
            ma.SelfAttention(ma.Gaussian(0.5 + rng.random()), value),
            ma.Residual(attention(matrix, value)),
        )
        mu, nu = random_pair(rng, 4, 2, radius)
        before = ma.wasserstein.wp(mu, nu, p).upper
        for layer in layers:
            after = ma.wasserstein.wp(mu @ layer, nu @ layer, p, tol=1e-6).lower
            for row in bounds(layer, Ball(radius), p):
                assert isinstance(row, Refused) or after <= row.value * before, row


def extremal_quotient(t, mass=1e-9, step=1e-4):
    """The quotient of B4's pair for A = -I on the ball of radius √t, in closed form on the line."""
    radius = math.sqrt(t)
    mu, nu = (
        ma.weighted(np.array([[-radius], [y]]), np.array([1 - mass, mass]))
        for y in (radius, radius * (1 - step))
    )
    moved = [np.asarray((measure @ CONTRACTING).points)[:, 0] for measure in (mu, nu)]
    cost = np.abs(moved[0] - moved[1]) @ np.array([1 - mass, mass])
    return cost / (mass * step * radius)


@pytest.mark.parametrize("t", [2.25, 4.0])
def test_a_bound_with_its_constant_lowered_by_two_per_cent_is_exceeded(t):
    value = bound(CONTRACTING, Ball(math.sqrt(t)), dimension=1).value
    assert 0.98 * value < extremal_quotient(t) <= value


def test_a_translated_layer_on_a_translated_ball_has_the_same_bound():
    rng = np.random.default_rng(2)
    matrix, centre = rng.normal(size=(2, 2)), rng.normal(size=2)
    # <A(x - m), y> is <Ax - Am, y>
    there = attention(matrix, shift=-matrix @ centre)
    for p in (1, 2, INF):
        here = bound(attention(matrix), Ball(1.0), p).value
        assert bound(there, Ball(1.0, centre), p).value == pytest.approx(here, rel=1e-9)


def test_equal_atoms_sharpen_a_bound_and_large_orders_need_no_exponential():
    wide = Ball(3.0)
    assert bound(CONTRACTING, wide, 2, dimension=2, atoms=7).value == pytest.approx(
        9 + math.sqrt(7) * 10
    )
    assert bound(CONTRACTING, wide, INF, dimension=2).value == pytest.approx(19)


def test_attention_on_all_of_space_has_a_bound_for_a_number_of_gaussian_tokens_only():
    layer = ma.SelfAttention(ma.Gaussian(0.3))
    everywhere = Everywhere(atoms=2)
    assert bound(layer, everywhere, INF, dimension=2).value == pytest.approx(1 + 4 * 0.2784645428)
    for domain in (Everywhere(), Everywhere(second_moment=1.0), Everywhere(local_mass=(0.1, 0.2))):
        with pytest.raises(ValueError, match="no proved theorem bounds this layer"):
            bound(layer, domain, INF, dimension=2)
    with pytest.raises(ValueError, match="bounded domain"):
        bound(ATTRACTING, everywhere, INF, dimension=2)


def test_a_fixed_memory_bounds_the_query_side_everywhere():
    memory = np.array([[0.0, 0.0], [3.0, 4.0]])
    layer = ma.CrossAttention(ma.DotProduct(0.1), 2 * jnp.eye(2), memory)
    assert bound(layer, Everywhere(), 2).value == pytest.approx(2 * 0.1 * 25 / 4)


@pytest.mark.parametrize(
    ("allowed", "fine"),
    [
        (lambda x, y: jnp.abs(x.position - y.position) < 3, True),
        (lambda x, y: jnp.where(x.position > 1, y.position > 0, True), True),
        (jax.jit(lambda x, y: x.position >= y.position), True),
        (jax.jit(lambda x, y: x.state[0] >= y.position), False),
        (lambda x, y: jax.lax.cond(x.position > 1, lambda _: True, lambda _: False, y), True),
        (
            lambda x, y: jax.lax.cond(x.position > 1, lambda z: z.state[0] > 0, lambda _: True, y),
            False,
        ),
        (lambda x, y: jnp.sum((x.state - y.state) ** 2) < 0.25, False),
        (lambda x, y: (y.position <= x.position) & (x.state[0] < 1e9), False),
        (lambda x, y: jnp.sum((x - y) ** 2) < 0.25, False),
        (lambda x, y: {}[x.state.shape], False),
        (lambda x, y: io_callback(lambda a: a.sum() > 0, BOOLEAN, x.state) | True, False),
    ],
)
def test_a_mask_that_looks_at_states_has_no_bound_as_the_layer_jumps(allowed, fine):
    layer = ma.SelfAttention(ma.Masked(ma.DotProduct(1.0), allowed))
    if fine:
        assert bound(layer, Ball(1.0), 1, atoms=2, dimension=2).theorem == "M1"
        return
    with pytest.raises(ValueError, match="positions alone; found one that may look at states"):
        bound(layer, Ball(1.0), 1, atoms=2, dimension=2)


def test_a_bound_says_among_how_many_atoms_it_holds():
    few = bound(CONTRACTING, Ball(2.0), 1, dimension=2, atoms=1)
    assert "among 1 equal atom (" in repr(few)
    assert few.value < bound(CONTRACTING, Ball(2.0), 1, dimension=2).value
    gauss = ma.SelfAttention(ma.Gaussian(1.0))
    assert bound(gauss, Everywhere(atoms=5), 2, dimension=1).atoms == 5
    with pytest.raises(ValueError, match="atoms is 3, but the domain is Everywhere"):
        bound(gauss, Everywhere(atoms=5), 2, dimension=1, atoms=3)
    for bad in ({"atoms": 0}, {"second_moment": math.nan}, {"second_moment": -1.0}):
        with pytest.raises(ValueError, match="must be"):
            Everywhere(**bad)


def test_shifts_and_memories_whose_squares_are_zero_count():
    """Squares of 1e-163 are 0, and so were norms and shifts of that size, and diameters."""
    still = attention(np.zeros((1, 1)), shift=np.array([1e-162]))
    near = attention(np.zeros((1, 1)), shift=np.array([1.0]))
    found = bound(still, Ball(1e162), 1, dimension=1).value
    assert found == pytest.approx(bound(near, Ball(1.0), 1, dimension=1).value, rel=1e-9)
    memory = ma.EmpiricalMeasure([[0.0], [1e-170]])
    layer = ma.CrossAttention(ma.DotProduct(1e180), np.array([[1e165]]), memory)
    assert bound(layer, Everywhere(), 1, dimension=1).value == pytest.approx(2.5e4, rel=1e-9)


def test_norms_keep_products_of_small_matrices():
    """Scores of 1e-90 and values of 1e-50 on a ball of radius 1e45."""
    layer = ma.SelfAttention(
        ma.Bilinear(ma.Affine(1e-45 * np.eye(2), np.zeros(2)), 1e-45 * np.eye(2)), 1e-40 * np.eye(2)
    )
    near = ma.SelfAttention(ma.DotProduct(1.0), 1e-40 * np.eye(2))
    found = bound(layer, Ball(1e45), 1, dimension=2).value
    assert found == pytest.approx(bound(near, Ball(1.0), 1, dimension=2).value, rel=1e-9)


@pytest.mark.parametrize("p", [1.25, math.pi])
def test_what_is_printed_is_rounded_to_the_safe_side(p):
    found = bound(CONTRACTING, Ball(1.0), p, dimension=2)
    assert f"W{p!r})" in repr(found)
    for value in (1 + 1e-9, 9.9999995, 123456.7, 1e-300 / 3, 1e300 / 7):
        up = repr(dataclasses.replace(found, value=value)).split("<= ")[1].split(" ")[0]
        assert value <= float(up) <= value * (1 + 2e-5)


def test_infinite_bounds_say_that_they_are_vacuous_and_what_to_use_instead():
    remedy = "vacuous, beyond float64: take a smaller domain, or lipschitz.local at one measure"
    wide = Ball(30.0)
    found = bound(CONTRACTING, wide, dimension=2)
    assert found.value == INF
    assert repr(found).endswith(f"(B1, certified; {remedy})")
    assert repr(bounds(CONTRACTING, wide, dimension=2)).endswith(f"\ninf is {remedy}")
    assert "vacuous" not in repr(bounds(CONTRACTING, Ball(1.0), dimension=2))
    pair = ma.lipschitz.search(
        CONTRACTING, wide, dimension=1, key=jax.random.key(0), starts=2, steps=2
    )
    both = ma.lipschitz.Bracket(pair.value, INF, pair, found, CONTRACTING)
    assert repr(both).endswith(f", inf] on {wide} (B1 is {remedy})")


def test_a_refused_order_is_named_with_all_its_digits():
    refused = table(CONTRACTING, Ball(1.0), 1.0000000001, dimension=2)["B1"]
    assert refused.reason == "needs p = 1; found p = 1.0000000001"


def test_masks_are_bounded_in_the_position_wise_norm():
    layer = ma.SelfAttention(ma.Causal(ma.DotProduct(0.5)))
    found = bound(layer, Ball(1.0), 1, dimension=2, atoms=10)
    mass = min(10, math.exp(1) * (1 + math.log(10)))
    assert found.value == pytest.approx(0.5 + mass * 2)
    assert found.metric == "W1, position-wise"
    with pytest.raises(ValueError, match="atoms="):
        bound(layer, Ball(1.0), 1, dimension=2)


def test_domains_count_by_the_balls_around_them():
    ball = bound(CONTRACTING, Ball(1.0), dimension=2).value
    assert bound(CONTRACTING, Sphere(1.0), dimension=2).value == ball
    side = 1 / math.sqrt(2)
    box = bound(CONTRACTING, Box([-side] * 2, [side] * 2)).value
    assert box == pytest.approx(ball)
    assert bound(CONTRACTING, Simplex(3)).value > 0


def test_a_measure_outside_of_its_domain_is_told_how_far():
    with pytest.raises(ValueError, match=r"0\.5 of its mass lies outside, up to 1 away"):
        Ball(1.0).check(ma.EmpiricalMeasure(np.array([[0.0, 0.0], [2.0, 0.0]])))


def test_the_table_shows_values_and_reasons():
    rows = bounds(CONTRACTING, Ball(1.0), dimension=2)
    text = repr(rows)
    assert len(rows) == len(text.splitlines())
    assert isinstance(rows[0], Bound)
    assert "certified" in repr(rows[0])
    assert "needs a Gaussian score" in text


def test_what_is_quoted_is_listed_and_never_the_bound():
    layer = ma.SelfAttention(ma.Gaussian(1.0))
    rows = table(layer, Ball(0.1), 2, dimension=2, atoms=3)
    assert not rows["Kim L2"].proved
    assert bound(layer, Ball(0.1), 2, dimension=2, atoms=3).proved


@pytest.mark.parametrize(
    ("layer", "domain", "p", "words"),
    [
        (CONTRACTING, Ball(1.0), 0.5, "p must be a number of at least 1"),
        (CONTRACTING, Ball(1.0), 1, "give dimension="),
        (ma.SelfAttention(lambda x, y: x @ y, jnp.eye(2)), Ball(1.0), 1, "potential must be"),
        (ma.SelfAttention(ma.DotProduct(), jnp.sin), Ball(1.0, [0.0]), 1, "value must be a matrix"),
        (ma.Deterministic(jnp.sin), Ball(1.0, [0.0]), 1, "affine map"),
    ],
)
def test_what_no_theorem_speaks_of_is_refused_with_words(layer, domain, p, words):
    with pytest.raises(ValueError, match=words):
        bound(layer, domain, p)


def test_the_theorems_say_where_their_proofs_are():
    proved = [theorem for theorem in THEOREMS if theorem.proved]
    assert {"B3", "F3", "H2", "H4", "H6", "M1"} <= {theorem.name for theorem in proved}
    for theorem in proved:
        assert "docs/theory-lipschitz.md" in theorem.source


def test_orders_and_numbers_of_atoms_may_be_those_of_numpy():
    whole = bound(CONTRACTING, Ball(1.0), np.int64(2), dimension=2, atoms=np.int64(3))
    assert whole.value == bound(CONTRACTING, Ball(1.0), 2, dimension=2, atoms=3).value
    with pytest.raises(ValueError, match="atoms must be a whole number"):
        bound(CONTRACTING, Ball(1.0), 2, dimension=2, atoms=0)


def test_the_ball_around_a_box_holds_its_corners_far_from_the_origin():
    low = np.array([1e8, -3e7])
    high = np.nextafter(low, np.inf)  # their middle is no float
    box = Box(low, high)
    for corner in (low, high):
        apart = [Fraction(a) - Fraction(b) for a, b in zip(corner, box.centre, strict=True)]
        assert sum(a * a for a in apart) <= Fraction(box.radius) ** 2


def test_the_shift_about_a_far_centre_is_not_lost_to_rounding():
    """A z + c is 2e-3, of which float64 sees nothing beside 1e13; nor do products with a key."""
    slope, far, key = 0.0185, 1e15, 0.7
    shift = float(np.float64(slope) * np.float64(far))
    lost = key * float(Fraction(slope) * Fraction(far) - Fraction(shift))
    assert lost != 0
    query = ma.Affine(np.array([[-slope]]), np.array([shift]))
    layer = ma.SelfAttention(ma.Bilinear(query, np.array([[key]])))
    near = attention(np.array([[-slope * key]]), shift=np.array([-lost]))
    found = bound(layer, Ball(16.0, np.array([far])), 1, dimension=1).value
    assert found == pytest.approx(bound(near, Ball(16.0), 1, dimension=1).value, rel=1e-9)


def test_scores_whose_parts_cancel_are_known_to_eleven_digits():
    """Sums of products of 1e8, of which rounding would leave no digit."""
    rng = np.random.default_rng(0)
    key, query, z = rng.normal(size=(2, 3)), 1e8 * rng.normal(size=(2, 3)), rng.normal(size=3)
    query[1] = -query[0] * key[0, 0] / key[1, 0] * (1 + 1e-14)
    key[:, 1:] = key[:, :1] * np.array([0.5, 2.0])

    def exact(matrix):
        return [[Fraction(float(a)) for a in row] for row in matrix]

    def times(a, b):
        return [[sum(x * y for x, y in zip(row, col, strict=True)) for col in zip(*b, strict=True)]
                for row in a]  # fmt: skip

    wanted = times(exact(key.T), exact(query))
    true = np.array([[float(a) for a in row] for row in wanted])
    assert np.abs(key.T @ query - true).max() > 1e-3 * np.abs(true).max()
    layer = ma.SelfAttention(ma.Bilinear(query, key))
    score = form(layer, 3, z).heads[0].score
    np.testing.assert_allclose(score.matrix, true, rtol=0, atol=1e-11 * np.abs(true).max())
    shift = [float(row[0]) for row in times(wanted, exact(z[:, None]))]
    np.testing.assert_allclose(score.shift, shift, rtol=0, atol=1e-11 * np.abs(shift).max())


def test_constants_about_a_far_centre_that_cancel_in_a_sum_over_heads():
    """V z + b of both maps of several heads, against fractions."""
    rng, z = np.random.default_rng(1), np.array([1e12, -3e11])
    values, output = rng.normal(size=(2, 2, 2)), rng.normal(size=(2, 4))
    biases = [-value @ z for value in values]
    heads = [
        ma.SelfAttention(ma.DotProduct(1.0), ma.Affine(value, bias))
        for value, bias in zip(values, biases, strict=True)
    ]
    known = form(ma.MultiHead(heads, output), 2, z)
    for k, head in enumerate(known.heads):
        inner = [
            sum(Fraction(a) * Fraction(b) for a, b in zip(row, z, strict=True)) + Fraction(c)
            for row, c in zip(values[k].tolist(), biases[k].tolist(), strict=True)
        ]
        block = output[:, 2 * k : 2 * k + 2].tolist()
        true = [float(sum(Fraction(o) * v for o, v in zip(row, inner, strict=True)))
                for row in block]  # fmt: skip
        np.testing.assert_allclose(head.shift, true, rtol=0, atol=1e-11 * np.abs(true).max())
