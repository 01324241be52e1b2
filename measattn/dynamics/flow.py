r"""Continuous depth: tokens that move with the velocity that a layer gives them.

$$ \frac{dx_i}{dt} = f_{\mu_t}(x_i), \qquad \mu_t = \sum_i\omega_i\delta_{x_i(t)}, \qquad
   \partial_t\mu_t + \mathrm{div}(f_{\mu_t}\mu_t) = 0 . $$

Weights and positions are carried along; states move. A residual layer $x + hf_\mu(x)$ is an Euler
step of size h.

Source: Sander et al., arXiv 2110.11773; Geshkovski et al., arXiv 2312.10794.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, ScalarLike

from measattn.checks import ensure, traced, whole
from measattn.dynamics.fields import Tangential, directions
from measattn.dynamics.ode import ARRIVED, REMEDIES, FlowError, grid, solve, tolerances
from measattn.dynamics.steps import shapes_after
from measattn.kernel import moved
from measattn.layer import Layer
from measattn.measure import EmpiricalMeasure, measure
from measattn.points import state, with_state


class Flow(eqx.Module):
    """The path of a measure.

    Attributes:
        times: the times (k,) at which it was saved.
        points: the states (k, n, d) of its atoms.
        start: the measure at time 0: weights and positions stay as they are there.
        status: how the computation ended, a sentence.
        steps: accepted steps.
        rejected: steps that were tried again with a smaller size.
        drift: on the sphere, the largest change of a token's norm before norms were set to 1
            again; else 0.
    """

    times: Float[Array, " k"]
    points: Float[Array, "k n d"]
    start: EmpiricalMeasure
    status: str = eqx.field(static=True)
    steps: int | Int[Array, ""]
    rejected: int | Int[Array, ""]
    drift: float | Float[Array, ""]

    def measure(self, k: ScalarLike) -> EmpiricalMeasure:
        """The measure at the k-th of the times; negative k count from the end."""
        k = whole("k, which counts the times,", k, -len(self.times), len(self.times) - 1)
        return measure(with_state(self.start.points, self.points[k]), self.start.log_weights)

    def __repr__(self) -> str:
        k, n, d = self.points.shape
        if traced(self.times):
            return f"Flow({k} times, n={n}, d={d}, traced)"
        end = f", to t = {float(self.times[-1]):.6g}" if k else ""
        return f"Flow({k} times{end}, n={n}, d={d}, {self.steps} steps: {self.status})"


def flow(
    layer: Any,
    mu: Any,
    time: Any,
    *,
    save: Any = 2,
    rtol: ScalarLike | None = None,
    atol: ScalarLike | None = None,
    max_steps: ScalarLike = 100_000,
) -> Flow:
    r"""The path of $\mu$ under $\dot x = f_{\mu_t}(x)$, f what the layer returns.

    Adaptive Runge-Kutta steps of order 8 in float64 and 5 in float32 that end at the saved times;
    reverse-mode differentiable in the layer, the points and the weights. The tolerance bounds the
    estimated error of each step; errors at the end can be larger, as the flow stretches them. On
    the sphere, with a `Tangential` field, the norms of the saved points are set to 1.

    Args:
        layer: the velocity: an attention layer as it is, its `Increment`, its `Tangential` part on
            the sphere, `Unnormalised` or `SinkhornAttention`; with a causal mask on tokens.
        mu: the measure at time 0.
        time: the last time, positive.
        save: how many equally spaced times to save, both ends included, or the times themselves.
        rtol: tolerance of a step relative to the size of the states; $4\cdot10^{-12}$ in float64
            and $6\cdot10^{-6}$ in float32 unless given.
        atol: absolute tolerance of a step, a hundredth of ``rtol`` unless given.
        max_steps: how many steps may be tried.

    Raises:
        ValueError: the layer changes the dimension, a start off the unit sphere for a tangential
            field, times or tolerances that make no sense.
        FlowError: the end was not reached; its ``flow`` holds the path so far, up to the last
            state that was.
        ModuleNotFoundError: diffrax is missing; it comes with the extra ``measattn[flow]``.
    """
    mu = _start(layer, mu)
    x = state(mu.points)
    times = grid(time, save, x.dtype)
    rtol, atol = tolerances(x.dtype, rtol, atol)
    max_steps = whole("max_steps", max_steps, 1)
    found = solve(_velocity, x, time, times, (layer, mu), rtol=rtol, atol=atol, max_steps=max_steps)
    points, drift = found.values, 0.0
    if isinstance(layer, Tangential):
        points, norms = jax.vmap(directions)(points)
        drift = jnp.max(jnp.abs(norms - 1))
        drift = drift if traced(drift) else float(drift)
    path = Flow(found.times, points, mu, found.status, found.steps, found.rejected, drift)
    if found.status != ARRIVED:
        raise FlowError(
            f"the flow stopped at t = {float(found.times[-1]):.6g} of {float(time):.6g} after "
            f"{found.steps} steps: {found.status}; the error's flow holds the path up to there: "
            f"{REMEDIES.get(found.status, 'ask for a shorter time')}",
            path,
        )
    return path


def _velocity(t: Array, x: Float[Array, "n d"], args: tuple[Layer, EmpiricalMeasure]) -> Array:
    layer, mu = args
    return state(moved(layer, measure(with_state(mu.points, x), mu.log_weights)))


def _start(layer: Any, mu: Any) -> EmpiricalMeasure:
    """The measure, if it can be moved by the layer."""
    after, x = shapes_after(layer, mu), state(mu.points)
    shape = state(after.points).shape
    if shape != x.shape:
        raise ValueError(
            f"a flow needs a layer that keeps the dimension: states of shape {x.shape} got "
            f"velocities of shape {shape}; give the layer an output map to dimension {x.shape[1]}"
        )
    if isinstance(layer, Tangential):
        # NumPy, because under jit all arithmetic of jax.numpy is traced, also that of constants
        xp, x = (jnp, x) if traced(x) else (np, np.asarray(x))
        off = xp.abs(xp.sum(x * x, axis=1) - 1)
        mu = ensure(
            off < 1e3 * float(jnp.finfo(x.dtype).eps),
            mu,
            "mu must have its states on the unit sphere for a tangential field: divide them by "
            "their norms",
        )
    return mu
