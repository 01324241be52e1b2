"""Local constants of layers whose derivative has a closed form."""

import math

import numpy as np
from numpy.typing import NDArray

from measattn.lipschitz.derivatives.blocks import block_norms
from measattn.lipschitz.derivatives.families import columns, outputs
from measattn.lipschitz.derivatives.operator import Operator, rounding
from measattn.lipschitz.derivatives.parts import Parts
from measattn.lipschitz.domains import AbstractDomain
from measattn.lipschitz.forms import Form
from measattn.lipschitz.moves import Moves, Split, Whole
from measattn.lipschitz.norms.lanczos import spectral_norm
from measattn.lipschitz.norms.maximum import maximise
from measattn.lipschitz.norms.problem import UNIT, UP
from measattn.lipschitz.norms.schur import schur
from measattn.lipschitz.results import LocalConstant, Move, metric_name
from measattn.lipschitz.threads import one_blas_thread
from measattn.measure import EmpiricalMeasure
from measattn.points import state

CHANCE = 1e-10
"""With which the value for p = 2 may be off by more than asked, where upper has no chance."""


def sums(
    derivative: Parts,
    weights: NDArray,
    mu: EmpiricalMeasure,
    p: float,
    moves: Moves,
    tol: float | int,
) -> LocalConstant:
    """For p = 1 and infinity: the largest of many sums of norms."""
    with one_blas_thread():
        blocks = block_norms(derivative)
        if math.isinf(p):
            family = outputs(derivative, blocks)
        else:
            family = columns(derivative, weights, blocks, isinstance(moves, Split))
        best = maximise(family, tol)
    x = np.asarray(state(mu.points))
    return LocalConstant(
        value=max(best.value - float(family.slack[best.problem]), 0.0),
        upper=best.upper,
        p=p,
        moves=moves,
        metric=metric_name(derivative.masked, p),
        witness=Move(best.problem, x[best.problem], best.direction),
        how=(
            "value is attained by the witness, found by the generalised power method at all atoms; "
            "upper is certified by the eigenvalue certificate G3 or a row bound at every atom"
            + (f", with improved weights at {best.refined}." if best.refined else ".")
        ),
    )


def euclidean(
    derivative: Parts,
    weights: NDArray,
    mu: EmpiricalMeasure,
    tol: float | int,
    failure: float,
    rng: np.random.Generator,
) -> LocalConstant:
    """For p = 2: the spectral norm; with ``failure`` 0 the upper end is left to no chance."""
    root = np.sqrt(weights)
    with one_blas_thread():
        off, operator = rounding(derivative, weights), Operator(derivative, weights)
    found = spectral_norm(operator, rng, 1 + 0.95 * tol, failure or CHANCE)
    upper, chance = found.upper + off, found.probability
    if chance == 0:
        reason = "upper is certified by a Cholesky factor (G4)."
    elif failure == 0:
        norms = block_norms(derivative).norms * (root[:, None] / root[None, :])
        upper, chance = schur(norms) + off, 0.0
        reason = "upper is certified by the weighted Schur test (G4)."
    else:
        reason = (
            f"upper holds with the stated probability, over the random start, by {found.steps} "
            "steps of Lanczos (G4); rounding is allowed for, not proved."
        )
    x = np.asarray(state(mu.points))
    return LocalConstant(
        value=max(found.value - off, 0.0),
        upper=upper,
        p=2.0,
        moves=Whole(),
        metric=metric_name(derivative.masked, 2.0),
        witness=Move(None, x, found.direction.reshape(len(x), -1) / root[:, None]),
        probability=1 - chance,
        how="value is attained by the witness, a singular vector of the Jacobian; " + reason,
    )


def anywhere_bound(
    derivative: Parts, known: Form, weights: NDArray, domain: AbstractDomain
) -> float:
    r"""An upper bound of $L(\mu)$ on a domain from the atoms of the measure.

    $$ L(\mu) \le r + \sum_h\|V\|\Bigl[\|A\|\max_j|y_j-c|^2 + \sum_i\omega_i
       \frac{e^{a(x_i,m)+|g_i|R}}{Z_i}\bigl(1+(|m-\bar y_i|+R)|g_i|\bigr)\Bigr] $$

    on a ball of radius R about m, r = 1 with a residual, c the mean of the keys.

    Source: G2 of docs/theory-lipschitz.md.
    """
    total, radius = float(known.residual), domain.radius
    for head in derivative.heads:
        size = float(np.linalg.norm(head.value, 2)) * UP
        total += size * float(np.linalg.norm(head.matrix, 2)) * head.reach**2 * UP
        if not head.own:
            continue
        middle = -head.centre if domain.centre is None else domain.centre - head.centre
        # where the summands of a slope cancel, what is left is as uncertain as they are
        unsure = 4 * UNIT * (len(middle) + 8)
        steepest = np.linalg.norm(head.slopes, axis=1) + unsure * head.slope
        raised = head.slope * (np.linalg.norm(middle) + radius) + np.abs(head.normaliser)
        highest = head.slopes @ middle + steepest * radius - head.normaliser
        if head.tilts is not None:  # the Gaussian factor of the key is at most 1
            precision = head.matrix[0, 0]
            steepest = np.linalg.norm(head.slopes - precision * middle, axis=1)
            away = float(np.linalg.norm(middle))
            steepest = steepest + unsure * (head.slope + precision * away) + precision * radius
        lever = 1 + (np.linalg.norm(middle - head.means, axis=1) + radius) * steepest
        with np.errstate(over="ignore"):
            # what the rounding of the exponent may be
            density = np.exp(highest + 1e-14 * (len(middle) + 8) * (raised + 1))
            sums = float(weights @ (density * lever))
        total += size * sums * (1 + 8 * head.error) * UP
    return total * UP
