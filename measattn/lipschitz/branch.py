r"""The local constant Anywhere, from above: branch and bound over the domain.

In up to three dimensions the supremum over x in

$$ L(\mu) = \sup_{x\in E}F(x), \qquad
   F(x) = \max_{|u|=1}\Bigl[|D(x)u| + \sum_i\omega_i|M_{x_i}(x)u|\Bigr], $$

is bounded on cubes. F is bounded at the middle of a cube over a net of directions, and its growth
from there by the derivatives of its terms; cubes that may hold more than what is attained are cut
into $2^d$, until none is left or the budget is spent.
Source: G2 of docs/theory-lipschitz.md.
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from measattn.lipschitz.derivatives.parts import Parts
from measattn.lipschitz.derivatives.rows import ENTRIES, Rows
from measattn.lipschitz.domains import AbstractDomain
from measattn.lipschitz.forms import Dot, Form, Head
from measattn.lipschitz.norms.problem import UNIT, UP

DIMENSIONS = 3
"""Up to so many; the number of cubes is a power of it."""

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


class Net(NamedTuple):
    """Directions u_k (k, d) such that max N ≤ ratio · max_k N(u_k) for every norm N."""

    directions: NDArray
    ratio: float


class Bounds(NamedTuple):
    """Of each cube: F at its middle, where (a direction), and F on the whole cube."""

    value: NDArray
    direction: NDArray
    upper: NDArray


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
    project = jax.jit(jax.vmap(domain.project))

    middles, half = centre[None], domain.radius * UP
    parents, settled, looked = np.full(1, np.inf), 0.0, 0
    work = (len(weights) + 1) * v * d
    best = Ceiling(math.inf, 0, 0.0, centre, np.eye(d)[0])
    while True:
        found = _on_cubes(derivative, known, weights, middles, half * math.sqrt(d) * UP, net)
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
        if np.median(found.upper[open_] / found.value[open_]) < COARSE:
            net = directions(d)
        if open_.sum() * len(corners) * work * len(net.directions) > budget:
            settled = max(settled, float(upper.max()))
            break
        middles = (middles[open_][:, None] + half * corners).reshape(-1, d)
        parents, half = np.repeat(upper[open_], len(corners)), half / 2
        with jax.enable_x64(True):
            near = np.asarray(project(jnp.asarray(middles)))
        meets = np.linalg.norm(middles - near, axis=1) <= half * math.sqrt(d) * (1 + 1e-9)
        middles, parents = middles[meets], parents[meets]
    return best._replace(upper=max(settled, best.value, attained), cubes=looked)


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


def _on_cubes(
    derivative: Parts, known: Form, weights: NDArray, middles: NDArray, reach: float, net: Net
) -> Bounds:
    """F on balls of the radius ``reach`` about the middles."""
    size = derivative.shape[1] * (len(weights) + 1) * len(net.directions)
    parts = []
    for middle in _chunks(middles, max(1, ENTRIES // size)):
        terms, growth, more = _terms(derivative, known, weights, middle, reach)
        lengths = np.linalg.norm(terms @ net.directions.T, axis=2)
        sums = lengths.sum(axis=1)
        k = np.argmax(sums, axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            largest = np.max(growth[:, None] @ lengths, axis=(1, 2))
            upper = largest * net.ratio * UP + more
        value = sums[np.arange(len(middle)), k]
        parts.append(Bounds(value, net.directions[k], np.where(np.isnan(upper), np.inf, upper)))
    return Bounds(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _chunks(middles: NDArray, size: int) -> Iterator[NDArray]:
    for begin in range(0, len(middles), size):
        yield middles[begin : begin + size]


def _terms(
    derivative: Parts, known: Form, weights: NDArray, middles: NDArray, reach: float
) -> tuple[NDArray, NDArray, NDArray]:
    """What F sums at the middles (c, n + 1, v, d), the factors (c, n + 1) by which its norms may
    grow on the balls about them, and what may be added to their sum (c,).
    """
    c, (n, v, d) = len(middles), derivative.shape
    terms, growth, more = np.zeros((c, n + 1, v, d)), np.ones((c, n + 1)), np.zeros(c)
    terms[:, n] = known.residual * np.eye(v, d)
    with np.errstate(over="ignore", invalid="ignore"):
        for head, said in zip(derivative.heads, known.heads, strict=True):
            size = float(np.linalg.norm(head.value, 2)) * UP
            mass = weights if said.memory is None else said.memory[1]
            query, change = _query_part(head, said, mass, middles, reach)
            terms[:, n] += head.value @ query
            more += size * change
            if head.own:
                key = _key_part(head, middles, reach)
                if len(derivative.heads) == 1:
                    growth[:, :n], change = key.factor, key.change
                else:  # of a sum of matrices, none of which need be large, the norm has no factor
                    change = key.change + (key.factor - 1) * key.norm
                terms[:, :n] += weights[:, None, None] * (head.value @ key.blocks)
                more += size * (change @ weights)
    return terms, growth * UP, more * UP


def _query_part(
    head: Rows, said: Head, mass: NDArray, middles: NDArray, reach: float
) -> tuple[NDArray, NDArray]:
    r"""Cov A at the middles (c, e, d), and a bound of its change and rounding (c,).

    $\partial_h\mathrm{Cov}_{p_x}$ is the third cumulant along $Ah$. For keys of diameter D it is in
    norm at most $|Ah|\min(D^3/6\sqrt3, D\,\|\mathrm{Cov}_{p_x}\|)$, and
    $\mathrm{Cov}_{p_x}\le e^{\|A\|\rho D}\,\mathrm{Cov}_{p_m}$ for $|x-m|\le\rho$.
    """
    if isinstance(said.score, Dot):
        slopes, bias = middles @ head.matrix.T + said.score.shift, np.zeros(len(mass))
    else:
        slopes = (middles - head.centre) @ head.matrix.T
        bias = np.sum(np.asarray(head.tilts) * head.keys, axis=1) / 2
    with np.errstate(divide="ignore"):
        logits = slopes @ head.keys.T + bias + np.log(mass)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    moved = head.keys[None] - (p @ head.keys)[:, None]
    covariance = np.swapaxes(p[:, :, None] * moved, 1, 2) @ moved
    large = np.linalg.norm(slopes, axis=1) * head.reach + np.abs(bias).max() + 800
    rounding = 16 * UNIT * ((middles.shape[1] + 8) * large + len(mass)) * (2 * head.reach) ** 2

    size = float(np.linalg.norm(head.matrix, 2)) * UP
    diameter = min(2 * head.reach, float(np.linalg.norm(np.ptp(head.keys, axis=0)))) * UP
    spread = (np.linalg.norm(covariance, axis=(1, 2)) + rounding) * np.exp(size * reach * diameter)
    third = np.minimum(diameter**3 / (6 * math.sqrt(3)), diameter * spread)
    return covariance @ head.matrix, size * (size * reach * third + rounding)


class _Keyed(NamedTuple):
    """What reaches the outputs from a little mass, but for V: on balls about c middles.

    Attributes:
        blocks: $r_i(I + (x-\\bar y_i)g_i^\\top)$ at the middles (c, n, d, d).
        norm: at least their norms (c, n).
        factor: by which the densities $r_i$ may grow (c, n).
        change: at least the norm of what else may be added to them (c, n).
    """

    blocks: NDArray
    norm: NDArray
    factor: NDArray
    change: NDArray


def _key_part(head: Rows, middles: NDArray, reach: float) -> _Keyed:
    d = middles.shape[1]
    x = middles - head.centre
    precision = 0.0 if head.tilts is None else head.matrix[0, 0]
    slopes = head.slopes[None] - precision * x[:, None]
    levers = x[:, None] - head.means[None]
    steep, lever = np.linalg.norm(slopes, axis=2), np.linalg.norm(levers, axis=2)
    steepest = (steep + precision * reach) * UP
    square = precision * np.sum(x * x, axis=1)[:, None]
    exponent = x @ head.slopes.T - square / 2 - head.normaliser
    size = np.abs(x) @ np.abs(head.slopes).T + square + np.abs(head.normaliser)
    rounding = 8 * head.error + 1e-14 * (d + 8) * (size + 1)
    density, factor = np.exp(exponent), np.exp(steepest * reach)
    blocks = np.eye(d) + levers[..., :, None] * slopes[..., None, :]
    norm = density * (1 + lever * steep)
    change = np.exp(exponent + steepest * reach) * reach * (steepest + lever * precision)
    return _Keyed(
        density[..., None, None] * blocks, norm, factor, change + factor * norm * rounding
    )
