r"""Gradient ascent of the local Lipschitz constant over measures and displacements.

For atoms $x_i$ of weights $\omega_i$ that move by $hu_i$, weights fixed, the quotient of the costs
is in the limit of small h

$$ \Bigl(\sum_i\omega_i|(Ju)_i|^p \Big/ \sum_j\omega_j|u_j|^p\Bigr)^{1/p}, $$

for p = 1 largest where one atom moves, for $p = \infty$ where all move by one. Its supremum over
all measures is the Lipschitz constant of the layer. Ju is one forward derivative of the layer.
Source: G1 and G2 of docs/theory-lipschitz.md.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from numpy.typing import NDArray

from measattn.kernel import moved
from measattn.lipschitz.domains import AbstractDomain
from measattn.measure import measure, normalise

TINY = 1e-300
"""Added under square roots, whose slope at 0 is infinite."""


class Place(NamedTuple):
    """A measure and a displacement of its atoms; searches hold many, stacked.

    Attributes:
        points: (n, d), in units of the radius from the centre of the domain.
        logits: logarithms of the weights (n,).
        moves: (n, d) for p > 1, one row, that of atom 0, for p = 1.
    """

    points: Array
    logits: Array
    moves: Array


class Game(NamedTuple):
    """What is held fixed.

    Attributes:
        layer: the layer.
        p: the order.
        domain: where the points have to stay.
        scale: the length of one unit of ``points``.
        centre: the point that is 0 there (d,).
        lightest: the least weight; None if the weights are fixed and equal.
    """

    layer: Any
    p: float
    domain: AbstractDomain
    scale: Any
    centre: Any
    lightest: float | None


class Climbed(NamedTuple):
    """Where an ascent ended: the best place of each start, its value and that of its start."""

    places: Place
    values: NDArray
    first: NDArray


def climb(
    game: Game, places: Place, steps: int, rate: float, watch: Callable | None = None
) -> Climbed:
    """Ascend from all starts at once, in one compiled loop with projections onto the domain.

    Args:
        game: what is held fixed.
        places: the starts, stacked.
        steps: how many steps of Adam.
        rate: the first rate of learning; it falls like a cosine.
        watch: called as ``watch(step, steps, best)`` ten times on the way.
    """
    stretch = max(1, math.ceil(steps / 10))
    numbers = jax.tree.map(jnp.asarray, (game.domain, game.scale, game.centre))
    game = game._replace(**dict(zip(("domain", "scale", "centre"), numbers, strict=True)))
    places, memory, values = _begin(game, places, steps, rate)
    first, state = values, (places, memory, places, values)
    for k in range(10):
        state = _ascend(game, state, steps, rate, stretch)
        if watch is not None:
            watch(round((k + 1) * steps / 10), steps, float(jnp.exp(jnp.nanmax(state[3]))))
    return Climbed(state[2], np.exp(np.asarray(state[3])), np.exp(np.asarray(first)))


# Both are compiled once for layers of one structure, domains of one kind, and so many steps.


@eqx.filter_jit
def _begin(game: Game, places: Place, steps: int, rate: float) -> tuple:
    """The starts inside the domain, the optimiser's memory, and their values."""
    places = jax.vmap(partial(_inside, game))(places)
    values = jax.vmap(partial(quotient, game))(places)
    values = jnp.where(jnp.isfinite(values), values, -jnp.inf)
    return places, jax.vmap(_optimiser(steps, rate).init)(places), values


@eqx.filter_jit
def _ascend(game: Game, state: tuple, steps: int, rate: float, stretch: int) -> tuple:
    """``stretch`` steps from all places, and the best seen."""
    optimiser, gain = _optimiser(steps, rate), partial(quotient, game)

    def step(place: Place, memory: Any) -> tuple:
        value, slope = jax.value_and_grad(gain)(place)
        slope = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), -g, 0), slope)
        # optax raises a float to the power of its integer count
        with jax.numpy_dtype_promotion("standard"):
            change, memory = optimiser.update(slope, memory, place)
        moved_to: Any = optax.apply_updates(place, change)
        return _inside(game, moved_to), memory, value

    def one(state: tuple, _: None) -> tuple[tuple, None]:
        places, memory, best, top = state
        new, memory, values = jax.vmap(step)(places, memory)
        return (new, memory, *_better(places, values, best, top)), None

    places, memory, best, top = jax.lax.scan(one, state, None, length=stretch)[0]
    return (places, memory, *_better(places, jax.vmap(gain)(places), best, top))


def _optimiser(steps: int, rate: float) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(rate, steps, 0.01))


def _better(places: Place, values: Array, best: Place, top: Array) -> tuple[Place, Array]:
    higher = values > top  # never where it is NaN

    def chosen(new: Array, old: Array) -> Array:
        return jnp.where(higher.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(chosen, places, best), jnp.where(higher, values, top)


def quotient(game: Game, place: Place) -> Float[Array, ""]:
    """The logarithm of the quotient at one place."""
    p, points = game.p, game.centre[None, :] + game.scale * place.points
    weights = normalise(place.logits)
    if game.lightest is None:
        weights = jax.lax.stop_gradient(weights)
    moves = place.moves
    if p == 1:
        moves = jnp.zeros_like(points).at[0].set(_unit(moves[0]))
    elif math.isinf(p):
        moves = jax.vmap(_unit)(moves)
    _, out = jax.jvp(lambda x: moved(game.layer, measure(x, weights), None), (points,), (moves,))
    after = 0.5 * jnp.log(jnp.sum(out * out, axis=1) + TINY)
    if p == 1:
        return jax.scipy.special.logsumexp(weights + after) - weights[0]
    if math.isinf(p):
        return jnp.max(after)
    before = 0.5 * jnp.log(jnp.sum(moves * moves, axis=1) + TINY)
    costs = (jax.scipy.special.logsumexp(weights + p * length) for length in (after, before))
    return next(costs) / p - next(costs) / p


def _unit(u: Float[Array, " d"]) -> Float[Array, " d"]:
    return u / jnp.sqrt(jnp.sum(u * u) + TINY)


def _inside(game: Game, place: Place) -> Place:
    """The nearest place that is allowed."""
    centre = jnp.asarray(game.centre)[None, :]
    points = (
        jax.vmap(game.domain.project)(centre + game.scale * place.points) - centre
    ) / game.scale
    logits = place.logits
    if game.lightest is not None:
        logits = jnp.maximum(normalise(logits), math.log(game.lightest))
    places = centre + game.scale * points
    moves = jax.vmap(game.domain.along)(places[: len(place.moves)], place.moves)
    # only the direction of moves counts
    size = jnp.sqrt(jnp.mean(jnp.sum(moves**2, axis=1)) + TINY)
    return Place(points, logits, moves / size)
