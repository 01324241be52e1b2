r"""Token-wise maps: norms, feed-forward maps, affine maps; and where they send balls.

*Gates.* $\|W_{down}\|(\mathrm{Lip}(\sigma)\|G\|\sup|h|+\sup|\sigma\circ g|\,\|H\|)$ on a ball of
radius R about m, where $|h_k|\le|h_k(m)|+R|H_k|$, $H_k$ a row, and $|\sigma(z)|\le|z|$ for all
activations here.

Source: T1 and T2 of docs/theory-lipschitz.md.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from measattn.kernel import Deterministic
from measattn.layer import FeedForward, LayerNorm, RMSNorm, gelu, gelu_tanh, relu, silu
from measattn.lipschitz.forms import UnreadableLayer, matrix
from measattn.lipschitz.theorems.base import UP, norm
from measattn.maps import Function

ACTIVATIONS = {relu: 1.0, gelu: 1.12891, gelu_tanh: 1.13, silu: 1.1}
"""Lipschitz constants from above, of functions with |σ(z)| <= |z|."""

ROUNDING = 1e-12
"""The centres of images are off by less than this part of the numbers that they are sums of."""


def constant(layer: Any, radius: float, centre: NDArray) -> float:
    """The Lipschitz constant of a token-wise map on a ball, from above.

    Raises:
        UnreadableLayer: a map of which nothing is known, or a gated one where R is infinite.
    """
    d = len(centre)
    if isinstance(layer, (LayerNorm, RMSNorm)):
        return _largest(layer.weight) / math.sqrt(float(layer.eps)) * UP
    if isinstance(layer, FeedForward):
        up, bias = matrix("up", layer.up, d)
        down, _ = matrix("down", layer.down, len(up))
        steepest = _activation(layer.activation)
        if layer.gate is None:
            return norm(down) * steepest * norm(up) * UP
        if not math.isfinite(radius):
            raise UnreadableLayer(
                "a gated feed-forward map has no Lipschitz constant on all of R^d: bound it on a "
                "Ball, or put a norm before it"
            )
        gate, gate_bias = matrix("gate", layer.gate, d)
        value = _highest(up, bias, radius, centre), _highest(gate, gate_bias, radius, centre)
        inner = steepest * norm(gate) * value[0] + value[1] * norm(up)
        return norm(down) * inner * UP
    if isinstance(layer, Deterministic):
        return norm(matrix("the map", layer.map, d)[0])
    raise UnreadableLayer(f"nothing is known of a {type(layer).__name__}")


def image(layer: Any, radius: float, centre: NDArray) -> tuple[float, NDArray]:
    """A ball (radius, centre) that holds the images of a ball."""
    d = len(centre)
    if isinstance(layer, (LayerNorm, RMSNorm)):
        with jax.enable_x64(True):
            moved = np.asarray(layer.map(jnp.asarray(centre, jnp.float64)), np.float64)
        steepest = constant(layer, radius, centre)
        near = _ball(steepest, radius, moved, steepest * _size(centre) + _size(moved))
        bias = getattr(layer, "bias", None)
        middle = np.zeros(d) if bias is None else np.asarray(bias, np.float64)
        whole = _largest(layer.weight) * math.sqrt(d) * UP, middle
        return near if near[0] < whole[0] else whole
    if isinstance(layer, FeedForward):
        up, up_bias = matrix("up", layer.up, d)
        down, down_bias = matrix("down", layer.down, len(up))
        gate, gate_bias = (up, up_bias) if layer.gate is None else matrix("gate", layer.gate, d)
        with jax.enable_x64(True):
            before = jnp.asarray(gate @ centre + gate_bias)
            hidden = np.asarray(layer.activation(before), np.float64)
        if layer.gate is not None:
            hidden = hidden * (up @ centre + up_bias)
        # what cancels in a row of the first maps is lost in the hidden units
        spread = _highest(up, up_bias, 0.0, centre)
        spread *= 1.0 if layer.gate is None else 1 + _highest(gate, gate_bias, 0.0, centre)
        size = norm(down) * math.sqrt(len(up)) * spread + _size(down_bias)
        return _ball(constant(layer, radius, centre), radius, down @ hidden + down_bias, size)
    weight, bias = matrix("the map", layer.map, d)
    size = norm(weight) * _size(centre) + _size(bias)
    return _ball(norm(weight), radius, weight @ centre + bias, size)


def _ball(steepest: float, radius: float, centre: NDArray, size: float) -> tuple[float, NDArray]:
    """The ball of radius steepest·R about a centre that is a sum of numbers of a size."""
    return (0.0 if steepest == 0 else steepest * radius * UP) + ROUNDING * size, centre


def _highest(weight: NDArray, bias: NDArray, radius: float, centre: NDArray) -> float:
    """The largest |coordinate| of an affine map on a ball, with what may cancel counted in full."""
    rows = np.linalg.norm(weight, axis=1)
    if radius == 0:
        return float(np.max(np.abs(weight) @ np.abs(centre) + np.abs(bias))) * UP
    return float(np.max(np.abs(weight @ centre + bias) + radius * rows)) * UP


def _size(vector: NDArray) -> float:
    return float(np.linalg.norm(vector))


def _largest(weight: Any) -> float:
    return 1.0 if weight is None else float(np.abs(np.asarray(weight, np.float64)).max())


def _activation(activation: Any) -> float:
    function = activation.function if isinstance(activation, Function) else activation
    known = ACTIVATIONS.get(function)
    if known is None:
        raise UnreadableLayer(
            "activation must be relu, gelu, gelu_tanh or silu of measattn.layer, got "
            f"{function!r}: the Lipschitz constant of another function is not known here"
        )
    return known
