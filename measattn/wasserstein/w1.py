"""Wasserstein distances of empirical measures, exact and certified."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import ScalarLike

from measattn.checks import host_number
from measattn.digits import order_name
from measattn.measure import EmpiricalMeasure
from measattn.wasserstein.certificate import Below, Certified, certify, root
from measattn.wasserstein.ground import Vector
from measattn.wasserstein.plan import Arcs, Plan, divide, monotone
from measattn.wasserstein.pricing import c_transform
from measattn.wasserstein.problem import Posed, Problem, check_order, pose, pose_measures
from measattn.wasserstein.solution import Bracket, Solution, TransportError
from measattn.wasserstein.solvers import AbstractSolver, Auto, Proposal, Run, Start
from measattn.wasserstein.solvers.refine import refined

EXCUSED = 1e-4
"""No gap beyond this part of the diameter is accepted as rounding, whatever the order."""

Watch = Callable[[Bracket], None]


def w1(
    mu: EmpiricalMeasure,
    nu: EmpiricalMeasure,
    *,
    metric: Callable | None = None,
    solver: AbstractSolver | None = None,
    tol: ScalarLike = 1e-9,
    start: Solution | None = None,
    watch: Watch | None = None,
) -> Solution:
    r"""$W_1(\mu,\nu) = \inf_\pi \int |x - y|\,\pi(dx, dy)$ with a certificate.

    Args:
        mu: a measure on R^d.
        nu: another on the same space.
        metric: the ground metric, a JAX function of two points; Euclidean by default. With one of
            your own the points may be tokens or pairs; it is evaluated in float64.
        solver: one of `wasserstein.solvers`; `Auto` by default.
        tol: the certified gap is at most tol·W1, or what rounding in float64 costs where that is
            more, (64 + d)·eps times the diameter; ``status`` of the solution says which. For p > 1
            the latter is meant of the costs, and the gap is at most 1e-4 of the diameter.
        start: the solution of a nearby problem with the same numbers of atoms, to start from.
        watch: called after each round of `ColumnGeneration` with its certified bracket, for long
            runs: ``watch=print``.

    Raises:
        ValueError: tokens or pairs without a metric, traced values, different dimensions, or too
            many atoms for the solver that was asked for.
        TransportError: the gap did not close; the error carries the bracket.

    Source: Kantorovich duality; the certificate is derived in docs/theory.md, G5.
    """
    return wp(mu, nu, 1, metric=metric, solver=solver, tol=tol, start=start, watch=watch)


def wp(
    mu: EmpiricalMeasure,
    nu: EmpiricalMeasure,
    p: ScalarLike,
    *,
    metric: Callable | None = None,
    solver: AbstractSolver | None = None,
    tol: ScalarLike = 1e-9,
    start: Solution | None = None,
    watch: Watch | None = None,
) -> Solution:
    r"""$W_p(\mu,\nu) = \inf_\pi \big(\int |x - y|^p\,\pi(dx, dy)\big)^{1/p}$ with a certificate.

    The arguments and errors are those of `w1`; ``p`` is a number of at least 1 (for $p = \infty$
    see `w_inf`).
    """
    posed = pose_measures(mu, nu, p=check_order(p), metric=metric)
    solver = Auto() if solver is None else solver
    return solve_posed(posed, solver, tol=tol, start=start, watch=watch)


def solve(
    problem: Problem,
    *,
    solver: AbstractSolver | None = None,
    tol: ScalarLike = 1e-9,
    start: Solution | None = None,
    watch: Watch | None = None,
) -> Solution:
    """The least cost of a problem of your own, see `transport_problem`; as `w1`."""
    if not isinstance(problem, Problem):
        raise ValueError(
            f"problem must be a Problem, got a {type(problem).__name__}: make one of a matrix of "
            "costs with transport_problem(cost, a, b)"
        )
    posed = pose(problem.a, problem.b, problem.ground, problem.p)
    solver = Auto() if solver is None else solver
    return solve_posed(posed, solver, tol=tol, start=start, watch=watch)


def check_method(solver: Any, tol: Any) -> float:
    """The tolerance, if it is one and the solver is a solver.

    Raises:
        ValueError: either.
    """
    if not isinstance(solver, AbstractSolver):
        raise ValueError(
            f"solver must be a solver such as Auto() or NetworkSimplex(), got {solver!r}"
        )
    width = host_number(tol)
    if width is None or not width >= 0:
        raise ValueError(f"tol must be a number of at least 0, such as 1e-9, got {tol!r}")
    return width


def solve_posed(
    posed: Posed, solver: Any, *, tol: ScalarLike, start: Solution | None, watch: Watch | None
) -> Solution:
    """Solve the reduced problem, judge the proposal, and go back to the atoms as given."""
    tol = check_method(solver, tol)
    if not (watch is None or callable(watch)):
        raise ValueError(f"watch must be a function of a Bracket, such as print, got {watch!r}")
    began = time.perf_counter()
    problem = posed.problem
    if len(problem.a) == 0 or len(problem.b) == 0 or problem.ground.trivial:
        return _equal(posed, time.perf_counter() - began)

    def watched(bracket: Bracket) -> None:
        if watch is not None:
            watch(_scaled(bracket, posed.unit))

    run = Run(tol, _start(posed, start), watched)
    proposal = solver.solve(problem, run)
    certified = proposal.certified or certify(problem, proposal.plan, proposal.u)
    if solver.exact and not _Judgement.of(posed, certified, tol).within:
        certified = refined(problem, certified)
    return _judged(posed, proposal, certified, solver, tol, began)


class _Judgement(NamedTuple):
    """A distance with its bracket, and why its gap is accepted: at most one of the two reasons."""

    value: float
    lower: float
    upper: float
    within: bool
    rounding: bool
    hopeless: bool
    """Rounding alone leaves the gap open, but it is too wide to be excused by that."""

    @property
    def accepted(self) -> bool:
        return self.within or self.rounding

    @classmethod
    def of(cls, posed: Posed, certified: Certified, tol: float | int) -> "_Judgement":
        p, unit = posed.problem.p, posed.unit
        lower = unit * root(certified.below.lower, p)[0]
        upper = unit * root(certified.above.upper, p)[1]
        # a plan that misses some mass is too cheap
        value = min(max(unit * certified.above.value ** (1 / p), lower), upper)
        within = upper - lower <= tol * value
        rounding = rounded = False
        if not within:
            # the p-th root makes much of a small cost: there rounding excuses only so much
            excused = EXCUSED * unit * posed.whole.largest ** (1 / p)
            known = certified.above.resolution + 3 * posed.problem.blur
            rounded = certified.gap <= known
            rounding = rounded and upper - lower <= excused
        return cls(value, lower, upper, within, rounding, rounded and not rounding)


def _judged(
    posed: Posed,
    proposal: Proposal,
    certified: Certified,
    solver: AbstractSolver,
    tol: float | int,
    began: float,
) -> Solution:
    p, unit = posed.problem.p, posed.unit
    judgement = _Judgement.of(posed, certified, tol)
    value, lower, upper = judgement[:3]
    gap = upper - lower
    if judgement.within:
        status = f"The certified gap of {gap:.2e} is within {tol:g} times the distance."
    elif judgement.rounding:
        status = f"The certified gap of {gap:.2e} is what rounding in float64 leaves open."
    elif not solver.exact:
        status = f"An estimate: the certified gap is {gap:.2e}, {gap / upper:.2g} of the distance."
    else:
        status = f"The certified gap of {gap:.2e} is wider than {tol:g} times the distance."
    solution = Solution(
        value=value,
        lower=lower,
        upper=upper,
        plan=_whole_plan(posed, certified.above.plan),
        p=p,
        solver=proposal.solver,
        status=status,
        iterations=proposal.iterations,
        seconds=time.perf_counter() - began,
        trace=tuple(_scaled(bracket, unit) for bracket in proposal.trace),
        dual=partial(_whole_potentials, posed, certified.below),
        active=_whole_arcs(posed, proposal.active),
        supports=posed.supports,
    )
    if solver.exact and not judgement.accepted:
        raise TransportError(
            f"{proposal.solver} did not close the gap: W{order_name(p)} lies in [{lower}, "
            f"{upper}]. " + _remedy(gap / upper, p, judgement.hopeless),
            solution,
        )
    return solution


def _remedy(ratio: float, p: float, hopeless: bool) -> str:
    # so wide a tolerance accepts the bracket, which is no help where it says next to nothing
    wider = f"{2.1 * ratio:.1e}" if ratio < 0.5 else None
    if hopeless:
        accept = f", or accept a bracket as wide with tol={wider}" if wider else ""
        return (
            f"At order {order_name(p)} rounding in float64 alone, 1e-16 of the mass, costs this "
            f"much, whatever the solver: take a smaller order, or see w_inf{accept}."
        )
    if wider:
        return f"Let the solver run longer, take another, or raise tol to {wider}."
    return "Let the solver run longer, or take another: Auto() chooses one that fits."


def _scaled(bracket: Bracket, unit: float) -> Bracket:
    return Bracket(bracket.lower * unit, bracket.upper * unit, bracket.arcs)


def _equal(posed: Posed, seconds: float) -> Solution:
    """All mass was common, up to what rounding may leave on one side, or all costs are 0."""
    a, b = posed.problem.a, posed.problem.b
    upper, plan = posed.problem.blur, Plan(*(np.empty(0, t) for t in (np.int64, np.int64, float)))
    if len(a) and len(b):
        plan = monotone(np.arange(len(a)), np.arange(len(b)), a, b)
    elif len(a) or len(b):
        upper += float(a.sum() + b.sum()) * posed.whole.largest
    return Solution(
        value=0.0,
        lower=0.0,
        upper=posed.unit * root(upper, posed.problem.p)[1],
        plan=_whole_plan(posed, plan),
        p=posed.problem.p,
        solver="none (the measures are equal)",
        status="Both measures have the same mass at the same points, or at distance 0.",
        iterations=0,
        seconds=seconds,
        trace=(),
        dual=partial(_zeros, len(posed.a), len(posed.b)),
        supports=posed.supports,
    )


def _zeros(n: int, m: int) -> tuple[Vector, Vector]:
    return np.zeros(n), np.zeros(m)


def _start(posed: Posed, start: Solution | None) -> Start | None:
    if start is None:
        return None
    if not isinstance(start, Solution):
        raise ValueError(
            "start must be the Solution of a nearby problem, as w1 returns it, got a "
            f"{type(start).__name__}"
        )
    u, v = start.potentials
    if len(u) != len(posed.a) or len(v) != len(posed.b):
        raise ValueError(
            f"start must be the solution of a problem with {len(posed.a)} and {len(posed.b)} "
            f"atoms, got one with {len(u)} and {len(v)}"
        )
    source, target = _positions(posed.site_a, posed.left_a), _positions(posed.site_b, posed.left_b)
    arcs = start.active or start.plan
    rows, cols = source[arcs.rows], target[arcs.cols]
    known = (rows >= 0) & (cols >= 0)
    power = _power(posed)
    if not 0 < power < np.inf:  # the potentials left float64
        return None
    first, first_b = posed.first_a[posed.left_a], posed.first_b[posed.left_b]
    return Start(u[first] / power, v[first_b] / power, Arcs(rows[known], cols[known]))


def _positions(site: np.ndarray, left: np.ndarray) -> np.ndarray:
    """The number in the reduced problem of each atom, -1 for none."""
    number = np.full(max(site.max(), left.max(initial=-1)) + 2, -1)
    number[left] = np.arange(len(left))
    return number[site]


def _whole_plan(posed: Posed, plan: Plan) -> Plan:
    """The plan between the atoms as given: with the cancelled mass, merged atoms divided."""
    common = posed.common
    rows = np.concatenate([posed.left_a[plan.rows], common[0]])
    cols = np.concatenate([posed.left_b[plan.cols], common[1]])
    mass = np.concatenate([plan.mass, common[2]])
    keep = mass > 0
    rows, cols, mass = rows[keep], cols[keep], mass[keep]
    if len(posed.first_a) == np.count_nonzero(posed.site_a >= 0):
        rows = posed.first_a[rows]
    else:
        piece, rows, mass = divide(rows, mass, posed.site_a, posed.a)
        cols = cols[piece]
    if len(posed.first_b) == np.count_nonzero(posed.site_b >= 0):
        cols = posed.first_b[cols]
    else:
        piece, cols, mass = divide(cols, mass, posed.site_b, posed.b)
        rows = rows[piece]
    return Plan(rows, cols, mass)


def _whole_arcs(posed: Posed, arcs: Arcs | None) -> Arcs | None:
    """Arcs between the atoms as given, one of each merged atom."""
    return arcs and Arcs(
        posed.first_a[posed.left_a[arcs.rows]], posed.first_b[posed.left_b[arcs.cols]]
    )


def _whole_potentials(posed: Posed, below: Below) -> tuple[Vector, Vector]:
    """Potentials on all atoms; those that the reduced problem does not have by c-transforms."""
    u, v = below.u, below.priced.v
    power = _power(posed)
    source, target = _positions(posed.site_a, posed.left_a), _positions(posed.site_b, posed.left_b)
    whole_u, whole_v = u[source], v[target]
    others, ground = np.flatnonzero(source < 0), posed.whole
    if len(others):
        seen = ground.restrict(others, posed.first_b[posed.left_b])
        whole_u[others] = c_transform(seen.transposed, v).v
    others = np.flatnonzero(target < 0)
    if len(others):
        everyone = np.arange(len(posed.a))
        whole_v[others] = c_transform(ground.restrict(everyone, others), whole_u).v
    return _times(whole_u, power), _times(whole_v, power)


def _power(posed: Posed) -> float:
    """The unit of costs; 0 or infinite where it leaves float64."""
    with np.errstate(over="ignore", under="ignore"):
        return float(np.float64(posed.unit) ** posed.problem.p)


def _times(potential: Vector, power: float) -> Vector:
    """In the units of the points; infinite where that leaves float64."""
    with np.errstate(over="ignore"):
        return np.where(potential == 0, 0.0, np.where(potential == 0, 1.0, potential) * power)
