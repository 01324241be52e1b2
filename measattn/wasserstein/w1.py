"""The Wasserstein-1 distance of two empirical measures, exact and certified."""

from measattn.measure import EmpiricalMeasure
from measattn.wasserstein.problem import Problem, problem
from measattn.wasserstein.solution import W1Solution, certify
from measattn.wasserstein.solvers import AbstractSolver, Assignment, Line, NetworkSimplex


def w1(
    mu: EmpiricalMeasure,
    nu: EmpiricalMeasure,
    *,
    solver: AbstractSolver | None = None,
    tol: float = 1e-9,
) -> W1Solution:
    r"""$W_1(\mu,\nu) = \inf_\pi \int |x - y|\,\pi(dx, dy)$ with a certificate.

    Args:
        mu: a measure on R^d.
        nu: another on the same space.
        solver: `Line`, `Assignment` or `NetworkSimplex`; the fitting one by default.
        tol: the certified gap is at most tol·W1, or what rounding in float64 costs where that is
            more; ``status`` of the solution says which.

    Raises:
        ValueError: tokens or pairs, traced values, different dimensions, or too many atoms.
        TransportError: the gap did not close; the error carries the bracket.

    Source: Kantorovich duality; the certificate is derived in docs/theory.md, G5.
    """
    if solver is not None and not isinstance(solver, AbstractSolver):
        raise ValueError(f"solver must be Line(), Assignment() or NetworkSimplex(), got {solver!r}")
    posed = problem(mu, nu)
    chosen, reason = (solver, "as asked") if solver is not None else choose(posed)
    plan, potential = chosen.solve(posed)
    return certify(posed, plan, potential, f"{type(chosen).__name__} ({reason})", tol=tol)


def choose(posed: Problem) -> tuple[AbstractSolver, str]:
    """The exact solver that fits a problem, and why."""
    if posed.x.shape[1] == 1:
        return Line(), "points on the line"
    if posed.uniform:
        return Assignment(), "equally many atoms of equal weight"
    return NetworkSimplex(), "general weights"
