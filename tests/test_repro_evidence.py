"""The verdict is derived from the evidence, and evidence that is no evidence carries none."""

import math

import numpy as np
import pytest

from paper_repro.claim import Bench, claim, relative_error
from paper_repro.evidence import Verdict, decode, encode


def bench_of(test, hypotheses=None):
    declared = claim(
        id="toy", group="A", title="", formulas=[], statement="", source="",
        hypotheses=hypotheses or {},
    )(test)  # fmt: skip
    bench = Bench(declared, quick=True, seed=0)
    declared.test(bench)
    return bench


def verdict_of(test, hypotheses=None):
    return bench_of(test, hypotheses).evidence().verdict()


def good(bench):
    bench.at_most("error", 1e-16, 1e-12)
    bench.control("broken", 0.5, 1e-12, "it is broken")


def test_contracts_that_hold_and_a_control_that_fails_are_verified():
    assert verdict_of(good) == Verdict.VERIFIED


def test_a_broken_contract_is_no_verdict():
    def test(bench):
        good(bench)
        bench.at_most("error", 1e-11, 1e-12)

    assert verdict_of(test) == Verdict.FAILED


def test_a_negative_control_that_passes_is_a_failure():
    def test(bench):
        bench.at_most("error", 0.0, 1.0)
        bench.control("broken", 1e-13, 1e-12, "it should be off")

    assert verdict_of(test) == Verdict.FAILED


def test_a_negative_control_that_fails_with_another_value_than_predicted_is_a_failure():
    def test(bench):
        bench.at_most("error", 0.0, 1.0)
        bench.control("broken", 0.5, 1e-12, "it is off by 0.7", predicted=0.7)

    assert verdict_of(test) == Verdict.FAILED


def test_a_negative_control_that_is_nan_is_a_failure():
    def test(bench):
        bench.at_most("error", 0.0, 1.0)
        bench.control("broken", math.nan, 1e-12, "it crashed")

    assert verdict_of(test) == Verdict.FAILED


def test_without_a_negative_control_nothing_is_verified():
    assert verdict_of(lambda bench: bench.at_most("error", 0.0, 1.0)) == Verdict.FAILED


def test_without_a_contract_nothing_is_verified():
    assert verdict_of(lambda bench: bench.control("broken", 2.0, 1.0, "")) == Verdict.FAILED


def test_a_counterexample_beside_contracts_that_hold_means_needs_hypotheses():
    def test(bench):
        good(bench)
        bench.counterexample("without the hypothesis", 2.0, 1.0, "witness")

    assert verdict_of(test) == Verdict.NEEDS_HYPOTHESES


def test_a_counterexample_alone_means_refuted():
    def test(bench):
        bench.counterexample("witness", 2.0, 1.0, "")
        bench.control("broken", 2.0, 1.0, "")

    assert verdict_of(test) == Verdict.REFUTED


def test_a_counterexample_that_does_not_break_the_statement_is_a_failure():
    def test(bench):
        good(bench)
        bench.counterexample("no witness", 0.5, 1.0, "")

    assert verdict_of(test) == Verdict.FAILED


def test_a_hypothesis_that_does_not_hold_is_a_failure():
    def test(bench):
        good(bench)
        bench.check("bounded", False)

    assert verdict_of(test, {"bounded": "tokens are bounded"}) == Verdict.FAILED


def test_a_hypothesis_checked_twice_must_hold_twice():
    def test(bench):
        good(bench)
        bench.check("bounded", False)
        bench.check("bounded", True)

    assert verdict_of(test, {"bounded": "tokens are bounded"}) == Verdict.FAILED


def test_hypotheses_that_are_not_checked_are_listed_as_assumed():
    evidence = bench_of(good, {"bounded": "tokens are bounded"}).evidence()
    assert [h.holds for h in evidence.hypotheses] == [None]


def test_checking_a_hypothesis_that_was_not_declared_is_an_error():
    with pytest.raises(KeyError, match="declares no hypothesis"):
        bench_of(lambda bench: bench.check("typo", True))


def test_nan_breaks_contracts_of_both_directions():
    def test(bench):
        bench.at_most("nan", math.nan, 1.0)
        bench.at_least("nan", math.nan, 1.0)

    assert [c.holds for c in bench_of(test).evidence().contracts] == [False, False]


@pytest.mark.parametrize(
    ("observed", "bound", "margin"),
    [(1, 4, 0.25), (4, 4, 1), (0, 0, 0), (2, 1, 2), (1, 0, math.inf)],
)
def test_the_margin_is_observed_over_allowed(observed, bound, margin):
    contract = bench_of(lambda bench: bench.at_most("", observed, bound)).evidence().contracts[0]
    assert contract.margin == margin
    assert contract.holds == (margin <= 1)


def test_the_margin_of_a_lower_bound_is_allowed_over_observed():
    bench = bench_of(lambda bench: bench.at_least("", 4.0, 1.0))
    assert bench.evidence().contracts[0].margin == 0.25


def test_a_refusal_must_come_and_must_name_what_it_is_asked_to_name():
    def refuse():
        raise ValueError("sigma must be positive")

    def test(bench):
        bench.refuses("named", refuse, "sigma", "positive")
        bench.refuses("not named", refuse, "weights")
        bench.refuses("no refusal", lambda: None, "sigma")

    assert [c.holds for c in bench_of(test).evidence().contracts] == [True, False, False]


def test_evidence_survives_json_with_infinities_and_nan():
    def test(bench):
        good(bench)
        bench.at_most("unbounded", math.inf, 1.0)
        bench.control("nan", math.nan, 1.0, "", predicted=math.inf)
        bench.table("t", ["a"], [[1.5], ["x"], [True]])
        bench.note("n")

    evidence = bench_of(test, {"h": "text"}).evidence()
    again = decode(encode(evidence))
    assert encode(again) == encode(evidence)
    assert again.verdict() == evidence.verdict()


def test_relative_errors_compare_equal_shapes_only():
    assert relative_error([1.0, 2.0], [1.0, 4.0]) == 0.5
    assert relative_error(np.zeros(2), np.zeros(2)) == 0.0
    with pytest.raises(ValueError, match="shapes differ"):
        relative_error(np.zeros(2), np.zeros((2, 1)))
    with pytest.raises(ValueError, match="empty"):
        relative_error(np.zeros(0), np.zeros(0))


def test_every_claim_has_randomness_of_its_own_that_the_seed_repeats():
    def draw(id, seed):
        declared = claim(
            id=id, group="A", title="", formulas=[], statement="", source="", hypotheses={}
        )(good)
        return Bench(declared, quick=True, seed=seed).rng.random()

    assert draw("a", 0) == draw("a", 0)
    assert len({draw("a", 0), draw("b", 0), draw("a", 1)}) == 3
