r"""Directions over which a norm is maximised in one, two or three dimensions.

Source: G2 of docs/theory-lipschitz.md.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from measattn.lipschitz.norms.problem import UP


class Net(NamedTuple):
    """Directions u_k (k, d) such that max N ≤ ratio · max_k N(u_k) for every norm N."""

    directions: NDArray
    ratio: float


def directions(d: int, fine: bool = True) -> Net:
    """A net of directions in one, two or three dimensions; u and -u count once.

    Every unit vector is $w/|w|$ with w in a simplex whose corners are in the net; so
    N(u) ≤ max N(corners)/|w|, and |w| is at least the distance of the simplex from the origin.
    """
    if d == 1:
        return Net(np.ones((1, 1)), 1.0)
    if d == 2:
        count = 64 if fine else 16
        angles = np.arange(count) * (np.pi / count)
        net = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return Net(net, UP / math.cos(np.pi / 2 / count))
    steps, triangles = 12 if fine else 4, []  # into which half an octahedron's faces are cut
    for signs in np.array([[1, 1, 1], [1, 1, -1], [1, -1, 1], [1, -1, -1]]):
        for i, j in itertools.product(range(steps), repeat=2):
            if i + j < steps:
                triangles.append(signs * _spherical([(i, j), (i + 1, j), (i, j + 1)], steps))
            if i + j < steps - 1:
                below = [(i + 1, j), (i, j + 1), (i + 1, j + 1)]
                triangles.append(signs * _spherical(below, steps))
    corners = np.array(triangles)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    distance = np.abs(np.sum(normal * corners[:, 0], axis=1)) / np.linalg.norm(normal, axis=1)
    return Net(np.unique(corners.reshape(-1, 3), axis=0), UP / float(distance.min()))


def _spherical(places: list[tuple[int, int]], steps: int) -> NDArray:
    """Points of the positive face of the octahedron, scaled to length 1."""
    points = np.array([(i, j, steps - i - j) for i, j in places], np.float64)
    return points / np.linalg.norm(points, axis=1, keepdims=True)
