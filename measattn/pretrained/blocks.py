r"""Parts that the three families share: affine maps, heads, activations, and their expected shapes.

A head of a trained layer is the self-attention $\mu \mapsto \mu A_\mu$ with the potential
$\log G(x, y) = \langle W_q x + b_q, W_k y + b_k \rangle / \sqrt{e}$ and the value map
$x \mapsto W_v x + b_v$; the heads' outputs are concatenated and mapped by $W_o$.
"""

from collections.abc import Callable

import numpy as np

from measattn.attention import MultiHead, SelfAttention
from measattn.layer import LayerNorm, gelu, gelu_tanh, relu, silu
from measattn.maps import Affine
from measattn.potential import AbstractPotential
from measattn.pretrained.tensors import Weights

ACTIVATIONS: dict[str, Callable] = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": relu,
    "silu": silu,
    "swish": silu,
}

# what a head makes of its query map and its key map
PotentialOf = Callable[[Affine, Affine], AbstractPotential]


def affine_shapes(name: str, out: int, into: int, bias: bool) -> dict[str, tuple[int, ...]]:
    """The tensors of one affine map from R^into to R^out."""
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (out, into)}
    if bias:
        shapes[f"{name}.bias"] = (out,)
    return shapes


def norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    """The tensors of one layer norm."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def affine(weights: Weights, name: str) -> Affine:
    """The affine map of that name."""
    return Affine(weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def layer_norm(weights: Weights, name: str, eps: float) -> LayerNorm:
    """The layer norm of that name."""
    return LayerNorm(weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def rows(weight: np.ndarray, bias: np.ndarray | None, count: int) -> list[Affine]:
    """Cut an affine map into that many maps of as many rows each: one a head."""
    size = weight.shape[0] // count
    cuts = [slice(i * size, (i + 1) * size) for i in range(count)]
    return [Affine(weight[cut], None if bias is None else bias[cut]) for cut in cuts]


def heads_of(weights: Weights, name: str, count: int) -> list[Affine]:
    """The affine map of that name, cut into heads."""
    return rows(weights[f"{name}.weight"], weights.get(f"{name}.bias"), count)


def multi_head(
    query: list[Affine],
    key: list[Affine],
    value: list[Affine],
    output: Affine,
    potential: PotentialOf,
) -> MultiHead:
    """Multi-head attention; fewer keys than queries means that each serves a group of heads."""
    group = len(query) // len(key)
    return MultiHead(
        [
            SelfAttention(potential(q, key[i // group]), value[i // group])
            for i, q in enumerate(query)
        ],
        output,
    )
