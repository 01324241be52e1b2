r"""The Wasserstein distance inside JAX: under `jit`, `vmap` and `grad`.

The solver runs on the host, in a callback that knows NumPy alone: a callback that calls JAX can
wait for itself for ever. Derivatives follow the envelope rule,

$$ dW_p^p = \sum_{ij}\pi_{ij}\,dC_{ij} + \sum_i u_i\,da_i + \sum_j v_j\,db_j, $$

and those of the plan and of the potentials (u, v) in it the forest of the plan's arcs. At arcs of
length 0 and p = 1 the gradient is that of the potential. Source: derived in docs/theory.md, W3.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, ScalarLike

from measattn.checks import traced
from measattn.measure import EmpiricalMeasure
from measattn.wasserstein import tiles
from measattn.wasserstein.forest import Forest, masses, potentials
from measattn.wasserstein.plan import Arcs, Plan
from measattn.wasserstein.problem import (
    check_order,
    on_space,
    one_measure,
    pose_points,
    same_dimension,
)
from measattn.wasserstein.solution import Solution
from measattn.wasserstein.solvers import AbstractSolver, Auto
from measattn.wasserstein.w1 import check_method, solve_posed, wp


def distance(
    mu: EmpiricalMeasure,
    nu: EmpiricalMeasure,
    p: ScalarLike = 1,
    *,
    solver: AbstractSolver | None = None,
    tol: ScalarLike = 1e-9,
) -> Float[Array, ""]:
    r"""$W_p(\mu,\nu)$, to be used under `jax.jit`, `jax.vmap` and `jax.grad`.

    The value is that of `wp`, certified before it is returned. Differentiable, to any order, in
    the points and in the normalised weights, where the optimal plan is unique and moves mass
    between all parts of both measures. Elsewhere the distance has a kink (p = 1: at equal points;
    in the weights: where a part of one measure has exactly the mass of the part of the other that
    it goes to, as between measures of n equal atoms). There the first derivative is a
    subgradient, and higher ones hold the arcs of the plan and the offsets between its parts fixed.
    A batch of problems (`jax.vmap`) is solved in one visit to the host.

    Args:
        mu: a measure on R^d.
        nu: another on the same space.
        p: the order, a number of at least 1 that Python knows.
        solver: as for `w1`.
        tol: as for `w1`.

    Raises:
        ValueError: tokens or pairs, or different dimensions.
        RuntimeError: the problem has no certified answer. Called with concrete values this is the
            TransportError of `wp`. A compiled program has the same words from JAX: a
            JaxRuntimeError, or a ValueError where it ran before.

    Source: derived in docs/theory.md, W3.
    """
    for name, measure in (("mu", mu), ("nu", nu)):
        one_measure(name, measure)
        on_space(name, measure)
    same_dimension(mu.dimension, nu.dimension)
    dtype = jnp.promote_types(mu.dtype, nu.dtype)
    solver = Auto() if solver is None else solver
    how = _How(check_order(p), solver, check_method(solver, tol))
    if not how.solver.exact:
        raise ValueError(
            f"solver must be exact, since distance returns a bare number, got {solver!r}"
        )
    if not traced(mu, nu):
        return jnp.asarray(wp(mu, nu, p, solver=how.solver, tol=how.tol).value, dtype)
    arrays = (mu.points, mu.weights, nu.points, nu.weights)
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
    optimum = _optimum(how, *primals)
    return optimum.value, _slope(how, optimum, primals, tangents)


class _Optimum(NamedTuple):
    """An optimal plan of fixed length with its forest, and potentials.

    Attributes:
        value: the distance.
        mass: of each arc; 0 for the arcs that fill the length.
        u: potential on the sources.
        v: potential on the targets.
        rows: the sources of the arcs.
        cols: their targets.
        rays: for arcs of length 0 and p = 1, the gradient of the potential there.
        forest: of the arcs.
    """

    value: Any
    mass: Any
    u: Any
    v: Any
    rows: Any
    cols: Any
    rays: Any
    forest: Forest


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _optimum(how: _How, x: Array, a: Array, y: Array, b: Array) -> _Optimum:
    (n, d), m, dtype = x.shape, len(y), x.dtype
    shape = jax.ShapeDtypeStruct
    arcs, atoms = shape((_length(n, m),), jnp.int32), shape((n + m,), jnp.int32)
    out = _Optimum(
        value=shape((), dtype),
        mass=shape(arcs.shape, dtype),
        u=shape((n,), dtype),
        v=shape((m,), dtype),
        rows=arcs,
        cols=arcs,
        rays=shape((*arcs.shape, d), dtype),
        forest=Forest(atoms, atoms, atoms),
    )
    call = partial(_host, _everything, how)
    return jax.pure_callback(call, out, x, a, y, b, vmap_method="broadcast_all")


@_optimum.defjvp
def _optimum_jvp(how: _How, primals: tuple, tangents: tuple) -> tuple[_Optimum, _Optimum]:
    """While the forest stays: potentials follow the costs along it, masses the weights."""
    optimum = _optimum(how, *primals)
    n, (_, da, _, db) = len(primals[0]), tangents
    shift = potentials(optimum.forest, _cost_slopes(how, optimum, primals, tangents))
    return optimum, _Optimum(
        value=_slope(how, optimum, primals, tangents),
        mass=masses(optimum.forest, jnp.concatenate([da, -db]), len(optimum.mass)),
        u=shift[:n],
        v=-shift[n:],
        rays=jnp.zeros_like(optimum.rays),
        **{name: _constant(getattr(optimum, name)) for name in ("rows", "cols", "forest")},
    )


def _constant(integers: Any) -> Any:
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, jax.dtypes.float0), integers)


def _slope(how: _How, optimum: _Optimum, primals: tuple, tangents: tuple) -> Array:
    """The directional derivative of the distance."""
    _, da, _, db = tangents
    costs = _cost_slopes(how, optimum, primals, tangents)
    cost = optimum.mass @ costs + optimum.u @ da + optimum.v @ db
    if how.p == 1:
        return cost
    positive = optimum.value > 0
    root = jnp.where(positive, optimum.value, 1) ** (1 - how.p) / how.p
    return jnp.where(positive, root, 0) * cost


def _cost_slopes(how: _How, optimum: _Optimum, primals: tuple, tangents: tuple) -> Array:
    """The directional derivatives of the costs of all arcs."""
    (x, _, y, _), (dx, _, dy, _), p = primals, tangents, how.p
    rows, cols = optimum.rows, optimum.cols
    difference = x[rows] - y[cols]
    square = jnp.sum(difference * difference, axis=1)
    apart = square > 0
    length = jnp.sqrt(jnp.where(apart, square, 1))
    factor = jnp.where(apart, p * length ** (p - 2), 2 if p == 2 else 0)
    slope = factor[:, None] * difference
    if p == 1:
        slope = jnp.where(apart[:, None], slope, optimum.rays)
    return jnp.sum(slope * (dx[rows] - dy[cols]), axis=1)


def _length(n: int, m: int) -> int:
    """So many arcs suffice: a basic plan, the cancelled mass, the division of merged atoms."""
    return 2 * (n + m)


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


def _everything(how: _How, x: Any, a: Any, y: Any, b: Any) -> _Optimum:
    solution, (n, m), dtype = _solution(how, x, a, y, b), (len(a), len(b)), x.dtype
    plan, (u, v) = solution.plan, solution.potentials
    x, y = x.astype(np.float64), y.astype(np.float64)
    rays = np.zeros((len(plan.rows), x.shape[1]))
    if how.p == 1:
        _fill_rays(rays, x, y, plan, u, v)
    tight = _tight_arcs(how, x, y, plan, u, v)
    arcs = Arcs(*(np.concatenate(parts) for parts in zip(plan[:2], tight, strict=True)))

    def padded(part: np.ndarray, kind: Any) -> np.ndarray:
        whole = np.zeros((_length(n, m), *part.shape[1:]), kind)
        whole[: len(part)] = part
        return whole

    return _Optimum(
        value=np.asarray(solution.value, dtype),
        mass=padded(plan.mass, dtype),
        u=u.astype(dtype),
        v=v.astype(dtype),
        rows=padded(arcs.rows, np.int32),
        cols=padded(arcs.cols, np.int32),
        rays=padded(rays, dtype),
        forest=Forest(*(part.astype(np.int32) for part in Forest.of(arcs, (n, m)))),
    )


def _tight_arcs(how: _How, x: Any, y: Any, plan: Plan, u: Any, v: Any) -> Arcs:
    """For each atom that the plan does not visit, an arc along which the potentials are tight."""
    far, near = (
        np.setdiff1d(np.arange(len(z)), used) for z, used in ((y, plan.cols), (x, plan.rows))
    )
    targets = [np.argmin(np.linalg.norm(x[i] - y, axis=1) ** how.p - v) for i in near]
    sources = [np.argmin(np.linalg.norm(x - y[j], axis=1) ** how.p - u) for j in far]
    return Arcs(*(np.asarray(ends, np.int64) for ends in ([*near, *sources], [*targets, *far])))


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
