r"""What a law of tokens looks like in a few numbers, in memory O(n).

Source: the effective number of clusters is the similarity-sensitive diversity of order 2 of
Leinster & Cobbold, *Ecology* 93 (2012) 477-489; the effective rank is that of Roy & Vetterli,
EUSIPCO 2007, 606-610, of the covariance.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from measattn.checks import number
from measattn.dynamics.energy import interaction_energy
from measattn.dynamics.fields import directions
from measattn.measure import EmpiricalMeasure, mean, need_measure
from measattn.points import state
from measattn.potential import Gaussian

ROWS = 256
"""Atoms whose distances to all others are held at once."""


class Observed(NamedTuple):
    """What is recorded of each measure of a trajectory.

    Attributes:
        radius: the largest norm of an atom with mass.
        diameter: the largest distance of two of them.
        clusters: their effective number.
        cosine: the mean cosine of the angle between two of them.
        rank: the effective number of dimensions that they spread over.
        energy: the interaction energy of a potential.
    """

    radius: Any
    diameter: Any
    clusters: Any
    cosine: Any
    rank: Any
    energy: Any


def observed(mu: EmpiricalMeasure, bandwidth: Any = None, potential: Any = None) -> Observed:
    """What is recorded of a measure; arrays without entries for what was not asked for.

    Args:
        mu: the measure.
        bandwidth: of the clusters; without it the energy alone is observed.
        potential: of the interaction energy; without it there is none.
    """
    seen = Observed(*[jnp.zeros(0)] * len(Observed._fields))
    if bandwidth is not None:
        seen = seen._replace(
            radius=radius(mu),
            diameter=diameter(mu),
            clusters=clusters(mu, bandwidth),
            cosine=mean_cosine(mu),
            rank=effective_rank(mu),
        )
    if potential is not None:
        seen = seen._replace(energy=interaction_energy(potential, mu))
    return seen


def radius(mu: EmpiricalMeasure) -> Float[Array, ""]:
    r"""$\max\{|x| : x \in \mathrm{supp}\,\mu\}$."""
    need_measure("mu", mu)
    return jnp.max(jnp.where(_charged(mu), lengths(state(mu.points)), 0))


def lengths(x: Float[Array, "n d"]) -> Float[Array, " n"]:
    """The norms of rows, finite also where their squares are not."""
    largest = jnp.max(jnp.abs(x), axis=1, initial=0)
    unit = jnp.where(largest > 0, largest, 1)
    return largest * jnp.linalg.norm(x / unit[:, None], axis=1)


def diameter(mu: EmpiricalMeasure) -> Float[Array, ""]:
    r"""$\max\{|x - y| : x, y \in \mathrm{supp}\,\mu\}$; all pairs, by blocks."""
    need_measure("mu", mu)
    return _diameter(state(mu.points), _charged(mu))


@eqx.filter_jit
def _diameter(x: Array, charged: Array) -> Array:
    # seen from one atom with mass, where those without are put, differences keep their digits
    x = jnp.where(charged[:, None], x - x[jnp.argmax(charged)][None, :], 0)
    largest = jnp.max(jnp.abs(x))
    x = x / jnp.where(largest > 0, largest, 1)
    square = jnp.sum(x * x, axis=1)
    rows = min(ROWS, len(x))
    padded = jnp.pad(x, ((0, -len(x) % rows), (0, 0)), mode="edge").reshape(-1, rows, x.shape[1])

    def farthest(block: Array) -> Array:
        own = jnp.sum(block * block, axis=1)
        return jnp.max(own[:, None] + square[None, :] - 2 * (block @ x.T))

    return largest * jnp.sqrt(jnp.maximum(jnp.max(jax.lax.map(farthest, padded)), 0))


def clusters(mu: EmpiricalMeasure, bandwidth: Any) -> Float[Array, ""]:
    r"""The effective number $1/\iint e^{-|x-y|^2/2h^2}\,\mu(dx)\,\mu(dy)$ of clusters.

    For k equally heavy clusters that are narrow and far apart against h it is k.

    Args:
        mu: $\mu$.
        bandwidth: h > 0.
    """
    return 0.5 / interaction_energy(Gaussian(number("bandwidth", bandwidth, positive=True)), mu)


def mean_cosine(mu: EmpiricalMeasure) -> Float[Array, ""]:
    r"""The mean cosine $\sum_{i\ne j}\omega_i\omega_j\cos(x_i,x_j)/\sum_{i\ne j}\omega_i\omega_j$.

    It is 1 where all tokens have one direction. The direction of 0 counts as 0; one atom alone is
    compared with itself, as two halves of it would be.
    """
    need_measure("mu", mu)
    return _mean_cosine(mu)


@eqx.filter_jit
def _mean_cosine(mu: EmpiricalMeasure) -> Array:
    u, norms = directions(state(mu.points))
    w = jnp.where(_charged(mu), mu.weights, 0)[:, None]
    heaviest = jnp.argmax(w)

    def pairs(v: Array) -> Array:
        # apart from the heaviest, so that nothing cancels where it has nearly all mass
        rest = v.at[heaviest].set(0)
        total = jnp.sum(rest, axis=0)
        return 2 * jnp.sum(v[heaviest] * total) + jnp.sum(total * total) - jnp.sum(rest * rest)

    u = jnp.where(norms > 0, u, 0)
    mass = pairs(w)
    alone = jnp.sum(u[heaviest] ** 2)
    return jnp.where(mass > 0, pairs(w * u) / jnp.where(mass > 0, mass, 1), alone)


def effective_rank(mu: EmpiricalMeasure) -> Float[Array, ""]:
    r"""$e^{H(p)}$, H the entropy and p the eigenvalues of the covariance, divided by their sum.

    The eigenvalues are the squared singular values of the centred cloud. It is k where k principal
    axes have equal variances and the others none, and 0 for a cloud that is one point. Once the
    diameter is as small as the rounding of the states, it is the rank of their rounding.
    """
    need_measure("mu", mu)
    return _effective_rank(mu)


@eqx.filter_jit
def _effective_rank(mu: EmpiricalMeasure) -> Array:
    centred = jnp.where(_charged(mu)[:, None], state(mu.points) - mean(mu)[None, :], 0)
    largest = jnp.max(jnp.abs(centred))
    spread = largest > 0
    rows = centred / jnp.where(spread, largest, 1) * jnp.sqrt(mu.weights)[:, None]
    wide = rows if rows.shape[0] <= rows.shape[1] else rows.T
    values = jnp.linalg.eigvalsh(jnp.matmul(wide, wide.T, precision="highest"))
    values = jnp.maximum(values, 0)
    shares = values / jnp.where(spread, jnp.sum(values), 1)
    return jnp.where(spread, jnp.exp(jnp.sum(jax.scipy.special.entr(shares))), 0)


def _charged(mu: EmpiricalMeasure) -> Array:
    return mu.log_weights > -jnp.inf
