r"""The local constant Anywhere, from above: branch and bound over the domain.

In up to three dimensions the supremum over x in

$$ L(\mu) = \sup_{x\in E}F(x), \qquad
   F(x) = \max_{|u|=1}\Bigl[|D(x)u| + \sum_i\omega_i|M_{x_i}(x)u|\Bigr], $$

is bounded on cubes. F is bounded at the middle of a cube over a net of directions, and its growth
from there by the derivatives of its terms; cubes that may hold more than what is attained are cut
into $2^d$, until none is left or the budget is spent.
Source: G2 of docs/theory-lipschitz.md.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from measattn.lipschitz.cubes import on_balls
from measattn.lipschitz.derivatives.parts import Parts
from measattn.lipschitz.domains import AbstractDomain
from measattn.lipschitz.forms import Form
from measattn.lipschitz.net import directions
from measattn.lipschitz.norms.problem import UNIT, UP

DIMENSIONS = 3
"""Up to so many; the number of cubes is a power of it."""

ROWS = 1024
"""Points are projected so many at a time: one compilation for all calls."""

BUDGET = 2**31
"""How many products may be spent, over all cubes, terms and directions: a few seconds."""

COARSE = 1.1
"""While F may grow by this factor on the cubes, few directions will do."""


class Ceiling(NamedTuple):
    """What is known of the supremum.

    Attributes:
        upper: certified.
        cubes: how many were looked at.
        value: the largest value at the middle of a cube in E, 0 if no middle lies there.
        point: where (d,).
        direction: along which (d,).
    """

    upper: float
    cubes: int
    value: float
    point: NDArray
    direction: NDArray


def readable(derivative: Parts, dimension: int) -> bool:
    """Whether branch and bound knows what to do: few dimensions, attention and residuals alone."""
    plain = derivative.after is None and derivative.before is None
    return plain and dimension <= DIMENSIONS


def branch_and_bound(
    derivative: Parts,
    known: Form,
    weights: NDArray,
    domain: AbstractDomain,
    attained: float,
    tol: float,
    budget: int = BUDGET,
) -> Ceiling:
    """Bound L(μ) on a domain.

    Args:
        derivative: of the layer at the measure; see `readable`.
        known: the form of the layer.
        weights: of the atoms (n,), positive.
        domain: E, bounded.
        attained: a value below L(μ) that is known already.
        tol: how far above what is attained cubes may be left alone, relatively.
        budget: how many products may be spent.
    """
    _, v, d = derivative.shape
    net = directions(d, fine=False)
    centre = np.zeros(d) if domain.centre is None else np.asarray(domain.centre, np.float64)
    corners = np.stack(np.meshgrid(*[[-0.5, 0.5]] * d), axis=-1).reshape(-1, d)

    middles, half = centre[None], domain.radius * UP
    scale = float(np.linalg.norm(centre)) + 2 * half * math.sqrt(d)
    parents, settled, looked, cuts = np.full(1, np.inf), 0.0, 0, 0
    work = (len(weights) + 1) * v * d
    best = Ceiling(math.inf, 0, 0.0, centre, np.eye(d)[0])
    while len(middles):  # none is left where those that touch the domain from outside are cut
        # middles are rounded at each cut, and projections, the cubes that they stand for are not
        drift = (cuts + 8) * 2 * UNIT * scale
        reach = (half * math.sqrt(d) + drift) * UP
        found = on_balls(derivative, known, weights, middles, reach, net)
        upper, looked = np.minimum(found.upper, parents), looked + len(middles)
        budget -= len(middles) * work * len(net.directions)
        inside = np.where(domain.excess(middles) <= 0, found.value, 0.0)
        k = int(np.argmax(inside))
        if inside[k] > best.value:
            best = best._replace(
                value=float(inside[k]), point=middles[k], direction=found.direction[k]
            )
        open_ = upper > max(best.value, attained) * (1 + tol)
        settled = max(settled, float(upper[~open_].max(initial=0.0)))
        if not open_.any():
            break
        if np.median(found.upper[open_] - COARSE * found.value[open_]) < 0:
            net = directions(d)
        if open_.sum() * len(corners) * work * len(net.directions) > budget:
            settled = max(settled, float(upper.max()))
            break
        middles = (middles[open_][:, None] + half * corners).reshape(-1, d)
        parents, half, cuts = np.repeat(upper[open_], len(corners)), half / 2, cuts + 1
        away = np.linalg.norm(middles - _nearest(domain, middles), axis=1)
        meets = away <= (half * math.sqrt(d) + drift) * UP
        middles, parents = middles[meets], parents[meets]
    return best._replace(upper=max(settled, best.value, attained), cubes=looked)


def _nearest(domain: AbstractDomain, x: NDArray) -> NDArray:
    """The nearest points of a domain (n, d)."""
    padded = np.pad(x, ((0, -len(x) % ROWS), (0, 0)), mode="edge").reshape(-1, ROWS, x.shape[1])
    with jax.enable_x64(True):
        found = [np.asarray(_project(domain, jnp.asarray(some))) for some in padded]
    return np.concatenate(found)[: len(x)]


@jax.jit
def _project(domain: AbstractDomain, x: Array) -> Array:
    return jax.vmap(domain.project)(x)
