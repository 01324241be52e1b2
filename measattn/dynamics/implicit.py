"""Derivatives of an equilibrium, by the implicit function theorem."""

from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jaxtyping import Array, Float, ScalarLike

from measattn.checks import ensure, float_array, traced, whole
from measattn.dynamics.anderson import Anderson
from measattn.dynamics.injection import Injected
from measattn.dynamics.steps import check_shapes
from measattn.dynamics.verdict import lost
from measattn.kernel import moved, need_layer
from measattn.measure import EmpiricalMeasure, measure


def equilibrium_points(
    layer: Any,
    inputs: Any,
    *,
    log_weights: Any = None,
    solver: Any = None,
    linear_solver: Any = None,
    steps: ScalarLike = 256,
) -> Float[Array, "n d"]:
    r"""The states $X^*$ with $x_i = u_i + f(\mu, x_i)$, differentiable in the layer and in u.

    Under `jax.jit` and `jax.grad`; the derivative solves $(I - \partial_XF)^\top w = g$ instead of
    going back through the steps, so its memory does not grow with them.

    Args:
        layer: f.
        inputs: $u$, (n, d).
        log_weights: of the atoms; equal by default.
        solver: any solver of optimistix; `Anderson` to the precision of the dtype by default.
        linear_solver: any solver of lineax; GMRES by default.
        steps: the most steps of the solver.

    Raises:
        ValueError: inputs that are no points, a layer that changes the dimension, or steps or
            solvers that are none.
        RuntimeError: at run time, where the solver or the linear solver does not converge.

    Source: Bai, Kolter & Koltun, *Deep equilibrium models*, arXiv 1909.01377; C5 of
        docs/theory-dynamics.md.
    """
    start = EmpiricalMeasure(float_array("inputs (n, d)", inputs, 2), log_weights)
    inputs, log_weights = start.points, start.log_weights
    need_layer(layer)
    check_shapes(Injected(layer, inputs), start)
    steps = whole("steps", steps, 1)
    small = float(jnp.finfo(inputs.dtype).eps) * 64
    solver = Anderson(rtol=small, atol=small) if solver is None else solver
    linear_solver = lx.GMRES(rtol=small, atol=small) if linear_solver is None else linear_solver
    for name, given, kind in (
        ("solver", solver, optx.AbstractIterativeSolver),
        ("linear_solver", linear_solver, lx.AbstractLinearSolver),
    ):
        if not isinstance(given, kind):
            raise ValueError(
                f"{name} must be a solver of {kind.__module__.split('.')[0]}, got {given!r}"
            )

    def image(x: Array, args: tuple) -> Array:
        layer, inputs, log_weights = args
        return moved(Injected(layer, inputs), measure(x, log_weights))

    solution = optx.fixed_point(
        image,
        solver,
        inputs,
        (layer, inputs, log_weights),
        max_steps=steps,
        adjoint=optx.ImplicitAdjoint(linear_solver=linear_solver),
        throw=False,
    )
    # where states have run off so far, they stop by rounding alone
    first = jnp.max(jnp.abs(image(inputs, (layer, inputs, log_weights)) - inputs))
    home = jax.lax.stop_gradient(jnp.maximum(jnp.max(jnp.abs(inputs)), first))
    reached = jax.lax.stop_gradient(solution.value)
    arrived = (solution.result == optx.RESULTS.successful) & ~lost(reached, home)
    message = (
        f"no equilibrium was reached (steps={steps}): equilibrium(layer, inputs) tells what the "
        "iteration does; allow more steps, or scale the layer down until it contracts"
    )
    if traced(arrived):
        return ensure(arrived, solution.value, message)
    if not bool(arrived):
        raise RuntimeError(message)
    return solution.value
