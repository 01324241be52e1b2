"""Runs of the ledger: killed, resumed, torn, stale, wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from paper_repro.claim import claim
from paper_repro.evidence import Verdict
from paper_repro.ledger import Ledger, read_line
from paper_repro.runner import run, unknown_ids

ROOT = Path(__file__).resolve().parent.parent

SLOW = """
import sys, time
from pathlib import Path
from paper_repro.claim import claim
from paper_repro.runner import run

def toy(i):
    def test(bench):
        Path(sys.argv[1], f"ran-{i}").open("a").write("x")
        if len(sys.argv) > 2:
            time.sleep(0.2)
        bench.at_most("error", bench.rng.random() * 1e-16, 1e-12)
        bench.control("broken", 1.0, 1e-12, "broken")
    return claim(id=f"toy-{i}", group="A", title="t", formulas=["x"], statement="s",
                 source="s", hypotheses={})(test)

sys.exit(run([toy(i) for i in range(12)], out=Path(sys.argv[1])))
"""


def make(id, *, control=1.0, expected=Verdict.VERIFIED, error=False, formula="x", ran=None):
    def test(bench):
        if ran is not None:
            ran.append(id)
        if error:
            raise RuntimeError("the claim broke off")
        bench.at_most("error", 1e-16, 1e-12)
        bench.control("broken", control, 1e-12, "it is broken")

    return claim(
        id=id, group="A", title=f"title of {id}", formulas=[formula], statement="statement",
        source="source", hypotheses={}, expected=expected,
    )(test)  # fmt: skip


@pytest.fixture
def go(tmp_path):
    def go(claims, ids=(), **options):
        with open(os.devnull, "w") as file:
            return run(claims, ids, out=tmp_path, console=Console(file=file), **options)

    return go


def lines(folder):
    return [read_line(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_a_run_killed_with_signal_9_is_taken_up_where_it_stopped(tmp_path):
    command = [sys.executable, "-c", SLOW, str(tmp_path)]
    process = subprocess.Popen([*command, "slow"], cwd=ROOT, stdout=subprocess.DEVNULL)
    ledger = tmp_path / "results.jsonl"
    deadline = time.monotonic() + 120
    while not ledger.exists() or ledger.read_bytes().count(b"\n") < 3:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the run did not start"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = {r.id: r for r in lines(tmp_path)}
    assert 3 <= len(kept) < 12
    assert not (tmp_path / "report.html").exists()

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    after = {r.id: r for r in lines(tmp_path)}
    assert sorted(after, key=lambda id: int(id[4:])) == [f"toy-{i}" for i in range(12)]
    for id, result in kept.items():
        assert after[id] == result, "a finished claim was run again"
        assert (tmp_path / f"ran-{id[4:]}").read_text() == "x"
    assert f"{len(kept)} results taken from" in " ".join(done.stdout.split())
    assert done.stdout.strip().splitlines()[-1] == str(tmp_path / "report.html")


def test_a_torn_last_line_is_run_again(tmp_path, go):
    claims = [make("a"), make("b")]
    assert go(claims) == 0
    ledger = tmp_path / "results.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-40])
    assert go(claims) == 0
    assert [r.id for r in lines(tmp_path)] == ["a", "b"]


def test_noise_in_the_ledger_is_dropped(tmp_path, go):
    (tmp_path / "results.jsonl").write_bytes(b'\xff\xfe\n{"id": 1}\n[]\n\nnull\n')
    assert go([make("a")]) == 0
    assert [r.id for r in lines(tmp_path)] == ["a"]


@pytest.mark.parametrize("change", [{"quick": True}, {"seed": 1}, {"fresh": True}, {}])
def test_results_of_another_mode_or_seed_are_not_taken(tmp_path, go, change):
    ran = []
    assert go([make("a", ran=ran)]) == 0
    assert go([make("a", ran=ran)], **change) == 0
    assert len(ran) == (2 if change else 1)
    assert len(lines(tmp_path)) == 1


def test_results_of_other_sources_are_not_taken(tmp_path, go):
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "a.py").write_text("1")
    claims = [make("a")]
    assert go(claims, sources=(sources,)) == 0
    first = lines(tmp_path)[0].stamp
    (sources / "a.py").write_text("2")
    assert go(claims, sources=(sources,)) == 0
    second = lines(tmp_path)[0].stamp
    assert first["sources"] != second["sources"]
    assert {k: v for k, v in first.items() if k != "sources"} == {
        k: v for k, v in second.items() if k != "sources"
    }


def test_every_result_records_seed_versions_platform_and_dtype(tmp_path, go):
    go([make("a")], seed=7)
    stamp = json.loads((tmp_path / "results.jsonl").read_text())["stamp"]
    assert stamp["seed"] == 7
    assert stamp["mode"] == "full"
    assert {"python", "jax", "jaxlib", "numpy", "scipy", "pot", "measattn"} <= set(
        stamp["versions"]
    )
    assert stamp["platform"]
    assert stamp["dtype"] in {"float32", "float64"}


def test_an_expected_refutation_is_a_success(go):
    def test(bench):
        bench.counterexample("witness", 2.0, 1.0, "")
        bench.control("broken", 2.0, 1.0, "")

    refuted = claim(
        id="a", group="A", title="", formulas=[], statement="", source="", hypotheses={},
        expected=Verdict.REFUTED,
    )(test)  # fmt: skip
    assert go([refuted]) == 0


def test_a_wrong_expectation_makes_the_exit_status_1(go):
    assert go([make("a"), make("b", expected=Verdict.REFUTED)]) == 1


def test_a_control_that_passes_makes_the_exit_status_1(tmp_path, go):
    assert go([make("a", control=0.0)]) == 1
    assert lines(tmp_path)[0].verdict == Verdict.FAILED


def test_an_exception_is_recorded_and_the_run_goes_on(tmp_path, go):
    assert go([make("a", error=True), make("b")]) == 1
    first, second = lines(tmp_path)
    assert first.verdict == Verdict.ERROR
    assert "the claim broke off" in first.traceback
    assert second.verdict == Verdict.VERIFIED


def test_a_formula_that_cannot_be_rendered_makes_its_claim_an_error(tmp_path, go):
    assert go([make("a", formula=r"\unknowncommand{x}")]) == 1
    assert "unknown command" in lines(tmp_path)[0].traceback
    assert "unknowncommand" in (tmp_path / "report.html").read_text()


def test_claims_that_failed_run_again_next_time(tmp_path, go):
    assert go([make("a", error=True), make("b")]) == 1
    before = {r.id: r for r in lines(tmp_path)}
    assert go([make("a"), make("b")]) == 0
    after = {r.id: r for r in lines(tmp_path)}
    assert after["a"].verdict == Verdict.VERIFIED
    assert after["b"] == before["b"]


def test_chosen_claims_alone_run_and_decide_the_exit_status(tmp_path, go):
    claims = [make("a"), make("b", expected=Verdict.REFUTED)]
    assert go(claims, ["a"]) == 0
    assert [r.id for r in lines(tmp_path)] == ["a"]
    assert "not run" in (tmp_path / "report.html").read_text()


def test_an_unknown_id_is_refused_with_near_matches(tmp_path, go):
    claims = [make("def1-attention"), make("def2-markov-kernel")]
    assert go(claims, ["def1-atention"]) == 2
    assert not (tmp_path / "results.jsonl").exists()
    (message,) = unknown_ids(claims, ["def1-atention"])
    assert "did you mean def1-attention" in message
    (message,) = unknown_ids(claims, ["zzz"])
    assert "--list" in message


def test_two_runs_do_not_write_to_one_folder(tmp_path, go):
    ledger = Ledger(tmp_path / "results.jsonl", {})
    try:
        assert go([make("a")]) == 2
    finally:
        ledger.close()
    assert go([make("a")]) == 0
