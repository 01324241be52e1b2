r"""Where a search begins: measures that are known to be bad for attention, and random ones.

For scores $\langle Ax + c, y\rangle$ the extremal pair is x* with the largest
$\theta(x) = R|Ax + c| - \langle Ax + c, x\rangle$ and $y^* = R(Ax^*+c)/|Ax^*+c|$: a light atom at
y*, seen by a heavy one at x*. Others are a token and its half, an atom alone at half of its own
position, two opposite ends of an eigenvector. Source: B4 and part H of docs/theory-lipschitz.md.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from measattn.lipschitz.forms import Dot, Form, Head

JITTER = 1e-3
"""Halves of a split atom begin apart by this part of the radius, or they would move as one."""


class Start(NamedTuple):
    """A measure about the origin, of which atom 0 moves in a direction.

    Attributes:
        points: (n, d).
        weights: (n,).
        direction: (d,).
        family: where it is from.
    """

    points: NDArray
    weights: NDArray
    direction: NDArray
    family: str


def families(form: Form | None, radius: float, dimension: int, lightest: float) -> list[Start]:
    """Measures of one to three atoms that are bad for the heads of a layer.

    Args:
        form: the layer on points measured from the centre of the domain; None if it is not known.
        radius: R.
        dimension: d.
        lightest: the least mass of an atom.
    """
    starts = []
    for head in () if form is None else form.heads:
        if head.memory is None:
            starts += _of_a_head(head, radius, lightest)
    if not starts:
        starts = _of_a_line(np.eye(dimension)[0], radius, 1.0, lightest)
    return starts


def extremal_pair(score: Dot, radius: float) -> tuple[NDArray, NDArray, float]:
    r"""x*, y* and $\theta = \max_{|x|,|y|\le R}\langle Ax + c, y - x\rangle$, by local ascent."""
    matrix, shift = score.matrix, score.shift
    rng = np.random.default_rng(0)
    d = matrix.shape[1]
    x = np.concatenate(
        [rng.normal(size=(64, d)), *(s * v.T for s in (1, -1) for v in _axes(score))]
    )
    x *= radius / np.linalg.norm(x, axis=1, keepdims=True)
    x = np.concatenate([x, x / 2])
    step = radius / (4 * (np.linalg.norm(matrix, 2) * radius + np.linalg.norm(shift)) + 1e-300)
    best, size = (x[0], x[0], -math.inf), 1.0
    for _ in range(300):
        query = x @ matrix.T + shift
        length = np.linalg.norm(query, axis=1, keepdims=True) + 1e-300
        theta = radius * length[:, 0] - np.einsum("nd,nd->n", query, x)
        k = int(theta.argmax())
        if theta[k] > best[2]:
            best = x[k].copy(), radius * query[k] / length[k], float(theta[k])
        slope = radius * query / length @ matrix - query - x @ matrix
        x = x + size * step * slope
        x *= np.minimum(1, radius / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-300))
        size *= 0.99
    return best


def _axes(score: Dot) -> list[NDArray]:
    """The eigenvectors of the symmetric part and the singular vectors, extreme ones, as columns."""
    matrix = score.matrix
    _, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    left, _, right = np.linalg.svd(matrix)
    return [vectors[:, :1], vectors[:, -1:], left[:, :1], right[:1].T]


def _of_a_head(head: Head, radius: float, lightest: float) -> list[Start]:
    d = head.value.shape[1]
    seen = np.linalg.svd(head.value)[2][0]  # the direction that the value map stretches most
    if not isinstance(head.score, Dot):
        kappa = 1 / head.score.sigma**2
        return [*_of_a_line(np.eye(d)[0], radius, kappa, lightest),
                *_of_a_line(seen, radius, kappa, lightest)]  # fmt: skip
    x, y, theta = extremal_pair(head.score, radius)
    starts = []
    light = {lightest, min(max(lightest, math.exp(-min(theta, 600))), 0.5), 0.1, 0.5}
    directions = [u for u in (y / radius, seen) if u.any()]  # y* is 0 where no query points
    for mass, u in itertools.product(sorted(light), directions):
        starts.append(_start([y, x], [mass, 1 - mass], u, "the extremal pair"))
    matrix = head.score.matrix
    for axis in _axes(head.score):
        u = axis[:, 0]
        starts += _of_a_line(u, radius, float(u @ matrix @ u), lightest)
    return starts


def _of_a_line(u: NDArray, radius: float, kappa: float, lightest: float) -> list[Start]:
    """Measures on the line of a unit vector along which the score is kappa⟨x, y⟩."""
    top, t = radius * u, kappa * radius**2
    starts = [
        _start([top, top / 2], [lightest, 1 - lightest], u, "a light atom and its half"),
        _start([top, top / 2], [0.3, 0.7], u, "an atom and its half"),
        _start([top, -top], [lightest, 1 - lightest], u, "opposite ends, the light one moves"),
        _start([top, -top], [0.5, 0.5], u, "opposite ends"),
        _start([top / 4, top, -top], [lightest, 0.5, 0.5], u, "a light atom between two ends"),
    ]
    if t >= 1 / 6:
        # the self-weight of an end at which its own derivative is largest
        own = 0.5 + 1 / (12 * t)
        odds = own / max(1 - own, 1e-12) * math.exp(-min(2 * t, 600))
        mass = min(max(odds / (1 + odds), lightest), 1 - lightest)
        starts.append(_start([top, -top], [mass, 1 - mass], u, "opposite ends, uneven"))
        part = mass / 2
        starts.append(
            _start([top, top, -top], [part, part, 1 - mass], u, "opposite ends, one end split")
        )
        starts.append(
            _start([top, top, -top], [lightest, mass, 1 - mass], u, "opposite ends, a speck moves")
        )
    return starts


def _start(points: list, weights: list, direction: NDArray, family: str) -> Start:
    masses = np.maximum(np.asarray(weights), 0.0)
    return Start(np.stack(points), masses / masses.sum(), direction, family)


def filled(start: Start, atoms: int, radius: float, rng: np.random.Generator) -> Start:
    """The same measure, nearly, with more atoms: the heaviest is split until there are enough."""
    points, weights = list(start.points), list(start.weights)
    while len(points) < atoms:
        k = len(weights) - 1 - int(np.argmax(weights[::-1]))  # the last: atom 0 only if alone
        weights[k] /= 2
        weights.append(weights[k])
        points.append(points[k] + JITTER * radius * rng.normal(size=len(points[k])))
    return Start(np.stack(points), np.array(weights), start.direction, start.family)


def equalised(start: Start, atoms: int, radius: float, rng: np.random.Generator) -> Start:
    """The nearest measure of equal atoms with the same places; atom 0 stays one atom."""
    counts = np.ones(len(start.points), int)
    while counts.sum() < atoms:
        # atom 0 is the one that moves: its other part stays, so it is counted among the rest
        counts[int(np.argmax(start.weights * atoms - counts))] += 1
    repeated = np.repeat(start.points, counts, axis=0)[:atoms]
    jitter = JITTER * radius * rng.normal(size=repeated.shape)
    jitter[0] = 0
    weights = np.full(len(repeated), 1 / len(repeated))
    return Start(repeated + jitter, weights, start.direction, start.family)


def scattered(
    count: int, atoms: int, radius: float, dimension: int, lightest: float, rng: np.random.Generator
) -> list[Start]:
    """Random measures: directions uniform, half of the radii R, masses over all magnitudes."""
    points = rng.normal(size=(count, atoms, dimension))
    points /= np.linalg.norm(points, axis=2, keepdims=True)
    share = np.where(rng.random((count, atoms, 1)) < 0.5, 1.0, rng.random((count, atoms, 1)))
    logs = rng.normal(size=(count, atoms))
    logs[:, 0] = rng.uniform(math.log(lightest), 0, count)
    weights = np.exp(logs)
    weights /= weights.sum(axis=1, keepdims=True)
    u = rng.normal(size=(count, dimension))
    return [
        Start(radius * share[k] * points[k], weights[k], u[k], "a random measure")
        for k in range(count)
    ]
