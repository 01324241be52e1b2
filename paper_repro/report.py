"""One HTML file with every statement, its formula and its evidence; it opens offline.

The page asks the network for nothing (its content policy forbids it), needs no script, follows
the reader's light or dark scheme, and prints.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from paper_repro.claim import Claim
from paper_repro.evidence import Contract, Evidence, Role, Verdict
from paper_repro.formula import FormulaError, FormulaSheet
from paper_repro.ledger import Result
from paper_repro.numbers import number, seconds

GROUPS = {
    "A": "The paper: A Mathematical Theory of Attention",
    "B": "The literature around it",
    "C": "Claims of an essay on functional analysis and attention",
    "D": "A lecture note on attention",
}

ROLES = {
    Role.STATEMENT: "must hold",
    Role.CORRECTION: "correct form, must hold",
    Role.CONTROL: "negative control, must fail",
    Role.COUNTEREXAMPLE: "counterexample, must fail",
}


def write_report(
    path: Path, claims: Sequence[Claim], results: Mapping[str, Result], stamp: Mapping[str, Any]
) -> Path:
    """Write the page for all ``claims``; those without a result are listed by title, folded."""
    sheet = FormulaSheet()
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "prose": lambda text: _rendered(sheet.prose, text),
        "display": lambda latex: _rendered(sheet.display, latex),
        "number": number,
        "seconds": seconds,
        "chip": lambda verdict: str(verdict).replace(" ", "-"),
        "role": lambda contract: ROLES[contract.role],
        "meter": meter,
    }
    template = environment.get_template("report.html.jinja")
    body = template.render(
        groups=_groups(claims),
        results=results,
        not_run=[claim for claim in claims if claim.id not in results],
        counts=_counts(claims, results),
        total=sum(r.seconds for r in results.values()),
        stamp=stamp,
        contracts=_ordered,
        style=Markup((Path(__file__).parent / "templates" / "report.css").read_text("utf-8")),
        glyphs=Markup("@@GLYPHS@@"),
        svg=Markup,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    swap = path.with_suffix(".tmp")
    # the sheet of glyphs is complete only after all formulas are rendered
    swap.write_text(body.replace("@@GLYPHS@@", sheet.sheet(), 1), encoding="utf-8")
    swap.replace(path)
    return path


def check_texts(claim: Claim, evidence: Evidence) -> None:
    """Render every formula that the report of this claim will show.

    Raises:
        FormulaError: one of them cannot be rendered faithfully.
    """
    sheet = FormulaSheet()
    for latex in claim.formulas:
        sheet.display(latex)
    texts = [claim.statement, claim.source, *claim.hypotheses.values(), *evidence.notes]
    texts += [text for c in evidence.contracts for text in (c.name, c.reason)]
    texts += [f.title for f in evidence.figures]
    for t in evidence.tables:
        texts += [t.title, t.note, *t.columns, *(cell for row in t.rows for cell in row)]
    for text in texts:
        sheet.prose(text)


def _rendered(render: Callable[[str], str], text: str) -> Markup:
    """The text rendered; a formula that cannot be, which has made its claim an error, as source."""
    try:
        return Markup(render(text))
    except FormulaError:
        return Markup("<code>{}</code>").format(text)


def meter(contract: Contract) -> float:
    """The length, in percent, of the bar that shows a margin: logarithmic from 1e-6 to 1."""
    margin = contract.margin
    if math.isnan(margin) or margin <= 0:
        return 0.0
    return round(min(100.0, max(2.0, 100.0 * (1.0 + math.log10(margin) / 6.0))), 1)


def _ordered(evidence: Evidence) -> list[Contract]:
    order = list(ROLES)
    return sorted(evidence.contracts, key=lambda c: order.index(c.role))


def _groups(claims: Sequence[Claim]) -> list[tuple[str, str, list[Claim]]]:
    letters = sorted({c.group for c in claims})
    return [(x, GROUPS.get(x, "Statements"), [c for c in claims if c.group == x]) for x in letters]


def _counts(claims: Sequence[Claim], results: Mapping[str, Result]) -> list[tuple[str, int]]:
    done = [results[c.id] for c in claims if c.id in results]
    counts = [(str(v), sum(r.verdict == v for r in done)) for v in Verdict]
    counts.append(("not run", len(claims) - len(done)))
    return [(name, count) for name, count in counts if count]
