r"""Bounds of the literature, for comparison.

Those of Castin, Ablin and Peyré follow from B5 and B2 (L3 of docs/theory-lipschitz.md); those of
Kim, Papamakarios and Mnih are quoted, and never the ground of a certificate. Two are about
something else than a layer on a domain, and say so: Nair's is about softmax, and that of Yudin et
al. about one input, for which `yudin` evaluates it.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import lambertw, logsumexp

from measattn.lipschitz.forms import Dot, form
from measattn.lipschitz.results import Hypothesis
from measattn.lipschitz.theorems.base import (
    UP,
    Case,
    Inapplicable,
    Theorem,
    bilinear,
    bounded,
    equal_atoms,
    gaussian,
    need,
    norm,
    order,
    own_keys,
    power,
    unmasked,
)
from measattn.measure import EmpiricalMeasure
from measattn.points import state

Answer = tuple[float, tuple[Hypothesis, ...]]


def _linear(case: Case) -> tuple[Hypothesis, ...]:
    checked = (order(case, 2), bilinear(case), own_keys(case), unmasked(case), bounded(case))
    return (*checked, need(case.tilt == 0, "c = 0", f"|c| = {case.tilt:.3g}"))


def _root(case: Case) -> Answer:
    checked = (*_linear(case), equal_atoms(case))
    t, n = case.kappa * case.radius**2, case.atoms or 1
    return case.value * math.sqrt(3 * (t * t * (4 * n + 1) + n)) * UP, checked


def _mean_field(case: Case) -> Answer:
    checked = _linear(case)
    t = case.kappa * case.radius**2
    return case.value * (1 + 3 * t) * power(2 * t, 1) * UP, checked


def _kim(case: Case) -> Answer:
    checked = (gaussian(case), own_keys(case), unmasked(case), order(case, 2), equal_atoms(case))
    n = case.atoms or 1
    # with W = I and one head; the scale of the scores cancels against that of the values
    inverse = float(lambertw((n - 1) / math.e).real)
    return case.value * math.sqrt(n) * (4 * inverse + 1), checked


def _kim_largest(case: Case) -> Answer:
    checked = (gaussian(case), own_keys(case), unmasked(case), order(case, math.inf))
    checked += (equal_atoms(case),)
    d = case.head.value.shape[1]
    # elsewhere the largest entry is not the length of the largest displacement
    checked += (need(d == 1, "points on the line, as it is about the largest entry", f"d = {d}"),)
    inverse = float(lambertw(((case.atoms or 1) - 1) / math.e).real)
    return case.value * (4 * inverse + 1), checked


def _softmax(case: Case) -> Answer:
    raise Inapplicable("is about softmax as a map of its logits, of which it bounds the Jacobian")


def _one_input(case: Case) -> Answer:
    raise Inapplicable("is about one input, not a domain: yudin(layer, mu) evaluates it")


def yudin(layer: Any, mu: EmpiricalMeasure) -> float:
    r"""The bound of Yudin et al. of the Jacobian at one input, in the Frobenius norm (p = 2).

    $$ \|V\|\bigl(\|P\|_2+(\|A\|\|X\|_2+\|XA^\top+1c^\top\|_2)\|X\|_2\max_ig_1(P_i)\bigr),
       \qquad g_1(p) = p_{(1)}(1-p_{(1)}+p_{(2)}), $$

    with the points about their mean, which changes A and V not at all and makes X small. Heads
    add, a residual adds 1. It says nothing of inputs at a distance.

    Args:
        layer: self-attention without mask and with scores $\langle Ax+c,y\rangle$, of one or
            several heads, with or without a residual.
        mu: the tokens, of equal weight.

    Raises:
        ValueError: another layer, or tokens of unequal weight.

    Source: arXiv 2507.07814; docs/theory-lipschitz.md, L2.
    """
    x, weights = np.asarray(state(mu.points), np.float64), np.asarray(mu.weights, np.float64)
    if not np.allclose(weights, weights[0]):
        raise ValueError("mu must have atoms of equal weight, as the bound is about a list of n")
    centre = x.mean(axis=0)
    known, x = form(layer, x.shape[1], centre), x - centre
    value = float(known.residual)
    for head in known.heads:
        if not isinstance(head.score, Dot) or head.masked or head.memory is not None:
            raise ValueError(
                "layer must be self-attention without mask and with scores <Ax + c, y>, of which "
                f"alone this bound speaks, got {layer!r}"
            )
        value += _of_one_input(head.score, x) * norm(head.value)
    return value * UP


def _of_one_input(score: Dot, x: NDArray) -> float:
    queries = x @ score.matrix.T + score.shift
    logits = queries @ x.T
    p = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    ordered = np.sort(p, axis=1)
    # 1 - p_(1) as the sum of the others keeps its digits
    others = ordered[:, :-1].sum(axis=1)
    second = ordered[:, -2] if p.shape[1] > 1 else 0.0
    peak = float(np.max(ordered[:, -1] * (others + second)))
    size = norm(x)
    return norm(p) + (norm(score.matrix) * size + norm(queries)) * size * peak


CASTIN_ROOT = Theorem(
    "Castin √n",
    "√3 ‖V‖ √(κ²R⁴(4n + 1) + n)",
    "arXiv 2312.14820, Theorem 3.3; docs/theory-lipschitz.md, L3",
    True,
    _root,
)

CASTIN_MEAN_FIELD = Theorem(
    "Castin mean-field",
    "‖V‖(1 + 3κR²)e^(2κR²)",
    "arXiv 2312.14820; docs/theory-lipschitz.md, L3",
    True,
    _mean_field,
)

KIM = Theorem(
    "Kim L2",
    "√n ‖V‖(4φ⁻¹(n - 1) + 1), φ(x) = x e^(x + 1)",
    "arXiv 2006.04710, Theorem 3.2, recalled",
    False,
    _kim,
)

KIM_LARGEST = Theorem(
    "Kim L2, p = inf",
    "‖V‖(4φ⁻¹(n - 1) + 1), φ(x) = x e^(x + 1), on the line",
    "arXiv 2006.04710, Theorem 3.2, recalled",
    False,
    _kim_largest,
)

NAIR = Theorem(
    "Nair",
    "softmax is 1/2-Lipschitz in every ℓ_p",
    "arXiv 2510.23012; docs/theory-lipschitz.md, L1",
    False,
    _softmax,
)

YUDIN = Theorem(
    "Yudin",
    "‖V‖(‖P‖ + 2‖X‖²‖A‖ max_i g₁(P_i)), at one X",
    "arXiv 2507.07814; docs/theory-lipschitz.md, L2",
    False,
    _one_input,
)
