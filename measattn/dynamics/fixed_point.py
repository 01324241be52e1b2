r"""Where a weight-shared stack ends: $\mu^* = \mu^*K_{\mu^*}$, how fast, and how surely.

Source: C1 to C6 of docs/theory-dynamics.md.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array
from numpy.typing import NDArray

from measattn.dynamics.anderson import Anderson
from measattn.dynamics.contraction import ORDERS, Contraction, NotProved, contraction, norm
from measattn.dynamics.injection import Injected
from measattn.dynamics.observables import diameter
from measattn.dynamics.rate import Rate, fit_rate
from measattn.dynamics.rounding import images
from measattn.dynamics.steps import check_layer
from measattn.kernel import moved, transport
from measattn.lipschitz import UnreadableLayer
from measattn.lipschitz.forms import form
from measattn.lipschitz.quotient import in_float64
from measattn.measure import EmpiricalMeasure, measure, states
from measattn.points import state, with_state
from measattn.wasserstein import Solution, w1

CHUNK = 16
"""Steps between two looks; cycles of up to half as many steps are found."""

COLLAPSED = 1e-6
"""A diameter below this part of the first one is a collapse."""

REPEATED = 1e-3
"""A cycle comes back to within this part of a step; tokens that alternate about a limit do not."""

Verdict = Literal["certified", "converged", "cycle", "collapse", "drift", "diverged", "undecided"]


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
        residual: $W_1(\mu, \mu K_\mu)$ with its certificate; None if it diverged.
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
    tol: float | int = 1e-10,
    *,
    solver: Any = None,
    steps: int = 1000,
    watch: Callable[[int, float], None] | None = None,
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
        watch: called as ``watch(step, residual)`` on the way.

    Raises:
        ValueError: a layer that changes the shape of points, or a tol or steps that are none.

    Source: C1 of docs/theory-dynamics.md; Banach's theorem where a bound below 1 is proved.
    """
    check_layer(layer, mu)
    if not 0 < tol < math.inf:
        raise ValueError(f"tol must be a positive length, got {tol!r}")
    if isinstance(steps, bool) or int(steps) != steps or steps < 1:
        raise ValueError(f"steps must be a whole number of at least 1, got {steps!r}")
    solver = _picard(tol) if solver is None else solver
    carry = _begin(layer, mu, solver)
    clouds, residuals, verdict, period = [], [], None, 1
    while verdict is None and len(residuals) < steps:
        count = min(CHUNK, steps - len(residuals))
        carry, path, moves = _advance(layer, mu, solver, carry, count)
        for cloud, move in zip(path, np.asarray(moves, np.float64), strict=True):
            clouds = [*clouds[1 - CHUNK :], cloud]
            residuals.append(float(move))
            if not math.isfinite(move):
                verdict = "diverged"
            elif move <= tol:
                verdict = "converged"
            if verdict is not None:
                break
        if watch is not None:
            watch(len(residuals), residuals[-1])
        if verdict is None:
            period = _period(clouds, tol)
            verdict = "cycle" if period > 1 else None
    last = measure(with_state(mu.points, clouds[-1]), mu.log_weights)
    shrunk = float(diameter(last)) / max(float(diameter(mu)), np.finfo(float).tiny)
    if verdict is None:
        verdict = _unfinished(clouds, residuals, shrunk)
    return _judged(layer, last, verdict, residuals, period, shrunk)


def equilibrium(
    layer: Any,
    inputs: Any,
    tol: float | int = 1e-10,
    *,
    log_weights: Any = None,
    solver: Any = None,
    steps: int = 1000,
    watch: Callable[[int, float], None] | None = None,
) -> FixedPoint:
    r"""The equilibrium $x_i = u_i + f(\mu, x_i)$ of a layer with input injection.

    Args:
        layer: f.
        inputs: $u$, (n, d).
        tol: as for `fixed_point`, likewise the rest.
        log_weights: of the atoms.
        solver: by default `Anderson(atol=tol)`.
        steps: the most steps.
        watch: called as ``watch(step, residual)``.

    Source: C5 of docs/theory-dynamics.md.
    """
    start = EmpiricalMeasure(inputs, log_weights)
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
        moves = jnp.linalg.norm(out - x, axis=1)
        return (new, memory), (x, jnp.max(jnp.where(charged, moves, 0)))

    carry, (path, moves) = jax.lax.scan(step, carry, None, length=count)
    return carry, path, moves


def _period(clouds: list, tol: float | int) -> int:
    """The period of a cycle that the last clouds go through twice; 1 if there is none."""
    move = float(jnp.max(jnp.abs(clouds[-1] - clouds[-2]))) if len(clouds) > 1 else 0.0
    close = min(tol, REPEATED * move)
    for period in range(2, len(clouds) // 2 + 1):
        pairs = zip(clouds[-period:], clouds[-2 * period : -period], strict=True)
        if all(float(jnp.max(jnp.abs(a - b))) <= close for a, b in pairs):
            return period
    return 1


def _unfinished(clouds: list, residuals: list[float], shrunk: float) -> Verdict:
    """What an iteration does that did not end."""
    if shrunk <= COLLAPSED:
        return "collapse"
    if len(clouds) < 3:
        return "undecided"
    before, move = np.diff(np.asarray(clouds[-3:]), axis=0)
    common = np.linalg.norm(move.mean(axis=0))
    # a mean that swings to and fro does not drift
    onward = before.mean(axis=0) @ move.mean(axis=0) > 0
    steady = residuals[-1] >= 0.5 * residuals[len(residuals) // 2]
    if steady and onward and common >= 0.5 * np.linalg.norm(move, axis=1).max() > 0:
        return "drift"
    return "undecided"


def _judged(
    layer: Any,
    mu: EmpiricalMeasure,
    verdict: Verdict,
    residuals: list[float],
    period: int,
    shrunk: float,
) -> FixedPoint:
    """With the residual in W1, the proof where there is one, and the rate."""
    error, exact, proof, why = math.inf, True, None, "states are not finite"
    residual = None
    if verdict != "diverged":
        residual = w1(states(mu), states(transport(mu, layer)))
        error, exact, proof, why = _certified(layer, mu)
        if verdict == "converged" and proof is not None:
            verdict = "certified"
    try:
        rate = fit_rate(residuals, 1e-13 * max(residuals)) if period == 1 else None
    except ValueError:
        rate = None
    return FixedPoint(
        measure=mu,
        verdict=verdict,
        error=error,
        exact=exact,
        contraction=proof,
        residual=residual,
        rate=rate,
        residuals=np.asarray(residuals),
        steps=len(residuals),
        period=period,
        status=_story(verdict, residuals, period, shrunk, error, exact, proof, why),
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


def _story(
    verdict: Verdict,
    residuals: list[float],
    period: int,
    shrunk: float,
    error: float,
    exact: bool,
    proof: Contraction | None,
    why: str,
) -> str:
    last = f"the last step moved atoms by at most {residuals[-1]:.3g}"
    told = {
        "certified": f"Converged; {last}.",
        "converged": f"Converged; {last}.",
        "cycle": f"A cycle of period {period}; {last}.",
        "collapse": f"All atoms are one point, which still moves; {last}.",
        "drift": f"The cloud drifts as a whole; {last}.",
        "diverged": f"Step {len(residuals)} has states that are not finite; this is before it.",
        "undecided": f"Not converged; {last}.",
    }[verdict]
    if verdict in ("certified", "converged") and shrunk <= COLLAPSED:
        told += f" The cloud shrank to {shrunk:.2g} of its diameter."
    if proof is None:
        return told if verdict == "diverged" else f"{told} No contraction is proved: {why}."
    rounding = "" if exact else ", if the layer is evaluated without rounding"
    return f"{told} The limit is within {error:.3g} ({proof}){rounding}."
