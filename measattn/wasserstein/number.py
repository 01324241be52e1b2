"""A distance as a number that is known from two sides: how it is printed, and what it refuses."""

import abc
import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, NoReturn

from measattn.digits import printed

MOST_DIGITS = 12
"""A printed value has no more significant digits than this."""


class AbstractNumber(abc.ABC):
    """A value with a certified bracket: ``lower`` ≤ the distance ≤ ``upper``."""

    value: float
    lower: float
    upper: float

    @property
    def gap(self) -> float:
        """The width of the certified bracket, ``upper - lower``."""
        return self.upper - self.lower

    def __float__(self) -> float:
        return self.value

    def __format__(self, spec: str) -> str:
        return format(self.value, spec) if spec else str(self)

    def _compare(self, other: Any) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} and {type(other).__name__} have no order, since a distance is "
            "known up to its bracket: compare .value, or .lower and .upper for what is certified"
        )

    __lt__ = __le__ = __gt__ = __ge__ = _compare

    def _known(self, *remarks: str) -> str:
        """What is known of the value, for a line that starts with its symbol."""
        value, lower, upper = certified_digits(self)
        start = f"= {value}, " if value else ""
        notes = "; ".join([f"gap {self.gap:.1e}", *remarks])
        return f"{start}certified in [{lower}, {upper}] ({notes})"

    @abc.abstractmethod
    def __repr__(self) -> str: ...


def certified_digits(number: AbstractNumber) -> tuple[str, str, str]:
    """The digits of the value that its bracket certifies, and the bracket.

    The printed value is off by less than one unit of its last digit, wherever in the bracket the
    distance is: half a unit for the bracket, half for rounding. It has at most 12 digits, and is
    empty where not even the first is certified. The bracket has two digits more and is rounded
    outwards, so what is printed is still certified.
    """
    if not math.isfinite(number.upper):
        return "", printed(number.lower, -1, 3), f"{number.upper:g}"
    value, lower, upper = map(Decimal, (number.value, number.lower, number.upper))
    last = upper.adjusted() - MOST_DIGITS + 1
    if upper > lower:
        last = max(last, (2 * (upper - lower)).adjusted() + 1)
    ends = lower, upper
    below, above = (
        end.quantize(Decimal(1).scaleb(last - 2), rounding)
        for end, rounding in zip(ends, (ROUND_FLOOR, ROUND_CEILING), strict=True)
    )
    known = value.quantize(Decimal(1).scaleb(last))
    if known.adjusted() - last >= MOST_DIGITS:  # rounded up to a power of ten, a digit more
        known = value.quantize(Decimal(1).scaleb(last + 1))
    return _text(known) if known or lower == upper else "", _text(below), _text(above)


def _text(number: Decimal) -> str:
    return f"{number:g}" if number else "0"
