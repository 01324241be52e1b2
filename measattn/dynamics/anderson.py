r"""Anderson's acceleration of a fixed-point iteration, as an optimistix solver.

With residuals $r_k = f(x_k) - x_k$ of the last m steps,

$$ x_{k+1} = \sum_i \alpha_i \bigl(x_i + \beta r_i\bigr), \qquad
   \alpha = \arg\min_{\sum\alpha = 1} \Bigl|\sum_i \alpha_i r_i\Bigr| . $$

Source: Anderson, *J. ACM* 12 (1965) 547-560; in the form of Walker & Ni, *SIAM J. Numer. Anal.* 49
(2011) 1715-1735, with the least-squares problem in differences.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from measattn.checks import host_number, traced, whole

RIDGE = 1e-13
"""Added to the Gram matrix of differences, in parts of its diagonal."""


class AndersonState(eqx.Module):
    """What is remembered.

    Attributes:
        moves: differences of iterates (m, N).
        changes: differences of residuals (m, N).
        x: the last iterate (N,).
        residual: its residual (N,).
        count: how many steps were made.
        error: the relative size of the last residual.
    """

    moves: Float[Array, "m N"]
    changes: Float[Array, "m N"]
    x: Float[Array, " N"]
    residual: Float[Array, " N"]
    count: Int[Array, ""]
    error: Float[Array, ""]


class Anderson(optx.AbstractFixedPointSolver):
    r"""Anderson's method with a memory of m steps.

    Attributes:
        rtol: relative tolerance of the residual.
        atol: absolute tolerance of the residual.
        memory: m.
        mixing: β.
        norm: of the residual.
    """

    rtol: float = 0.0
    atol: float = 1e-10
    memory: int = eqx.field(default=5, converter=lambda m: whole("memory", m, 1))
    mixing: float = 1.0
    norm: Any = optx.max_norm

    def __check_init__(self):
        for name in ("rtol", "atol", "mixing"):
            value = getattr(self, name)
            known = host_number(value)
            if not traced(value) and (known is None or not 0 <= known < math.inf):
                raise ValueError(f"{name} must be finite and at least 0, got {value!r}")

    def init(self, fn, y, args, options, f_struct, aux_struct, tags) -> AndersonState:
        """An empty memory."""
        flat = ravel_pytree(y)[0]
        history = jnp.zeros((self.memory, len(flat)), flat.dtype)
        start, far = jnp.zeros((), jnp.int32), jnp.asarray(jnp.inf, flat.dtype)
        return AndersonState(history, history, flat, jnp.zeros_like(flat), start, far)

    def step(self, fn, y, args, options, state, tags) -> tuple[PyTree, AndersonState, PyTree]:
        """One evaluation of the map, and the best combination of the last steps."""
        image, aux = fn(y, args)
        x, back = ravel_pytree(y)
        residual = ravel_pytree(image)[0] - x
        row, known = state.count % self.memory, state.count > 0
        moves = state.moves.at[row].set(jnp.where(known, x - state.x, 0))
        changes = state.changes.at[row].set(jnp.where(known, residual - state.residual, 0))
        weights = _least_squares(changes, residual)
        new = x + self.mixing * residual - weights @ (moves + self.mixing * changes)
        # a combination that overflowed is worth nothing, the plain step is
        new = jnp.where(jnp.all(jnp.isfinite(new)), new, x + residual)
        scale = self.atol + self.rtol * self.norm(x)
        state = AndersonState(
            moves, changes, x, residual, state.count + 1, self.norm(residual) / scale
        )
        return back(new), state, aux

    def terminate(self, fn, y, args, options, state, tags) -> tuple[Array, optx.RESULTS]:
        """Whether the residual is small enough."""
        return state.error < 1, optx.RESULTS.successful

    def postprocess(self, fn, y, aux, args, options, state, tags, result) -> tuple:
        """The last iterate, whose image the solver has already combined into."""
        return y, aux, {}


def _least_squares(rows: Float[Array, "m N"], target: Float[Array, " N"]) -> Float[Array, " m"]:
    """The weights w that make w @ rows closest to the target; rows of zeros get none."""
    size = jnp.linalg.norm(rows, axis=1)
    unit = rows / jnp.where(size > 0, size, 1)[:, None]
    gram = unit @ unit.T + jnp.diag(jnp.where(size > 0, RIDGE, 1).astype(rows.dtype))
    weights = jax.scipy.linalg.solve(gram, unit @ target, assume_a="pos")
    return jnp.where(size > 0, weights / jnp.where(size > 0, size, 1), 0)
