"""The small stored checkpoints as dictionaries of arrays, and the same written in other forms."""

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file, save_file

HERE = Path(__file__).resolve().parent
FAMILIES = ("bert", "gpt2", "llama", "llama_untied")

IN_BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def read(family):
    """Configuration and tensors of a stored checkpoint."""
    config = json.loads((HERE / family / "config.json").read_text())
    return config, load_file(HERE / family / "model.safetensors")


def write(folder, config, tensors):
    """A checkpoint in Hugging Face's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {k: np.ascontiguousarray(v) for k, v in tensors.items()}, folder / "model.safetensors"
    )
    return folder


def changed(family, folder, tensors=None, **settings):
    """A stored checkpoint with some settings and tensors replaced; None removes."""
    config, stored = read(family)
    merged = stored | (tensors or {})
    kept = {name: tensor for name, tensor in merged.items() if tensor is not None}
    config = {k: v for k, v in (config | settings).items() if v is not None}
    return write(folder, config, kept)


def renamed(family, folder, new_name):
    """A stored checkpoint with every tensor under a new name."""
    config, stored = read(family)
    return write(folder, config, {new_name(name): tensor for name, tensor in stored.items()})


def copied(family, folder):
    """A copy of a stored checkpoint, to be damaged."""
    return shutil.copytree(HERE / family, folder)


def shards(family, folder):
    """A stored checkpoint in two files with an index."""
    config, stored = read(family)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    names = sorted(stored)
    weight_map = {}
    for i, part in enumerate((names[::2], names[1::2])):
        file = f"model-{i + 1:05d}-of-00002.safetensors"
        save_file({name: stored[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def interleaved(rows, heads):
    """Half-split rotary pairs (i, i + e/2) put side by side, as GGUF files have them."""
    size = rows.shape[0] // heads
    order = np.arange(size).reshape(2, size // 2).T.ravel()
    return rows.reshape(heads, size, *rows.shape[1:])[:, order].reshape(rows.shape)


def as_gguf(family, path, architecture="llama", kind_of=lambda name: "F32", metadata=None):
    """A stored Llama checkpoint as a GGUF file."""
    config, stored = read(family)
    writer = gguf.GGUFWriter(path, architecture)
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_key_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    for add, value in (metadata or {}).items():
        getattr(writer, add)(*value)
    for name, tensor in stored.items():
        short = name.removeprefix("model.")
        if "q_proj" in name or "k_proj" in name:
            tensor = interleaved(tensor, heads if "q_proj" in name else groups)
        new = in_gguf(short)
        kind = gguf.GGMLQuantizationType[kind_of(new)]
        writer.add_tensor(new, gguf.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def in_gguf(name):
    if name.startswith("layers."):
        _, layer, *middle, ending = name.split(".")
        return f"blk.{layer}.{IN_BLOCK['.'.join(middle)]}.{ending}"
    outside = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
    first, ending = name.split(".")
    return f"{outside[first]}.{ending}"
