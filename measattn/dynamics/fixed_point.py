r"""Where a weight-shared stack ends: $\mu^* = \mu^*K_{\mu^*}$, how fast, and how surely.

Source: C1 to C6 of docs/theory-dynamics.md.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, ScalarLike
from numpy.typing import NDArray

from measattn.checks import callback, float_array, positive, whole
from measattn.dynamics.anderson import Anderson
from measattn.dynamics.contraction import ORDERS, Contraction, NotProved, contraction, norm
from measattn.dynamics.distances import bracketed
from measattn.dynamics.injection import Injected
from measattn.dynamics.observables import diameter, lengths
from measattn.dynamics.rate import Rate, fit_rate
from measattn.dynamics.rounding import images
from measattn.dynamics.steps import check_layer
from measattn.dynamics.verdict import (
    CHUNK,
    Run,
    Verdict,
    lost,
    rounding,
    story,
    unfinished,
    watched,
)
from measattn.kernel import moved, need_layer, transport
from measattn.lipschitz import UnreadableLayer
from measattn.lipschitz.forms import form
from measattn.lipschitz.quotient import in_float64
from measattn.measure import EmpiricalMeasure, measure
from measattn.points import state, with_state
from measattn.wasserstein import Solution


@dataclass(frozen=True, eq=False)
class FixedPoint:
    r"""Where an iteration ended, and what is known of its limit.

    Attributes:
        measure: the last measure μ.
        verdict: "certified" (converged, with a proof), "converged" (without one), "cycle",
            "collapse" (to one point that still moves), "drift", "diverged" (states that are not
            finite), or "undecided".
        error: certified: the limit is within this $W_p$ distance of μ, p that of ``contraction``,
            so within this $W_1$ distance; infinite where no contraction is proved.
        exact: whether the proof covers the rounding of the layer; if not, it is assumed away.
        contraction: the proof; None if there is none.
        residual: $W_1(\mu, \mu K_\mu)$ with its certificate, which its ``status`` judges; None if
            it diverged, or states are too large for distances in float64.
        rate: the fitted factor of the residuals a step; None if they were too few.
        residuals: the largest move of an atom in each step (steps,).
        steps: how many steps were made.
        period: of the cycle, else 1.
        status: in full sentences.
    """

    measure: EmpiricalMeasure
    verdict: Verdict
    error: float
    exact: bool
    contraction: Contraction | None = field(repr=False)
    residual: Solution | None = field(repr=False)
    rate: Rate | None = field(repr=False)
    residuals: NDArray = field(repr=False)
    steps: int
    period: int
    status: str

    def __repr__(self) -> str:
        return f"FixedPoint({self.verdict} after {self.steps} steps: {self.status})"


def fixed_point(
    layer: Any,
    mu: EmpiricalMeasure,
    tol: ScalarLike = 1e-10,
    *,
    solver: Any = None,
    steps: ScalarLike = 1000,
    watch: Callable[[int, int, float], None] | None = None,
) -> FixedPoint:
    r"""Iterate a layer from a measure, and say what it converges to, how fast and how surely.

    Weights stay, atoms move; the iteration ends when no atom moves by more than ``tol``.

    Args:
        layer: a layer that keeps the dimension; `Injected(layer, inputs)` has limits that
            remember their input.
        mu: where to start.
        tol: a length.
        solver: any fixed-point solver of optimistix, such as `Anderson(atol=tol)`; by default
            plain (Picard) iteration, which is the stack itself.
        steps: the most steps.
        watch: called as ``watch(step, steps, residual)`` on the way; ``measattn.progress`` is a
            bar.

    Raises:
        ValueError: a layer that changes the shape of points, a tol that is not positive, steps
            that are no whole number of at least 1, or a solver that is none of optimistix's.

    Source: C1 of docs/theory-dynamics.md; Banach's theorem where a bound below 1 is proved.
    """
    check_layer(layer, mu)
    tol, steps = positive("tol", tol, "1e-10"), whole("steps", steps, 1)
    callback("watch", watch, "step, steps and residual")
    solver = _picard(tol) if solver is None else solver
    if not isinstance(solver, optx.AbstractFixedPointSolver):
        raise ValueError(
            "solver must be a fixed-point solver of optimistix, such as Anderson(), got "
            f"{solver!r}: solvers of other problems would look for something else"
        )
    carry = _begin(layer, mu, solver)
    clouds, run = [], Run([])
    home = float(jnp.max(jnp.abs(carry[0])))
    while not run.ended and len(run.residuals) < steps:
        count = min(CHUNK, steps - len(run.residuals))
        carry, path, moves = _advance(layer, mu, solver, carry, count)
        for cloud, move in zip(path, np.asarray(moves, np.float64), strict=True):
            clouds = [*clouds[1 - CHUNK :], cloud]
            run = run._replace(residuals=[*run.residuals, float(move)])
            if not math.isfinite(move):
                run = run._replace(verdict="diverged")
            elif move <= tol:
                run = run._replace(verdict="converged")
            home = max(home, run.residuals[0])
            if run.verdict == "converged" and lost(cloud, home):
                run = run._replace(verdict="undecided", lost=float(jnp.max(jnp.abs(cloud))))
            if run.ended:
                break
        if watch is not None:
            watch(len(run.residuals), steps, run.residuals[-1])
        if not run.ended:
            run = watched(run, clouds, tol)
            if run.ended and lost(clouds[-1], home):
                run = Run(run.residuals, lost=float(jnp.max(jnp.abs(clouds[-1]))))
    last = measure(with_state(mu.points, clouds[-1]), mu.log_weights)
    wide = float(diameter(last))
    began = float(diameter(mu))
    run = run._replace(shrunk=wide / began if began > 0 else math.inf)
    if run.verdict == "undecided":
        run = run._replace(verdict=unfinished(run, clouds, wide))
    return _judged(layer, last, run)


def equilibrium(
    layer: Any,
    inputs: Any,
    tol: ScalarLike = 1e-10,
    *,
    log_weights: Any = None,
    solver: Any = None,
    steps: ScalarLike = 1000,
    watch: Callable[[int, int, float], None] | None = None,
) -> FixedPoint:
    r"""The equilibrium $x_i = u_i + f(\mu, x_i)$ of a layer with input injection.

    Args:
        layer: f.
        inputs: $u$, (n, d).
        tol: as for `fixed_point`, likewise the rest.
        log_weights: of the atoms.
        solver: by default `Anderson(atol=tol)`.
        steps: the most steps.
        watch: called as ``watch(step, steps, residual)``.

    Raises:
        ValueError: as for `fixed_point`, or inputs that are no points.

    Source: C5 of docs/theory-dynamics.md.
    """
    start = EmpiricalMeasure(float_array("inputs (n, d)", inputs, 2), log_weights)
    need_layer(layer)
    tol = positive("tol", tol, "1e-10")
    solver = Anderson(atol=tol) if solver is None else solver
    injected = Injected(layer, start.points)
    return fixed_point(injected, start, tol, solver=solver, steps=steps, watch=watch)


def _picard(tol: float | int) -> Any:
    return optx.FixedPointIteration(rtol=0.0, atol=tol)


def _map(layer: Any, mu: EmpiricalMeasure) -> Callable:
    """The map of the states, in the form that optimistix asks for, with its value as extra."""

    def f(x: Array, _: Any) -> tuple[Array, Array]:
        out = state(transport(measure(with_state(mu.points, x), mu.log_weights), layer).points)
        return out, out

    return f


@eqx.filter_jit
def _begin(layer: Any, mu: EmpiricalMeasure, solver: Any) -> tuple:
    f, x = _map(layer, mu), state(mu.points)
    out, aux = jax.eval_shape(lambda x: f(x, None), x)
    return x, solver.init(f, x, None, {}, out, aux, frozenset())


@eqx.filter_jit
def _advance(layer: Any, mu: EmpiricalMeasure, solver: Any, carry: tuple, count: int) -> tuple:
    """``count`` steps of a solver: the clouds before each, and how far atoms with mass moved."""
    f, charged = _map(layer, mu), mu.log_weights > -jnp.inf

    def step(carry: tuple, _: None) -> tuple[tuple, tuple]:
        x, memory = carry
        new, memory, out = solver.step(f, x, None, {}, memory, frozenset())
        moves = lengths(out - x)
        return (new, memory), (x, jnp.max(jnp.where(charged, moves, 0)))

    carry, (path, moves) = jax.lax.scan(step, carry, None, length=count)
    return carry, path, moves


def _judged(layer: Any, mu: EmpiricalMeasure, run: Run) -> FixedPoint:
    """With the residual in W1, the proof where there is one, and the rate."""
    error, exact, proof, why = math.inf, True, None, "states are not finite"
    residual = None
    if run.verdict != "diverged":
        residual, _ = bracketed(mu, transport(mu, layer))
        error, exact, proof, why = _certified(layer, mu)
        if run.verdict == "converged" and proof is not None:
            run = run._replace(verdict="certified")
    try:
        floor = float(rounding(state(mu.points)))
        rate = fit_rate(run.residuals, floor) if run.period == 1 else None
    except ValueError:
        rate = None
    told = story(run)
    if proof is not None:
        assumed = "" if exact else ", if the layer is evaluated without rounding"
        told += f" The limit is within {error:.3g} ({proof}){assumed}."
    elif run.verdict != "diverged":
        told += f" No contraction is proved: {why}."
    return FixedPoint(
        measure=mu,
        verdict=run.verdict,
        error=error,
        exact=exact,
        contraction=proof,
        residual=residual,
        rate=rate,
        residuals=np.asarray(run.residuals),
        steps=len(run.residuals),
        period=run.period,
        status=told,
    )


def _certified(layer: Any, mu: EmpiricalMeasure) -> tuple[float, bool, Contraction | None, str]:
    """The smallest certified distance to the limit, whether rounding is covered, and the proof."""
    proofs, why = [], ""
    for p in ORDERS:
        try:
            proofs.append(contraction(layer, mu, p))
        except NotProved as reason:
            why = str(reason)
    if not proofs:
        return math.inf, True, None, why
    x, weights = np.asarray(state(mu.points), np.float64), np.asarray(mu.weights, np.float64)
    inner, inputs = layer, 0.0
    if isinstance(layer, Injected):
        inner, inputs = layer.layer, np.asarray(layer.inputs, np.float64)
    try:
        known, exact = form(inner, mu.dimension), True
        if known.masked:
            raise UnreadableLayer("masked")
        out, off = images(known, x, weights)
        out, off = (
            out + inputs,
            off + 2 * np.finfo(float).eps * float(np.abs(inputs).max(initial=0)),
        )
    except UnreadableLayer:
        with jax.enable_x64(True):
            out = np.asarray(state(moved(*in_float64((layer, mu)))))
        off, exact = 0.0, False
    best = min(proofs, key=lambda proof: norm(proof.p, out - x, weights) / (1 - proof.value))
    distance = norm(best.p, out - x, weights) + off
    return distance / (1 - best.value) * (1 + 1e-12), exact, best, ""
