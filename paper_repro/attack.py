"""Optimisation-based attacks: gradient ascent on how much of a bound is used."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import measattn as ma
from measattn.wasserstein import distance


class Place(NamedTuple):
    """Common atoms, the log-weights of two measures on them, and log g there."""

    points: Any
    first: Any
    second: Any
    log_g: Any


def start(rng: np.random.Generator, n: int, d: int) -> Place:
    """A random place to start from."""
    first, second, log_g = rng.normal(size=(3, n))
    return Place(rng.normal(size=(n, d)), first, second, log_g)


OPTIMISER = optax.adam(0.05)


def ascend(objective: Callable[[Any], jax.Array], place: Any, steps: int) -> Any:
    """The best place that Adam meets."""
    place = jax.tree.map(jnp.asarray, place)
    state, best, highest = OPTIMISER.init(place), place, -np.inf
    for _ in range(steps):
        moved, state, value = _step(objective, place, state)
        if value > highest:
            best, highest = place, float(value)
        place = moved
    return best


@partial(jax.jit, static_argnums=0)
def _step(objective: Callable, place: Any, state: Any) -> tuple[Any, Any, jax.Array]:
    value, slope = jax.value_and_grad(objective)(place)
    change, state = OPTIMISER.update(jax.tree.map(jnp.negative, slope), state, place)
    return optax.apply_updates(place, change), state, value


def _pairs(points: jax.Array) -> tuple[jax.Array, np.ndarray, np.ndarray]:
    i, j = np.triu_indices(len(points), 1)
    return jnp.sqrt(((points[i] - points[j]) ** 2).sum(axis=1)), i, j


def same_function(place: Place) -> jax.Array:
    """Log of W1(Ψμ, Ψν) / (e^ω (1 + ℓD) W1(μ, ν)), with D, ω and ℓ on the atoms."""
    mu, nu = (ma.EmpiricalMeasure(place.points, logs) for logs in (place.first, place.second))
    image_mu, image_nu = (
        ma.EmpiricalMeasure(law.points, law.log_weights + place.log_g) for law in (mu, nu)
    )
    far, i, j = _pairs(place.points)
    omega = place.log_g.max() - place.log_g.min()
    ell = (jnp.abs(place.log_g[i] - place.log_g[j]) / far).max()
    bound = omega + jnp.log1p(ell * far.max())
    return jnp.log(distance(image_mu, image_nu)) - jnp.log(distance(mu, nu)) - bound


def two_functions(place: Place) -> jax.Array:
    """Log of W1(Ψ_g μ, μ) / (D tanh(δ/4))."""
    mu = ma.EmpiricalMeasure(place.points, place.first)
    image = ma.EmpiricalMeasure(mu.points, mu.log_weights + place.log_g)
    delta = place.log_g.max() - place.log_g.min()
    bound = jnp.log(_pairs(place.points)[0].max()) + jnp.log(jnp.tanh(delta / 4))
    return jnp.log(distance(mu, image)) - bound
