"""What an iteration does, judged by its last clouds against their own size and their rounding."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

CHUNK = 16
"""Steps between two looks; cycles of up to half as many steps are found."""

COLLAPSED = 1e-6
"""A diameter below this part of the first one is a collapse."""

ROUNDED = 8
"""A cloud within so many roundings of its largest coordinate is one point, as far as is seen."""

REPEATED = 1e-3
"""A cycle comes back to within this part of a step; tokens that alternate about a limit do not."""

Verdict = Literal["certified", "converged", "cycle", "collapse", "drift", "diverged", "undecided"]


class Run(NamedTuple):
    """How an iteration went.

    Attributes:
        residuals: the largest move of an atom in each step.
        verdict: what it does; undecided as long as nothing ends it.
        period: of a cycle, else 1.
        rounded: whether the atoms still move, but by no more than rounding does.
        shrunk: the last diameter over the first; infinite if that was 0.
        lost: the largest coordinate, where it is so large that rounding hides all moves; else 0.
    """

    residuals: Sequence[float]
    verdict: Verdict = "undecided"
    period: int = 1
    rounded: bool = False
    shrunk: float = 1.0
    lost: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to look for."""
        return self.verdict != "undecided" or self.lost > 0


def lost(cloud: Array, home: Any) -> Array:
    """Whether roundings of a cloud are as large as an eighth of where it began and first went.

    An iteration that has run off so far may stop there by rounding alone, and its stop says
    nothing of a limit.
    """
    return rounding(cloud) > home / 8


def watched(run: Run, clouds: Sequence[Array], tol: float | int) -> Run:
    """A look at the last clouds, after which a run that goes in circles or nowhere is ended."""
    period = _period(clouds, tol)
    seen = clouds[-period:] if period > 1 else clouds
    if (period > 1 or len(clouds) == CHUNK) and _spread(seen) <= rounding(seen[-1]):
        return run._replace(verdict="converged", rounded=True)
    return run._replace(verdict="cycle", period=period) if period > 1 else run


def unfinished(run: Run, clouds: Sequence[Array], diameter: float) -> Verdict:
    """What an iteration does that did not end, whose last cloud has this diameter."""
    if run.shrunk <= COLLAPSED or (run.shrunk < math.inf and diameter <= rounding(clouds[-1])):
        return "collapse"
    if run.lost or len(clouds) < 3:
        return "undecided"
    before, move = np.diff(np.asarray(clouds[-3:]), axis=0)
    common = np.linalg.norm(move.mean(axis=0))
    # a mean that swings to and fro does not drift
    onward = before.mean(axis=0) @ move.mean(axis=0) > 0
    steady = run.residuals[-1] >= 0.5 * run.residuals[len(run.residuals) // 2]
    if steady and onward and common >= 0.5 * np.linalg.norm(move, axis=1).max() > 0:
        return "drift"
    return "undecided"


def story(run: Run) -> str:
    """The verdict in a sentence or two."""
    steps, last = len(run.residuals), run.residuals[-1]
    moved = f"the last step moved atoms by at most {last:.3g}"
    converged = f"Converged; {moved}{', which is rounding' if run.rounded else ''}."
    told = {
        "certified": converged,
        "converged": converged,
        "cycle": f"A cycle of period {run.period}; {moved}.",
        "collapse": (
            f"Not converged in {steps} step{'s' * (steps > 1)}, but all atoms have become one "
            f"point, which still moves; {moved}."
        ),
        "drift": f"The cloud drifts as a whole; {moved}.",
        "diverged": f"Step {steps} has states that are not finite; this is before it.",
        "undecided": f"Not converged in {steps} step{'s' * (steps > 1)}; {moved}.",
    }[run.verdict]
    if run.lost:
        told += (
            f" States have grown to {run.lost:.2g}, where rounding is as large as the first steps "
            "were: whether there is a limit is not known."
        )
    if run.verdict in ("certified", "converged") and run.shrunk <= COLLAPSED:
        told += f" The cloud shrank to {run.shrunk:.2g} of its diameter."
    return told


def rounding(cloud: Array) -> Array:
    """A length below which differences of states of this size and dtype are rounding."""
    return ROUNDED * jnp.finfo(cloud.dtype).eps * jnp.max(jnp.abs(cloud))


def _spread(clouds: Sequence[Array]) -> float:
    """The most that a coordinate of an atom changes over these clouds."""
    return float(jnp.max(jnp.ptp(jnp.stack(clouds), axis=0)))


def _period(clouds: Sequence[Array], tol: float | int) -> int:
    """The period of a cycle that the last clouds go through twice; 1 if there is none."""
    move = float(jnp.max(jnp.abs(clouds[-1] - clouds[-2]))) if len(clouds) > 1 else 0.0
    close = min(tol, REPEATED * move)
    for period in range(2, len(clouds) // 2 + 1):
        pairs = zip(clouds[-period:], clouds[-2 * period : -period], strict=True)
        if all(float(jnp.max(jnp.abs(a - b))) <= close for a, b in pairs):
            return period
    return 1
