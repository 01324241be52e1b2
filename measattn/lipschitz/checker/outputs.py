"""What the layer of a certificate returns, from its matrices, in decimals.

The outputs of two measures that nearly agree differ by less than float64 resolves, so they are
computed with 50 digits of the standard library's decimal arithmetic, and rounded once, about one
of them: no distance sees the translation. Constants move both alike and are left out.
"""

import decimal
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .files import Arrays, array, number, sized
from .report import Rejected
from .transport import lengths

LARGEST_WORK = 2**24
"""More products of decimals than this (some ten seconds) are refused."""

_decimal: Any = np.frompyfunc(lambda a: decimal.Decimal(float(a)), 1, 1)
_exp: Any = np.frompyfunc(lambda a: a.exp(), 1, 1)

DIGITS = 50
ULP = 10.0 ** (1 - DIGITS)
"""The largest relative error of one operation on decimals, doubled."""


class Head(NamedTuple):
    r"""A head: scores $\langle Ax + c, y\rangle$ or Gaussian, values $Vy + b$.

    Attributes:
        matrix: A (e, d); None for a Gaussian score.
        shift: c (e,); None for a Gaussian score.
        sigma: of a Gaussian score; None for the other.
        value: V (v, e); the constant b is of no consequence.
        keys: points and weights of a fixed memory; None for self-attention.
    """

    matrix: Any
    shift: Any
    sigma: float | None
    value: NDArray
    keys: tuple[NDArray, NDArray] | None


def heads(entries: dict[str, Any], arrays: Arrays, dimension: int) -> list[Head]:
    """The heads of a layer on R^d.

    Raises:
        Rejected: entries or arrays that make no attention layer.
    """
    found = []
    for k, entry in enumerate(entries["heads"]):
        keys, width = None, dimension
        if entry["memory"]:
            points = sized(f"head.{k}.points", array(arrays, f"head.{k}.points", None, None))
            weights = array(arrays, f"head.{k}.weights", len(points))
            if np.any(weights < 0) or not weights.any():
                raise Rejected(f"the memory of head {k} has negative weights, or no mass")
            keys, width = (points[weights > 0], weights[weights > 0]), points.shape[1]
        value = sized(f"head.{k}.value", array(arrays, f"head.{k}.value", None, width))
        array(arrays, f"head.{k}.constant", len(value))
        if entry["score"] == "dot" and entry["sigma"] is None:
            matrix, shift = (
                sized(f"head.{k}.{name}", array(arrays, f"head.{k}.{name}", width, *more))
                for name, more in (("matrix", [dimension]), ("shift", []))
            )
            found.append(Head(matrix, shift, None, value, keys))
        elif entry["score"] == "gauss" and width == dimension:
            sigma = float(sized("sigma", np.array(number("sigma", entry["sigma"], least=5e-324))))
            found.append(Head(None, None, sigma, value, keys))
        else:
            raise Rejected(f"head {k} has no score that is known here: {entry}")
    if not found or len({len(head.value) for head in found}) != 1:
        raise Rejected("the layer must have heads, of one dimension of values")
    if not isinstance(entries["residual"], bool):
        raise Rejected(f"residual must be true or false, got {entries['residual']!r}")
    if entries["residual"] and len(found[0].value) != dimension:
        raise Rejected("a residual needs outputs of the dimension of the points")
    return found


def outputs(layer: list[Head], residual: bool, points: NDArray, weights: NDArray) -> NDArray:
    """The outputs at the atoms of a measure (n, v), as decimals; within `context`."""
    x, mass = _decimal(points), _decimal(weights)
    total = x if residual else 0
    for head in layer:
        y, share = (x, mass) if head.keys is None else map(_decimal, head.keys)
        if len(x) * len(y) * (x.shape[1] + len(head.value)) > LARGEST_WORK:
            raise Rejected(f"{len(x)} atoms are too many to be re-checked in decimals")
        if head.sigma is None:
            scores = (x @ _decimal(head.matrix).T + _decimal(head.shift)) @ y.T
        else:
            difference = x[:, None, :] - y[None, :, :]
            scale = 2 * decimal.Decimal(head.sigma) ** 2
            scores = -(difference * difference).sum(axis=2) / scale
        parts = _exp(scores - scores.max(axis=1)[:, None]) * share
        means = parts @ (y @ _decimal(head.value).T) / parts.sum(axis=1)[:, None]
        total = total + means
    return np.asarray(total)


def lost(layer: list[Head], residual: bool, points: NDArray) -> float:
    """How far the decimals of an output may be from it: digits that large terms take from others.

    The terms of a score, whose rounding changes the weight of a key by as much, relatively, and
    those of the means and their sum over the heads.
    """
    far = float(np.linalg.norm(points, axis=1).max())
    total = (len(layer) + 4) * ULP * far * residual
    for head in layer:
        keys = points if head.keys is None else head.keys[0]
        terms = len(keys) + sum(keys.shape) + points.shape[1] + len(layer) + 16
        if head.sigma is None:
            scores = (np.abs(points) @ np.abs(head.matrix).T + np.abs(head.shift)) @ np.abs(keys).T
        else:
            reach = far + float(np.linalg.norm(keys, axis=1).max())
            scores = np.square(reach / head.sigma)
        off = terms * ULP * (float(np.max(scores)) + 1)
        if off > 1e-3:
            raise Rejected(f"scores of {np.max(scores):.3g} leave no digit of {DIGITS}")
        sizes = np.linalg.norm(np.abs(keys) @ np.abs(head.value).T, axis=1)
        total += 4 * off * float(sizes.max())
    return total


def context() -> decimal.Context:
    """Enough digits, and exponents for masses however small."""
    return decimal.Context(prec=DIGITS, Emax=10**9, Emin=-(10**9))


def both(
    layer: list[Head], residual: bool, x: NDArray, y: NDArray, weights: NDArray
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Outputs of two measures about a common point, in float64, and the error of each row."""
    with decimal.localcontext(context()):
        first, second = (outputs(layer, residual, points, weights) for points in (x, y))
        centre = first[0]
        near = [np.array(part - centre, np.float64) for part in (first, second)]
    if not all(np.all(np.isfinite(part)) for part in near):
        raise Rejected("the outputs of the layer are too large for float64")
    half = 0.5 * (1 + 1e-9)
    errors = [
        half * lengths(np.spacing(np.abs(part)))
        # of the output, and of the point that it is taken about
        + 2 * max(lost(layer, residual, points) for points in (x, y))
        for part in near
    ]
    return near[0], near[1], errors[0], errors[1]
