r"""Attention to a fixed law with a log-concave density, from all of R^d.

$$ \mu = e^{-U}dy,\ \nabla^2U\succeq mI:\qquad
   \mathrm{Lip}(x\mapsto\Gamma_\mu(x))\le\frac{\|V\|}{1+m\sigma^2}\ \text{(Gaussian)},\qquad
   \frac{\|V\|\,\|A\|}m\ \text{(dot products)}. $$

Source: F5 of docs/theory-lipschitz.md.
"""

import math
from typing import Any

from jaxtyping import ScalarLike

from measattn.checks import host_number, metric_order
from measattn.lipschitz.domains import Everywhere
from measattn.lipschitz.forms import Dot, Head, form
from measattn.lipschitz.results import Bound, Hypothesis, metric_name
from measattn.lipschitz.space import common_dimension
from measattn.lipschitz.theorems.base import UP, norm


def log_concave(
    layer: Any,
    convexity: ScalarLike,
    p: ScalarLike = 1,
    *,
    dimension: int | None = None,
) -> Bound:
    r"""How much queries spread if all look at one law of log-concave density.

    For a law $\mu = e^{-U}dy$ with $\nabla^2U\succeq mI$ that stays as it is, and any two laws λ,
    λ' of queries on $\mathbb R^d$,

    $$ W_p\bigl((\Gamma_\mu)_\#\lambda,(\Gamma_\mu)_\#\lambda'\bigr)\le
       \sum_h\frac{\|V_h\|}{1+m\sigma_h^2}\;W_p(\lambda,\lambda'), $$

    with $\|V_h\|\|A_h\|/m$ for scores $\langle Ax+c,y\rangle$; a residual adds 1. Normal laws
    $N(b,I/m)$ attain it.

    Args:
        layer: self-attention without mask, of one or several heads, with or without a residual; it
            says how the queries look at μ.
        convexity: m. Above $-1/\sigma^2$ of every Gaussian head; above 0 for dot products.
        p: the order, a number of at least 1 or infinity: the constant is the same.
        dimension: d, where the layer does not say it.

    Raises:
        ValueError: a layer with a mask or a memory of its own, or a law that is not log-concave
            enough for the integrals to exist.

    Source: F5 of docs/theory-lipschitz.md (the inequality of Brascamp and Lieb).
    """
    m = host_number(convexity)
    if m is None or not math.isfinite(m):
        raise ValueError(f"convexity must be a finite number, got {convexity!r}")
    p, domain = metric_order(p), Everywhere()
    known = form(layer, common_dimension(layer, domain, dimension))
    if known.masked or any(head.memory is not None for head in known.heads):
        raise ValueError(
            "layer must be self-attention without mask, as all queries look at the one law"
        )
    return Bound(
        value=(sum(_slope(head, m) for head in known.heads) + known.residual) * UP,
        theorem="F5",
        statement="‖V‖/(1 + mσ²) for Gaussian scores, ‖V‖κ/m for <Ax + c, y>",
        source="docs/theory-lipschitz.md, F5",
        proved=True,
        hypotheses=(
            Hypothesis("a law e^(-U) with Hessian of U at least m", True, f"m = {m!r}, as given"),
            Hypothesis("the law is the same for both laws of queries", True, "as stated"),
        ),
        p=p,
        domain=domain,
        metric=f"{metric_name(False, p)} of queries",
    )


def _slope(head: Head, convexity: float) -> float:
    """The largest norm of the Jacobian in the query."""
    if isinstance(head.score, Dot):
        if not convexity > 0:
            raise ValueError(
                f"convexity must be above 0 for scores <Ax + c, y>, got {convexity!r}: tilted "
                "laws need a bounded covariance"
            )
        return norm(head.value) * norm(head.score.matrix) / convexity * UP
    spread = 1 + convexity * head.score.sigma**2
    # what is left of the difference must be more than its rounding
    if not spread > 1e-12:
        raise ValueError(
            f"convexity must be above -1/sigma² = {-1 / head.score.sigma**2!r}, got {convexity!r}, "
            "and by more than rounding"
        )
    return norm(head.value) / (spread - 4e-16 * (1 + abs(spread))) * UP
