r"""The Lipschitz constant of a layer near one measure: attained and certified.

Which measures near $\mu$ compete is said by ``moves``. Whole, for atoms $x_i$ of weights
$\omega_i$ and $J_{ji} = \partial f_j/\partial x_i$,

$$ \sup_\varepsilon\Bigl(\sum_j\omega_j\bigl|\sum_iJ_{ji}\varepsilon_i\bigr|^p\Big/
   \sum_i\omega_i|\varepsilon_i|^p\Bigr)^{1/p} . $$
"""

import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from measattn.lipschitz.derivatives.blocks import BlockNorms, block_norms
from measattn.lipschitz.derivatives.families import columns, outputs
from measattn.lipschitz.derivatives.operator import Operator
from measattn.lipschitz.derivatives.parts import Parts, parts
from measattn.lipschitz.moves import Anywhere, Moves, Split, Whole
from measattn.lipschitz.norms.lanczos import spectral_norm
from measattn.lipschitz.norms.maximum import maximise
from measattn.lipschitz.norms.problem import UP
from measattn.lipschitz.norms.schur import schur
from measattn.lipschitz.quotient import in_float64, masses
from measattn.lipschitz.results import LocalConstant, Move, metric_name
from measattn.measure import EmpiricalMeasure, measure
from measattn.points import state

WHOLE = Whole()
"""The moves if nothing else is asked for."""


def local(
    layer: Any,
    mu: EmpiricalMeasure,
    p: float | int = 1,
    moves: Moves = WHOLE,
    *,
    tol: float = 1e-3,
    probability: float = 1 - 1e-10,
    seed: int = 0,
) -> LocalConstant:
    r"""The local Lipschitz constant of a layer at a measure in $W_p$, from both sides.

    For a masked layer the metric is the position-wise one. Atoms without mass are left out.

    Args:
        layer: attention (self, cross, several heads, masks), with residuals, norms and feed-forward
            maps around it.
        mu: the measure, of points (n, d) or of tokens.
        p: the order: 1, 2 or infinity.
        moves: which measures near mu compete: `Whole`, `Split` or `Anywhere`.
        tol: how far ``upper`` may exceed ``value``, relatively, before more work is done; for p = 1
            and infinity no promise, since the certificate need not be tight.
        probability: with which the upper bound for p = 2 is to hold if n·d is large; it is over the
            random start that ``seed`` gives.
        seed: a whole number, of the random starts.

    Raises:
        ValueError: an order or class of moves that is not known for this layer, a domain that does
            not hold the measure, or a derivative that is not finite.

    Source: G1, G3 and G4 of docs/theory-lipschitz.md.
    """
    order = _order(p)
    _check(mu, moves, tol, probability)
    if isinstance(moves, (Split, Anywhere)) and order != 1:
        raise ValueError(
            f"p must be 1 for moves={moves}, got {p!r}: for other orders only Whole() is known"
        )
    with jax.enable_x64(True):
        layer, mu, kept = in_float64(layer), *_positive(mu)
        weights = masses(mu)
        derivative = parts(layer, mu)
    if derivative is None:
        raise ValueError("layer has no closed form")
    _check_finite(derivative, kept)
    blocks = block_norms(derivative)
    if order == 2:
        found = _euclidean(derivative, blocks, weights, mu, tol, 1 - probability, seed)
    else:
        found = _sums(derivative, blocks, weights, mu, order, moves, tol)
    atom = found.witness.atom
    if atom is not None:
        found = replace(found, witness=found.witness._replace(atom=int(kept[atom])))
    return found


def _sums(
    derivative: Parts,
    blocks: BlockNorms,
    weights: NDArray,
    mu: EmpiricalMeasure,
    p: float,
    moves: Moves,
    tol: float,
) -> LocalConstant:
    """For p = 1 and infinity: the largest of many sums of norms."""
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


def _euclidean(
    derivative: Parts,
    blocks: BlockNorms,
    weights: NDArray,
    mu: EmpiricalMeasure,
    tol: float,
    failure: float,
    seed: int,
) -> LocalConstant:
    """For p = 2: the spectral norm."""
    root = np.sqrt(weights)
    share = root[:, None] / root[None, :]
    norms, off = share * blocks.norms, share * blocks.rounding
    # Schur's test with equal vectors bounds what rounding adds
    rounding = math.sqrt(off.sum(axis=0).max() * off.sum(axis=1).max()) * UP
    operator = Operator(derivative, weights)
    rng = np.random.default_rng(seed)
    found = spectral_norm(operator, rng, 1 + 0.95 * tol, failure)
    test = schur(norms) + rounding
    certain = found.probability == 0 or test <= found.upper + rounding
    x = np.asarray(state(mu.points))
    direction = found.direction.reshape(len(x), -1) / root[:, None]
    if found.probability == 0:
        reason = "upper is certified by a Cholesky factor (G4)."
    elif certain:
        reason = "upper is certified by the weighted Schur test (G4)."
    else:
        reason = (
            f"upper holds with the stated probability, over the random start, by {found.steps} "
            "steps of Lanczos (G4); rounding is allowed for, not proved; schur is certified "
            "without chance."
        )
    return LocalConstant(
        value=max(found.value - rounding, 0.0),
        upper=min(found.upper + rounding, test),
        p=2.0,
        moves=Whole(),
        metric=metric_name(derivative.masked, 2.0),
        witness=Move(None, x, direction),
        probability=1.0 if certain else 1 - found.probability,
        schur=test,
        how="value is attained by the witness, a singular vector of the Jacobian; " + reason,
    )


def _order(p: Any) -> float:
    known = isinstance(p, (int, float, np.integer)) and not isinstance(p, bool)
    if not known or float(p) not in (1.0, 2.0, math.inf):
        raise ValueError(f"p must be 1, 2 or infinity for a local constant, got {p!r}")
    return float(p)


def _check(mu: Any, moves: Any, tol: Any, probability: Any) -> None:
    if not isinstance(mu, EmpiricalMeasure):
        raise ValueError(
            f"mu must be a measure, got a {type(mu).__name__}: wrap points as "
            "EmpiricalMeasure(points)"
        )
    if not isinstance(moves, (Whole, Split, Anywhere)):
        raise ValueError(f"moves must be Whole(), Split() or Anywhere(domain), got {moves!r}")
    if not 0 < tol < math.inf:
        raise ValueError(f"tol must be positive and finite, got {tol!r}")
    if not 0 < probability < 1:
        raise ValueError(
            f"probability must be between 0 and 1, such as 1 - 1e-10, got {probability!r}"
        )
    if isinstance(moves, Anywhere):
        moves.domain.check(mu)


def _positive(mu: EmpiricalMeasure) -> tuple[EmpiricalMeasure, NDArray]:
    """The atoms with mass, in float64, and their numbers."""
    kept = np.flatnonzero(np.asarray(mu.weights) > 0)
    points = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64)[kept], mu.points)
    if not np.isfinite(np.asarray(state(points))).all():
        raise ValueError(
            "mu must have finite points, got NaN or infinity: drop or repair these atoms"
        )
    return measure(points, jnp.asarray(mu.log_weights, jnp.float64)[kept]), kept


def _check_finite(derivative: Parts, kept: NDArray) -> None:
    """Refuse a derivative with entries that are NaN or infinite, naming the first such atom."""
    for what in (derivative.own, derivative.after, derivative.before):
        bad = [] if what is None else np.flatnonzero(~np.isfinite(what).all(axis=(1, 2)))
        if len(bad):
            raise ValueError(
                f"the Jacobian of the layer is not finite at atom {kept[bad[0]]}: the layer is not "
                "differentiable there, or its scores overflow; move or drop that atom"
            )
