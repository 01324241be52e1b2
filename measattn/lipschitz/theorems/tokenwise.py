r"""Token-wise maps: norms, feed-forward maps, affine maps; and where layers send balls.

Source: T1 and T2 of docs/theory-lipschitz.md.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from measattn.kernel import Deterministic
from measattn.layer import FeedForward, LayerNorm, RMSNorm, gelu, relu, silu
from measattn.lipschitz.forms import UnreadableLayer, matrix
from measattn.lipschitz.theorems.base import UP, norm
from measattn.maps import Function

ACTIVATIONS = {relu: 1.0, gelu: 1.12891, silu: 1.1}
"""Lipschitz constants from above."""


def constant(layer: Any, dimension: int) -> float:
    """The Lipschitz constant of a token-wise map, from above.

    Raises:
        UnreadableLayer: a map of which nothing is known.
    """
    if isinstance(layer, (LayerNorm, RMSNorm)):
        return _largest(layer.weight) / math.sqrt(float(layer.eps)) * UP
    if isinstance(layer, FeedForward):
        if layer.gate is not None:
            raise UnreadableLayer(
                "a gated feed-forward map has no Lipschitz constant on all of R^d, and its "
                "constant on a ball is not in the catalogue: bound the layers around it"
            )
        up, _ = matrix("up", layer.up, dimension)
        down, _ = matrix("down", layer.down, len(up))
        return norm(down) * _activation(layer.activation) * norm(up)
    if isinstance(layer, Deterministic):
        return norm(matrix("the map", layer.map, dimension)[0])
    raise UnreadableLayer(f"nothing is known of a {type(layer).__name__}")


def image(layer: Any, radius: float, centre: NDArray, dimension: int) -> tuple[float, NDArray]:
    """A ball (radius, centre) that holds the images of a ball."""
    if isinstance(layer, (LayerNorm, RMSNorm)):
        bias = getattr(layer, "bias", None)
        middle = np.zeros(dimension) if bias is None else np.asarray(bias, np.float64)
        return _largest(layer.weight) * math.sqrt(dimension) * UP, middle
    if isinstance(layer, FeedForward):
        up, up_bias = matrix("up", layer.up, dimension)
        down, down_bias = matrix("down", layer.down, len(up))
        with jax.enable_x64(True):
            hidden = np.asarray(layer.activation(jnp.asarray(up @ centre + up_bias)), np.float64)
        return constant(layer, dimension) * radius * UP, down @ hidden + down_bias
    weight, bias = matrix("the map", layer.map, dimension)
    return norm(weight) * radius * UP, weight @ centre + bias


def _largest(weight: Any) -> float:
    return 1.0 if weight is None else float(np.abs(np.asarray(weight, np.float64)).max())


def _activation(activation: Any) -> float:
    function = activation.function if isinstance(activation, Function) else activation
    known = ACTIVATIONS.get(function)
    if known is None:
        raise UnreadableLayer(
            f"activation must be relu, gelu or silu of measattn.layer, got {function!r}: the "
            "Lipschitz constant of another function is not known here"
        )
    return known
