r"""The Wasserstein distance inside JAX: under `jit`, `vmap` and `grad`.

The solver runs on the host, in a callback that knows NumPy alone: a callback that calls JAX can
wait for itself for ever. Derivatives follow the envelope rule: with the optimal plan $\pi$ and
potentials (u, v) held fixed,

$$ dW_p^p = \sum_{ij}\pi_{ij}\,dC_{ij} + \sum_i u_i\,da_i + \sum_j v_j\,db_j. $$

At arcs of length 0 and p = 1 the gradient is that of the potential. Source: derived in
docs/theory.md, W3.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from measattn.measure import EmpiricalMeasure
from measattn.points import Pair, Token
from measattn.wasserstein import tiles
from measattn.wasserstein.plan import Plan
from measattn.wasserstein.problem import check_order, pose_points
from measattn.wasserstein.solution import Solution
from measattn.wasserstein.solvers import AbstractSolver, Auto
from measattn.wasserstein.w1 import check_method, solve_posed


def distance(
    mu: EmpiricalMeasure,
    nu: EmpiricalMeasure,
    p: float | int = 1,
    *,
    solver: AbstractSolver | None = None,
    tol: float | int = 1e-9,
) -> Float[Array, ""]:
    r"""$W_p(\mu,\nu)$, to be used under `jax.jit`, `jax.vmap` and `jax.grad`.

    The value is that of `wp`, certified before it is returned. Differentiable once in the points
    and in the normalised weights. A second derivative holds the plan and the potentials fixed: it
    is right among the points alone, and *leaves out* how potentials move with points and the plan
    with weights, so blocks that mix points with weights must not be used. A
    batch of problems (`jax.vmap`) is solved in one visit to the host.

    Args:
        mu: a measure on R^d.
        nu: another on the same space.
        p: the order, a number of at least 1 that Python knows.
        solver: as for `w1`.
        tol: as for `w1`.

    Raises:
        ValueError: tokens or pairs, or different dimensions.
        RuntimeError: at run time, in the words of `w1`, where the problem has no certified answer.

    Source: derived in docs/theory.md, W3.
    """
    for name, measure in (("mu", mu), ("nu", nu)):
        if not isinstance(measure, EmpiricalMeasure):
            raise ValueError(f"{name} must be an EmpiricalMeasure, got a {type(measure).__name__}")
        if isinstance(measure.points, (Token, Pair)):
            raise ValueError(
                f"{name} is a measure on {type(measure.points).__name__.lower()}s, on which no "
                "distance is agreed: take the law of the states, states(mu)"
            )
        if measure.log_weights.ndim != 1:
            raise ValueError(f"{name} is a batch of measures: apply distance through jax.vmap")
    if mu.dimension != nu.dimension:
        raise ValueError(
            f"mu and nu must live on one space, got dimensions {mu.dimension} and {nu.dimension}"
        )
    dtype = jnp.promote_types(mu.dtype, nu.dtype)
    arrays = (mu.points, mu.weights, nu.points, nu.weights)
    check_method(Auto() if solver is None else solver, tol)
    how = _How(check_order(p), solver or Auto(), tol)
    if not how.solver.exact:
        raise ValueError(
            f"solver must be exact, since distance returns a bare number, got {solver!r}"
        )
    return _distance(how, *(array.astype(dtype) for array in arrays))


@dataclass(frozen=True)
class _How:
    """What is static."""

    p: float
    solver: AbstractSolver
    tol: float | int


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _distance(how: _How, x: Array, a: Array, y: Array, b: Array) -> Array:
    number = jax.ShapeDtypeStruct((), x.dtype)
    return jax.pure_callback(
        partial(_host, _value, how), number, x, a, y, b, vmap_method="broadcast_all"
    )


@_distance.defjvp
def _distance_jvp(how: _How, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    x, a, y, b = primals
    dx, da, dy, db = tangents
    p = how.p
    value, plan, u, v = _solved(how, *jax.lax.stop_gradient(primals))
    difference = x[plan.rows] - y[plan.cols]
    square = jnp.sum(difference * difference, axis=1)
    apart = square > 0
    length = jnp.sqrt(jnp.where(apart, square, 1))
    slope = p * (length ** (p - 2))[:, None] * difference
    slope = plan.mass[:, None] * jnp.where(apart[:, None], slope, plan.rays)
    cost = jnp.sum(slope * (dx[plan.rows] - dy[plan.cols])) + u @ da + v @ db
    if p == 1:
        return value, cost
    # the value once more, as a function of the arguments, for the second derivative
    moved = jnp.sum(plan.mass * jnp.where(apart, length**p, 0))
    moved += u @ (a - jax.lax.stop_gradient(a)) + v @ (b - jax.lax.stop_gradient(b))
    positive = moved > 0
    root = jnp.where(positive, moved, 1) ** (1 / p - 1)
    return value, jnp.where(positive, root / p, 0) * cost


class _Padded(NamedTuple):
    """A plan of fixed length, and for arcs of length 0 the gradient of the potential there."""

    rows: Any
    cols: Any
    mass: Any
    rays: Any


def _solved(how: _How, x: Array, a: Array, y: Array, b: Array) -> tuple:
    """Value, plan and potentials, from the host."""
    (n, d), m, dtype = x.shape, len(y), x.dtype
    # a basic plan, the cancelled mass, and the division of merged atoms
    size = 2 * (n + m)
    shape = jax.ShapeDtypeStruct
    index = shape((size,), jnp.int32)
    plan = _Padded(index, index, shape((size,), dtype), shape((size, d), dtype))
    out = (shape((), dtype), plan, shape((n,), dtype), shape((m,), dtype))
    call = partial(_host, _everything, how)
    return jax.pure_callback(call, out, x, a, y, b, vmap_method="broadcast_all")


def _host(answer: Callable, how: _How, *arrays: Any) -> Any:
    """Solve one problem, or each of a batch; NumPy only."""
    x, a, y, b = (np.asarray(array) for array in arrays)
    batch = a.shape[:-1]
    flat = [array.reshape(-1, *array.shape[len(batch) :]) for array in (x, a, y, b)]
    results = [answer(how, *(array[k] for array in flat)) for k in range(len(flat[0]))]

    def together(*parts: Any) -> np.ndarray:
        return np.stack(parts).reshape(batch + np.shape(parts[0]))

    return jax.tree.map(together, *results)


def _value(how: _How, *arrays: np.ndarray) -> np.ndarray:
    return np.asarray(_solution(how, *arrays).value, arrays[0].dtype)


def _everything(how: _How, x: Any, a: Any, y: Any, b: Any) -> tuple:
    solution, size, dtype = _solution(how, x, a, y, b), 2 * (len(a) + len(b)), x.dtype
    plan, (u, v) = solution.plan, solution.potentials
    rays = np.zeros((len(plan.rows), x.shape[1]))
    if how.p == 1:
        _fill_rays(rays, x.astype(np.float64), y.astype(np.float64), plan, u, v)
    whole = _Padded(
        rows=np.zeros(size, np.int32),
        cols=np.zeros(size, np.int32),
        mass=np.zeros(size, dtype),
        rays=np.zeros((size, x.shape[1]), dtype),
    )
    for padded, part in zip(whole, (*plan, rays), strict=True):
        padded[: len(part)] = part
    return np.asarray(solution.value, dtype), whole, u.astype(dtype), v.astype(dtype)


def _solution(how: _How, *arrays: np.ndarray) -> Solution:
    x, a, y, b = (array.astype(np.float64) for array in arrays)
    posed = pose_points(x, a, y, b, how.p, run=tiles.on_the_host)
    return solve_posed(posed, how.solver, tol=how.tol, start=None, watch=None)


def _fill_rays(rays: np.ndarray, x: np.ndarray, y: np.ndarray, plan: Plan, u: Any, v: Any) -> None:
    r"""The gradient of the potential at arcs of length 0, where it is determined.

    A point where an atom of both measures lies can be inside a transport ray: some other target
    and some other source are tight with it. There every optimal potential has the unit vector of
    the ray as its gradient. Elsewhere $W_1$ has a kink, and 0 is a subgradient.
    """
    for k in np.flatnonzero(np.all(x[plan.rows] == y[plan.cols], axis=1)):
        i, j = plan.rows[k], plan.cols[k]
        ahead, behind = (np.linalg.norm(z - x[i], axis=1) for z in (y, x))
        small = 1e-12 * max(ahead.max(), behind.max())
        next_ = np.flatnonzero((ahead > small) & (ahead - u[i] - v <= small))
        if len(next_) and np.any((behind > small) & (behind - u - v[j] <= small)):
            rays[k] = (x[i] - y[next_[0]]) / ahead[next_[0]]
