r"""What attention returns, in NumPy's float64, and how far that may be from the exact images.

Source: R1 of docs/theory-dynamics.md.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from measattn.dynamics.contraction import reach
from measattn.lipschitz.forms import Dot, Form, Head

UNIT = 2.0**-53
"""The unit round-off of float64."""

BLOCK = 2**22
"""Scores that are held at once."""


class Images(NamedTuple):
    """Points (n, v), and a bound of the error of each row."""

    points: NDArray
    error: float


def images(form: Form, points: NDArray, weights: NDArray) -> Images:
    r"""$f(x_i, \mu)$ for the atoms of $\mu = \sum_i\omega_i\delta_{x_i}$, without a mask.

    Args:
        form: the layer.
        points: the atoms (n, d), float64.
        weights: their masses (n,).
    """
    total = points if form.residual else np.zeros(())
    size, error = (reach(points) if form.residual else 0.0), 0.0
    for head in form.heads:
        keys, masses = (points, weights) if head.memory is None else head.memory
        total = total + _head(head, points, keys[masses > 0], masses[masses > 0])
        largest = _value(head, reach(keys))
        size += largest
        error += _error(head, reach(points), reach(keys), *keys.shape)
    return Images(np.asarray(total), error + 2 * (len(form.heads) + 2) * UNIT * size)


def _head(head: Head, x: NDArray, y: NDArray, masses: NDArray) -> NDArray:
    out = np.empty((len(x), len(head.value)))
    rows = max(1, BLOCK // len(y))
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        if isinstance(head.score, Dot):
            scores = (x[part] @ head.score.matrix.T + head.score.shift) @ y.T
        else:
            scores = cdist(x[part], y, "sqeuclidean") / (-2 * head.score.sigma**2)
        parts = np.exp(scores - scores.max(axis=1, keepdims=True)) * masses
        means = parts @ y / parts.sum(axis=1, keepdims=True)
        out[part] = means @ head.value.T + head.shift
    return out


def _error(head: Head, reach: float, keys: float, m: int, d: int) -> float:
    """R1 for one head at m keys of R^d, queries and keys within these radii."""
    if isinstance(head.score, Dot):
        largest = (
            np.linalg.norm(head.score.matrix) * reach + np.linalg.norm(head.score.shift)
        ) * keys
        score = (2 * max(d, head.score.matrix.shape[1]) + 6) * UNIT * float(largest)
    else:
        score = (d + 8) * UNIT * (reach + keys) ** 2 / (2 * head.score.sigma**2)
    mean = math.expm1(min(2.1 * score, 700.0)) + (3 * m + 32) * UNIT
    return 1.01 * float(np.linalg.norm(head.value)) * keys * (mean + 2 * d * UNIT)


def _value(head: Head, keys: float) -> float:
    return float(np.linalg.norm(head.value)) * keys + float(np.linalg.norm(head.shift))
