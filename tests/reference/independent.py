"""Two plain implementations for the reference script, without JAX and without measattn.

Llama in NumPy, and byte-pair encoding from a GGUF file's own tables, both written from the
definitions.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import regex
from gguf import GGUFReader


def numpy_llama(
    config: dict, weights: dict[str, np.ndarray], ids: list[int]
) -> tuple[list[np.ndarray], np.ndarray]:
    """Hidden states (as `transformers` numbers them) and logits, in the dtype of the weights."""
    heads, groups, size = (
        config["num_attention_heads"],
        config["num_key_value_heads"],
        config["head_dim"],
    )
    eps, base = config["rms_norm_eps"], config["rope_parameters"]["rope_theta"]
    n = len(ids)
    angle = np.arange(n)[:, None] * base ** (-np.arange(0, size, 2) / size)
    cos, sin = np.tile(np.cos(angle), 2), np.tile(np.sin(angle), 2)
    hidden_from_future = np.triu(np.full((n, n), -np.inf), 1)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return weights[f"{name}.weight"] * x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)

    def rotate(x: np.ndarray) -> np.ndarray:
        left, right = np.split(x, 2, axis=-1)
        return x * cos[:, None] + np.concatenate([-right, left], -1) * sin[:, None]

    x = weights["model.embed_tokens.weight"][ids]
    states = [x]
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        y = norm(x, f"{name}.input_layernorm")
        q = rotate(linear(y, f"{name}.self_attn.q_proj").reshape(n, heads, size))
        k = rotate(linear(y, f"{name}.self_attn.k_proj").reshape(n, groups, size))
        v = linear(y, f"{name}.self_attn.v_proj").reshape(n, groups, size)
        out = np.empty((n, heads, size))
        for head in range(heads):
            group = head * groups // heads
            score = q[:, head] @ k[:, group].T / np.sqrt(size) + hidden_from_future
            weight = np.exp(score - score.max(-1, keepdims=True))
            out[:, head] = weight / weight.sum(-1, keepdims=True) @ v[:, group]
        x = x + linear(out.reshape(n, -1), f"{name}.self_attn.o_proj")
        y = norm(x, f"{name}.post_attention_layernorm")
        gate = linear(y, f"{name}.mlp.gate_proj")
        x = x + linear(
            gate / (1 + np.exp(-gate)) * linear(y, f"{name}.mlp.up_proj"), f"{name}.mlp.down_proj"
        )
        states.append(x)
    states[-1] = norm(x, "model.norm")
    head = "model.embed_tokens" if config["tie_word_embeddings"] else "lm_head"
    return states, states[-1] @ weights[f"{head}.weight"].T


def byte_alphabet() -> list[str]:
    """The printable character that stands for each byte in a byte-level vocabulary."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(rest)) for byte in range(256)]


class BytePairEncoding:
    """Byte-level byte-pair encoding with single digits: the pre-tokenizer `smollm` of GGUF.

    The text is cut at control tokens, then into single digits (`\\p{N}`) and what lies between
    them, then by GPT-2's pattern; in each piece the pair of lowest rank is merged until none is
    left.
    """

    PIECES = regex.compile(
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    )

    def __init__(self, tokens: list[str], merges: list[str], control: list[str]):
        self.ids = {token: i for i, token in enumerate(tokens)}
        self.rank = {tuple(merge.split(" ")): i for i, merge in enumerate(merges)}
        self.control = set(control)
        self.cut = regex.compile(
            "(" + "|".join(regex.escape(c) for c in sorted(control, key=len)[::-1]) + ")"
        )
        self.alphabet = byte_alphabet()

    @classmethod
    def of_gguf(cls, path: Path) -> "BytePairEncoding":
        fields = GGUFReader(path).fields
        tokens = fields["tokenizer.ggml.tokens"].contents()
        kinds = fields["tokenizer.ggml.token_type"].contents()
        assert fields["tokenizer.ggml.pre"].contents() == "smollm"
        control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == 3]
        return cls(tokens, fields["tokenizer.ggml.merges"].contents(), control)

    def piece(self, text: str) -> list[int]:
        parts = [self.alphabet[byte] for byte in text.encode("utf-8")]
        while True:
            ranks = [self.rank.get(pair, np.inf) for pair in pairwise(parts)]
            if not ranks or min(ranks) == np.inf:
                return [self.ids[part] for part in parts]
            i = int(np.argmin(ranks))
            parts[i : i + 2] = [parts[i] + parts[i + 1]]

    def __call__(self, text: str) -> list[int]:
        ids: list[int] = []
        for stretch in self.cut.split(text):
            if stretch in self.control:
                ids.append(self.ids[stretch])
                continue
            for between in regex.findall(r"\p{N}|[^\p{N}]+", stretch):
                for piece in self.PIECES.findall(between):
                    ids.extend(self.piece(piece))
        return ids
