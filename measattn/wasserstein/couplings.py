r"""What a plan says about the atoms: its barycentric map and its interpolation."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, ScalarLike

from measattn.checks import host_number, traced
from measattn.measure import EmpiricalMeasure, weighted
from measattn.points import Pair, Token, kind
from measattn.wasserstein.bottleneck import BottleneckSolution
from measattn.wasserstein.problem import weights
from measattn.wasserstein.solution import Solution
from measattn.wasserstein.support import check_supports


def barycentric_map(
    solution: Solution | BottleneckSolution, mu: EmpiricalMeasure, nu: EmpiricalMeasure
) -> Float[Array, "n d"]:
    r"""$T(x_i) = \sum_j \pi_{ij} y_j / \sum_j \pi_{ij}$: where the plan sends each atom on average.

    An atom without mass stays where it is. For the optimal plan of $W_1$ this is one choice among
    many; for p > 1 between clouds in general position it is the transport map where there is one.

    Args:
        solution: of `w1`, `wp` or `w_inf` between ``mu`` and ``nu``, or of `conditional` between
            laws of tokens of which they are the laws of the states.
        mu: the source, n atoms.
        nu: the target.

    Raises:
        ValueError: the solution is one between other measures (it knows their points; that of
            `solve` knows their numbers of atoms alone), or the points are no points of R^d.
    """
    x, y = _atoms(solution, mu, nu)
    rows, cols, mass = solution.plan
    total = np.bincount(rows, mass, len(x))
    out = np.where(total[:, None] > 0, 0.0, x)
    np.add.at(out, rows, (mass / total[rows])[:, None] * y[cols])
    return jnp.asarray(out, mu.dtype)


def displacement(
    solution: Solution | BottleneckSolution,
    mu: EmpiricalMeasure,
    nu: EmpiricalMeasure,
    t: ScalarLike,
) -> EmpiricalMeasure:
    r"""McCann's interpolation $\mu_t = \big((1-t)x + ty\big)_\#\pi$, a geodesic from mu to nu.

    $W_p(\mu_s, \mu_t) = |t - s|\,W_p(\mu, \nu)$ for the optimal plan of order p, infinity
    too, up to the rounding of the masses, which the p-th root makes visible in float32 where t is
    0 or 1.

    Args:
        solution: of `w1`, `wp` or `w_inf` between ``mu`` and ``nu``, or of `conditional` between
            laws of tokens of which they are the laws of the states.
        mu: the source.
        nu: the target.
        t: the time, between 0 and 1.

    Raises:
        ValueError: as `barycentric_map`, or t outside [0, 1].
    """
    time = host_number(t)
    if time is None or not 0 <= time <= 1:
        raise ValueError(f"t must lie in [0, 1] and be known outside jit and vmap, got {t!r}")
    x, y = _atoms(solution, mu, nu)
    rows, cols, mass = solution.plan
    points = (1 - time) * x[rows] + time * y[cols]
    return weighted(jnp.asarray(points, mu.dtype), mass)


def _atoms(
    solution: Solution | BottleneckSolution, mu: EmpiricalMeasure, nu: EmpiricalMeasure
) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(solution, (Solution, BottleneckSolution)):
        raise ValueError(
            f"solution must be that of w1, wp or w_inf, got a {type(solution).__name__}"
        )
    for name, measure in (("mu", mu), ("nu", nu)):
        if traced(measure):
            raise ValueError(
                f"{name} has traced values, and a plan is known on the host alone: call this "
                "outside jit, grad and vmap"
            )
        weights(name, measure)
        if isinstance(measure.points, (Token, Pair)):
            raise ValueError(
                f"{name} must have points that are arrays, got {kind(measure.points)}: take "
                f"states({name})"
            )
    check_supports(solution, mu, nu)
    return np.asarray(mu.points, np.float64), np.asarray(nu.points, np.float64)
