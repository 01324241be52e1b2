r"""Sinkhorn attention: weights with both marginals prescribed.

$$ x_i \mapsto \sum_j \pi_{ij}v(x_j)/\omega_i, \qquad
   \pi_{ij} = \omega_i\omega_j e^{a(x_i,x_j)+f_i+g_j}, \qquad
   \sum_j\pi_{ij} = \omega_i,\quad \sum_i\pi_{ij} = \omega_j . $$

π is the coupling of μ with itself that maximises $\int a\,d\pi - KL(\pi|\mu\otimes\mu)$; softmax
attention maximises the same with the first marginal alone prescribed (D3 in docs/theory.md).

Source: Sander, Ablin, Blondel, Peyré, *Sinkformers*, arXiv 2110.11773.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, ScalarLike

from measattn.attention import AbstractAttention, Outputs, SelfAttention
from measattn.checks import ensure, number, whole
from measattn.measure import EmpiricalMeasure, measure, normalise
from measattn.potential import AbstractPotential, as_potential


class SinkhornAttention(AbstractAttention):
    r"""Self-attention with doubly stochastic weights, found on logarithms.

    Twenty rounds of Sinkhorn's algorithm, then damped Newton steps on the same dual problem: for
    large scores Sinkhorn's rounds alone need not come near the tolerance in any number that one
    would wait for. Rows are normalised last: they sum to one up to rounding, columns up to the
    tolerance.
    A query x that is no atom gets the weights $\propto\omega_je^{a(x,x_j)+g_j}$. All logits are
    held at once, n² numbers. Not for reverse-mode differentiation: the number of rounds is open.

    Args:
        potential: $a = \log G$; finite, for with a mask there need be no such coupling.
        value: $v$, a map of states; the identity if None.
        tol: the largest deviation of a column sum from 1; 1e-13 (1e-5 in float32) if None.
        rounds: how many Newton steps may be spent; each solves a linear system of size n.

    Raises:
        RuntimeError: the tolerance was not reached, or the potential is not finite (a ValueError
            outside of compiled code).
    """

    potential: AbstractPotential
    value: Any
    tol: Float[Array, ""] | None
    rounds: int = eqx.field(static=True)

    def __init__(
        self, potential: Any, value: Any = None, *, tol: Any = None, rounds: ScalarLike = 200
    ):
        inner = SelfAttention(potential, value)
        self.potential, self.value = inner.potential, inner.value
        self.tol = None if tol is None else number("tol", tol, positive=True)
        self.rounds = whole("rounds", rounds, 1)

    @property
    def masks(self) -> bool:
        return False

    def evaluate(self, mu: EmpiricalMeasure, block: PyTree) -> Outputs:
        _, column = scalings(self.potential, mu, tol=self.tol, rounds=self.rounds)
        weighted = measure(mu.points, normalise(mu.log_weights) + column)
        return SelfAttention(self.potential, self.value).evaluate(weighted, block)


Scaling = Float[Array, " n"]


@eqx.filter_jit
def scalings(
    potential: Any, mu: EmpiricalMeasure, *, tol: Any = None, rounds: ScalarLike = 200
) -> tuple[Scaling, Scaling]:
    r"""The logarithms f, g with $\sum_j\omega_je^{a_{ij}+f_i+g_j} = 1 = \sum_i\omega_ie^{\dots}$.

    They are unique up to a constant, $(f + c, g - c)$; here both have the same mean under μ.

    Args:
        potential: $a$.
        mu: the measure.
        tol: the largest deviation of a column sum from 1; rows are exact up to rounding.
        rounds: how many Newton steps may be spent.
    """
    logits = as_potential(potential).block(mu.points, mu.points)
    logits = ensure(
        jnp.isfinite(logits), logits, "Sinkhorn attention needs a finite potential: masks have no "
        "coupling with both marginals in general",
    )  # fmt: skip
    log_weights = normalise(mu.log_weights)
    if tol is None:
        tol = 1e-13 if jnp.finfo(mu.dtype).eps < 1e-10 else 1e-5
    tol = jnp.asarray(tol, mu.dtype)
    massive = log_weights > -jnp.inf
    weights = jnp.where(massive, jnp.exp(log_weights), 0)
    spare = jnp.diag(jnp.where(massive, 0, 1).astype(mu.dtype))
    tiny = 16 * float(jnp.finfo(mu.dtype).eps)

    def rows(g: Scaling) -> Scaling:
        return -jax.scipy.special.logsumexp(logits + (log_weights + g)[None, :], axis=1)

    def columns(f: Scaling) -> Scaling:
        return -jax.scipy.special.logsumexp(logits.T + (log_weights + f)[None, :], axis=1)

    def error(g: Scaling) -> Array:
        # column sums with exact rows are exp(g - columns(rows(g)))
        return jnp.max(jnp.where(massive, jnp.abs(jnp.expm1(g - columns(rows(g)))), 0))

    def step(carry: tuple) -> tuple:
        g, _, k = carry
        f = rows(g)
        sent = jnp.exp(logits + f[:, None] + (log_weights + g)[None, :])
        mass = jnp.sum(weights[:, None] * sent, axis=0)
        hessian = jnp.diag((1 + tiny) * mass) - jnp.matmul(sent.T, weights[:, None] * sent)
        # constants are in its kernel, and atoms without mass have no equation
        hessian = hessian + weights[:, None] * weights[None, :] + spare
        newton = jnp.linalg.solve(hessian, weights - mass)
        sinkhorn = columns(f) - g
        # steps that change no ratio of weights by more than e descend (docs/theory-dynamics.md, N2)
        length = jnp.minimum(1, 1 / jnp.maximum(jnp.max(newton) - jnp.min(newton), tiny))
        usable = jnp.all(jnp.isfinite(newton))
        g = g + jnp.where(usable, length * jnp.where(usable, newton, 0), sinkhorn)
        return g, error(g), k + 1

    def unfinished(carry: tuple) -> Array:
        _, error, k = carry
        return (error > tol) & (k < rounds)

    start = jnp.zeros(mu.size, mu.dtype)
    start = jax.lax.fori_loop(0, 20, lambda _, g: columns(rows(g)), start)
    g, found, _ = jax.lax.while_loop(unfinished, step, (start, error(start), jnp.asarray(0)))
    g = ensure(
        found <= tol,
        g,
        f"Sinkhorn attention did not reach its tolerance in {rounds} rounds: allow "
        "more rounds or a larger tol, or scale the potential down",
    )
    f = rows(g)
    g = jnp.where(massive, g, columns(f))
    shift = jnp.sum(weights * (f - g)) / 2
    return f - shift, g + shift
