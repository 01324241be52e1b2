r"""What an attention layer returns, in decimals of 60 digits.

A search compares measures that differ by very little. In float64 the outputs would carry errors as
large as their differences; here the exponentials and sums are exact for all purposes, and the only
rounding is that of the answer. $W_p$ does not see a translation, so outputs are taken about one of
them before they are rounded: then the error is relative to their spread, not to their size.
"""

import decimal
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from measattn.lipschitz.forms import Dot, Form, Gauss, Head, UnreadableLayer

CHARGE = 1e-49
"""What one operation is charged with, relative; of 60 digits, so that 50 can agree."""

CONTEXT = decimal.Context(prec=60, Emax=10**9, Emin=-(10**9))
Row = list[Decimal]


class Rounded(NamedTuple):
    """Points (n, v) in float64, and how far each may be from the true one (n,)."""

    points: NDArray
    error: NDArray


def outputs(form: Form, points: NDArray, weights: NDArray) -> list[Row]:
    r"""$f(x_i, \mu)$ for the atoms of $\mu = \sum_i\omega_i\delta_{x_i}/\sum_i\omega_i$.

    Args:
        form: the layer.
        points: the atoms (n, d).
        weights: their masses (n,), positive.

    Raises:
        UnreadableLayer: a masked head.
    """
    if form.masked:
        raise UnreadableLayer(
            "a masked layer is a function of its ordered tokens: the law of the states does not "
            "determine its outputs"
        )
    with decimal.localcontext(CONTEXT):
        rows, masses = _rows(points), _row(weights)
        parts = [_head(head, rows, masses) for head in form.heads]
        parts += [rows] if form.residual else []
        return [[sum(column, Decimal(0)) for column in zip(*out, strict=True)]
                for out in zip(*parts, strict=True)]  # fmt: skip


def rounded(values: list[Row], reference: Row, lost: float) -> Rounded:
    """Values about a reference, in float64; ``lost`` is how far the decimals of each may be off."""
    with decimal.localcontext(CONTEXT):
        near = [[a - b for a, b in zip(row, reference, strict=True)] for row in values]
    points = np.array([[float(a) for a in row] for row in near])
    half = 0.5 * np.spacing(np.abs(points)) * (1 + 1e-9)  # float() rounds to the nearest
    return Rounded(points, np.linalg.norm(half, axis=1) * (1 + 1e-12) + 2 * lost)


def lost(form: Form, points: NDArray) -> float:
    r"""How far the decimals of an output may be from it, for a measure with these atoms (n, d).

    Scores with summands of the size s are off by $\upsilon s$ times the number of summands, which
    weights are off by, too, relatively; a mean of values is off by twice that times their size.
    """
    size = float(np.linalg.norm(points, axis=1).max())
    charged = size * form.residual
    for head in form.heads:
        keys = points if head.memory is None else head.memory[0]
        values = np.abs(keys) @ np.abs(head.value).T + np.abs(head.shift)
        if isinstance(head.score, Dot):
            queries = np.abs(points) @ np.abs(head.score.matrix).T + np.abs(head.score.shift)
            scores = float((queries @ np.abs(keys).T).max())
        else:
            reach = size + float(np.linalg.norm(keys, axis=1).max())
            scores = (reach / head.score.sigma) ** 2
        relative = (2 * len(keys) + sum(keys.shape) + 32) * (1 + scores)
        charged += 4 * relative * float(np.linalg.norm(values, axis=1).max())
    # more than a checker that charges likewise
    return 2 * (len(form.heads) + 4) * CHARGE * charged


def _head(head: Head, rows: list[Row], masses: Row) -> list[Row]:
    keys = rows
    if head.memory is not None:
        keys, masses = _rows(head.memory[0]), _row(head.memory[1])
    value, shift = _rows(head.value), _row(head.shift)
    values = [_add(_times(value, y), shift) for y in keys]
    out = []
    for x in rows:
        scores = _scores(head.score, x, keys)
        top = max(scores)
        parts = [m * (s - top).exp() for m, s in zip(masses, scores, strict=True)]
        mass = sum(parts)
        out.append([sum(p * v for p, v in zip(parts, column, strict=True)) / mass
                    for column in zip(*values, strict=True)])  # fmt: skip
    return out


def _scores(score: Dot | Gauss, x: Row, keys: list[Row]) -> Row:
    if isinstance(score, Dot):
        query = _add(_times(_rows(score.matrix), x), _row(score.shift))
        return [_inner(query, y) for y in keys]
    scale = -1 / (2 * Decimal(score.sigma) ** 2)
    return [scale * sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) for y in keys]


def _row(vector: Any) -> Row:
    return [Decimal(float(a)) for a in vector]


def _rows(matrix: Any) -> list[Row]:
    return [_row(row) for row in matrix]


def _inner(x: Row, y: Row) -> Decimal:
    return sum((a * b for a, b in zip(x, y, strict=True)), Decimal(0))


def _times(matrix: list[Row], x: Row) -> Row:
    return [_inner(row, x) for row in matrix]


def _add(x: Row, y: Row) -> Row:
    return [a + b for a, b in zip(x, y, strict=True)]
