"""Steps of a layer that shares its weights over depth, compiled and checked."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from measattn.kernel import AbstractDiracKernel, AbstractNonlinearKernel, transport
from measattn.measure import measure, need_measure
from measattn.points import state


def check_layer(layer: Any, mu: Any) -> None:
    """Refuse what cannot be applied to a measure again and again.

    Raises:
        ValueError: no measure, no layer, or a layer that changes the shape of points.
    """
    need_measure("mu", mu)
    if not isinstance(layer, (AbstractNonlinearKernel, AbstractDiracKernel)):
        raise ValueError(
            f"layer must be a nonlinear or Dirac-valued kernel, got a {type(layer).__name__}; wrap "
            "a map of points as Deterministic(f)"
        )
    after = eqx.filter_eval_shape(transport, mu, layer)
    before = eqx.filter_eval_shape(lambda mu: mu, mu)
    if jax.tree.map(jnp.shape, before) != jax.tree.map(jnp.shape, after):
        raise ValueError(
            "layer must keep the shape of points, to be applied again: states of dimension "
            f"{mu.dimension} became {after.dimension}; give it an output map back to {mu.dimension}"
        )


@eqx.filter_jit
def advance(layer: Any, points: PyTree, log_weights: Any, count: int, look: Any) -> PyTree:
    """``count`` steps: the last finite points, for each step whether it was finite, and a look.

    Args:
        layer: the layer.
        points: where to start.
        log_weights: of the atoms.
        count: how many steps.
        look: what to record of the measure after each, a pytree that is a function of it.
    """

    def step(carry: tuple, _: None) -> tuple[tuple, PyTree]:
        points, good = carry
        new = transport(measure(points, log_weights), layer).points
        good = good & jnp.all(jnp.isfinite(state(new)))
        points = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, points)
        return (points, good), (good, look(measure(points, log_weights)))

    (points, _), (good, seen) = jax.lax.scan(step, (points, jnp.array(True)), None, length=count)
    return points, good, seen
