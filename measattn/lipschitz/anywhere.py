r"""The local constant Anywhere, from below: where in the domain a little mass does most.

$$ L(\mu) = \sup_{x\in E}\max_{|u|=1}\Bigl[|D(x)u| + \int|M_z(x)u|\,\mu(dz)\Bigr] $$

is the limit, for small ε, of what an atom of mass ε at x does to $(1-\varepsilon)\mu +
\varepsilon\delta_x$ when it moves along u. This is maximised over x and u by Adam with projections,
from many starts at once.
Source: G1 and G2 of docs/theory-lipschitz.md.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array
from numpy.typing import NDArray

from measattn.lipschitz.ascent import TINY, Game, Place, quotient
from measattn.lipschitz.domains import AbstractDomain
from measattn.lipschitz.norms.problem import unit

MASS = 1e-60
"""The mass ε; what it changes itself is less than the rounding of float64."""

RATE = 0.05
"""The first step of Adam, in units of the radius."""


def anywhere(
    layer: Any,
    points: NDArray,
    weights: NDArray,
    domain: AbstractDomain,
    first: tuple[NDArray, NDArray],
    starts: int,
    steps: int,
    rng: np.random.Generator,
) -> tuple[float, NDArray, NDArray]:
    """The best value that was found, with its point x (d,) and direction u (d,).

    Args:
        layer: in float64, on arrays.
        points: the atoms of the measure (n, d).
        weights: their masses (n,), positive.
        domain: E, bounded.
        first: a point and a direction to start from.
        starts: how many other starts.
        steps: of each ascent.
        rng: where the starts come from.
    """
    d = points.shape[1]
    centre = np.zeros(d) if domain.centre is None else np.asarray(domain.centre)
    logits = jnp.asarray(np.concatenate([[math.log(MASS)], np.log(weights)]))
    region, scale, middle = jax.tree.map(jnp.asarray, (domain, domain.radius, centre))
    game = Game(layer, 1.0, region, scale, middle, None)
    atoms = jnp.asarray((points - centre) / domain.radius)

    x = rng.normal(size=(starts, d))
    x *= rng.random((starts, 1)) ** (1 / d) / np.linalg.norm(x, axis=1, keepdims=True)
    # half of them on the boundary, where the supremum often is
    x[::2] /= np.linalg.norm(x[::2], axis=1, keepdims=True)
    x = np.concatenate([((first[0] - centre) / domain.radius)[None], x])
    u = np.concatenate([first[1][None], unit(rng.normal(size=(starts, d)))])
    best, values = _climb(game, atoms, logits, (jnp.asarray(x), jnp.asarray(u)), steps)
    k = int(jnp.argmax(values))
    point = centre + domain.radius * np.asarray(best[0][k])
    # what the ascent adds under its roots is no part of the value
    value = max(float(jnp.exp(values[k])) - 2 * math.sqrt(TINY) / MASS, 0.0)
    return value, point, unit(np.asarray(best[1][k])[None])[0]


# compiled once for layers of one structure, domains of one kind, and so many atoms and steps
@eqx.filter_jit
def _climb(
    game: Game, atoms: Array, logits: Array, places: tuple[Array, Array], steps: int
) -> tuple[tuple[Array, Array], Array]:
    """The best place (x, u) of the ascent from each start, and the logarithm of its value."""
    optimiser = optax.adam(optax.cosine_decay_schedule(RATE, steps, 0.01))

    def inside(x: Array) -> Array:
        return (game.domain.project(game.centre + game.scale * x) - game.centre) / game.scale

    def gain(place: tuple[Array, Array]) -> Array:
        x, u = place
        return quotient(game, Place(jnp.concatenate([x[None], atoms]), logits, u[None]))

    def step(state: tuple, _: None) -> tuple[tuple, None]:
        place, memory, best, top = state
        value, slope = jax.value_and_grad(gain)(place)
        better = value > top  # never where it is NaN
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), place, best)
        top = jnp.where(better, value, top)
        slope = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), -g, 0), slope)
        # optax raises a float to the power of its integer count
        with jax.numpy_dtype_promotion("standard"):
            change, memory = optimiser.update(slope, memory, place)
        new: Any = optax.apply_updates(place, change)
        u = new[1] / jnp.sqrt(jnp.sum(new[1] ** 2) + MASS)
        return ((inside(new[0]), u), memory, best, top), None

    def one(place: tuple[Array, Array]) -> tuple:
        place = inside(place[0]), place[1]
        begun = place, optimiser.init(place), place, jnp.full((), -jnp.inf)
        return jax.lax.scan(step, begun, None, length=steps + 1)[0][2:]

    return jax.lax.map(one, places, batch_size=8)
