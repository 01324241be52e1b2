"""How numbers are written: no digit that is not known, and none that is lost."""

import decimal

import numpy as np


def order_name(p: float | int | np.integer) -> str:
    """How an order is written: 1, 1.5, inf; with all its digits."""
    return repr(float(p)).removesuffix(".0")


def printed(value: float, side: int, digits: int = 6) -> str:
    """A number rounded up (+1) or down (-1), so that what is printed is still certified."""
    rounding = decimal.ROUND_CEILING if side > 0 else decimal.ROUND_FLOOR
    rounded = decimal.Context(prec=digits, rounding=rounding).create_decimal(float(value))
    return f"{float(rounded):.{digits}g}"
