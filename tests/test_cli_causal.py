"""The command ``measattn lipschitz`` on causal checkpoints, against whole Jacobians."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

import measattn as ma
from measattn import lipschitz, pretrained
from measattn.cli.heads import Asked, alone, answer, inner_attention, run
from measattn.measure import measure
from measattn.points import state, with_state
from tests.lipschitz import dense
from tests.reference import checkpoints

pytestmark = pytest.mark.float64

TEXT, IDS, LAYER = "the dog saw the cat", [7, 31, 90, 7, 12], 1


def readable(family, tmp_path):
    """A stored checkpoint that can read TEXT, and the text."""
    folder = checkpoints.copied(family, tmp_path / family)
    vocabulary = dict(zip(TEXT.split(), IDS, strict=True)) | {"?": 0}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    return folder, text


def normed(law, norm, eps):
    x = np.asarray(state(law.points))
    x = x - x.mean(axis=1, keepdims=True)
    x /= np.sqrt((x * x).mean(axis=1, keepdims=True) + eps)
    x = x * np.float64(norm["weight"]) + np.float64(norm["bias"])
    return measure(with_state(law.points, jnp.asarray(x)), law.log_weights)


def by_hand(folder):
    """Of GPT-2: the law that enters the layer, what enters its attention, and its heads alone."""
    config, stored = checkpoints.read("gpt2")
    model = pretrained.load(folder)
    law = model.embed(np.array(IDS), np.float64) @ model.layers[0]
    at = f"transformer.h.{LAYER}"
    if f"{at}.ln_1.weight" not in stored:
        at = f"h.{LAYER}"
    norm = {name: stored[f"{at}.ln_1.{name}"] for name in ("weight", "bias")}
    entering = normed(law, norm, config["layer_norm_epsilon"])
    width = config["n_embd"] // config["n_head"]
    weight, bias = stored[f"{at}.attn.c_attn.weight"], stored[f"{at}.attn.c_attn.bias"]
    out, heads = np.float64(stored[f"{at}.attn.c_proj.weight"]), []
    for k in range(config["n_head"]):
        begins = (s * config["n_embd"] + k * width for s in range(3))
        query, key, value = (
            ma.Affine(np.float64(weight[:, b : b + width].T), np.float64(bias[b : b + width]))
            for b in begins
        )
        scores = ma.Causal(ma.Bilinear(query, key, 1 / math.sqrt(width)))
        mixed = out[k * width : (k + 1) * width].T
        heads.append(ma.MultiHead([ma.SelfAttention(scores, value)], mixed))
    return law, entering, model.layers[LAYER], heads


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_the_constants_of_gpt2_are_those_of_its_masked_jacobian(p, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    folder, text = readable("gpt2", tmp_path)
    law, entering, block, heads = by_hand(folder)
    whole = p == 2
    assert run(Asked(str(folder), LAYER, text, p, 5, (3,), whole), print, as_json=False) == 0
    shown = capsys.readouterr().out
    assert f"{'W_inf' if p == math.inf else f'W{p:g}'}, position-wise" in shown
    assert "layer 1, 5 tokens" in shown
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines()]
    rows = [row for row in rows if row]
    assert [row[0] for row in rows] == (["3", "block"] if whole else ["3"])
    cases = ((heads[3], entering), (block, law))
    for row, (layer, mu) in zip(rows, cases[: len(rows)], strict=True):
        attained, certified, exact = float(row[1]), float(row[2]), dense.whole(layer, mu, p)
        assert exact * (1 - 1e-3) <= attained <= exact * (1 + 1e-5)  # six digits are printed
        assert exact * (1 - 1e-5) <= certified <= exact * (1 + 2e-3)
    # the same as of the layer's own attention, asked for by itself
    attention, _ = inner_attention(block, law)
    want = lipschitz.local(alone(attention, 3), entering, p)
    assert want.metric == f"{'W_inf' if p == math.inf else f'W{p:g}'}, position-wise"
    assert float(rows[0][1]) == pytest.approx(want.value, rel=1e-5)
    assert float(rows[0][2]) == pytest.approx(want.upper, rel=1e-5)


def test_without_its_mask_gpt2_has_other_constants(tmp_path):
    _, entering, _, heads = by_hand(readable("gpt2", tmp_path)[0])
    head = heads[3].head(0)
    open_ = ma.MultiHead(
        [ma.SelfAttention(head.potential.potential, head.value)], heads[3].output.weight
    )
    masked = dense.whole(heads[3], entering, 2)
    assert dense.whole(open_, entering, 2) != pytest.approx(masked, rel=0.01)


def test_rotary_scores_are_refused_with_a_remedy(tmp_path):
    folder, text = readable("llama", tmp_path)
    words = r"layer 1 of llama .* got Rotary: name a checkpoint of the BERT or GPT-2 family"
    with pytest.raises(ValueError, match=words):
        answer(Asked(str(folder), LAYER, text, 1.0, 5))
