r"""The catalogue: which theorems bound the Lipschitz constant of a layer, and the smallest bound.

Bounds of heads add, a residual adds 1, layers multiply, each on a ball that holds what the layers
before it return. All bounds are about coupling constants, which do have these properties.

Source: the setting, T1 and T2 of docs/theory-lipschitz.md.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from measattn.attention import AbstractAttention
from measattn.checks import metric_order
from measattn.digits import printed
from measattn.kernel import AbstractDiracKernel, Stack
from measattn.layer import Residual, WeightShared
from measattn.lipschitz.domains import AbstractDomain, Ball
from measattn.lipschitz.forms import Form, form
from measattn.lipschitz.results import VACUOUS, Bound, Hypothesis, metric_name
from measattn.lipschitz.space import common_atoms, common_dimension
from measattn.lipschitz.theorems import THEOREMS, Case, Inapplicable, Theorem
from measattn.lipschitz.theorems.base import UP, norm
from measattn.lipschitz.theorems.tokenwise import ROUNDING, constant
from measattn.lipschitz.theorems.tokenwise import image as image_of_map

OVERFLOWS = "has a value beyond float64"


class Refused(NamedTuple):
    """A theorem that does not speak of the layer, and why."""

    theorem: str
    statement: str
    source: str
    reason: str


@dataclass(frozen=True)
class Bounds:
    """What each theorem says about a layer: a sequence of `Bound` and `Refused`."""

    rows: tuple[Bound | Refused, ...]

    def __iter__(self) -> Iterator[Bound | Refused]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Bound | Refused:
        return self.rows[index]

    def __repr__(self) -> str:
        width = max(len(row.theorem) for row in self.rows)
        lines = []
        for row in self.rows:
            if isinstance(row, Bound):
                kind = "proved" if row.proved else "quoted"
                value = printed(row.value, 1)
                lines.append(f"{row.theorem:{width}}  {value:>12}  {kind}  {row.statement}")
            else:
                lines.append(f"{row.theorem:{width}}  {'-':>12}  {row.reason}")
        if any(isinstance(row, Bound) and math.isinf(row.value) for row in self.rows):
            lines.append(f"inf is {VACUOUS}")
        return "\n".join(lines)


def bound(
    layer: Any,
    domain: AbstractDomain,
    p: float | int | np.integer = 1,
    *,
    atoms: int | np.integer | None = None,
    dimension: int | None = None,
) -> Bound:
    r"""The smallest proved upper bound of $\sup W_p(\mu f,\nu f)/W_p(\mu,\nu)$ on a domain.

    For a masked layer the metric is the position-wise one, and the measures are n tokens.

    Args:
        layer: attention (self, cross, several heads), a residual, norm or feed-forward layer, or a
            stack of such.
        domain: where the measures live.
        p: the order, a number of at least 1 or infinity.
        atoms: the measures have this many atoms of equal weight; None if they may be any.
        dimension: d, where neither the layer nor the domain says it.

    Raises:
        ValueError: no proved theorem applies; the message gives each one's reason.

    Source: docs/theory-lipschitz.md; the theorem of the result says where.
    """
    question = _question(layer, domain, p, atoms, dimension)
    value, name, theorems, hypotheses, masked = _of_layer(layer, question)
    return Bound(
        value=value,
        theorem=name,
        statement="; ".join(f"{t.name}: {t.statement}" for t in theorems) or "T1",
        source="; ".join(sorted({t.source for t in theorems})) or "docs/theory-lipschitz.md, T1",
        proved=True,
        hypotheses=hypotheses,
        p=question.p,
        domain=domain,
        metric=metric_name(masked, question.p),
        atoms=question.atoms,
    )


def bounds(
    layer: Any,
    domain: AbstractDomain,
    p: float | int | np.integer = 1,
    *,
    atoms: int | np.integer | None = None,
    dimension: int | None = None,
) -> Bounds:
    """All theorems of the catalogue about one attention layer, with their values or reasons.

    The arguments are those of `bound`; the layer is one of attention, with or without a residual.

    Raises:
        ValueError: the layer is no attention layer, or cannot be read.
    """
    question = _question(layer, domain, p, atoms, dimension)
    known = form(layer, len(question.centre), question.centre)
    rows: list[Bound | Refused] = []
    for theorem in THEOREMS:
        try:
            answers = [theorem.evaluate(question.case(head)) for head in known.heads]
        except (Inapplicable, OverflowError) as problem:
            reason = str(problem) if isinstance(problem, Inapplicable) else OVERFLOWS
            rows.append(Refused(theorem.name, theorem.statement, theorem.source, reason))
            continue
        value = sum(answer[0] for answer in answers) * UP + known.residual
        rows.append(
            Bound(
                value=value,
                theorem=theorem.name,
                statement=theorem.statement,
                source=theorem.source,
                proved=theorem.proved,
                hypotheses=answers[0][1],
                p=question.p,
                domain=domain,
                metric=metric_name(known.masked, question.p),
                atoms=question.atoms,
            )
        )
    return Bounds(tuple(rows))


def image(layer: Any, domain: AbstractDomain, *, dimension: int | None = None) -> Ball:
    r"""A ball that holds $f(\mu, x)$ for all points x of a domain and all measures μ on it.

    The arguments are those of `bound`.

    Raises:
        ValueError: a domain without bound, or a layer that cannot be read.

    Source: the setting and T2 of docs/theory-lipschitz.md.
    """
    question = _question(layer, domain, 1, None, dimension)
    radius, centre = _image(layer, question.radius, question.centre)
    if not math.isfinite(radius):
        raise ValueError(f"the images of {domain} lie in no ball that is known: give a Ball")
    return Ball(max(radius, np.finfo(float).tiny), centre)


@dataclass(frozen=True)
class _Question:
    """Measures in a ball, and the order."""

    centre: NDArray
    radius: float
    diameter: float
    p: float
    atoms: int | None

    def case(self, head: Any) -> Case:
        return Case(head, self.radius, self.diameter, self.p, self.atoms)


class _Answer(NamedTuple):
    value: float
    name: str
    theorems: tuple[Theorem, ...]
    hypotheses: tuple[Hypothesis, ...]
    masked: bool = False


def _question(
    layer: Any, domain: AbstractDomain, p: Any, atoms: Any, dimension: int | None
) -> _Question:
    if not isinstance(domain, AbstractDomain):
        raise ValueError(f"domain must be a domain such as Ball(1.0), got {domain!r}")
    p = metric_order(p)
    d = common_dimension(layer, domain, dimension)
    centre = np.zeros(d) if domain.centre is None else np.asarray(domain.centre, np.float64)
    return _Question(centre, domain.radius, domain.diameter, p, common_atoms(domain, atoms))


def _of_layer(layer: Any, question: _Question) -> _Answer:
    if isinstance(layer, WeightShared):
        return _of_stack((layer.layer,) * layer.depth, question)
    if isinstance(layer, Stack):
        return _of_stack(layer.layers, question)
    if isinstance(layer, Residual) and not isinstance(layer.layer, AbstractAttention):
        inner = _of_layer(layer.layer, question)
        return inner._replace(value=(1 + inner.value) * UP, name=f"1 + {inner.name}")
    if isinstance(layer, AbstractDiracKernel):
        return _Answer(constant(layer, question.radius, question.centre), "T1", (), ())
    return _of_attention(form(layer, len(question.centre), question.centre), question)


def _of_attention(known: Form, question: _Question) -> _Answer:
    value, used, hypotheses = 0.0, [], []
    for head in known.heads:
        best, reasons = None, []
        for theorem in (theorem for theorem in THEOREMS if theorem.proved):
            try:
                size, checked = theorem.evaluate(question.case(head))
            except Inapplicable as reason:
                reasons.append(f"{theorem.name} {reason}")
                continue
            except OverflowError:
                reasons.append(f"{theorem.name} {OVERFLOWS}")
                continue
            if best is None or size < best[0]:
                best = size, theorem, checked
        if best is None:
            raise ValueError("no proved theorem bounds this layer here:\n  " + "\n  ".join(reasons))
        value += best[0]
        used.append(best[1])
        hypotheses += best[2]
    names = " + ".join(dict.fromkeys(theorem.name for theorem in used))
    if known.residual:
        value, names = 1 + value, f"1 + {names}"
    return _answer(value * UP, names, used, hypotheses, known.masked)


def _of_stack(layers: tuple, question: _Question) -> _Answer:
    value, names, used, hypotheses, masked = 1.0, [], [], [], False
    for layer in layers:
        answer = _of_layer(layer, question)
        value *= answer.value * UP
        product = len(layers) > 1 and " + " in answer.name
        names.append(f"({answer.name})" if product else answer.name)
        used += answer.theorems
        hypotheses += answer.hypotheses
        masked |= answer.masked
        question = _after(layer, question)
    return _answer(value, " · ".join(names) or "T2", used, hypotheses, masked)


def _answer(value: float, name: str, used: list, hypotheses: list, masked: bool) -> _Answer:
    """With each theorem and hypothesis once."""
    return _Answer(
        value, name, tuple(dict.fromkeys(used)), tuple(dict.fromkeys(hypotheses)), masked
    )


def _after(layer: Any, question: _Question) -> _Question:
    """The ball that holds what a layer returns; of infinite radius if none does."""
    radius, centre = _image(layer, question.radius, question.centre)
    return replace(question, radius=radius, diameter=2 * radius, centre=centre)


def _image(layer: Any, radius: float, centre: NDArray) -> tuple[float, NDArray]:
    """A ball that holds the images of a ball."""
    if isinstance(layer, WeightShared):
        layer = Stack((layer.layer,) * layer.depth)
    if isinstance(layer, Stack):
        for part in layer.layers:
            radius, centre = _image(part, radius, centre)
        return radius, centre
    if isinstance(layer, Residual):
        inner_radius, inner_centre = _image(layer.layer, radius, centre)
        return (radius + inner_radius) * UP, centre + inner_centre
    if isinstance(layer, AbstractDiracKernel):
        return image_of_map(layer, radius, centre)
    size, middle = 0.0, 0.0
    for head in form(layer, len(centre)).heads:
        reach, about = radius, centre
        if head.memory is not None:
            about = head.memory[0].mean(axis=0)
            reach = float(np.linalg.norm(head.memory[0] - about, axis=1).max()) * UP
        stretch = norm(head.value)
        if stretch > 0:
            # the centre of the image is rounded, too
            size += stretch * (reach + ROUNDING * float(np.linalg.norm(about))) * UP
        size += ROUNDING * float(np.linalg.norm(head.shift))
        middle = middle + head.value @ about + head.shift
    return size * UP, np.asarray(middle)
