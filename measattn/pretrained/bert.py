r"""The BERT family: post-norm encoder layers on plain points.

$$ y = \mathrm{LN}_1\bigl(x + \mathrm{MHA}(\mu)(x)\bigr), \qquad
   z = \mathrm{LN}_2\bigl(y + W_2\,\mathrm{gelu}(W_1 y + b_1) + b_2\bigr). $$

Positions are in the embedding, so a point is an array (d,), and every query attends to every key.

Source: Devlin et al. 2019, arXiv 1810.04805; tensor names of Hugging Face's BERT.
"""

import math

from measattn.kernel import Stack
from measattn.layer import FeedForward, post_norm
from measattn.potential import Bilinear
from measattn.pretrained.blocks import (
    ACTIVATIONS,
    affine,
    affine_shapes,
    heads_of,
    layer_norm,
    multi_head,
    norm_shapes,
)
from measattn.pretrained.config import Config
from measattn.pretrained.tensors import Tensors
from measattn.pretrained.tokenizer import Tokenizer
from measattn.pretrained.transformer import Embedding, Transformer


def bert(config: Config, tensors: Tensors, tokenizer: Tokenizer, name: str) -> Transformer:
    """A BERT encoder.

    Raises:
        ValueError: a setting is not implemented, or a tensor is missing or has a wrong shape.
    """
    width = config.size("hidden_size")
    heads = config.heads(width, "num_attention_heads")
    depth = config.depth("num_hidden_layers", len(tensors.shapes))
    inner = config.size("intermediate_size")
    scale = 1 / math.sqrt(width // heads)
    positions = config.size("max_position_embeddings")
    eps = config.number("layer_norm_eps", 1e-12)
    activation = ACTIVATIONS[config.among("hidden_act", tuple(ACTIVATIONS), "gelu")]
    config.among("position_embedding_type", ("absolute",), "absolute")
    config.among("is_decoder", (False,), False)

    tables = {
        "word_embeddings": config.size("vocab_size"),
        "position_embeddings": positions,
        "token_type_embeddings": config.size("type_vocab_size", 2),
    }
    expected = {
        f"embeddings.{table}.weight": (length, width) for table, length in tables.items()
    } | norm_shapes("embeddings.LayerNorm", width)
    for i in range(depth):
        expected |= layer_shapes(f"encoder.layer.{i}", width, inner)
    tensors = tensors.without_prefix(("", "bert."), "embeddings.word_embeddings.weight")
    weights = tensors.renamed(new_norm_names).take(expected, closed=("encoder.layer.",))

    def layer(i: int) -> Stack:
        at = f"encoder.layer.{i}"
        attention = multi_head(
            heads_of(weights, f"{at}.attention.self.query", heads),
            heads_of(weights, f"{at}.attention.self.key", heads),
            heads_of(weights, f"{at}.attention.self.value", heads),
            affine(weights, f"{at}.attention.output.dense"),
            lambda query, key: Bilinear(query, key, scale),
        )
        feed_forward = FeedForward(
            affine(weights, f"{at}.intermediate.dense"),
            affine(weights, f"{at}.output.dense"),
            activation,
        )
        norms = (f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm")
        return post_norm(
            (attention, feed_forward), [layer_norm(weights, norm, eps) for norm in norms]
        )

    return Transformer(
        name=name,
        family="bert",
        embedding=Embedding(
            words=weights["embeddings.word_embeddings.weight"],
            positions=weights["embeddings.position_embeddings.weight"],
            # a single text: every token is of type 0
            offset=weights["embeddings.token_type_embeddings.weight"][0],
            norm=layer_norm(weights, "embeddings.LayerNorm", eps),
        ),
        layers=tuple(layer(i) for i in range(depth)),
        tokenizer=tokenizer,
    )


def layer_shapes(at: str, width: int, inner: int) -> dict[str, tuple[int, ...]]:
    """The tensors of one layer."""
    shapes = norm_shapes(f"{at}.attention.output.LayerNorm", width)
    shapes |= norm_shapes(f"{at}.output.LayerNorm", width)
    for part in ("query", "key", "value"):
        shapes |= affine_shapes(f"{at}.attention.self.{part}", width, width, bias=True)
    shapes |= affine_shapes(f"{at}.attention.output.dense", width, width, bias=True)
    shapes |= affine_shapes(f"{at}.intermediate.dense", inner, width, bias=True)
    return shapes | affine_shapes(f"{at}.output.dense", width, inner, bias=True)


def new_norm_names(name: str) -> str:
    """Checkpoints of 2018 call the weight of a layer norm gamma and its bias beta."""
    old = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
    for ending, new in old.items():
        if name.endswith(ending):
            return name.removesuffix(ending) + new
    return name
