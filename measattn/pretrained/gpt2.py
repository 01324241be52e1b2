r"""The GPT-2 family: pre-norm causal layers on tokens.

$$ y = x + \mathrm{MHA}(\mathrm{LN}_1\mu)(\mathrm{LN}_1 x), \qquad
   z = y + W_2\,\mathrm{gelu}_{\tanh}(W_1 \mathrm{LN}_2 y + b_1) + b_2. $$

A point is a `Token`: positions are in the embedding too, but the causal mask needs them. The
checkpoint stores $W^\top$ where the formula has $W$, and query, key and value in one matrix.

Source: Radford et al. 2019; tensor names of Hugging Face's GPT-2.
"""

import math

from measattn.kernel import Stack
from measattn.layer import FeedForward, pre_norm
from measattn.maps import Affine
from measattn.masks import Causal
from measattn.potential import Bilinear
from measattn.pretrained.blocks import ACTIVATIONS, layer_norm, multi_head, norm_shapes, rows
from measattn.pretrained.config import Config
from measattn.pretrained.tensors import Tensors, Weights
from measattn.pretrained.tokenizer import Tokenizer
from measattn.pretrained.transformer import Embedding, Transformer


def gpt2(config: Config, tensors: Tensors, tokenizer: Tokenizer, name: str) -> Transformer:
    """A GPT-2 decoder, with its output head.

    Raises:
        ValueError: a setting is not implemented, or a tensor is missing or has a wrong shape.
    """
    width = config.size("n_embd")
    heads = config.heads(width, "n_head")
    depth = config.depth("n_layer", len(tensors.shapes))
    inner = config.size("n_inner", 4 * width)
    positions = config.size("n_positions", 1024)
    vocabulary = config.size("vocab_size")
    eps = config.number("layer_norm_epsilon", 1e-5)
    activation = ACTIVATIONS[config.among("activation_function", tuple(ACTIVATIONS), "gelu_new")]
    config.among("add_cross_attention", (False,), False)
    config.among("scale_attn_by_inverse_layer_idx", (False,), False)
    scale = 1 / math.sqrt(width // heads) if config.flag("scale_attn_weights", True) else 1.0

    expected: dict[str, tuple[int, ...]] = {
        "wte.weight": (vocabulary, width),
        "wpe.weight": (positions, width),
    } | norm_shapes("ln_f", width)
    for i in range(depth):
        expected |= layer_shapes(f"h.{i}", width, inner)
    tied = config.flag("tie_word_embeddings", True)
    if not tied:
        expected["lm_head.weight"] = (vocabulary, width)
    # the causal mask is stored as a constant by older versions
    constants = (".attn.bias", ".attn.masked_bias")
    weights = tensors.without_prefix(("", "transformer."), "wte.weight").take(
        expected, closed=("h.",), ignored=constants
    )

    def layer(i: int) -> Stack:
        at = f"h.{i}"
        matrix, bias = weights[f"{at}.attn.c_attn.weight"].T, weights[f"{at}.attn.c_attn.bias"]
        maps = rows(matrix, bias, 3 * heads)
        attention = multi_head(
            maps[:heads],
            maps[heads : 2 * heads],
            maps[2 * heads :],
            transposed(weights, f"{at}.attn.c_proj"),
            lambda q, k: Causal(Bilinear(q, k, scale)),
        )
        feed_forward = FeedForward(
            transposed(weights, f"{at}.mlp.c_fc"),
            transposed(weights, f"{at}.mlp.c_proj"),
            activation,
        )
        norms = (f"{at}.ln_1", f"{at}.ln_2")
        return pre_norm(
            (attention, feed_forward), [layer_norm(weights, norm, eps) for norm in norms]
        )

    return Transformer(
        name=name,
        family="gpt2",
        embedding=Embedding(words=weights["wte.weight"], positions=weights["wpe.weight"]),
        layers=tuple(layer(i) for i in range(depth)),
        final=layer_norm(weights, "ln_f", eps),
        head=None if tied else weights["lm_head.weight"],
        tokenizer=tokenizer,
    )


def transposed(weights: Weights, name: str) -> Affine:
    """The affine map of that name, whose matrix is stored as (in, out)."""
    return Affine(weights[f"{name}.weight"].T, weights[f"{name}.bias"])


def layer_shapes(at: str, width: int, inner: int) -> dict[str, tuple[int, ...]]:
    """The tensors of one layer."""
    maps = {
        "attn.c_attn": (width, 3 * width),
        "attn.c_proj": (width, width),
        "mlp.c_fc": (width, inner),
        "mlp.c_proj": (inner, width),
    }
    shapes = norm_shapes(f"{at}.ln_1", width) | norm_shapes(f"{at}.ln_2", width)
    for name, (into, out) in maps.items():
        shapes |= {f"{at}.{name}.weight": (into, out), f"{at}.{name}.bias": (out,)}
    return shapes
