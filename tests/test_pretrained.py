"""Trained layers do what an independent implementation does, and wrong ones are told apart.

The stored states come from `tests/reference/make_reference.py`.
"""

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
    FLOAT64,
    MINILM,
    SMOLLM2,
    WRONG,
    error,
    measures,
    minilm,
    needs_minilm,
    needs_smollm2,
    smollm2,
    states,
    worst,
    worst_of_family,
)


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
def test_all_seven_states_of_minilm_agree_in_float32(text):
    reference = MINILM[f"{text}_float32"]
    assert len(reference) == 7
    assert worst(states(minilm(), MINILM[f"{text}_ids"], jnp.float32), reference) <= FLOAT32


@needs_minilm
@pytest.mark.float64
@pytest.mark.parametrize("text", ["short", "medium"])
def test_all_seven_states_of_minilm_agree_in_float64(text):
    ours = states(minilm(), MINILM[f"{text}_ids"], jnp.float64)
    assert worst(ours, MINILM[f"{text}_float64"]) <= FLOAT64


@needs_smollm2
@pytest.mark.parametrize("text", ["short", "chat", "crowd"])
def test_states_and_logits_of_smollm2_agree_in_float32(text):
    ids, kept = SMOLLM2[f"{text}_ids"], SMOLLM2["kept"]
    ours = states(smollm2(), ids, jnp.float32)
    assert worst([ours[layer] for layer in kept], SMOLLM2[f"{text}_float32"]) <= FLOAT32
    if text != "short":
        logits = smollm2().logits(measures(smollm2(), ids, jnp.float32)[-1])[-4:]
        assert error(logits, SMOLLM2[f"{text}_logits_float32"]) <= FLOAT32


@needs_smollm2
@pytest.mark.float64
@pytest.mark.parametrize("text", ["short", "chat"])
def test_states_of_smollm2_agree_in_float64(text):
    ours = states(smollm2(), SMOLLM2[f"{text}_ids"], jnp.float64)
    last = [ours[layer] for layer in SMOLLM2["kept"][3:]]
    assert worst(last, SMOLLM2[f"{text}_float64"]) <= FLOAT64


@needs_smollm2
def test_all_layers_of_a_model_share_one_compiled_function():
    step = eqx.filter_jit(eqx.debug.assert_max_traces(lambda mu, layer: mu @ layer, max_traces=1))
    mu = smollm2().embed([1, 2, 3])
    for layer in smollm2().layers:
        mu = step(mu, layer)


def test_a_changed_state_is_not_called_in_agreement():
    reference = MINILM["short_float32"]
    assert worst(reference, reference) == 0
    assert worst(reference * np.float32(1 + 1e-5), reference) > FLOAT32


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
def test_rows_of_smollm2_left_interleaved_break_the_agreement():
    def maps(layer):
        potential = layer.layers[0].layer.layers[1].heads.potential.potential
        return potential.query.weight, potential.key.weight

    first = smollm2().layers[0]
    wrong = [
        jnp.stack([jnp.asarray(checkpoints.interleaved(np.asarray(head), 1)) for head in heads])
        for heads in maps(first)
    ]
    mu = smollm2().embed(SMOLLM2["chat_ids"], jnp.float32)
    reference = SMOLLM2["chat_float32"][list(SMOLLM2["kept"]).index(1)]
    assert error(ma.states(mu @ first).points, reference) <= FLOAT32
    assert error(ma.states(mu @ eqx.tree_at(maps, first, wrong)).points, reference) > WRONG
