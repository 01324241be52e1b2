"""Certificates made by hand, and how to tamper with them."""

import hashlib
import json
import math
import shutil

import numpy as np

import measattn as ma
from measattn import lipschitz as lip
from measattn.lipschitz.forms import form
from measattn.lipschitz.quotient import evaluate
from measattn.lipschitz.results import Estimate, Witness

TRIANGLE = np.array([[0.5, 0.1], [0.2, 0.3], [0.3, 0.4]])
RNG = np.random.default_rng(0)
MATRIX = RNG.normal(size=(2, 2))
HEADS = [ma.SelfAttention(ma.Bilinear(*RNG.normal(size=(2, 2, 2)))) for _ in range(2)]


def shown(layer, domain, p=1, x=TRIANGLE, atoms=None):
    """The bracket of a pair of measures that no search had to find."""
    mass = np.full(len(x), 1 / len(x)) if atoms or math.isinf(p) else np.array([0.5, 0.3, 0.2])
    y = x.copy()
    y[0] += [1e-3, -1e-3]
    pair = evaluate(layer, form(layer, 2), x, y, mass, float(p))
    bound = lip.bound(layer, domain, p, atoms=atoms, dimension=2)
    witness = Witness(pair.mu, pair.nu, pair.before, pair.after)
    estimate = Estimate(pair.value, witness, float(p), domain, 1, "by hand", atoms=atoms)
    return lip.Bracket(pair.value, bound.value, estimate, bound, layer)


def copied(original, folder):
    for suffix in (".json", ".npz"):
        shutil.copy(original[1].with_suffix(suffix), folder)
    return folder / original[1].name


def forge(file, change=lambda entries: None, arrays=lambda arrays: None):
    """Change the entries and arrays of a certificate, and make its hash fit again."""
    with np.load(file.with_suffix(".npz")) as archive:
        held = dict(archive)
    arrays(held)
    np.savez(file.with_suffix(".npz"), **held)
    entries = json.loads(file.read_text())
    content = file.with_suffix(".npz").read_bytes()
    entries["arrays"]["sha256"] = hashlib.sha256(content).hexdigest()
    change(entries)
    file.write_text(json.dumps(entries))


def rejected(file, words):
    report = lip.verify(file)
    reasons = [str(item) for item in report.items if not item.accepted]
    assert not report.accepted
    assert any(words in reason for reason in reasons), reasons
