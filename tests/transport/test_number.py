"""A distance prints the digits that its bracket certifies, formats as a float, and has no order."""

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from measattn.wasserstein import ColumnGeneration, Sinkhorn, TransportError, w1, w_inf
from measattn.wasserstein.number import MOST_DIGITS, AbstractNumber, certified_digits
from tests.transport.clouds import cloud

pytestmark = pytest.mark.float64


@dataclass(frozen=True, repr=False)
class Number(AbstractNumber):
    value: float
    lower: float
    upper: float

    def __repr__(self):
        return f"W {self._known('remark')}"


def unit(text):
    """The unit of the last digit of a printed number."""
    return Fraction(10) ** int(Decimal(text).as_tuple().exponent)


@st.composite
def numbers(draw):
    value = draw(st.floats(1e-3, 1.0)) * 10.0 ** draw(st.integers(-290, 290))
    below, above = (value * draw(st.floats(0, 1)) * 10.0 ** draw(st.integers(-17, 0)) for _ in "ab")
    return Number(value, value - below, value + above)


@given(numbers())
@example(Number(1e-6, 1e-6, 1e-6))  # the float is below 1e-6: rounding up gains a digit
def test_the_printed_value_is_off_by_less_than_a_unit_of_its_last_digit(number):
    value, lower, upper = certified_digits(number)
    ends = [Fraction(number.lower), Fraction(number.upper)]
    assert Fraction(lower) <= ends[0]
    assert ends[1] <= Fraction(upper)
    if value:
        assert max(abs(Fraction(value) - end) for end in ends) < unit(value)
        assert len(Decimal(value).as_tuple().digits) <= MOST_DIGITS
        # the printed bracket is hardly wider than the bracket
        assert Fraction(upper) - Fraction(lower) <= ends[1] - ends[0] + unit(value) / 50
    else:
        assert 10 * number.gap >= 0.5 * number.value


@given(numbers())
def test_two_more_digits_would_not_be_certified(number):
    value, _, _ = certified_digits(number)
    if value and len(Decimal(value).as_tuple().digits) < MOST_DIGITS - 1:
        assert 2 * (Fraction(number.upper) - Fraction(number.lower)) >= unit(value) / 10


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ((1.0, 1.0, 1.0), "W = 1.00000000000, certified in [1.0000000000000, 1.0000000000000]"),
        ((0.0, 0.0, 0.0), "W = 0, certified in [0, 0]"),
        ((0.0, 0.0, 8.9e-308), "W certified in [0, 9e-308]"),
        ((1.1465, 1.1453, 1.1465), "W = 1.15, certified in [1.1452, 1.1466]"),
        ((2.4, 1.6, 2.4), "W certified in [1.6, 2.4]"),
        ((1.0, 0.5, np.inf), "W certified in [0.5, inf]"),
        ((1.0, 0.6666, np.inf), "W certified in [0.666, inf]"),
    ],
)
def test_numbers_are_printed_as_far_as_they_are_known(ends, text):
    assert repr(Number(*ends)).startswith(text + " (gap ")


def test_a_wide_bracket_shows_fewer_digits_than_a_closed_one():
    mu, nu = cloud(0, 60, 2), cloud(1, 50, 2)
    with pytest.raises(TransportError) as caught:
        w1(mu, nu, solver=ColumnGeneration(neighbours=1, rounds=1))
    known = [certified_digits(caught.value.solution)[0]]
    known += [certified_digits(w1(mu, nu, solver=solver))[0] for solver in (Sinkhorn(), None)]
    lengths = [len(text) for text in known]
    assert lengths[0] <= lengths[1] < lengths[2]
    assert repr(w1(mu, nu)).startswith(f"W1 = {known[2]}, certified in [")


@pytest.mark.parametrize("solver", [w1, w_inf])
def test_a_distance_formats_as_its_value(solver):
    distance = solver(cloud(0, 9, 2), cloud(1, 7, 2))
    assert f"{distance:.3f}" == f"{distance.value:.3f}"
    assert f"{distance:>12.2e}" == f"{distance.value:>12.2e}"
    assert f"{distance}" == str(distance) == repr(distance)
    assert float(distance) == distance.value


@pytest.mark.parametrize("compare", ["<", "<=", ">", ">="])
@pytest.mark.parametrize("other", ["2", "one", "np.float64(2)"])
def test_the_order_of_a_distance_is_asked_of_its_numbers(compare, other):
    names = {"one": w1(cloud(0, 9, 2), cloud(1, 7, 2)), "np": np}
    for text in (f"one {compare} {other}", f"{other} {compare} one"):
        with pytest.raises(TypeError, match=r"no order.*compare \.value"):
            eval(text, names)
