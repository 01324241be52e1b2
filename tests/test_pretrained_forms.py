"""One checkpoint in many forms is one model, and a model is an object like any other."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn import pretrained
from tests.reference import checkpoints
from tests.reference.agreement import (
    FLOAT32,
    error,
    measures,
    needs_smollm2,
    smollm2,
    stored,
    worst_of_family,
)

# forms


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


def test_the_base_of_the_rotary_angles_may_be_written_where_older_versions_had_it(tmp_path):
    older = {"rope_parameters": None, "rope_theta": 500.0, "rope_scaling": None}
    model = pretrained.load(checkpoints.changed("llama", tmp_path, **older))
    assert worst_of_family(model, "llama") <= FLOAT32


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


# objects


@pytest.mark.float64
@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_the_dtype_that_is_asked_for_stays_through_all_layers(family):
    model = pretrained.load(checkpoints.HERE / family)
    for dtype in (jnp.float32, jnp.float64):
        for mu in measures(model, [1, 2, 3], dtype):
            assert mu.dtype == dtype
    assert model.embed([1, 2, 3]).dtype == jnp.float32


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_a_model_passes_through_jit_and_has_finite_gradients(family):
    model = pretrained.load(checkpoints.HERE / family)
    mu = model.embed([1, 2, 3, 4])

    @jax.jit
    def spread(model, mu):
        return jnp.sum(ma.states(mu @ ma.Stack(model.layers)).points[-1] ** 2)

    by_model, by_points = jax.jit(jax.grad(spread, argnums=(0, 1)))(model, mu)
    leaves = jax.tree.leaves((by_model, ma.states(by_points).points))
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves)
    assert sum(float(jnp.sum(jnp.abs(leaf))) for leaf in leaves) > 0


def test_a_model_tells_what_it_is():
    model = pretrained.load(checkpoints.HERE / "bert")
    assert repr(model) == (
        "Transformer(bert: bert, 2 layers, width 48, vocabulary 96, up to 40 tokens, float32)"
    )


@needs_smollm2
def test_the_name_of_a_quantised_model_says_so():
    assert smollm2().name == "SmolLM2-135M-Instruct (dequantised Q4_1)"


def test_the_whole_model_is_its_layers_one_after_the_other():
    model = pretrained.load(checkpoints.HERE / "llama")
    ids = stored("llama")["0_ids"]
    whole = model.embed(ids) @ ma.Stack(model.layers)
    one_by_one = measures(model, ids, jnp.float32)[-1]
    assert eqx.tree_equal(whole.points.position, one_by_one.points.position)
    assert error(whole.points.state, one_by_one.points.state) <= FLOAT32
