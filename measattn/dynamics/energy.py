r"""Interaction energies and how fast a flow climbs them.

$$ E(\mu) = \tfrac12\iint e^{a(x,y)}\,\mu(dx)\mu(dy), \qquad
   E_S(\mu) = \max_{\pi\in\Pi(\mu,\mu)}\int a\,d\pi - KL(\pi|\mu\otimes\mu) . $$

For a symmetric score the velocities $S\,\nabla_x\log\mu(e^{a(x,\cdot)})$, S positive semi-definite,
climb E, with softmax and without: dot products $\langle Ax, y\rangle$ with the value map V = SA,
and Gaussian mean shift. Sinkhorn attention climbs $E_S$.

Source: N1 and N2 in docs/theory-dynamics.md; Geshkovski et al., arXiv 2312.10794; Sander et al.,
arXiv 2110.11773.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from measattn.checks import whole
from measattn.dynamics.sinkhorn import scalings
from measattn.gibbs import log_normalisers
from measattn.kernel import moved
from measattn.layer import Layer
from measattn.measure import EmpiricalMeasure, measure, need_measure, normalise
from measattn.points import state, with_state
from measattn.potential import as_potential

Energy = Callable[[EmpiricalMeasure], Float[Array, ""]]


def interaction_energy(potential: Any, mu: EmpiricalMeasure) -> Float[Array, ""]:
    r"""The energy $\frac12\iint e^{a}\,d\mu\,d\mu$; with $a = \beta\langle x,y\rangle$, β E_β.

    It overflows to infinity where its logarithm exceeds 709 (88 in float32).

    Args:
        potential: a, a potential or any function of two points.
        mu: the measure.

    Source: N1 in docs/theory-dynamics.md.
    """
    need_measure("mu", mu)
    rows = log_normalisers(potential, mu, mu.points)
    log_weights = normalise(mu.log_weights)
    # an atom without mass has no part, whatever its row is
    rows = jnp.where(jnp.isneginf(log_weights), -jnp.inf, log_weights + rows)
    return jnp.exp(jax.scipy.special.logsumexp(rows)) / 2


def sinkhorn_energy(
    potential: Any, mu: EmpiricalMeasure, *, tol: Any = None, rounds: ScalarLike = 200
) -> Float[Array, ""]:
    r"""The energy $\max_\pi\int a\,d\pi - KL(\pi|\mu\otimes\mu) = -\int(f+g)\,d\mu$.

    Differentiable in both modes: the derivative is taken at the optimal f and g (the envelope
    theorem), so that Sinkhorn's rounds need not be differentiated.

    Args:
        potential: a, finite.
        mu: the measure.
        tol: the tolerance of the coupling's marginals, as for `SinkhornAttention`.
        rounds: how many Newton steps may be spent.

    Source: N2 in docs/theory-dynamics.md.
    """
    need_measure("mu", mu)
    potential, rounds = as_potential(potential), whole("rounds", rounds, 1)
    fixed = jax.tree.map(
        lambda a: jax.lax.stop_gradient(a) if eqx.is_array(a) else a, (potential, mu)
    )
    f, g = scalings(*fixed, tol=tol, rounds=rounds)
    weights, massive = mu.weights, mu.log_weights > -jnp.inf
    plan = weights[:, None] * weights[None, :]
    plan = plan * jnp.exp(potential.block(mu.points, mu.points) + f[:, None] + g[None, :])
    return jnp.sum(plan) - 1 - jnp.sum(jnp.where(massive, weights * (f + g), 0))


def energy_rate(energy: Energy, layer: Layer, mu: EmpiricalMeasure) -> Float[Array, ""]:
    r"""The derivative $\frac{d}{dt}E(\mu_t)$ at μ, where atoms move with the layer's velocities.

    Args:
        energy: a function of a measure, differentiable in the atoms.
        layer: the velocity, as for `flow`.
        mu: the measure.
    """
    x = state(mu.points)

    def at(x: Float[Array, "n d"]) -> Float[Array, ""]:
        return energy(measure(with_state(mu.points, x), mu.log_weights))

    return jax.jvp(at, (x,), (state(moved(layer, mu)),))[1]
