"""The command ``measattn lipschitz`` as a user meets it."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

import measattn as ma
from measattn.cli.heads import Asked, alone, answer, inner_attention
from tests.test_cli import measattn


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("The cat sat on the mat while the dog slept by the door.")
    return file


@pytest.mark.slow
@pytest.mark.models
def test_lipschitz_prints_each_head_and_draws_it(text):
    figure = text.parent / "heads.png"
    done = measattn("lipschitz", "--layer", 1, "--text", text, "--tokens", 4, "--head", 0,
                    "--head", 11, "--figure", figure)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "W1, class Whole" in done.stdout
    assert "the first 4 of 16 tokens" in done.stdout
    rows = [line.split("│") for line in done.stdout.splitlines() if line.startswith("│")]
    assert [row[1].strip() for row in rows] == ["0", "11"]
    assert figure.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.float64
def test_lipschitz_in_json_holds_the_constant_of_the_head_within_its_layer(text):
    done = measattn("lipschitz", "--layer", 0, "--text", text, "--tokens", 4, "--head", 7,
                    "--head", 7, "--p", "inf", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert (row["p"], row["metric"], row["moves"]) == ("inf", "W_inf", "Whole")
    assert (row["tokens"], row["tokens_of_text"], row["block"]) == (4, 16, None)
    (head,) = row["heads"]
    # the same by the whole output map, in which the other heads say nothing
    model = ma.pretrained.minilm()
    mu = model.embed(model.ids(text.read_text())[:4], np.float64)
    attention = model.layers[0].layers[0].layer
    part = np.asarray(attention.output.weight)[:, 7 * 32 : 8 * 32]
    want = ma.lipschitz.local(ma.MultiHead([attention.head(7)], part), mu, np.inf)
    assert head["attained"] == pytest.approx(want.value, rel=1e-3)
    assert head["attained"] <= want.upper * (1 + 1e-9)
    assert want.value <= head["certified"] * (1 + 1e-9)
    value = part.astype(np.float64) @ np.asarray(attention.head(7).value.weight)
    assert head["norm_v"] == pytest.approx(np.linalg.norm(value, 2), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"p": 1.0000000001}, "--p must be 1, 2 or inf for a local constant, got 1.0000000001"),
        ({"tokens": 0}, "--tokens must be at least 1"),
        ({"block": True, "tokens": 513}, "may take hours for --p 1: give --tokens 512 or fewer"),
        ({"figure": Path("heads.doc")}, "--figure must name a .png or .svg or .pdf file"),
        ({"figure": Path("nowhere/heads.png")}, "cannot be written"),
        ({"model": "gpt2"}, "there is no checkpoint at gpt2: --model is minilm, or the folder"),
        ({"text": Path("nowhere.txt")}, "there is no file nowhere.txt"),
        ({"text": Path()}, "is a folder: name a text file"),
    ],
)
def test_lipschitz_refuses_nonsense_in_words(text, options, words):
    asked = {"model": "minilm", "layer": 0, "text": text, "p": 1.0, "tokens": 3} | options
    with pytest.raises((ValueError, OSError), match=words):
        answer(Asked(**asked))


@pytest.mark.models
@pytest.mark.float64
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer": 6}, "--layer must be from 0 to 5"),
        ({"heads": (12,)}, "--head must be from 0 to 11, got 12"),
        ({"model": "smollm2"}, "layer 0 of SmolLM2.* cannot be certified, .* BERT or GPT-2 family"),
    ],
)
def test_lipschitz_names_the_layers_and_heads_that_there_are(text, options, words):
    asked = {"model": "minilm", "layer": 0, "text": text, "p": 1.0, "tokens": 3} | options
    with pytest.raises(ValueError, match=words):
        answer(Asked(**asked))


@pytest.mark.models
@pytest.mark.float64
@pytest.mark.parametrize(
    ("options", "words"),
    [({"heads": (12,)}, "--head must be"), ({"model": "smollm2", "layer": 29}, "be certified")],
)
def test_lipschitz_refuses_before_the_text_passes_the_layers_below(
    text, options, words, monkeypatch
):
    def passed(block, law):
        raise AssertionError(f"{law} passed a block")

    monkeypatch.setattr(ma.Stack, "__rmatmul__", passed)
    asked = {"model": "minilm", "layer": 5, "text": text, "p": 1.0, "tokens": 3} | options
    with pytest.raises(ValueError, match=words):
        answer(Asked(**asked))


def test_lipschitz_refuses_a_pipe_without_waiting_for_it(text):
    os.mkfifo(text.parent / "pipe")
    with pytest.raises(ValueError, match="pipe is no regular file: name a text file"):
        answer(Asked("minilm", 0, text.parent / "pipe", 1.0, 3))


@pytest.mark.parametrize(
    ("content", "words"), [(b" \n", "is empty"), (b"\xff\xfe\x00", "not readable as UTF-8")]
)
def test_lipschitz_refuses_what_is_no_text(text, content, words):
    text.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        answer(Asked("minilm", 0, text, 1.0, 3))


def test_what_lipschitz_refuses_is_one_line_and_status_2(text):
    done = measattn("lipschitz", "--text", text, "--p", "3")
    assert done.returncode == 2
    assert done.stderr == "error: --p must be 1, 2 or inf for a local constant, got 3.0\n"
    assert done.stdout == ""


@pytest.mark.slow
@pytest.mark.models
def test_an_interrupted_lipschitz_says_how_far_it_came(text):
    code = (
        "import measattn.lipschitz as lip\n"
        "def stopped(*a): raise KeyboardInterrupt\n"
        "lip.local = stopped\n"
        "from measattn.cli import main; main()"
    )
    done = measattn("lipschitz", "--text", text, "--tokens", 3, "--head", 0, code=code)
    assert done.returncode == 130
    assert done.stderr == "interrupted after 0 of 1\n"


@pytest.mark.float64
def test_a_head_in_a_block_is_found_with_the_law_that_enters_it():
    rng = np.random.default_rng(0)
    heads = [
        ma.SelfAttention(ma.Bilinear(*rng.normal(size=(2, 2, 4))), rng.normal(size=(2, 4)))
        for _ in range(2)
    ]
    attention = ma.MultiHead(heads, rng.normal(size=(4, 4)))
    norm = ma.LayerNorm(rng.normal(size=4))
    mu = ma.EmpiricalMeasure(rng.normal(size=(5, 4)))
    found, law = inner_attention(ma.pre_norm([attention], [norm]), mu)
    assert found is attention
    np.testing.assert_allclose(law.points, (mu @ norm).points)
    assert inner_attention(ma.Stack([norm]), mu) is None
    # a head up to an isometry: the same distances between outputs
    zeros = np.array(attention.output.weight)
    zeros[:, :2] = 0
    want = mu @ ma.MultiHead(heads, zeros)
    got = mu @ alone(attention, 1)
    np.testing.assert_allclose(*(cdist(law.points, law.points) for law in (got, want)), atol=1e-12)
