r"""The bound of the local constant Anywhere on small balls, which branch and bound adds up.

$$ F(x) = \max_{|u|=1}\Bigl[|D(x)u| + \sum_i\omega_i|M_{x_i}(x)u|\Bigr] $$

is known at the middle m of a ball, over a net of directions, and grows from there no faster than
the derivatives of its terms allow. All is computed in float64; what its rounding may take from the
bound is added to it.
Source: G2 of docs/theory-lipschitz.md.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from measattn.lipschitz.derivatives.parts import Parts
from measattn.lipschitz.derivatives.rows import ENTRIES, Rows
from measattn.lipschitz.forms import Dot, Form, Head
from measattn.lipschitz.net import Net
from measattn.lipschitz.norms.problem import UNIT, UP

TINY = 2.0**-1000
"""More than what a number may lose that is too small for float64."""


class Bounds(NamedTuple):
    """Of each ball: F at its middle, where (a direction), and F on the whole ball."""

    value: NDArray
    direction: NDArray
    upper: NDArray


def on_balls(
    derivative: Parts, known: Form, weights: NDArray, middles: NDArray, reach: float, net: Net
) -> Bounds:
    """F on balls of the radius ``reach`` about the middles."""
    size = derivative.shape[1] * (len(weights) + 1) * len(net.directions)
    parts = []
    for middle in _chunks(middles, max(1, ENTRIES // size)):
        terms, growth, more = _terms(derivative, known, weights, middle, reach)
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.linalg.norm(terms @ net.directions.T, axis=2)
            sums = np.nan_to_num(lengths.sum(axis=1), nan=0.0, posinf=0.0)
            k = np.argmax(sums, axis=1)
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
    count = n + v + len(known.heads) + 16  # summands, of all sums but inner products
    more += known.residual * 4 * UNIT * (count + d)
    with np.errstate(over="ignore", invalid="ignore"):
        for head, said in zip(derivative.heads, known.heads, strict=True):
            size = float(np.linalg.norm(head.value, 2)) * UP
            mass = weights if said.memory is None else said.memory[1]
            query, change, rounding = _query_part(head, said, mass, middles, reach, count)
            terms[:, n] += head.value @ query
            more += size * change + np.linalg.norm(head.value) * rounding
            if head.own:
                key = _key_part(head, middles, reach, count)
                if len(derivative.heads) == 1:
                    growth[:, :n], change = key.factor, key.change
                else:  # of a sum of matrices, none of which need be large, the norm has no factor
                    change = key.change + key.sway * key.norm
                terms[:, :n] += weights[:, None, None] * (head.value @ key.blocks)
                more += size * ((change + key.factor * key.rounding) @ weights)
    return terms, growth * UP, more * UP


def _query_part(
    head: Rows, said: Head, mass: NDArray, middles: NDArray, reach: float, count: int
) -> tuple[NDArray, NDArray, NDArray]:
    r"""Cov A at the middles (c, e, d), and bounds of its change (c,) and of its rounding (c,).

    $\partial_h\mathrm{Cov}_{p_x}$ is the third cumulant along $Ah$. For keys of diameter D it is in
    norm at most $|Ah|\min(D^3/6\sqrt3, D\,\|\mathrm{Cov}_{p_x}\|)$, and
    $\mathrm{Cov}_{p_x}\le e^{\|A\|\rho D}\,\mathrm{Cov}_{p_m}$ for $|x-m|\le\rho$.
    """
    frobenius = np.linalg.norm(head.matrix)
    if isinstance(said.score, Dot):
        slopes, bias = middles @ head.matrix.T + said.score.shift, np.zeros(len(mass))
        summands = frobenius * np.linalg.norm(middles, axis=1) + np.linalg.norm(said.score.shift)
    else:
        slopes = (middles - head.centre) @ head.matrix.T
        bias = np.sum(np.asarray(head.tilts) * head.keys, axis=1) / 2
        summands = frobenius * np.linalg.norm(middles - head.centre, axis=1)
    with np.errstate(divide="ignore"):
        log_mass = np.log(mass)
    logits = slopes @ head.keys.T + bias + log_mass
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    moved = head.keys[None] - (p @ head.keys)[:, None]
    covariance = np.swapaxes(p[:, :, None] * moved, 1, 2) @ moved
    large = summands * head.reach + np.abs(bias).max() + np.abs(log_mass[mass > 0]).max() + 1
    inner = sum(head.matrix.shape) + 8
    rounding = np.expm1(16 * UNIT * (inner * large + len(mass) + count)) * (2 * head.reach) ** 2

    size = float(np.linalg.norm(head.matrix, 2)) * UP
    diameter = min(2 * head.reach, float(np.linalg.norm(np.ptp(head.keys, axis=0)))) * UP
    spread = (np.linalg.norm(covariance, axis=(1, 2)) + rounding) * np.exp(size * reach * diameter)
    third = np.minimum(diameter**3 / (6 * math.sqrt(3)), diameter * spread)
    return covariance @ head.matrix, size * size * reach * third, size * rounding


class _Keyed(NamedTuple):
    """What reaches the outputs from a little mass, but for V: on balls about c middles.

    Attributes:
        blocks: $r_i(I + (x-\\bar y_i)g_i^\\top)$ at the middles (c, n, d, d).
        norm: at least their norms (c, n).
        factor: by which the densities $r_i$ may grow (c, n).
        sway: by how much of themselves they may grow or fall (c, n).
        change: at least the norm of what else may be added to them (c, n).
        rounding: at least by how much the blocks err, in norm (c, n).
    """

    blocks: NDArray
    norm: NDArray
    factor: NDArray
    sway: NDArray
    change: NDArray
    rounding: NDArray


def _key_part(head: Rows, middles: NDArray, reach: float, count: int) -> _Keyed:
    d = middles.shape[1]
    x = middles - head.centre
    precision = 0.0 if head.tilts is None else head.matrix[0, 0]
    slopes = head.slopes[None] - precision * x[:, None]
    levers = x[:, None] - head.means[None]
    # of the summands: where they cancel, what is left is as uncertain as they are
    away = np.linalg.norm(x, axis=1)[:, None]
    summands, long = head.slope + precision * away, away + head.reach
    size = summands * long + np.abs(head.normaliser) + 1
    share = 2 * head.error + 4 * UNIT * (d + 8 + count)
    error = share + 4 * UNIT * (d + 8) * size

    steep = np.linalg.norm(slopes, axis=2) + share * summands
    lever = np.linalg.norm(levers, axis=2) + share * long
    square = precision * np.sum(x * x, axis=1)[:, None]
    exponent = x @ head.slopes.T - square / 2 - head.normaliser
    density, factor = np.exp(exponent), np.exp(steep * reach)
    most = (density + TINY) * np.exp(error)
    blocks = np.eye(d) + levers[..., :, None] * slopes[..., None, :]
    norm = most * (1 + lever * steep)
    sway = np.expm1((steep + precision * reach / 2) * reach)
    change = most * factor * reach * (steep + precision * reach + lever * precision)
    rounding = 8 * np.expm1(error) * (1 + lever * steep)
    rounding = most * (rounding + share * (lever * summands + long * steep)) + TINY
    return _Keyed(density[..., None, None] * blocks, norm, factor, sway, change, rounding)
