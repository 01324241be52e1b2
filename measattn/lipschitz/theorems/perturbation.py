r"""Inputs and parameters that are not what they should be: how far outputs move.

$$ \text{a share } \rho \text{ of the tokens replaced:}\quad
   |\Gamma_\mu(x)-\Gamma_{\tilde\mu}(x)|\le\|V\|\,D\,s_*,\qquad
   s_* = \frac1{1+\frac{1-\rho}\rho e^{-\omega}}; $$
$$ \text{other matrices:}\quad
   |\Gamma_\mu(x)-\tilde\Gamma_\mu(x)|\le\|V\|\tfrac D4\,\mathrm{osc}_y(a-\tilde a)(x,\cdot)
   +\|V-\tilde V\|R+|b-\tilde b|. $$

ω is the oscillation of the scores of a query, D the diameter of the domain, R its radius. Source:
A1 of docs/theory.md, E2 and E3 of docs/theory-lipschitz.md.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from equinox import tree_equal
from numpy.typing import NDArray

from measattn.digits import printed
from measattn.lipschitz.domains import AbstractDomain
from measattn.lipschitz.forms import Dot, Form, Gauss, Head, form
from measattn.lipschitz.products import RELATIVE
from measattn.lipschitz.results import Bound, Hypothesis
from measattn.lipschitz.space import common_dimension, input_dimension
from measattn.lipschitz.theorems.base import UP, norm, power

ROUNDED = 2 * RELATIVE
"""What matrices and shifts may be off, in parts of their norms."""


@dataclass(frozen=True)
class Displacement:
    """How far the outputs of a layer can be from what they should be, certified.

    Attributes:
        output: the largest distance between the two outputs of one query.
        law: the largest $W_1$ between the laws of the outputs, each token being a query.
        theorem: its name in docs/theory-lipschitz.md.
        statement: its formula.
        source: where its proof is.
        hypotheses: what it asks for, each checked.
        domain: where the tokens live.
    """

    output: float
    law: float
    theorem: str
    statement: str
    source: str
    hypotheses: tuple[Hypothesis, ...]
    domain: AbstractDomain

    def __repr__(self) -> str:
        return (
            f"outputs within {printed(self.output, 1)}, laws within W1 = {printed(self.law, 1)} on "
            f"{self.domain} ({self.theorem})"
        )


def contamination(
    layer: Any, domain: AbstractDomain, share: float, *, dimension: int | None = None
) -> Displacement:
    r"""How far outputs move if any tokens of total mass ρ are replaced by anything in the domain.

    $$ |\Gamma_\mu(x)-\Gamma_{\tilde\mu}(x)|\le\sum_h\|V_h\|\,D\Big/
       \Bigl(1+\tfrac{1-\rho}\rho e^{-\omega_h}\Bigr),\qquad
       W_1\le\sum_h\|V_h\|D((1-\rho)s_*+\rho), $$

    where a residual adds ρD to the second.

    Args:
        layer: self-attention, of one or several heads, with or without a residual. With a mask the
            share is at most that, of all tokens and of those that each row sees.
        domain: where all tokens live, bounded.
        share: ρ in [0, 1].
        dimension: d, where neither the layer nor the domain says it.

    Raises:
        ValueError: a share outside [0, 1], no self-attention, a domain without bound.

    Source: E2 of docs/theory-lipschitz.md.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be a part of the mass, from 0 to 1, got {share!r}")
    known = _known(layer, domain, dimension)
    reach, output, law = domain.diameter, 0.0, 0.0
    for head in known.heads:
        size = norm(head.value) * reach * UP
        part = _largest_share(share, _oscillation(head, domain))
        output += size * part
        law += size * ((1 - share) * part + share)
    law += share * reach * known.residual
    holds = Hypothesis("a share of the mass", True, f"{share:g}")
    if known.masked:
        holds = Hypothesis("a share of the mass, and of what each row sees", True, f"{share:g}")
    return Displacement(
        output * UP,
        law * UP,
        "E2",
        "‖V‖D/(1 + (1 - ρ)/ρ e^(-ω))",
        "docs/theory-lipschitz.md, E2",
        (_own(known), holds),
        domain,
    )


def parameters(
    layer: Any, other: Any, domain: AbstractDomain, *, dimension: int | None = None
) -> Displacement:
    r"""How far the outputs of two layers on one measure are apart, at every query of the domain.

    $$ \sum_h\bigl(\|V_h\|\tfrac{D^2}4(R\|A_h-\tilde A_h\|+|c_h-\tilde c_h|)
       +\|V_h-\tilde V_h\|R\bigr)+|b-\tilde b|, $$

    c, b and R about the centre of the domain; for Gaussian scores
    $\tfrac{D^3}8|\sigma^{-2}-\tilde\sigma^{-2}|$ in place of the first term. No exponential.

    Args:
        layer: self-attention, of one or several heads, with or without a residual.
        other: the same with other numbers.
        domain: where all tokens live, bounded.
        dimension: d, where neither the layers nor the domain say it.

    Raises:
        ValueError: layers that differ in more than numbers, a domain without bound.

    Source: E3 of docs/theory-lipschitz.md.
    """
    told = (dimension, input_dimension(layer), input_dimension(other))
    dimension = next((d for d in told if d is not None), None)
    one, two = (_known(each, domain, dimension) for each in (layer, other))
    if len(one.heads) != len(two.heads) or one.residual != two.residual:
        raise ValueError(
            f"other must have the heads and the residual of layer, got {len(two.heads)} and "
            f"{len(one.heads)} heads, residual {two.residual} and {one.residual}"
        )
    d, r, value = domain.diameter, domain.radius, 0.0
    for a, b in zip(one.heads, two.heads, strict=True):
        if type(a.score) is not type(b.score) or a.value.shape != b.value.shape:
            raise ValueError("other must have scores and values of the kinds of those of layer")
        if a.causal != b.causal or a.allowed is not b.allowed:
            raise ValueError("other must have the masks of layer")
        value += norm(a.value) * d / 4 * _difference(a, b, d, r) * UP
        value += _apart(a.value, b.value) * r
    # the constants of the heads may cancel
    first, second = (np.stack([head.shift for head in known.heads], 1) for known in (one, two))
    value += norm(np.sum(first - second, axis=1, keepdims=True))
    value += ROUNDED * len(one.heads) * (norm(first) + norm(second))
    if tree_equal(layer, other):
        value = 0.0
    return Displacement(
        value * UP,
        value * UP,
        "E3",
        "‖V‖D/4 osc(a - ã) + ‖V - Ṽ‖R + |b - b̃|",
        "docs/theory-lipschitz.md, E3",
        (_own(one), Hypothesis("two layers of one kind", True, f"{len(one.heads)} heads")),
        domain,
    )


def gibbs(slope: float, domain: AbstractDomain, oscillation: float | None = None) -> Bound:
    r"""The $W_1$ constant of the Boltzmann-Gibbs transformation, $e^\omega(1+\ell D)$, sharp.

    Args:
        slope: ℓ, a Lipschitz constant of log g on the domain.
        domain: where the measures live, bounded, of diameter D.
        oscillation: ω, at least sup log g - inf log g; ℓD if None.

    Raises:
        ValueError: a negative number, or a domain without bound.

    Source: A1 of docs/theory.md.
    """
    d = _bounded(domain).diameter
    largest = slope * d
    oscillation = largest if oscillation is None else min(oscillation, largest)
    if not (slope >= 0 and oscillation >= 0):
        raise ValueError(
            f"slope and oscillation must be at least 0, got {slope!r} and {oscillation!r}"
        )
    return Bound(
        value=power(oscillation, 1) * (1 + largest) * UP,
        theorem="A1",
        statement="e^ω(1 + ℓD)",
        source="docs/theory.md, A1",
        proved=True,
        hypotheses=(
            Hypothesis("log g of slope ℓ", True, f"{slope:g}, as given"),
            Hypothesis("a bounded domain", True, f"diameter {d:g}"),
        ),
        p=1.0,
        domain=domain,
        metric="W1",
    )


def _known(layer: Any, domain: AbstractDomain, dimension: int | None) -> Form:
    d = common_dimension(layer, _bounded(domain), dimension)
    known = form(layer, d, domain.centre)
    if any(head.memory is not None for head in known.heads):
        raise ValueError("layer must be self-attention, found a head with a fixed memory")
    return known


def _bounded(domain: AbstractDomain) -> AbstractDomain:
    if not math.isfinite(domain.diameter):
        raise ValueError(f"domain must be bounded, got {domain}: give a Ball that holds the tokens")
    return domain


def _own(known: Form) -> Hypothesis:
    return Hypothesis("self-attention", True, f"{len(known.heads)} heads")


def _oscillation(head: Head, domain: AbstractDomain) -> float:
    """ω, the largest oscillation over the keys of the scores of one query."""
    d = domain.diameter
    if isinstance(head.score, Dot):
        tilt = norm(head.score.shift[:, None])
        return (norm(head.score.matrix) * domain.radius + tilt) * d * UP
    return d * d / (2 * head.score.sigma**2) * UP


def _largest_share(share: float, oscillation: float) -> float:
    """The weight in a row that tokens of mass ρ can have, at most."""
    if share == 0:
        return 0.0
    return 1 / (1 + (1 - share) / share * math.exp(-oscillation)) * UP


def _difference(a: Head, b: Head, diameter: float, radius: float) -> float:
    """The oscillation over the keys of the difference of two scores."""
    one, two = a.score, b.score
    if isinstance(one, Dot) and isinstance(two, Dot):
        tilt = _apart(one.shift[:, None], two.shift[:, None])
        return diameter * (_apart(one.matrix, two.matrix) * radius + tilt)
    inverses = [1 / s.sigma**2 * np.eye(1) for s in (one, two) if isinstance(s, Gauss)]
    return diameter**2 / 2 * _apart(*inverses)


def _apart(a: NDArray, b: NDArray) -> float:
    """The norm of a difference, from above; both are products, and have been rounded."""
    return norm(a - b) + ROUNDED * (norm(a) + norm(b))
