r"""What the theory sees of a layer: its scores and values as matrices in float64.

$$ f(x, \mu) = r\,x + \sum_h V_h\,\bar y^h_x + \text{const}, \qquad
   \bar y^h_x = \int y\,\Psi_{e^{a_h(x,\cdot)}}(\mu)(dy), $$

r = 1 with a residual, 0 without. Terms of $a_h$ that depend on x alone leave the softmax as it is
and are dropped. Weights are cast up to float64 before they are multiplied, see `products`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr
from numpy.typing import NDArray

from measattn.attention import CrossAttention, MultiHead, SelfAttention
from measattn.kernel import Stack
from measattn.layer import Residual
from measattn.lipschitz.masses import masses
from measattn.lipschitz.products import image, product
from measattn.maps import Affine, Identity
from measattn.masks import Causal, Masked
from measattn.measure import states
from measattn.points import Token
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


@dataclass(frozen=True)
class Gauss:
    r"""$a(x, y) = -|x - y|^2/(2\sigma^2)$."""

    sigma: float


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

    @property
    def of_positions(self) -> bool:
        """Whether its mask is shown to look at positions alone: moving states changes none of it.

        The condition is traced on two tokens, and what it returns must not depend on the states.
        """
        return self.allowed is None or _ignores_states(self.allowed, self.value.shape[1])


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


def form(layer: Any, dimension: int, centre: NDArray | None = None) -> Form:
    """The matrices of an attention layer, with or without a residual.

    Args:
        layer: `SelfAttention`, `CrossAttention` or `MultiHead`, or a `Residual` of one.
        dimension: d, the dimension of the points.
        centre: the point (d,) that points are measured from; the origin if None. A fixed memory
            stays where it is: what reads it sees differences of its points alone.

    Raises:
        UnreadableLayer: a potential, value or output map that is no matrix and no Gaussian.
        ValueError: parameters that are NaN or infinite.
    """
    if isinstance(layer, Residual):
        inner = form(layer.layer, dimension, centre)
        if inner.residual:
            raise UnreadableLayer("a residual of a residual is not an attention layer")
        return replace(inner, residual=True)
    if isinstance(layer, Stack) and len(layer.layers) == 1:
        return form(layer.layers[0], dimension, centre)
    centre = np.zeros(dimension) if centre is None else np.asarray(centre, np.float64)
    if isinstance(layer, MultiHead):
        parts = [layer.head(k) for k in range(layer.count)]
        heads = [_head(part, dimension, centre) for part in parts]
        return Form(tuple(_through(layer.output, parts, heads, centre)), dimension)
    if isinstance(layer, (SelfAttention, CrossAttention)):
        return Form((_head(layer, dimension, centre),), dimension)
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


def _head(head: Any, dimension: int, centre: NDArray) -> Head:
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
        _check_finite("the memory", points)
        memory = points, masses(head.memory)
        keys = points.shape[1]
    value, constant = matrix("value", head.value, keys)
    shift = image(value, constant, centre if memory is None else np.zeros(keys))
    _check_finite("the value map", value, constant)
    score = _score(potential, dimension, keys, centre)
    return Head(score, value, shift, causal, allowed, memory)


def _check_finite(name: str, *arrays: Any) -> None:
    if not all(np.isfinite(a).all() for a in arrays):
        raise ValueError(f"layer must have finite parameters, found NaN or infinity in {name}")


def _ignores_states(allowed: Callable, dimension: int) -> bool:
    tokens = [Token(jnp.zeros(()), jnp.zeros(dimension)) for _ in range(2)]
    try:
        traced = jax.make_jaxpr(allowed)(*tokens).jaxpr
    except Exception:  # whatever it raises: it is not about tokens of such positions
        return False
    if traced.effects:  # what it writes elsewhere may come back
        return False
    _, state, _, other = dce_jaxpr(traced, [True] * len(traced.outvars))[1]
    return not (state or other)


def _score(potential: AbstractPotential, dimension: int, keys: int, centre: NDArray) -> Dot | Gauss:
    if isinstance(potential, Gaussian):
        _check_finite("the width of the scores", np.asarray(potential.sigma))
        return Gauss(float(potential.sigma))
    if isinstance(potential, DotProduct):
        scale = float(potential.scale)
        _check_finite("the scale of the scores", np.asarray(scale))
        return Dot(scale * np.eye(dimension), scale * centre)
    if isinstance(potential, Bilinear):
        query, constant = matrix("query", potential.query, dimension)
        key, _ = matrix("key", potential.key, keys)  # its constant meets x alone
        scale = float(potential.scale)
        _check_finite("the scores", query, constant, key, np.asarray(scale))
        return Dot(scale * product(key.T, query), scale * image(query, constant, centre, key.T))
    raise UnreadableLayer(
        f"potential must be DotProduct, Bilinear or Gaussian, got {type(potential).__name__}"
    )


def _through(output: Any, parts: list[Any], heads: list[Head], centre: NDArray) -> list[Head]:
    widths = [len(head.value) for head in heads]
    weight, bias = matrix("output", output, sum(widths))
    blocks = np.split(weight, np.cumsum(widths)[:-1], axis=1)
    out = []
    for k, (part, head, block) in enumerate(zip(parts, heads, blocks, strict=True)):
        keys = head.value.shape[1]
        value, constant = matrix("value", part.value, keys)
        # the constants of both maps in one product
        inner = np.column_stack([np.vstack([value, np.zeros(keys)]), np.append(constant, 1.0)])
        outer = np.column_stack([block, bias if k == 0 else 0 * bias])
        point = np.append(centre if head.memory is None else np.zeros(keys), 1.0)
        shift = product(outer, inner, point[:, None])[:, 0]
        out.append(replace(head, value=product(block, head.value), shift=shift))
    return out
