"""No formula of the report is lost: every one renders faithfully or is an error."""

import re

import pytest

from paper_repro.formula import FormulaError, FormulaSheet, check


def test_a_formula_becomes_an_svg_with_a_label_and_the_colour_of_the_text():
    svg = FormulaSheet().display(r"\frac{a}{b}")
    assert svg.startswith("<svg")
    assert 'role="img"' in svg
    assert r'aria-label="\frac{a}{b}"' in svg
    assert "currentColor" in svg
    assert "black" not in svg


def test_glyphs_are_drawn_once_for_all_formulas():
    sheet = FormulaSheet()
    body = sheet.display("x+y") + sheet.prose("see $x+y$ and $y+x$") + sheet.sheet()
    ids = re.findall(r'<symbol id="([^"]+)"', body)
    assert len(ids) == len(set(ids)) == 3
    assert set(re.findall(r'href="#([^"]+)"', body)) == set(ids)


@pytest.mark.parametrize(
    "latex", [r"\foo{x}", r"\frac{x", r"\mathop{\mathrm{Cov}}", r"\Bigl\{x", r"\tag{1}", " "]
)
def test_what_would_be_lost_is_an_error(latex):
    with pytest.raises(FormulaError):
        FormulaSheet().display(latex)


def test_a_bracket_that_outgrows_its_formula_is_an_error():
    with pytest.raises(FormulaError, match="em high: use"):
        FormulaSheet().display(r"\left[\sum_jx_j\right]")
    FormulaSheet().display(r"\Bigl[\sum_jx_j\Bigr]")


@pytest.mark.parametrize("latex", [r"\langle x, y\rangle", r"\mathbb{R}^d", r"\{x\}", r"\Psi_{gh}"])
def test_what_the_claims_use_is_understood(latex):
    check(latex)


def test_prose_is_escaped_and_its_formulas_rendered():
    html = FormulaSheet().prose("a < b & $x^2$ <script>")
    assert html.startswith("a &lt; b &amp; <svg")
    assert html.endswith("&lt;script&gt;")


def test_a_dollar_sign_without_its_partner_is_an_error():
    with pytest.raises(FormulaError, match="partner"):
        FormulaSheet().prose("costs $5")
