r"""How fast the tokens of one sequence collapse: proved from above, layer by layer.

Without a mask and with bilinear scores, $\kappa_h = \|A_h\|$, the diameter D of a cloud of tokens
becomes at most

$$ D' \le \sum_h \|V_h\|\, D \tanh(\kappa_h D^2/4), $$

and attention matrices P of clouds with the diameters $D_1, \dots, D_t$ multiply to a matrix near
one of rank one,

$$ \min_\pi \|P_t\cdots P_1 - 1\pi^\top\|_{\infty\to\infty} \le
   2\prod_l \tanh(\kappa_l D_l^2/4). $$

Source: C4 and C8 of docs/theory-dynamics.md; the collapse is that of Dong, Cordonnier & Loukas,
arXiv 2103.03404, with the constant of the A2 of docs/theory.md.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import ScalarLike
from numpy.typing import NDArray

from measattn.checks import host_array, host_number, whole
from measattn.lipschitz.forms import Dot, Form, Head, form

UP = 1 + 1e-10
"""Norms of float64 are inflated by this factor."""


def diameter_bound(
    layer: Any, diameter: ScalarLike, steps: ScalarLike, *, dimension: ScalarLike
) -> NDArray:
    r"""Certified upper bounds of the diameters $D_0, D_1, \dots, D_T$ of a weight-shared stack.

    Args:
        layer: self-attention with bilinear scores, one or several heads, without mask; with a
            residual the bound of each step grows by D.
        diameter: $D_0$.
        steps: T.
        dimension: d.

    Raises:
        ValueError: another layer, one that changes the dimension, a diameter that is no length, or
            steps that are no number.

    Source: C4 of docs/theory-dynamics.md.
    """
    steps, dimension = whole("steps", steps), whole("dimension", dimension, 1)
    out = [_length("diameter", diameter)]
    known = _unmasked(layer, dimension)
    _keeps(known)
    for _ in range(steps):
        inner = sum(_norm(head.value) * _mixing(head, out[-1]) for head in known.heads)
        out.append(out[-1] * (inner + float(known.residual)) * UP)
    return np.asarray(out)


def rank_one_bound(layers: Sequence[Any], diameters: Any, *, dimension: ScalarLike) -> float:
    r"""The bound of C8 for one head in each layer, at clouds of the given diameters.

    Args:
        layers: self-attention layers of one head, with bilinear scores and without mask.
        diameters: of the cloud that each of them sees, of the same length.
        dimension: d.

    Raises:
        ValueError: another layer, or lengths that differ.

    Source: C8 of docs/theory-dynamics.md.
    """
    dimension = whole("dimension", dimension, 1)
    if not isinstance(layers, Sequence):
        raise ValueError(
            f"layers must be a sequence, got one {type(layers).__name__}: pass [layer]"
        )
    sizes = [_length("diameters", size) for size in host_array("diameters", diameters, 1)]
    if len(layers) != len(sizes):
        raise ValueError(
            f"diameters must be one for each layer, got {len(sizes)} for {len(layers)} layers"
        )
    product = 2.0
    for number, (layer, size) in enumerate(zip(layers, sizes, strict=True), 1):
        known = _unmasked(layer, dimension)
        if len(known.heads) != 1:
            raise ValueError(
                f"layers must have one head, got {len(known.heads)}: take them one by one"
            )
        if number < len(layers):
            _keeps(known)
        product *= _mixing(known.heads[0], size)
    return product


def _mixing(head: Head, diameter: float) -> float:
    """The total variation between two rows of the softmax, from above (A2)."""
    if not isinstance(head.score, Dot):
        raise ValueError("scores must be bilinear: the collapse of Gaussian ones has no bound here")
    kappa = _norm(head.score.matrix)
    # products become infinite where a power would raise; scores that are all equal mix at once
    return math.tanh(kappa * diameter * diameter / 4) * UP if kappa else 0.0


def _length(name: str, value: Any) -> float:
    known = host_number(value)
    if known is None or not 0 <= known < math.inf:
        raise ValueError(f"{name} must be finite and at least 0, such as 1.0, got {value!r}")
    return known


def _keeps(known: Form) -> None:
    """Refuse a layer that cannot be followed by one in the same dimension."""
    for head in known.heads:
        if len(head.value) != known.dimension:
            raise ValueError(
                f"layer must keep the dimension, to be followed by another: {known.dimension} "
                f"became {len(head.value)}; give it an output map back to {known.dimension}"
            )


def _norm(matrix: NDArray) -> float:
    return float(np.linalg.norm(matrix, 2)) * UP


def _unmasked(layer: Any, dimension: int) -> Form:
    known = form(layer, dimension)
    if known.masked or any(head.memory is not None for head in known.heads):
        raise ValueError(
            "layer must be self-attention without mask: rows of different support do not mix"
        )
    return known
