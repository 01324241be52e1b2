r"""What a law of tokens looks like in a few numbers, in memory O(n).

Source: the effective number of clusters is the similarity-sensitive diversity of order 2 of
Leinster & Cobbold, *Ecology* 93 (2012) 477-489.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from measattn.checks import number
from measattn.dynamics.energy import interaction_energy
from measattn.measure import EmpiricalMeasure
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
        energy: the interaction energy of a potential.
    """

    radius: Any
    diameter: Any
    clusters: Any
    energy: Any


def radius(mu: EmpiricalMeasure) -> Float[Array, ""]:
    r"""$\max\{|x| : x \in \mathrm{supp}\,\mu\}$."""
    return jnp.max(jnp.where(_charged(mu), jnp.linalg.norm(state(mu.points), axis=1), 0))


def diameter(mu: EmpiricalMeasure) -> Float[Array, ""]:
    r"""$\max\{|x - y| : x, y \in \mathrm{supp}\,\mu\}$; all pairs, by blocks."""
    return _diameter(state(mu.points), _charged(mu))


@eqx.filter_jit
def _diameter(x: Array, charged: Array) -> Array:
    # atoms without mass are put where one with mass is; from the centre differences keep digits
    x = jnp.where(charged[:, None], x, x[jnp.argmax(charged)][None, :])
    x = x - jnp.mean(x, axis=0, keepdims=True)
    square = jnp.sum(x * x, axis=1)
    rows = min(ROWS, len(x))
    padded = jnp.pad(x, ((0, -len(x) % rows), (0, 0)), mode="edge").reshape(-1, rows, x.shape[1])

    def farthest(block: Array) -> Array:
        own = jnp.sum(block * block, axis=1)
        return jnp.max(own[:, None] + square[None, :] - 2 * (block @ x.T))

    return jnp.sqrt(jnp.maximum(jnp.max(jax.lax.map(farthest, padded)), 0))


def clusters(mu: EmpiricalMeasure, bandwidth: Any) -> Float[Array, ""]:
    r"""The effective number $1/\iint e^{-|x-y|^2/2h^2}\,\mu(dx)\,\mu(dy)$ of clusters.

    For k equally heavy clusters that are narrow and far apart against h it is k.

    Args:
        mu: $\mu$.
        bandwidth: h > 0.
    """
    return 0.5 / interaction_energy(Gaussian(number("bandwidth", bandwidth, positive=True)), mu)


def _charged(mu: EmpiricalMeasure) -> Array:
    return mu.log_weights > -jnp.inf
