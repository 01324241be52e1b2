"""LaTeX to inline SVG that takes the colour of the text around it.

Every glyph is drawn once in the page: formulas refer to a shared sheet of symbols. ziamath
renders commands that it does not know as plain text and some others as nothing; here both are
errors, so that no formula is lost in silence.
"""

import functools
import html
import math
import re
import warnings
from dataclasses import dataclass, field
from xml.etree import ElementTree

from latex2mathml.converter import convert

with warnings.catch_warnings():
    # it reads its fonts through an interface that Python 3.11 calls deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    import ziamath
    from ziamath.tex import tex2mml

SIZE = 17.0
"""Font size, in pixels, of display formulas; text in the page is set to match."""

TALLEST = 8.0
"""Height, in em, of a formula: a bracket that is stretched around a sum can become a page high."""

_SVG = "{http://www.w3.org/2000/svg}"
_BAR = "<mi>&#x02016;</mi>"
_MATH = re.compile(r"\$([^$]+)\$")


class FormulaError(ValueError):
    """A formula that cannot be rendered faithfully."""


@dataclass
class FormulaSheet:
    """Renders formulas and collects the glyphs that they share."""

    symbols: dict[str, str] = field(default_factory=dict)

    def display(self, latex: str) -> str:
        """A formula on a line of its own."""
        return self._svg(latex, inline=False)

    def prose(self, text: str) -> str:
        """Escaped HTML of ``text``, with the LaTeX between dollar signs rendered."""
        pieces, end = [], 0
        for match in _MATH.finditer(text):
            pieces.append(html.escape(text[end : match.start()]))
            pieces.append(self._svg(match.group(1), inline=True))
            end = match.end()
        rest = text[end:]
        if "$" in rest:
            raise FormulaError(f"a dollar sign without its partner: {text}")
        return "".join(pieces) + html.escape(rest)

    def sheet(self) -> str:
        """The hidden SVG that holds the glyphs of all formulas rendered so far."""
        symbols = "".join(self.symbols.values())
        return f'<svg class="glyphs" width="0" height="0" aria-hidden="true">{symbols}</svg>'

    def _svg(self, latex: str, *, inline: bool) -> str:
        drawn = draw(latex, inline)
        self.symbols |= drawn.symbols
        return drawn.svg


@dataclass(frozen=True)
class Drawn:
    """A rendered formula and the glyphs that it refers to, by id."""

    svg: str
    symbols: dict[str, str]


@functools.cache
def draw(latex: str, inline: bool) -> Drawn:
    """Render one formula.

    Raises:
        FormulaError: a part of it would be lost, or nothing would be seen.
    """
    check(latex)
    try:
        # the bars of a norm would be stretched to all that stands in their line
        bar = '<mo stretchy="false" lspace="0em" rspace="0em">&#x02016;</mo>'
        mathml = tex2mml(latex, inline=inline).replace(_BAR, bar)
        root = ElementTree.fromstring(ziamath.Math(mathml, size=SIZE).svg())
        _, top, width, height = map(float, root.attrib["viewBox"].split())
    except Exception as error:  # ziamath raises whatever its parser stumbles over
        raise FormulaError(f"cannot render the formula {latex!r}: {error!r}") from error
    if not all(map(math.isfinite, (width, height))) or min(width, height) <= 0:
        raise FormulaError(f"the formula {latex!r} renders as nothing")
    if height > TALLEST * SIZE:
        raise FormulaError(
            f"the formula {latex!r} is {height / SIZE:.0f} em high: use \\Bigl and \\Bigr for "
            "\\left and \\right"
        )
    if any(e.attrib.get("id", "").endswith("_0") for e in root):
        raise FormulaError(f"the font lacks a character of the formula {latex!r}")
    symbols = {e.attrib["id"]: _markup(e) for e in root if e.tag == _SVG + "symbol"}
    body = "".join(_markup(e) for e in root if e.tag != _SVG + "symbol")
    style = f"width:{width / SIZE:.4f}em;height:{height / SIZE:.4f}em"
    if inline:
        style += f";vertical-align:{-(top + height) / SIZE:.4f}em"
    svg = (
        f'<svg class="{"inline" if inline else "display"} formula" role="img" '
        f'aria-label="{html.escape(latex)}" viewBox="{root.attrib["viewBox"]}" '
        f'style="{style}" fill="currentColor">{body}</svg>'
    )
    return Drawn(svg, symbols)


def check(latex: str) -> None:
    """Raise a `FormulaError` if ``latex`` has a command or a character that would be lost."""
    if r"\tag" in latex:
        raise FormulaError(f"formulas have no numbers here: {latex!r}")
    try:
        mathml = convert(latex)
    except Exception as error:
        raise FormulaError(f"cannot parse the formula {latex!r}: {error!r}") from error
    for element in ElementTree.fromstring(mathml).iter():
        if "\\" in (element.text or ""):
            raise FormulaError(f"unknown command {element.text!r} in the formula {latex!r}")
        if element.tag.rpartition("}")[2] in {"mo", "mi", "mn", "mtext"} and len(element):
            raise FormulaError(f"a part of the formula {latex!r} would be lost: {mathml}")


def _markup(element: ElementTree.Element) -> str:
    ElementTree.register_namespace("", "http://www.w3.org/2000/svg")
    for part in element.iter():
        for name in ("fill", "stroke"):
            if part.attrib.get(name) in ("black", "#000000"):
                part.attrib[name] = "currentColor"
    text = ElementTree.tostring(element, encoding="unicode")
    return text.replace(' xmlns="http://www.w3.org/2000/svg"', "")
