r"""What the theory sees of a layer: its scores and values as matrices in float64.

$$ f(x, \mu) = r\,x + \sum_h V_h\,\bar y^h_x + \text{const}, \qquad
   \bar y^h_x = \int y\,\Psi_{e^{a_h(x,\cdot)}}(\mu)(dy), $$

r = 1 with a residual, 0 without. Terms of $a_h$ that depend on x alone leave the softmax as it is
and are dropped. Weights are cast up to float64 before they are multiplied.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from measattn.attention import CrossAttention, MultiHead, SelfAttention
from measattn.kernel import Stack
from measattn.layer import Residual
from measattn.maps import Affine, Identity
from measattn.masks import Causal, Masked
from measattn.measure import states
from measattn.potential import AbstractPotential, Bilinear, DotProduct, Gaussian


class UnreadableLayer(ValueError):
    """A layer with a part that no theorem here speaks of, such as a plain function as a map."""


@dataclass(frozen=True)
class Dot:
    r"""$a(x, y) = \langle Ax + c, y\rangle$.

    Attributes:
        matrix: A (d, d), the scale included; (e, d) for keys of another dimension e.
        shift: c (d,), or (e,).
    """

    matrix: NDArray
    shift: NDArray

    def about(self, centre: NDArray) -> "Dot":
        """The same score of points measured from a centre, its shift rounded once.

        Far from the origin Az and c may cancel, and float64 would keep none of their difference.
        """
        if not centre.any():
            return self
        if not (np.isfinite(self.matrix).all() and np.isfinite(self.shift).all()):
            return replace(self, shift=self.shift + self.matrix @ centre)
        moved = [Fraction(c) for c in self.shift.tolist()]
        z = [Fraction(a) for a in centre.tolist()]
        for i, row in enumerate(self.matrix.tolist()):
            moved[i] += sum(Fraction(a) * b for a, b in zip(row, z, strict=True) if a and b)
        return replace(self, shift=np.array([float(c) for c in moved]))


@dataclass(frozen=True)
class Gauss:
    r"""$a(x, y) = -|x - y|^2/(2\sigma^2)$."""

    sigma: float

    def about(self, centre: NDArray) -> "Gauss":
        """The same score of points measured from a centre: differences do not see it."""
        return self


@dataclass(frozen=True)
class Head:
    """One head.

    Attributes:
        score: how queries and keys are compared.
        value: V (v, d): the value map on the keys, and the output map after it.
        shift: the constant that the head adds (v,).
        causal: whether a token sees those at its own and earlier positions only.
        allowed: the condition on two points of another mask; None if there is none.
        memory: points (m, d) and weights (m,) of the keys; None for self-attention.
    """

    score: Dot | Gauss
    value: NDArray
    shift: NDArray
    causal: bool = False
    allowed: Callable | None = None
    memory: tuple[NDArray, NDArray] | None = None

    @property
    def masked(self) -> bool:
        """Whether the head is a function of the ordered tokens, not of their law."""
        return self.causal or self.allowed is not None

    def about(self, centre: NDArray) -> "Head":
        """The same head on points measured from a centre."""
        if self.memory is None:
            shift = self.shift + self.value @ centre
            return replace(self, score=self.score.about(centre), shift=shift)
        if isinstance(self.score, Gauss):  # differences: the memory moves along
            memory, weights = self.memory
            shift = self.shift + self.value @ centre
            return replace(self, memory=(memory - centre, weights), shift=shift)
        return replace(self, score=self.score.about(centre))


@dataclass(frozen=True)
class Form:
    """An attention layer.

    Attributes:
        heads: its heads; their outputs are added.
        dimension: d, that of the points.
        residual: whether the layer's input is added, too.
    """

    heads: tuple[Head, ...]
    dimension: int
    residual: bool = False

    @property
    def masked(self) -> bool:
        """Whether any head is."""
        return any(head.masked for head in self.heads)

    def about(self, centre: NDArray | None) -> "Form":
        """The same layer on points measured from a centre."""
        if centre is None:
            return self
        return replace(self, heads=tuple(head.about(centre) for head in self.heads))


def form(layer: Any, dimension: int) -> Form:
    """The matrices of an attention layer, with or without a residual.

    Args:
        layer: `SelfAttention`, `CrossAttention` or `MultiHead`, or a `Residual` of one.
        dimension: d, the dimension of the points.

    Raises:
        UnreadableLayer: a potential, value or output map that is no matrix and no Gaussian.
    """
    if isinstance(layer, Residual):
        inner = form(layer.layer, dimension)
        if inner.residual:
            raise UnreadableLayer("a residual of a residual is not an attention layer")
        return replace(inner, residual=True)
    if isinstance(layer, Stack) and len(layer.layers) == 1:
        return form(layer.layers[0], dimension)
    if isinstance(layer, MultiHead):
        heads = [_head(layer.head(k), dimension) for k in range(layer.count)]
        return Form(tuple(_through(layer.output, heads)), dimension)
    if isinstance(layer, (SelfAttention, CrossAttention)):
        return Form((_head(layer, dimension),), dimension)
    raise UnreadableLayer(
        f"layer must be an attention layer, with or without a residual, got a "
        f"{type(layer).__name__}"
    )


def matrix(name: str, f: Any, dimension: int) -> tuple[NDArray, NDArray]:
    """A map as its matrix and its constant, in float64.

    Raises:
        UnreadableLayer: the map is not affine.
    """
    if isinstance(f, Identity):
        return np.eye(dimension), np.zeros(dimension)
    if isinstance(f, Affine):
        weight = np.asarray(f.weight, np.float64)
        if weight.shape[1] != dimension:
            raise ValueError(f"{name} takes dimension {weight.shape[1]}, the points {dimension}")
        bias = np.zeros(len(weight)) if f.bias is None else np.asarray(f.bias, np.float64)
        return weight, bias
    raise UnreadableLayer(
        f"{name} must be a matrix or an affine map, got {f!r}: nothing is known of a function"
    )


def _head(head: Any, dimension: int) -> Head:
    potential, causal, allowed = head.potential, False, None
    while isinstance(potential, (Causal, Masked)):
        if isinstance(potential, Causal):
            causal = True
        elif allowed is None:
            allowed = potential.allowed
        else:
            raise UnreadableLayer("two masks of one's own on one head: join them to one condition")
        potential = potential.potential
    memory, keys = None, dimension
    if isinstance(head, CrossAttention):
        points = np.asarray(states(head.memory).points, np.float64)
        memory = points, np.asarray(head.memory.weights, np.float64)
        keys = points.shape[1]
    value, shift = matrix("value", head.value, keys)
    return Head(_score(potential, dimension, keys), value, shift, causal, allowed, memory)


def _score(potential: AbstractPotential, dimension: int, keys: int) -> Dot | Gauss:
    if isinstance(potential, Gaussian):
        return Gauss(float(potential.sigma))
    if isinstance(potential, DotProduct):
        return Dot(float(potential.scale) * np.eye(dimension), np.zeros(dimension))
    if isinstance(potential, Bilinear):
        query, query_shift = matrix("query", potential.query, dimension)
        key, _ = matrix("key", potential.key, keys)  # its constant meets x alone
        scale = float(potential.scale)
        return Dot(scale * key.T @ query, scale * key.T @ query_shift)
    raise UnreadableLayer(
        f"potential must be DotProduct, Bilinear or Gaussian, got a {type(potential).__name__}"
    )


def _through(output: Any, heads: list[Head]) -> list[Head]:
    widths = [len(head.value) for head in heads]
    weight, bias = matrix("output", output, sum(widths))
    parts = np.split(weight, np.cumsum(widths)[:-1], axis=1)
    out = []
    for k, (head, part) in enumerate(zip(heads, parts, strict=True)):
        shift = part @ head.shift + (bias if k == 0 else 0)
        out.append(replace(head, value=part @ head.value, shift=shift))
    return out
