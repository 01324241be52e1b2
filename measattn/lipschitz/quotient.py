r"""The quotient $W_p(\mu f, \nu f)/W_p(\mu, \nu)$ of two given measures, from below.

The measures have the same weights and nearly the same atoms. Above, the cost of moving each atom
along bounds $W_p(\mu,\nu)$; below, dual potentials bound the distance of the outputs, from which
is taken what their rounding may have added: by the triangle inequality no more than
$(\sum_i\omega_i\delta_i^p)^{1/p}$ for each measure, $\delta_i$ the error of output i.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from measattn.kernel import moved
from measattn.lipschitz import exact
from measattn.lipschitz.forms import Form
from measattn.lipschitz.masses import masses
from measattn.measure import EmpiricalMeasure, weighted
from measattn.wasserstein import tiles, w_inf, wp
from measattn.wasserstein.certificate import from_below, root
from measattn.wasserstein.ground import UNIT, Euclidean
from measattn.wasserstein.plan import Plan
from measattn.wasserstein.problem import Problem, common_space
from measattn.wasserstein.solution import Solution, TransportError

ASSUMED = 256
"""Units in the last place that outputs are assumed to be off where they cannot be recomputed."""

ROOT = 256
"""Units that a p-th root may be off: the rounding of 1/p counts as often as its logarithm is."""


class Evaluation(NamedTuple):
    """What two measures show, and what proves it.

    Attributes:
        value: at most the quotient.
        before: at least $W_p(\\mu,\\nu)$.
        after: at most the distance of the outputs.
        mu: the first measure.
        nu: the second.
        outputs: the outputs of both about a common point, (n, v) each.
        plan: a plan between them.
        potentials: dual potentials (u, v) of theirs, v the c-transform of u, for distances in
            units; for p = inf the sources that have to go far (numbers of atoms), and no array.
        unit: that of length.
        exact: whether the error of the outputs is known; else it is assumed.
    """

    value: float
    before: float
    after: float
    mu: EmpiricalMeasure
    nu: EmpiricalMeasure
    outputs: tuple[NDArray, NDArray]
    plan: Plan
    potentials: tuple[NDArray, ...]
    unit: float
    exact: bool


def evaluate(
    layer: Any, form: Form | None, x: NDArray, y: NDArray, weights: NDArray, p: float
) -> Evaluation:
    """The quotient of the measures with atoms x and y (n, d) and the same weights.

    Args:
        layer: the layer in float64, used where its form is not known, and to compare.
        form: its matrices; None if it has none.
        x: atoms of the first measure.
        y: atoms of the second.
        weights: their masses (n,).
        p: the order.

    Raises:
        RuntimeError: the layer and its form disagree.
    """
    with jax.enable_x64(True):
        mu, nu = weighted(jnp.asarray(x), weights), weighted(jnp.asarray(y), weights)
        mass = masses(mu)
        first, second, known = _outputs(layer, form, mu, nu)
        laws = [weighted(jnp.asarray(part.points), mass) for part in (first, second)]
        if math.isinf(p):
            far = w_inf(laws[0], laws[1])
            lower, plan = far.lower * (1 - (first.points.shape[1] + 16) * UNIT), far.plan
            potentials, unit = (far.blocking,), 1.0
        else:
            near = _solved(laws[0], laws[1], p)
            lower, unit, potentials = _dual(first.points, second.points, mass, near.potentials, p)
            plan = near.plan
    # in units of the largest entry no square that matters is lost
    size = float(np.abs(x - y).max()) or 1.0
    moves = size * np.linalg.norm((x - y) / size, axis=1)
    before = _norm(mass, moves, p) * (1 + (x.shape[1] + ROOT) * UNIT)
    # a little more than needed, as for the margin
    off = sum(_norm(mass, part.error, p) for part in (first, second)) * (1 + 1e-6)
    after = max(lower - off, 0.0)
    value = after / before * (1 - 4 * UNIT)
    outputs = first.points, second.points
    return Evaluation(value, before, after, mu, nu, outputs, plan, potentials, unit, known)


def _solved(mu: EmpiricalMeasure, nu: EmpiricalMeasure, p: float) -> Solution:
    """A plan and potentials; where rounding leaves a gap open both are of use as they are."""
    try:
        return wp(mu, nu, p)
    except TransportError as error:
        return error.solution


def _dual(
    x: NDArray, y: NDArray, mass: NDArray, potentials: tuple[NDArray, NDArray], p: float
) -> tuple[float, float, tuple[NDArray, NDArray]]:
    """The distance from below, the unit of length, and potentials for costs in that unit.

    A solver of transport merges atoms, and charges the rounding of their masses; the masses here
    are equal, one by one, and need no charge.
    """
    x, y, unit = common_space(x, y)
    problem = Problem(mass, mass, Euclidean(x, y, p, tiles.on_the_host), p)
    with np.errstate(over="ignore", under="ignore"):
        scale = float(np.float64(unit) ** p)
    start = potentials[0] / scale if 0 < scale < math.inf else np.zeros(len(mass))
    below = from_below(problem, start)
    u, v = below.u, below.priced.v
    # once more what rounding may do to the dual value, so that one who adds it up in another
    # order finds no less
    sizes = math.fsum(mass * (np.abs(u) + np.abs(v)))
    margin = 8 * p * UNIT * (4 * sizes + float(np.abs(u).max()))
    lower, _ = root(max(below.lower - margin, 0.0), p)
    return unit * lower * (1 - ROOT * UNIT), unit, (u, v)


def in_float64(layer: Any) -> Any:
    """The layer with its parameters cast up: a memory in float32 would be averaged in float32."""
    with jax.enable_x64(True):
        return jax.tree.map(
            lambda a: a.astype(jnp.float64) if eqx.is_inexact_array(a) else a, layer
        )


def _norm(mass: NDArray, lengths: NDArray, p: float) -> float:
    if math.isinf(p):
        return float(lengths.max())
    top = float(lengths.max())
    return 0.0 if top == 0 else top * math.fsum(mass * (lengths / top) ** p) ** (1 / p)


def _outputs(
    layer: Any, form: Form | None, mu: EmpiricalMeasure, nu: EmpiricalMeasure
) -> tuple[exact.Rounded, exact.Rounded, bool]:
    floats = [np.asarray(moved(layer, law, None), np.float64) for law in (mu, nu)]
    size = max(float(np.abs(part).max()) for part in floats)
    if form is None:
        error = np.full(mu.size, ASSUMED * 2 * UNIT * size)
        parts = [exact.Rounded(part, error) for part in floats]
        return parts[0], parts[1], False
    weights = masses(mu)
    decimals = [exact.outputs(form, np.asarray(law.points), weights) for law in (mu, nu)]
    for row, part in zip(decimals, floats, strict=True):
        gap = np.abs(np.array(row, float) - part).max()
        if not gap <= 1e-8 * size:
            raise RuntimeError(
                f"the layer and its matrices disagree by {gap:.2g} on outputs of size {size:.2g}: "
                "this is a fault of the library, please report it with the layer"
            )
    lost = max(exact.lost(form, np.asarray(law.points, np.float64)) for law in (mu, nu))
    parts = [exact.rounded(rows, decimals[0][0], lost) for rows in decimals]
    return parts[0], parts[1], True
