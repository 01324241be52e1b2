"""The command ``measattn lipschitz``: local constants of the heads of a trained layer."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measattn.cli.progress import PATIENCE
from measattn.cli.writing import check_target

if TYPE_CHECKING:
    from measattn.attention import MultiHead
    from measattn.measure import EmpiricalMeasure

LARGEST_TEXT = 2**24
"""Bytes of a text that are read; few tokens are used of it."""

LARGEST_BLOCK = {1.0: 512, 2.0: 512, math.inf: 128}
"""Tokens up to which a whole block is taken on, in each order: its cost grows with their square,
and for p = ∞ more where there is a norm before the attention."""


@dataclass(frozen=True)
class Asked:
    """What the command was asked for; its options have these names."""

    model: str
    layer: int
    text: Path
    p: float
    tokens: int
    heads: Sequence[int] = ()
    block: bool = False
    figure: Path | None = None


@dataclass
class Found:
    """What it answers: of each head one row, in the order in which they were computed."""

    model: str
    layer: int
    tokens: int
    tokens_of_text: int
    p: float
    moves: str = "Whole"
    metric: str = ""
    heads: list[dict[str, Any]] = field(default_factory=list)
    block: dict[str, Any] | None = None
    seconds: float = 0.0

    @property
    def certified(self) -> bool:
        """Whether every constant is bounded above."""
        rows = [*self.heads, *([self.block] if self.block else [])]
        return all(math.isfinite(row["certified"]) for row in rows)


def run(asked: Asked, echo: Callable[..., None], as_json: bool) -> int:
    """Answer, print, draw; the exit status.

    Raises:
        KeyboardInterrupt: with how far it had come.
    """
    import jax

    jax.config.update("jax_enable_x64", True)
    try:
        found = answer(asked)
    except (ValueError, OSError, ImportError) as error:
        echo(f"error: {error}", err=True)
        return 2
    if as_json:
        echo(json.dumps(_finite(vars(found)), allow_nan=False))
    else:
        _print(found)
    if asked.figure is not None:
        try:
            draw(found).savefig(asked.figure, dpi=200)
        except OSError as error:
            echo(f"error: the figure could not be written: {error}", err=True)
            return 2
    return 0 if found.certified else 1


def answer(asked: Asked) -> Found:
    """Load the model, let the text pass the layers below, and look at each head.

    Raises:
        ValueError: a layer, head or order that there is not, or a text that is none, or float64
            is switched off in JAX.
        OSError: a file that is not there.
        ImportError: the package of the model is not installed.
    """
    import numpy as np

    from measattn.lipschitz import local
    from measattn.lipschitz.forms import UnreadableLayer

    began = time.perf_counter()
    _check(asked)
    text = _read(asked.text)
    model = _load(asked.model)
    if not 0 <= asked.layer < len(model.layers):
        raise ValueError(
            f"--layer must be from 0 to {len(model.layers) - 1} for {model.name}, got {asked.layer}"
        )
    ids, words = model.ids(text), model.words(text)
    law = model.embed(ids[: asked.tokens], np.float64)
    block = model.layers[asked.layer]

    def inner(law: Any) -> "tuple[MultiHead, EmpiricalMeasure]":
        found = inner_attention(block, law)
        if found is None:
            raise ValueError(
                f"layer {asked.layer} of {model.name} has no attention of several heads"
            )
        return found

    # one token shows what the layer is, before the text passes those below
    attention, _ = inner(model.embed(ids[:1], np.float64))
    heads = list(dict.fromkeys(asked.heads)) or list(range(attention.count))
    wrong = [k for k in heads if not 0 <= k < attention.count]
    if wrong:
        raise ValueError(f"--head must be from 0 to {attention.count - 1}, got {wrong[0]}")
    found = Found(model.name, asked.layer, law.size, len(ids), asked.p)
    try:
        norms = _norms(attention, law.dimension)
    except UnreadableLayer as refusal:
        raise ValueError(
            f"layer {asked.layer} of {model.name} cannot be certified, {refusal}: name a "
            "checkpoint of the BERT or GPT-2 family"
        ) from None
    for below in model.layers[: asked.layer]:
        law = law @ below
    _, entering = inner(law)
    with _shown(len(heads) + asked.block) as done:
        for k in heads:
            start = time.perf_counter()
            constant = local(alone(attention, k), entering, asked.p)
            found.heads.append({"head": k} | _row(constant, words, start) | norms[k])
            found.metric = constant.metric
            done(f"head {k}", constant)
        if asked.block:
            start = time.perf_counter()
            constant = local(block, law, asked.p)
            found.block = _row(constant, words, start)
            done("the block", constant)
    found.seconds = time.perf_counter() - began
    return found


def inner_attention(
    layer: Any, law: "EmpiricalMeasure"
) -> "tuple[MultiHead, EmpiricalMeasure] | None":
    """The first attention of several heads in a block and the law that enters it, if there is."""
    from measattn.attention import MultiHead
    from measattn.kernel import Stack
    from measattn.layer import Residual

    if isinstance(layer, MultiHead):
        return layer, law
    if isinstance(layer, Residual):
        return inner_attention(layer.layer, law)
    if isinstance(layer, Stack):
        for part in layer.layers:
            found = inner_attention(part, law)
            if found is not None:
                return found
            law = law @ part
    return None


def alone(attention: "MultiHead", k: int) -> "MultiHead":
    r"""One head with its part $W_k$ of the output map, up to an isometry.

    With $W_k = QR$ and $Q^\top Q = I$ all distances of outputs are those of $R$, a small matrix.
    """
    import numpy as np

    from measattn.attention import MultiHead
    from measattn.lipschitz.forms import matrix

    head: Any = attention.head(k)
    weight = getattr(attention.output, "weight", None)
    if weight is None:
        return MultiHead([head])
    weight, _ = matrix("output", attention.output, weight.shape[1])
    part = np.split(weight, attention.count, axis=1)[k]
    return MultiHead([head], np.linalg.qr(part, mode="r"))


def draw(found: Found) -> Any:
    """Bars of what is attained and certified of each head."""
    from measattn import plot

    rows = found.heads
    name = f"{found.model}, layer {found.layer}: {found.metric} at {found.tokens} tokens"
    figure = plot.two_sided(
        [row["attained"] for row in rows],
        [row["certified"] for row in rows],
        [str(row["head"]) for row in rows],
        names=("head", "local constant, Whole"),
    )
    figure.axes[0].set_title(name, loc="left", fontsize=10, fontweight="bold")
    return figure


def _finite(value: Any) -> Any:
    """For JSON, which has no infinity: it is written as the string inf."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return "inf" if value == math.inf else value


def _norms(attention: "MultiHead", dimension: int) -> list[dict[str, float]]:
    """‖V‖ with the output map, and κ = ‖A‖, of all heads."""
    from measattn.lipschitz.forms import Dot, form
    from measattn.lipschitz.theorems.base import norm

    return [
        {
            "norm_v": norm(head.value),
            "kappa": norm(head.score.matrix)
            if isinstance(head.score, Dot)
            else head.score.sigma**-2,
        }
        for head in form(attention, dimension).heads
    ]


def _row(constant: Any, words: list[str], start: float) -> dict[str, Any]:
    atom = constant.witness.atom
    return {
        "attained": constant.value,
        "certified": constant.upper,
        "probability": constant.probability,
        "token": atom,
        "word": None if atom is None else words[atom],
        "seconds": time.perf_counter() - start,
    }


def _check(asked: Asked) -> None:
    """Refuse what needs no model to be seen."""
    if asked.p not in (1.0, 2.0, math.inf):
        raise ValueError(f"--p must be 1, 2 or inf for a local constant, got {asked.p!r}")
    if asked.tokens < 1:
        raise ValueError(f"--tokens must be at least 1, got {asked.tokens}")
    if asked.block and asked.tokens > LARGEST_BLOCK[asked.p]:
        raise ValueError(
            f"--block at {asked.tokens} tokens may take hours for --p {asked.p:g}: give --tokens "
            f"{LARGEST_BLOCK[asked.p]} or fewer with it"
        )
    if asked.figure is not None:
        check_target("--figure", asked.figure, (".png", ".svg", ".pdf"))


def _load(name: str) -> Any:
    """The model of a name, or of a path."""
    from measattn import pretrained

    known = {"minilm": pretrained.minilm, "smollm2": pretrained.smollm2}
    if name in known:
        return known[name]()
    if not Path(name).expanduser().exists():
        raise FileNotFoundError(
            f"there is no checkpoint at {name}: --model is minilm, or the folder of a BERT or "
            "GPT-2 checkpoint on this disk, with config.json and safetensors (none is downloaded)"
        )
    return pretrained.load(name)


def _read(file: Path) -> str:
    if not file.exists():
        raise FileNotFoundError(f"there is no file {file}: --text names a text file")
    if not file.is_file():
        what = "a folder" if file.is_dir() else "no regular file"
        raise ValueError(f"--text {file} is {what}: name a text file")
    if file.stat().st_size > LARGEST_TEXT:
        raise ValueError(f"--text {file} is larger than {LARGEST_TEXT:,} bytes: cut it")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"--text {file} is not readable as UTF-8 text") from None
    if not text.strip():
        raise ValueError(f"--text {file} is empty: it must hold at least a word")
    return text


@contextmanager
def _shown(total: int) -> Iterator[Callable[[str, Any], None]]:
    """A bar on terminals, plain lines for logs once a run is long; Ctrl-C says what was done."""
    began, finished = time.perf_counter(), []
    bar: Any = None
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        bar = Progress(console=Console(stderr=True), transient=True)

    def done(name: str, constant: Any) -> None:
        finished.append(name)
        seconds = time.perf_counter() - began
        if bar is not None:
            bar.advance(task)
        elif seconds > PATIENCE:
            print(f"{seconds:.1f} s, {name}: {constant}", file=sys.stderr, flush=True)

    try:
        if bar is None:
            yield done
        else:
            with bar:
                task = bar.add_task("heads", total=total)
                yield done
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"after {len(finished)} of {total}") from None


def _print(found: Found) -> None:
    from rich.console import Console
    from rich.table import Table

    from measattn.digits import printed

    cut = f"the first {found.tokens} of {found.tokens_of_text:,}"
    tokens = f"{found.tokens}" if found.tokens == found.tokens_of_text else cut
    table = Table(
        title=f"Local Lipschitz constants in {found.metric}, class {found.moves}: atoms move "
        f"whole\n{found.model}, layer {found.layer}, {tokens} tokens",
        title_justify="left",
        highlight=False,
    )
    for name in ("head", "attained", "certified", "ratio", "‖V‖", "κ", "token", "seconds"):
        table.add_column(name, justify="left" if name == "token" else "right")
    chances = set()
    for row in [*found.heads, *([{"head": "block"} | found.block] if found.block else [])]:
        ends = row["attained"], row["certified"]
        ratio = ends[1] / ends[0] if ends[0] > 0 else math.inf
        norms = [f"{row[name]:.4g}" if name in row else "" for name in ("norm_v", "kappa")]
        token = "all" if row["token"] is None else f"{row['token']} {row['word']}"
        digits = (printed(end, side) for end, side in zip(ends, (-1, 1), strict=True))
        table.add_row(str(row["head"]), *digits, f"{ratio:.5f}", *norms,
                      token, f"{row['seconds']:.1f}")  # fmt: skip
        chances.add(row["probability"])
    console = Console(markup=False)
    console.print(table)
    if min(chances) < 1:
        console.print(f"certified with probability 1 - {1 - min(chances):.0e}, over random starts")
