"""Certificates whose numbers are so large or small that rounding could make them true."""

import decimal
from fractions import Fraction

import numpy as np
import pytest

from measattn import lipschitz as lip
from measattn.lipschitz.checker import outputs, transport
from measattn.lipschitz.checker.domains import region
from measattn.lipschitz.checker.formulas import Question, check
from measattn.lipschitz.checker.outputs import Head
from measattn.lipschitz.checker.report import Rejected
from tests.lipschitz.forging import forge, rejected

pytestmark = pytest.mark.float64


@pytest.mark.parametrize("unit", [0.0, -1.0, 1e-300, 1e300])
def test_a_unit_in_which_nothing_can_be_told_is_rejected(file, unit):
    def arrays(held):
        held["after.unit"] = np.asarray(unit)

    forge(file, arrays=arrays)
    assert not lip.verify(file).accepted


def test_a_constant_however_large_changes_nothing(file):
    """1e48 would leave none of 50 digits to the moves of the outputs."""

    def arrays(held):
        held["head.0.constant"] = np.array([1e48, -1e48])

    forge(file, arrays=arrays)
    assert lip.verify(file).accepted


@pytest.mark.parametrize(("score", "sizes", "values"), [("dot", 1.0, 1e45), ("gauss", 1.0, 1e45),
                                                        ("dot", 1e16, 1.0)])  # fmt: skip
def test_terms_that_take_digits_from_others_are_charged(score, sizes, values):
    """Large values, and scores of which little is left, against three times as many digits."""
    rng = np.random.default_rng(0)
    x, mass = np.repeat(rng.normal(size=(4, 1)), 2, axis=1), rng.random(4)
    x[:, 1] += np.spacing(x[:, 1]) * [1, 3, -2, 5]
    dot = (sizes * rng.normal() * np.array([[1.0, -1.0], [1.0, -1.0]]), np.zeros(2), None)
    value = values * rng.normal(size=(2, 2))
    layer, rows = [Head(*(dot if score == "dot" else (None, None, 1.0)), value, None)], []
    for digits in (outputs.DIGITS, 3 * outputs.DIGITS):
        with decimal.localcontext(outputs.context()) as context:
            context.prec = digits
            rows.append(outputs.outputs(layer, True, x, mass))
    with decimal.localcontext(outputs.context()):
        off = np.linalg.norm(np.array(rows[0] - rows[1], np.float64), axis=1).max()
    charged = outputs.lost(layer, True, x)
    assert 1e-40 < off <= charged <= 1e6 * off


def test_scores_that_leave_no_digit_are_rejected(file):
    def arrays(held):
        held["head.0.shift"] = held["head.0.shift"] + 1e50

    forge(file, arrays=arrays)
    rejected(file, "leave no digit of 50")


def test_a_constant_in_the_potentials_is_taken_out_before_it_rounds_what_matters():
    """Beside 2^55 float64 sees multiples of 8 alone."""
    x, y, mass = np.zeros((2, 1)), np.array([[3.0], [5.0]]), np.array([0.5, 0.5])
    u = np.full(2, 2.0**55)
    v = (transport.distances(x, y) - u[:, None]).min(axis=0)
    assert transport.below(x, y, mass, (1.0, u, v), 1.0).lower <= 4


@pytest.mark.parametrize("name", ["head.0.value", "head.0.matrix", "head.0.shift"])
@pytest.mark.parametrize("factor", [1e-163, 1e163])
def test_sizes_whose_powers_leave_float64_are_refused(file, name, factor):
    def arrays(held):
        held[name] = np.full(held[name].shape, factor)

    forge(file, arrays=arrays)
    rejected(file, "must have a size of 1e-50 to")


@pytest.mark.parametrize("radius", [1e-163, 1e163])
def test_domains_whose_powers_leave_float64_are_refused(file, radius):
    forge(file, lambda entries: entries["domain"].update(radius=radius))
    rejected(file, "the radius must have a size")


def test_measures_too_near_to_be_told_apart_are_refused():
    x, row = np.zeros((2, 1)), np.arange(2)
    with pytest.raises(Rejected, match="apart or more to be told apart"):
        transport.above(x, x + 5e-324, np.full(2, 0.5), (row, row, np.full(2, 0.5)), 2.0)


def test_small_moves_of_high_order_are_told_apart(file):
    """Squares of distances of 1e-162 are no normal numbers: in units of length nothing is lost."""
    x = np.array([[0.0], [1e-150]])
    far = np.array([0.999, 0.001])
    for unit in (1.0, 2.0**-500):
        cost = (transport.distances(x, x + 7.9e-163) / unit) ** 2
        dual = transport.below(x, x + 7.9e-163, far, (unit, np.zeros(2), cost.min(axis=0)), 2.0)
        assert dual.lower <= 7.9e-163
    assert dual.lower == pytest.approx(7.9e-163, rel=1e-12)


def test_points_whose_sizes_leave_float64_are_refused(file):
    def arrays(held):
        held["witness.x"] = 1e-225 * held["witness.x"]
        held["witness.y"] = 1e-225 * held["witness.y"]

    forge(file, arrays=arrays)
    rejected(file, "witness.x must have a size")


def test_large_exponents_are_charged_for_the_rounding_of_norms(file):
    """An exponent of 690 makes 1e-12 of the 2e-15 that a spectral norm is off."""
    ones = Head(-np.ones((500, 500)), np.zeros(500), None, np.ones((1, 500)), None)
    ball = region({"kind": "Ball", "radius": (690 / 1000) ** 0.5, "centre": None}, 500)
    exponent = 2 * 500 * Fraction(ball.radius) ** 2
    with decimal.localcontext(outputs.context()):
        t = decimal.Decimal(exponent.numerator) / decimal.Decimal(exponent.denominator)
        true = decimal.Decimal(500).sqrt() * (t / 2 + t.exp() * (1 + t))
    found = check("B1", Question(ones, ball, 1.0, None), 1.0)
    assert decimal.Decimal(found.value) >= true


def test_heads_are_added_without_losing_the_small_ones(file):
    """A hundred heads of 1e-16 each beside a residual."""

    def change(entries):
        entries["layer"].update(residual=True, heads=100 * entries["layer"]["heads"])
        entries["upper"]["heads"] = 100 * [{"theorem": "B1", "value": 1e-16}]
        entries["upper"].update(value=1.0, theorem="1 + B1")

    def arrays(held):
        for k in range(1, 100):
            for part in ("value", "constant", "matrix", "shift"):
                held[f"head.{k}.{part}"] = held[f"head.0.{part}"]

    forge(file, change, arrays)
    (sum_,) = [item for item in lip.verify(file).items if item.name.startswith("the sum over")]
    assert sum_.recomputed > 1 + 0.9e-14
    assert not sum_.accepted


def test_more_atoms_than_can_be_checked_are_refused_before_any_work(file):
    def arrays(held):
        for name in ("x", "y"):
            held[f"witness.{name}"] = np.ones((5000, 2))
        held["witness.weights"] = np.full(5000, 1 / 5000)

    forge(file, arrays=arrays)
    rejected(file, "5000 atoms are too many")
