"""From a measure and a displacement to two measures: how far to move, and with what mass."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from measattn.kernel import moved
from measattn.lipschitz.ascent import Game, Place
from measattn.lipschitz.domains import AbstractDomain, Box, Simplex
from measattn.measure import measure, normalise

LIGHTEST = 1e-12
"""The least mass of an atom: quotients of masses this small are still known to many digits."""

MASSES = 10.0 ** -np.arange(3.0, 13.0)
"""What the mass of the one atom that moves is tried at, besides what the ascent found."""

STEPS = 2.0 ** -np.arange(1.0, 33.0, 1.5)
"""How far atoms are moved, in units of the radius."""

KEPT = 3
"""How many pairs of each mass are worth an exact evaluation."""


class Pair(NamedTuple):
    """Two measures of the same weights, and a guess of their quotient in floating point."""

    guess: float
    x: NDArray
    y: NDArray
    weights: NDArray


def pairs(game: Game, places: list[Place]) -> list[Pair]:
    """Pairs near some places whose quotients are large by the costs of moving each atom along.

    Both measures stay in the domain: their points are projected, or begin a little inside. The
    pair with the best guess comes first.
    """
    project = partial(_projected, jax.tree.map(jnp.asarray, game.domain))
    found = []
    for place in places:
        weights = np.exp(np.asarray(place.logits) - np.asarray(place.logits).max())
        weights /= weights.sum()
        light = [weights]
        if game.p == 1 and game.lightest is not None and len(weights) > 1:
            rest = weights[1:] / weights[1:].sum()
            light += [np.concatenate([[mass], (1 - mass) * rest]) for mass in MASSES]
        begins, ends = _ends(game, place, project)
        for mass in light:
            log = jnp.asarray(np.log(mass))
            before, after = (
                np.asarray(_outputs(game.layer, jnp.asarray(a), log)) for a in (begins, ends)
            )
            guess = _cost(after - before, mass, game.p, _noise(before))
            cost = _cost(ends - begins, mass, game.p, (0.0, 0.0))
            guess = np.divide(guess, cost, out=np.zeros_like(guess), where=cost > 0)
            best = np.argsort(-guess)[:KEPT]
            found += [Pair(float(guess[k]), begins[k], ends[k], mass) for k in best if cost[k] > 0]
    return sorted(found, key=lambda pair: -pair.guess)


@eqx.filter_jit
def _outputs(layer: Any, points: Array, logits: Array) -> Array:
    """The outputs (k, n, v) at many supports, for the same weights."""
    weights = normalise(logits)
    return jax.vmap(lambda x: moved(layer, measure(x, weights), None))(points)


@eqx.filter_jit
def _projected(domain: AbstractDomain, points: Array) -> Array:
    return jax.vmap(jax.vmap(domain.project))(points)


def _ends(game: Game, place: Place, project: Callable) -> tuple[NDArray, NDArray]:
    """The atoms before and after each step that is tried, (k, n, d)."""
    moves, points = (np.asarray(a, np.float64) for a in (place.moves, place.points))
    if game.p == 1:
        moves = np.concatenate([moves[:1], np.zeros((len(points) - 1, moves.shape[1]))])
    lengths = np.linalg.norm(moves, axis=1, keepdims=True)
    lengths = lengths if math.isinf(game.p) else lengths.max()
    moves = moves / np.where(lengths > 0, lengths, 1.0)
    unit = game.scale * points
    begins, ends = [], []
    for step in STEPS:
        for inside in {0.0, min(2 * step, 0.5)} if game.domain.convex else {0.0}:
            for sign in (1, -1):
                begins.append(game.centre + (1 - inside) * unit)
                ends.append(begins[-1] + sign * step * game.scale * moves)
    x, y = (_inwards(game, np.asarray(project(jnp.asarray(np.stack(a))))) for a in (begins, ends))
    if game.p == 1:
        y[:, 1:] = x[:, 1:]
    return x, y  # of one shape at all places, for the compiler


def _inwards(game: Game, points: NDArray) -> NDArray:
    """Points a little nearer to the centre, so that no rounding puts them outside."""
    if not game.domain.convex or isinstance(game.domain, (Box, Simplex)):
        return points.copy()  # of a box, projections are exact
    # far from the origin the points themselves are rounded
    rounding = float(np.linalg.norm(np.spacing(np.abs(game.centre) + game.scale)))
    return game.centre + (1 - 2.0**-46 - 2 * rounding / game.scale) * (points - game.centre)


def _noise(outputs: NDArray) -> tuple[float, float]:
    """What outputs are off in floats, and what dual values between them lose."""
    eps = float(np.finfo(np.float64).eps)
    return 16 * eps * float(np.abs(outputs).max()), 64 * eps * float(np.ptp(outputs, axis=1).max())


def _cost(moves: NDArray, mass: NDArray, p: float, noise: tuple[float, float]) -> NDArray:
    """The p-mean of displacements (k, n, d), less what may be noise."""
    lengths = np.maximum(np.linalg.norm(moves, axis=2) - noise[0], 0)
    if math.isinf(p):
        return lengths.max(axis=1)
    return np.maximum(np.sum(mass * lengths**p, axis=1) - noise[1], 0) ** (1 / p)
