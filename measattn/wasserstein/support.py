"""Which points a solution speaks of: plans and potentials number the atoms of two measures."""

import hashlib
from typing import Any, NamedTuple

import numpy as np

from measattn.measure import EmpiricalMeasure
from measattn.points import state


class Support(NamedTuple):
    """How many atoms a measure has, and a fingerprint of their states, in their order.

    Equal numbers have equal fingerprints, in any dtype and of either sign of zero. Positions and
    keys are forgotten, as `states` does, and weights, which normalisation rounds. Where masses
    alone are given there is no fingerprint.
    """

    size: int
    digest: str | None = None

    @classmethod
    def of(cls, mu: EmpiricalMeasure) -> "Support":
        """That of a concrete measure."""
        points = np.asarray(state(mu.points), np.float64) + 0.0
        return cls(mu.size, hashlib.sha256(points.tobytes()).hexdigest())


def check_supports(solution: Any, mu: EmpiricalMeasure, nu: EmpiricalMeasure) -> None:
    """Refuse measures whose atoms are not those that the solution is about.

    Raises:
        ValueError: other numbers of atoms, or other points where the solution knows its own.
    """
    for name, measure, known in zip(("mu", "nu"), (mu, nu), solution.supports, strict=True):
        if measure.size != known.size:
            raise ValueError(
                f"{name} must have the {known.size} atoms that the solution was computed for, got "
                f"{measure.size}: pass the measures that it was computed for"
            )
        if known.digest is not None and Support.of(measure) != known:
            raise ValueError(
                f"{name} must be the measure that the solution was computed for, got one of as "
                f"many atoms, {known.size}, at other points or in another order: pass the "
                "measures that it was computed for, or solve again"
            )
