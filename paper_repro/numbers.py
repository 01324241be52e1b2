"""Numbers and durations as people read them."""

import math


def number(value: float, digits: int = 4) -> str:
    """A number for people: a few digits, powers of ten written out."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if 10**digits <= abs(value) < 1e6:
        return f"{value:,.0f}".replace("-", "−")
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.{digits}g}".replace("-", "−")
    mantissa, exponent = f"{value:.{digits - 2}e}".split("e")
    power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    if math.isclose(value, 10.0 ** int(exponent), rel_tol=1e-9):
        return f"10{power}"
    return f"{mantissa.replace('-', '−')}·10{power}"


def seconds(value: float) -> str:
    """A duration for people."""
    if value >= 90:
        return f"{int(value // 60)} min {int(value % 60)} s"
    return f"{value:.1f} s"
