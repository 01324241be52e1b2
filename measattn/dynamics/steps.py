"""Steps of a layer that shares its weights over depth, compiled and checked."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from measattn.checks import traced
from measattn.kernel import need_layer, transport
from measattn.measure import EmpiricalMeasure, measure, need_measure
from measattn.points import state


def check_layer(layer: Any, mu: Any) -> None:
    """Refuse what cannot be applied to a measure again and again on the host.

    Raises:
        ValueError: no measure, a batch of them, no layer, traced values, or a layer that changes
            the shape of points.
    """
    check_shapes(layer, mu)
    if traced(layer, mu):
        raise ValueError(
            "layer and mu must be concrete, got traced values: this is computed on the host, so "
            "call it outside jit, grad and vmap"
        )


def check_shapes(layer: Any, mu: Any) -> None:
    """As `check_layer`, for what may be traced.

    Raises:
        ValueError: no measure, a batch of them, no layer, or one that changes the shape of points.
    """
    after = shapes_after(layer, mu)
    before = eqx.filter_eval_shape(lambda mu: mu, mu)
    if jax.tree.map(jnp.shape, before) != jax.tree.map(jnp.shape, after):
        raise ValueError(
            "layer must keep the shape of points, to be applied again: states of dimension "
            f"{mu.dimension} became {after.dimension}; give it an output map back to {mu.dimension}"
        )


def shapes_after(layer: Any, mu: Any) -> EmpiricalMeasure:
    """The image of a measure as shapes and dtypes alone; nothing is computed.

    Raises:
        ValueError: no measure, a batch of them, no layer, or one that does not take these states.
    """
    one_measure("mu", mu)
    need_layer(layer)
    try:
        return eqx.filter_eval_shape(transport, mu, layer)
    except TypeError as error:
        raise ValueError(
            f"layer must take states of dimension {mu.dimension}, as mu has, got one that does "
            f"not: {error}"
        ) from error


def one_measure(name: str, mu: Any) -> None:
    """Refuse what is no measure, or many.

    Raises:
        ValueError: either.
    """
    need_measure(name, mu)
    if mu.log_weights.ndim != 1:
        raise ValueError(f"{name} must be one measure, got a batch of them: take one at a time")


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
