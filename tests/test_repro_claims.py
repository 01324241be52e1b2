"""The catalogue itself: complete, rendered, and able to find a library that is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from paper_repro.catalogue import CLAIMS
from paper_repro.evidence import Evidence, Verdict
from paper_repro.report import check_texts

ROOT = Path(__file__).resolve().parent.parent

STATEMENTS = {
    "def1-attention",
    "def2-markov-kernel",
    "def3-boltzmann-gibbs",
    "def4-softmatch",
    "def5-lookup",
    "def6-moment-encoding",
    "def7-moment-subspace",
    "def8-attention-kernel",
    "prop9-attention",
    "particles",
    "max-entropy",
    "gibbs-lipschitz",
    "projection-lipschitz",
    "lookup-lipschitz",
    "column-mass",
    "w1-constant",
    "attention-lipschitz",
    "local-constants",
    "misspecified-input",
    "infinite-depth",
    "infinite-depth-trivial",
    "depth-injected",
    "rd-decaying",
    "kim-not-lipschitz",
    "kim-l2",
    "castin-root-n",
    "castin-mean-field",
    "yudin-local",
    "nair-half",
    "essay-contractive",
    "dong-rank-collapse",
    "token-sampling",
    "essay-banach",
    "essay-residual",
    "essay-spectral-radius",
    "note-theorem1",
    "note-theorem2",
    "note-theorem3",
    "note-general",
    "note-self",
    "note-multihead",
    "note-masked",
    "note-encoder-decoder",
    "note-ffn-residual-norm",
    "note-positional",
    "note-permutation",
    "note-gradients",
    "geshkovski-clusters",
    "castin-gaussian",
    "sinkformer",
    "note-dynamics",
}


def test_every_statement_has_a_claim_and_no_two_share_an_id():
    ids = [claim.id for claim in CLAIMS]
    assert len(ids) == len(set(ids))
    assert set(ids) >= STATEMENTS


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_every_claim_has_hypotheses_a_source_and_formulas_that_render(claim):
    assert claim.hypotheses
    assert claim.source
    assert claim.formulas
    assert claim.title
    assert claim.statement.rstrip().endswith(".")
    assert claim.expected in {Verdict.VERIFIED, Verdict.REFUTED, Verdict.NEEDS_HYPOTHESES}
    check_texts(claim, Evidence())


def test_sources_that_were_not_at_hand_say_so():
    for claim in CLAIMS:
        if "[VBT20]" in claim.source:
            assert "as reconstructed in docs/theory" in claim.source


def run(*arguments, before=""):
    code = (
        f"import sys; import jax; jax.config.update('jax_enable_x64', True); {before}\n"
        "from paper_repro.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "--quick", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_claims_come_out_as_expected(tmp_path):
    done = run("note-theorem1", "def6-moment-encoding", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("report.html")


BROKEN = {
    "a scale that is one part in a thousand off": (
        "def1-attention",
        "n = ma.DotProduct.__init__\n"
        "def broken(self, scale=1.0):\n    n(self, 1.001 * scale)\nma.DotProduct.__init__ = broken",
    ),
    "weights of keys that are forgotten": (
        "def1-attention",
        "n = ma.AttentionKernel.__init__\n"
        "def broken(self, a, k, v):\n"
        "    n(self, a, ma.EmpiricalMeasure(k.points) if hasattr(k, 'points') else k, v)\n"
        "ma.AttentionKernel.__init__ = broken",
    ),
    "a projection one part in a million too long": (
        "projection-lipschitz",
        "n = ma.moment.project\n"
        "def broken(*arguments):\n"
        "    return ma.pushforward(lambda x: (1 + 1e-6) * x, n(*arguments))\n"
        "ma.moment.project = broken",
    ),
    "a Boltzmann-Gibbs transformation that is two percent too cold": (
        "gibbs-lipschitz",
        "n = ma.boltzmann_gibbs\n"
        "def broken(log_g, mu):\n    return n(lambda y: 1.02 * log_g(y), mu)\n"
        "ma.boltzmann_gibbs = broken",
    ),
    "constants of attention that are two percent too small": (
        "attention-lipschitz",
        "import dataclasses\nn = ma.lipschitz.bound\n"
        "def broken(*arguments, **names):\n"
        "    found = n(*arguments, **names)\n"
        "    return dataclasses.replace(found, value=0.98 * found.value)\n"
        "ma.lipschitz.bound = broken",
    ),
    "a proof of contraction for every layer": (
        "infinite-depth",
        "import dataclasses, importlib\n"
        "c = importlib.import_module('measattn.dynamics.contraction')\nn = c.bound\n"
        "def broken(*arguments, **names):\n"
        "    return dataclasses.replace(n(*arguments, **names), value=0.9)\n"
        "c.bound = broken\nc._invariant = lambda layer, radius, *rest: c.Ball(radius)",
    ),
    "runs that say they have converged when they stop": (
        "essay-banach",
        "import dataclasses, importlib\n"
        "f = importlib.import_module('measattn.dynamics.fixed_point')\nn = f._judged\n"
        "def broken(*arguments):\n"
        "    return dataclasses.replace(n(*arguments), verdict='converged')\n"
        "f._judged = broken",
    ),
    "a collapse that is two percent too fast": (
        "dong-rank-collapse",
        "import importlib\nf = importlib.import_module('measattn.dynamics.collapse')\n"
        "n = f._mixing\nf._mixing = lambda *arguments: 0.98 * n(*arguments)",
    ),
}


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.parametrize(("statement", "fault"), BROKEN.values(), ids=BROKEN.keys())
def test_a_library_that_is_wrong_is_found_out(tmp_path, statement, fault):
    done = run(statement, "--out", tmp_path, before=f"\nimport measattn as ma\n{fault}")
    assert done.returncode == 1, done.stdout + done.stderr
    said = " ".join(done.stdout.split())
    assert "contract broken" in said or "control passes but must fail" in said
