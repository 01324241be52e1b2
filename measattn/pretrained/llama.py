r"""The Llama family: pre-norm causal layers with rotary positions, on tokens.

$$ y = x + \mathrm{MHA}(\mathrm{RMS}_1\mu)(\mathrm{RMS}_1 x), \qquad
   z = y + W_2\bigl(\mathrm{silu}(W_g u) \odot W_1 u\bigr), \quad u = \mathrm{RMS}_2\,y. $$

A point is a `Token`; its position enters through the potential alone,
$\log G((s,x),(t,y)) = \langle R_s W_q x, R_t W_k y \rangle / \sqrt{e}$ for $t \le s$. Several query
heads may share one key and value map (grouped queries).

Source: Touvron et al. 2023, arXiv 2302.13971; tensor names of Hugging Face's Llama.
"""

import math

from measattn.kernel import Stack
from measattn.layer import FeedForward, RMSNorm, pre_norm
from measattn.maps import Affine
from measattn.masks import Causal
from measattn.potential import Rotary
from measattn.pretrained.blocks import (
    ACTIVATIONS,
    affine,
    affine_shapes,
    heads_of,
    multi_head,
)
from measattn.pretrained.config import Config
from measattn.pretrained.tensors import Tensors
from measattn.pretrained.tokenizer import Tokenizer
from measattn.pretrained.transformer import Embedding, Transformer


def llama(config: Config, tensors: Tensors, tokenizer: Tokenizer, name: str) -> Transformer:
    """A Llama decoder, with its output head.

    Raises:
        ValueError: a setting is not implemented, or a tensor is missing or has a wrong shape.
    """
    width = config.size("hidden_size")
    heads = config.size("num_attention_heads")
    groups = config.size("num_key_value_heads", heads)
    if heads % groups:
        raise ValueError(
            f"{config.origin}: 'num_key_value_heads' must divide the {heads} heads, got {groups}"
        )
    size = config.size("head_dim", max(width // heads, 1))
    depth = config.depth("num_hidden_layers", len(tensors.shapes))
    inner = config.size("intermediate_size")
    vocabulary = config.size("vocab_size")
    eps = config.number("rms_norm_eps", 1e-6)
    base = rotary_base(config)
    activation = ACTIVATIONS[config.among("hidden_act", tuple(ACTIVATIONS), "silu")]
    biases = (config.flag("attention_bias", False), config.flag("mlp_bias", False))

    expected = {"embed_tokens.weight": (vocabulary, width), "norm.weight": (width,)}
    for i in range(depth):
        sizes = (width, heads * size, groups * size, inner)
        expected |= layer_shapes(f"layers.{i}", sizes, biases)
    tied = config.flag("tie_word_embeddings", False)
    if not tied:
        expected["lm_head.weight"] = (vocabulary, width)
    weights = tensors.without_prefix(("model.", ""), "embed_tokens.weight").take(
        expected,
        closed=("layers.", "rope_freqs."),
        ignored=(".rotary_emb.inv_freq",),  # stored as a constant by older versions
    )
    scale = 1 / math.sqrt(size)

    def potential(query: Affine, key: Affine) -> Causal:
        return Causal(Rotary(query, key, scale, base))

    def layer(i: int) -> Stack:
        at = f"layers.{i}"
        attention = multi_head(
            heads_of(weights, f"{at}.self_attn.q_proj", heads),
            heads_of(weights, f"{at}.self_attn.k_proj", groups),
            heads_of(weights, f"{at}.self_attn.v_proj", groups),
            affine(weights, f"{at}.self_attn.o_proj"),
            potential,
        )
        feed_forward = FeedForward(
            affine(weights, f"{at}.mlp.up_proj"),
            affine(weights, f"{at}.mlp.down_proj"),
            activation,
            gate=affine(weights, f"{at}.mlp.gate_proj"),
        )
        norms = (f"{at}.input_layernorm.weight", f"{at}.post_attention_layernorm.weight")
        return pre_norm((attention, feed_forward), [RMSNorm(weights[norm], eps) for norm in norms])

    return Transformer(
        name=name,
        family="llama",
        embedding=Embedding(words=weights["embed_tokens.weight"]),
        layers=tuple(layer(i) for i in range(depth)),
        final=RMSNorm(weights["norm.weight"], eps),
        head=None if tied else weights["lm_head.weight"],
        tokenizer=tokenizer,
    )


def rotary_base(config: Config) -> float:
    """The base of the rotary angles, from any of the three places where it is written.

    Raises:
        ValueError: the angles are scaled, or only some entries of a head are turned.
    """
    inner = [
        Config(config.group(place), config.origin) for place in ("rope_parameters", "rope_scaling")
    ]
    for settings in (*inner, config):
        settings.among("partial_rotary_factor", (1, 1.0), 1.0)
    for settings in inner:
        settings.among("rope_type", ("default",), "default")
        settings.among("type", ("default",), "default")
    places = [settings for settings in inner if "rope_theta" in settings.values]
    return (places or [config])[0].number("rope_theta", 1e4)


def layer_shapes(
    at: str, sizes: tuple[int, int, int, int], biases: tuple[bool, bool]
) -> dict[str, tuple[int, ...]]:
    """The tensors of one layer."""
    width, queries, keys, inner = sizes
    in_attention, in_feed_forward = biases
    shapes: dict[str, tuple[int, ...]] = {
        f"{at}.input_layernorm.weight": (width,),
        f"{at}.post_attention_layernorm.weight": (width,),
    }
    for name, out, into in (
        ("q_proj", queries, width),
        ("k_proj", keys, width),
        ("v_proj", keys, width),
        ("o_proj", width, queries),
    ):
        shapes |= affine_shapes(f"{at}.self_attn.{name}", out, into, in_attention)
    for name, out, into in (
        ("gate_proj", inner, width),
        ("up_proj", inner, width),
        ("down_proj", width, inner),
    ):
        shapes |= affine_shapes(f"{at}.mlp.{name}", out, into, in_feed_forward)
    return shapes
