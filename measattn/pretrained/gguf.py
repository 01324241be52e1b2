r"""GGUF files of the Llama family, as configuration and tensors of a Hugging Face checkpoint.

Quantised blocks become float32 (Q4_1: $x = d\,q + m$ with a scale and an offset for 32 entries;
Q8_0: $x = d\,q$). The rows of the query and key matrices are stored for *interleaved* rotary
positions, where entries (2i, 2i+1) of a head turn together; here, as in Hugging Face's layout,
entries (i, i + e/2) do, so the rows are put back in that order: a head that is read without it runs
and is wrong.

Source: the GGUF specification of ggml; layout conversion of llama.cpp's converter.
"""

from pathlib import Path
from typing import Any

import numpy as np

from measattn.pretrained.config import Config, need
from measattn.pretrained.tensors import Tensors

SETTINGS = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
    "context_length": "max_position_embeddings",
}

IN_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

OUTSIDE = {"token_embd": "embed_tokens", "output_norm": "norm", "output": "lm_head"}


def half_split(rows: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of a query or key map from interleaved to half-split rotary pairs.

    Args:
        rows: (h * e, d), or the bias (h * e,); row 2i + s of a head becomes row i + s * e / 2.
        heads: the number h of heads in it.
    """
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def read_gguf(path: Path) -> tuple[Config, Tensors, dict[str, Any], str]:
    """Configuration, tensors, tokenizer tables and kind of quantisation of a GGUF file.

    Raises:
        ValueError: the file is truncated or no GGUF file, its architecture is another one, or it
            uses an extension (experts, scaled rotary positions) that is not implemented.
    """
    library: Any = need("gguf")
    try:
        reader = library.GGUFReader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except Exception as error:  # the library raises whatever a wrong byte leads to
        raise ValueError(
            f"{path} cannot be read as GGUF ({type(error).__name__}: {error}); it is truncated or "
            "another kind of file: get a whole copy"
        ) from error
    config = settings(metadata, str(path))
    stored = {tensor.name: tensor for tensor in reader.tensors}
    names = {hugging_face_name(name): name for name in stored}
    if "token_embd.weight" in stored:
        config.values["vocab_size"] = int(stored["token_embd.weight"].shape[-1])
    config.values["tie_word_embeddings"] = "output.weight" not in stored
    config.values["attention_bias"] = "blk.0.attn_q.bias" in stored
    shapes = {
        new: tuple(int(size) for size in reversed(stored[old].shape)) for new, old in names.items()
    }
    heads = {
        "q_proj": config.size("num_attention_heads"),
        "k_proj": config.size("num_key_value_heads", config.size("num_attention_heads")),
    }

    def read(name: str) -> np.ndarray:
        tensor = stored[names[name]]
        try:
            value = library.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            value = value.reshape(shapes[name])
        except (NotImplementedError, ValueError) as error:
            raise ValueError(
                f"{path}: tensor {names[name]!r} of type {tensor.tensor_type.name} cannot be "
                f"dequantised ({error})"
            ) from error
        part = name.split(".")[-2]
        return half_split(value, heads[part]) if part in heads else value

    return config, Tensors(str(path), shapes, read), metadata, quantisation(reader.tensors)


def quantisation(tensors: Any) -> str:
    """The quantised type that most tensors of the layers have; empty where there is none."""
    kinds = [t.tensor_type.name for t in tensors if t.name.startswith("blk.")]
    quantised = sorted(set(kinds) - {"F64", "F32", "F16", "BF16"})
    return max(quantised, key=kinds.count, default="")


def settings(metadata: dict[str, Any], origin: str) -> Config:
    """The metadata of a Llama-family GGUF file in the names of ``config.json``."""
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise ValueError(
            f"{origin} has the architecture {architecture!r}; supported in GGUF files: 'llama'"
        )
    scaling = metadata.get("llama.rope.scaling.type", "none")
    if scaling != "none":
        raise ValueError(
            f"{origin} scales its rotary positions ({scaling!r}), which is not implemented"
        )
    if metadata.get("llama.expert_count", 0):
        raise ValueError(f"{origin} is a mixture of experts, which is not implemented")
    values = {
        new: metadata[f"llama.{old}"] for old, new in SETTINGS.items() if f"llama.{old}" in metadata
    }
    values["model_type"] = "llama"
    config = Config(values, origin)
    values.setdefault("head_dim", config.size("hidden_size") // config.size("num_attention_heads"))
    rotated = metadata.get("llama.rope.dimension_count", values["head_dim"])
    if rotated != values["head_dim"]:
        raise ValueError(
            f"{origin} rotates {rotated} of the {values['head_dim']} entries of a head, which is "
            "not implemented: all or nothing"
        )
    return config


def hugging_face_name(name: str) -> str:
    """``blk.3.attn_q.weight`` is ``layers.3.self_attn.q_proj.weight``; unknown names stay."""
    parts = name.split(".")
    if parts[0] == "blk" and len(parts) == 4:
        return f"layers.{parts[1]}.{IN_BLOCK.get(parts[2], parts[2])}.{parts[3]}"
    return ".".join([OUTSIDE.get(parts[0], parts[0]), *parts[1:]])
