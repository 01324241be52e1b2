"""A matplotlib figure as inline SVG that follows the page, light or dark."""

import hashlib
import io
import re
from typing import Any

_ID = re.compile(r'(\bid="|url\(#|href="#)')


def inline_svg(figure: Any) -> str:
    """The figure as an ``<svg>`` element: no background, the page's colours, unique ids."""
    import matplotlib as mpl

    from measattn import plot

    buffer = io.StringIO()
    settings: Any = {"svg.fonttype": "path", "svg.hashsalt": "paper_repro"}
    with mpl.rc_context(settings):
        figure.savefig(
            buffer, format="svg", transparent=True, bbox_inches="tight",
            metadata={"Date": None, "Creator": None},
        )  # fmt: skip
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(plot.INK, "currentColor").replace(plot.PAPER, "var(--paper)")
    for i, accent in enumerate(plot.ACCENTS):
        text = text.replace(accent, f"var(--accent-{i})")
    prefix = "f" + hashlib.sha256(text.encode()).hexdigest()[:8] + "-"
    text = _ID.sub(lambda match: match.group(1) + prefix, text)
    return re.sub(r"\s+\n", "\n", text).strip()
