r"""The rate of a sequence that falls geometrically, with its standard error."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import ScalarLike
from numpy.typing import NDArray

from measattn.checks import host_array, host_number

LEAST = 5
"""A line through fewer points says nothing about its own error."""


@dataclass(frozen=True)
class Rate:
    r"""An estimate of ρ in $r_t \approx c\rho^t$.

    Attributes:
        value: ρ.
        stderr: its standard error, from the scatter of the residuals of the fit.
        first: the first step that was used.
        last: the last one.
    """

    value: float
    stderr: float
    first: int
    last: int

    def __repr__(self) -> str:
        span = f"steps {self.first} to {self.last}"
        return f"rate {self.value:.6g} ± {self.stderr:.2g} a step (fitted, {span})"


def fit_rate(values: Any, floor: ScalarLike = 0.0) -> Rate:
    r"""Fit $\log r_t = \log c + t\log\rho$ by least squares over the last half of the steps.

    Args:
        values: $r_1, r_2, \dots$, positive where they count.
        floor: what lies at or below it is rounding, and ends the sequence.

    Raises:
        ValueError: fewer than five steps to fit, values that are no list of numbers, or a negative
            floor.

    Source: ordinary least squares; the error of ρ is ρ times that of the slope.
    """
    values, least = host_array("values", values, 1), host_number(floor)
    if least is None or not 0 <= least < math.inf:
        raise ValueError(f"floor must be finite and at least 0, such as 1e-12, got {floor!r}")
    above = np.isfinite(values) & (values > least)
    end = len(values) if above.all() else int(np.argmin(above))
    first = end // 2 if end // 2 + LEAST <= end else max(0, end - LEAST)
    if end - first < LEAST:
        raise ValueError(
            f"a rate needs at least {LEAST} steps above rounding, got {end}: run more steps, or "
            "start further from the limit"
        )
    t = np.arange(first, end)
    slope, error = _line(t, np.log(values[first:end]))
    rate = math.exp(slope)
    return Rate(rate, rate * error, first + 1, end)


def _line(t: NDArray, y: NDArray) -> tuple[float, float]:
    """The slope of a line, and its standard error."""
    centred = t - t.mean()
    square = float(centred @ centred)
    slope = float(centred @ y) / square
    rest = y - y.mean() - slope * centred
    return slope, math.sqrt(float(rest @ rest) / (len(t) - 2) / square)
