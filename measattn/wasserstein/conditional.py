r"""The distance of (position, token) laws position by position: the metric of masked attention.

$$ W_p(\mu,\nu)^p = \int W_p(\mu_s, \nu_s)^p\,\theta(ds) $$

for measures with one law $\theta$ of positions, $\mu_s$ being the law of the states at position s.
A causal mask makes attention a map of the ordered tokens, and mass must not move between positions.
"""

import math
import time
from typing import Any

import numpy as np
from jaxtyping import ScalarLike

from measattn.measure import EmpiricalMeasure
from measattn.points import Token, state
from measattn.wasserstein import tiles
from measattn.wasserstein.certificate import root
from measattn.wasserstein.ground import Index, Vector
from measattn.wasserstein.masses import exact_sums
from measattn.wasserstein.plan import Plan
from measattn.wasserstein.problem import check_order, normalised, pose_points, weights
from measattn.wasserstein.solution import Solution, TransportError
from measattn.wasserstein.solvers import Auto
from measattn.wasserstein.support import Support
from measattn.wasserstein.w1 import solve_posed


def conditional(
    mu: EmpiricalMeasure, nu: EmpiricalMeasure, p: ScalarLike = 1, *, tol: ScalarLike = 1e-9
) -> Solution:
    r"""$\big(\sum_s\theta_s W_p(\mu_s,\nu_s)^p\big)^{1/p}$ for laws of tokens with positions.

    With one token at each position it is the position-wise norm
    $\big(\tfrac1n\sum_i|x_i - y_i|^p\big)^{1/p}$.

    The potentials of the solution are those of the cost that is infinite between positions:
    $u_i + v_j \le |x_i - y_j|^p$ for atoms at one position, and nothing is said of others. The
    constant that is free at each position is chosen such that $\mu_s(u) = \nu_s(v)$.

    Args:
        mu: a measure on tokens.
        nu: another, with the same mass at each position up to 64 eps of the dtype; the bracket
            holds with the masses of either.
        p: the order, a number of at least 1.
        tol: as for `w1`, at each position.

    Raises:
        ValueError: points that are no tokens, or different laws of the positions (the distance
            would be infinite).
        TransportError: at some position the gap did not close.

    Source: the metric of Castin, Ablin and Peyré (arXiv 2312.14820) for masked attention.
    """
    began = time.perf_counter()
    p = check_order(p)
    a, b = normalised("mu", weights("mu", mu)), normalised("nu", weights("nu", nu))
    at_a, at_b = _positions("mu", mu), _positions("nu", nu)
    places, where = np.unique(np.concatenate([at_a, at_b]), return_inverse=True)
    site_a, site_b = where[: len(at_a)], where[len(at_a) :]
    zero = np.zeros(len(places))
    share, other = exact_sums(site_a, a, zero), exact_sums(site_b, b, zero)
    eps = max(np.finfo(mu.dtype).eps, np.finfo(nu.dtype).eps)
    off = np.flatnonzero(np.abs(share - other) > 64 * eps)
    if len(off):
        raise ValueError(
            f"mu and nu must have the same mass at each position, but differ at {places[off[:5]]}: "
            "no mass may move between positions; to let it, compare states(mu) and states(nu)"
        )
    x, y = (np.asarray(state(measure.points), np.float64) for measure in (mu, nu))
    by_a, by_b = _members(site_a, len(places)), _members(site_b, len(places))
    parts = []
    for s in np.flatnonzero(share > 0):
        i, j = by_a[s], by_b[s]
        posed = pose_points(x[i], a[i], y[j], b[j], p, run=tiles.on_the_host)
        try:
            parts.append((s, solve_posed(posed, Auto(), tol=tol, start=None, watch=None)))
        except TransportError as error:
            raise TransportError(f"at position {places[s]:g}: {error}", error.solution) from None

    def total(name: str, mass: Vector) -> float:
        return math.fsum(mass[s] * getattr(part, name) ** p for s, part in parts)

    least, most = np.minimum(share, other), np.maximum(share, other)

    def dual() -> tuple[Vector, Vector]:
        u, v = np.zeros(len(a)), np.zeros(len(b))
        for s, part in parts:
            i, j = by_a[s], by_b[s]
            u[i], v[j] = part.potentials
            middle = (a[i] @ u[i] - b[j] @ v[j]) / (2 * share[s])
            u[i], v[j] = u[i] - middle, v[j] + middle
        return u, v

    # the masses, the powers and their products
    rounding = 4 * (p + 4) * np.finfo(float).eps
    lower = root(total("lower", least) * (1 - rounding), p)[0]
    upper = root(total("upper", most) * (1 + rounding), p)[1]
    return Solution(
        value=min(max(total("value", share) ** (1 / p), lower), upper),
        lower=lower,
        upper=upper,
        plan=Plan(
            np.concatenate([by_a[s][part.plan.rows] for s, part in parts]),
            np.concatenate([by_b[s][part.plan.cols] for s, part in parts]),
            np.concatenate([share[s] * part.plan.mass for s, part in parts]),
        ),
        p=p,
        solver=f"Auto at each of {len(parts)} positions",
        status="Each position's gap is within its tolerance, or what rounding leaves open.",
        iterations=sum(part.iterations for _, part in parts),
        seconds=time.perf_counter() - began,
        trace=(),
        dual=dual,
        supports=(Support.of(mu), Support.of(nu)),
    )


def _positions(name: str, mu: Any) -> Vector:
    if not isinstance(mu.points, Token):
        raise ValueError(
            f"{name} must be a measure on tokens, points Token(position, state): without positions "
            "use w1"
        )
    return np.asarray(mu.points.position, np.float64)


def _members(site: Index, count: int) -> list[Index]:
    """The atoms at each place."""
    order = np.argsort(site, kind="stable")
    return np.split(order, np.searchsorted(site[order], np.arange(1, count)))
