r"""When a weight-shared stack is a contraction, and how far it then is from its limit.

If a layer maps a ball into itself and has a coupling constant q < 1 there, then it has one
invariant cloud of tokens $X^*$ in the ball, and for every X there, in
$\|X\|_p = (\sum_i\omega_i|x_i|^p)^{1/p}$,

$$ \|X - X^*\|_p \le \frac{\|X - F(X)\|_p}{1 - q}, \qquad W_p(\mu, \mu^*) \le \|X - X^*\|_p . $$

Source: C1, C5 and C6 of docs/theory-dynamics.md.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import ScalarLike
from numpy.typing import NDArray

from measattn.checks import host_number, metric_order
from measattn.dynamics.injection import Injected
from measattn.dynamics.steps import check_layer
from measattn.lipschitz import Ball, Bound, bound, image
from measattn.measure import EmpiricalMeasure
from measattn.points import state

GROWTH = 100
"""How often a ball is enlarged before it is given up."""

ORDERS = (1, 2, math.inf)

UNDERFLOW = 2.0**-510
"""Coordinates below this have squares that are rounded to few digits, or to 0."""


@dataclass(frozen=True)
class Contraction:
    """A proof that a layer is a contraction of the token clouds in a ball.

    Attributes:
        value: q < 1.
        p: the order of the norm.
        domain: the ball, which the layer maps into itself.
        bound: the theorem that gives q.
    """

    value: float
    p: float
    domain: Ball
    bound: Bound

    def __repr__(self) -> str:
        metric = self.bound.metric
        where = f"a ball of radius {self.domain.radius:.4g}"
        return f"contraction by {self.value:.6g} in {metric} on {where} ({self.bound.theorem})"

    def shift(self, change: ScalarLike) -> float:
        r"""How far the limit moves if the layer or its inputs change, $\varepsilon/(1-q)$ at most.

        Args:
            change: ε, an upper bound of $\|F(X)-\tilde F(X)\|_p$ at every cloud X in the ball, in
                the norm of this proof: $\|u-\tilde u\|_p$ for other inputs, for another layer what
                `lipschitz.parameters` certifies (for every p).

        Returns:
            A bound of $\|X^*-\tilde X^*\|_p$, for every limit $\tilde X^*$ of the other layer in
            the ball, and so of the distance $W_p$ of the two.

        Raises:
            ValueError: a change that is negative or no number.

        Source: C5 and C7 of docs/theory-dynamics.md.
        """
        length = host_number(change)
        if length is None or not 0 <= length < math.inf:
            raise ValueError(f"change must be a length of at least 0, got {change!r}")
        return length / (1 - self.value) * (1 + 1e-12)


class NotProved(ValueError):
    """The catalogue does not prove that a layer is a contraction; the message says why."""


def contraction(layer: Any, mu: EmpiricalMeasure, p: ScalarLike = 1) -> Contraction:
    r"""The proof that a layer contracts near a measure.

    A ball about the origin is enlarged until it holds the support of ``mu`` and its own image.

    Args:
        layer: a layer, also an `Injected` one.
        mu: a measure.
        p: the order of the metric.

    Raises:
        ValueError: no layer, one that changes the dimension, or a p below 1.
        NotProved: no ball that the layer maps into itself was found, or no q < 1 on it.

    Source: C1 and C5 of docs/theory-dynamics.md.
    """
    check_layer(layer, mu)
    p = metric_order(p)
    points = np.asarray(state(mu.points), np.float64)
    log_weights = np.asarray(mu.log_weights, np.float64)
    inner, pushed = layer, 0.0
    if isinstance(layer, Injected):
        inner, pushed = layer.layer, reach(layer.inputs)
    equal = mu.size if np.ptp(log_weights) == 0 else None
    try:
        domain = _invariant(inner, reach(points[log_weights > -np.inf]), pushed, mu.dimension)
        known = bound(inner, domain, p, atoms=equal, dimension=mu.dimension)
    except NotProved:
        raise
    except ValueError as reason:
        raise NotProved(f"no theorem speaks of the layer: {reason}") from reason
    if not known.value < 1:
        raise NotProved(f"the smallest bound is {known.value:.4g} on {domain} ({known.theorem})")
    return Contraction(known.value, float(p), domain, known)


def reach(points: Any) -> float:
    """The largest norm of a row, from above."""
    lengths = np.linalg.norm(np.asarray(points, np.float64), axis=1)
    return float(lengths.max()) * (1 + 1e-12)


def _invariant(layer: Any, radius: float, pushed: float, dimension: int) -> Ball:
    """A ball about the origin that holds its image, from a radius on."""
    radius = max(radius, np.finfo(float).tiny)
    before = None
    for _ in range(GROWTH):
        ball = Ball(radius)
        sent = image(layer, ball, dimension=dimension)
        needed = (sent.radius + float(np.linalg.norm(sent.centre)) + pushed) * (1 + 1e-12)
        if needed <= radius:
            return ball
        # images grow at most linearly: the line through two of them says where they end
        slope = 1.0 if before is None else (needed - before[1]) / (radius - before[0])
        before, radius = (radius, needed), needed
        if 0 <= slope < 1:
            radius = max(needed, (needed - slope * before[0]) / (1 - slope)) * (1 + 1e-9)
        if not math.isfinite(radius):
            break
    raise NotProved("the layer maps no ball about the origin into itself, as far as is known")


def norm(p: float, moves: NDArray, weights: NDArray) -> float:
    r"""$(\sum_i\omega_i|m_i|^p)^{1/p}$, from above."""
    moves = np.asarray(moves, np.float64)[weights > 0]
    # squares below the least float are lost
    lengths = np.linalg.norm(moves, axis=1) + UNDERFLOW * math.sqrt(moves.shape[1])
    if math.isinf(p):
        return float(lengths.max()) * (1 + 1e-12)
    scale = float(lengths.max())
    mean = np.sum(weights[weights > 0] * (lengths / scale) ** p)
    return scale * float(mean) ** (1 / p) * (1 + 1e-12)
