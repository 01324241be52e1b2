r"""The total variation distance of empirical measures."""

import math
from typing import Any

import jax
import numpy as np

from measattn.measure import EmpiricalMeasure
from measattn.points import kind
from measattn.wasserstein import tiles
from measattn.wasserstein.problem import Matrix, pose_points, weights


def total_variation(mu: EmpiricalMeasure, nu: EmpiricalMeasure) -> float:
    r"""$TV(\mu,\nu) = \sup_B|\mu(B) - \nu(B)| = \tfrac12\sum_x|\mu\{x\} - \nu\{x\}|$.

    Points are the same if all their coordinates are equal; of tokens and pairs the position or the
    key counts as well.

    Args:
        mu: a measure.
        nu: another on the same space.

    Raises:
        ValueError: traced values, batches, or points of different kinds or dimensions.
    """
    a, b = weights("mu", mu), weights("nu", nu)
    if jax.tree.structure(mu.points) != jax.tree.structure(nu.points):
        raise ValueError(
            f"mu and nu must live on one space, got points that are {kind(mu.points)} and "
            f"{kind(nu.points)}: take the laws of the states, states(mu) and states(nu)"
        )
    left = pose_points(_rows(mu), a, _rows(nu), b, 1.0, run=tiles.on_the_host).problem
    # both sums are the distance; they differ by rounding
    return 0.5 * math.fsum([*left.a, *left.b])


def _rows(mu: Any) -> Matrix:
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(mu.points)]
    return np.concatenate([leaf.reshape(mu.size, -1) for leaf in leaves], axis=1)
