"""Random measures and functions, and how much of the bounds A1, A2 and A3 they use."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import measattn as ma
from measattn.wasserstein import Solution, total_variation, w1
from paper_repro import oracles
from paper_repro.claim import Bench

ATOMS = 12
"""Atoms of the random measures; some of them have no mass, some coincide."""

ROUNDING = 1e-14
"""What rounding of the weights may add to a total variation."""


class Constants(NamedTuple):
    """What the bounds need to know of log g on E: its oscillation and Lipschitz constants."""

    diameter: float
    omega: float
    ell: float
    slope: float
    """Lip(g)/sup g."""

    @property
    def uniform(self) -> float:
        """e^ω (1 + ℓD)."""
        return float(np.exp(self.omega) * (1 + self.ell * self.diameter))


def constants(points: np.ndarray, log_g: np.ndarray) -> Constants:
    """D, ω, ℓ and Lip(g)/sup g over all pairs of atoms."""
    far = oracles.distances(points, points)
    apart = far > 0
    g = np.exp(log_g - log_g.max())
    quotients = [
        float((np.abs(f[:, None] - f[None])[apart] / far[apart]).max(initial=0)) for f in (log_g, g)
    ]
    return Constants(float(far.max()), float(np.ptp(log_g)), quotients[0], quotients[1])


def quotient_above(image: Solution, before: Solution) -> float:
    """The largest quotient that the two certificates allow."""
    return image.upper / before.lower


def quotient_below(image: Solution, before: Solution) -> float:
    """The least quotient that the two certificates allow."""
    return image.lower / before.upper


class Parameters(NamedTuple):
    """Log g(y) = ⟨tilt, y⟩ + height sin⟨wave, y⟩ − bend |y|²."""

    tilt: Any
    wave: Any
    height: float
    bend: float


def log_density(theta: Parameters, y: jax.Array) -> jax.Array:
    """Log g at one point."""
    return theta.tilt @ y + theta.height * jnp.sin(theta.wave @ y) - theta.bend * (y @ y)


@jax.jit
def transformed(theta: Parameters, mu: ma.EmpiricalMeasure) -> ma.EmpiricalMeasure:
    """Ψ_g(μ)."""
    return ma.boltzmann_gibbs(lambda y: log_density(theta, y), mu)


def random_function(rng: np.random.Generator, d: int, size: float) -> Parameters:
    """A tilt, a wave and a well, of that size."""
    tilt, wave = rng.normal(size=(2, d)) / np.sqrt(d)
    return Parameters(size * tilt, 3 * wave, size * rng.normal(), size * rng.normal() / d)


def random_points(rng: np.random.Generator, d: int) -> np.ndarray:
    """Atoms of any scale; a third of them coincide with others, or differ by a little."""
    points = rng.normal(size=(ATOMS, d)) * 10 ** rng.uniform(-1, 0.5)
    points[:2] = points[2:4]
    points[4:6] = points[6:8] + 1e-3 * rng.normal(size=(2, d))
    return points


def random_weights(rng: np.random.Generator) -> np.ndarray:
    """Even or very uneven weights, some of them zero."""
    weights = rng.dirichlet(np.full(ATOMS, rng.choice([0.1, 1.0, 10.0])))
    heaviest = weights == weights.max()  # is not dropped altogether, so some mass is left
    return np.where(rng.random(ATOMS) < 0.2, 1e-3 * heaviest, weights)


def values(theta: Parameters, points: np.ndarray) -> np.ndarray:
    """Log g on rows, in NumPy."""
    wave = theta.height * np.sin(points @ theta.wave)
    return np.asarray(points @ theta.tilt + wave - theta.bend * (points**2).sum(axis=1))


def same_shares(bench: Bench, d: int) -> list[float]:
    """The shares of the three forms of A1 and of A3 that one random pair uses."""
    rng, points = bench.rng, random_points(bench.rng, d)
    theta = random_function(rng, d, rng.exponential())
    log_g = values(theta, points)
    E = constants(points, log_g)
    bench.check("bounded", np.isfinite(E).all())
    a, b = (weights / weights.sum() for weights in (random_weights(rng), random_weights(rng)))
    mu, nu = ma.weighted(points, a), ma.weighted(points, b)
    before = w1(mu, nu)
    if before.lower < 1e-6 * E.diameter:  # a quotient of roundings would say nothing
        return same_shares(bench, d)
    images = transformed(theta, mu), transformed(theta, nu)
    g = np.exp(log_g - log_g.max())
    mass = max(a @ g, b @ g)
    moved = quotient_above(w1(*images), before)
    varied = (total_variation(*images) - ROUNDING) / (total_variation(mu, nu) + ROUNDING)
    return [
        moved * mass / (1 + E.slope * E.diameter),
        moved * mass / (1 + E.ell * E.diameter),
        moved / E.uniform,
        varied * mass,
    ]


def two_shares(rng: np.random.Generator, d: int) -> list[float]:
    """The shares of the three bounds of A2 that a random measure and two functions use."""
    points, weights, size = random_points(rng, d), random_weights(rng), rng.exponential()
    g, h = (random_function(rng, d, size) for _ in "gh")
    mu, a = ma.weighted(points, weights), weights / weights.sum()
    log_g, log_h = values(g, points), values(h, points)
    diameter, delta, *_ = constants(points, log_g - log_h)
    images = transformed(g, mu), transformed(h, mu)
    moved = w1(*images).upper
    top = max(log_g.max(), log_h.max())
    eg, eh = np.exp(log_g - top), np.exp(log_h - top)
    bound = np.tanh(delta / 4)
    return [
        moved / (diameter * bound),
        (total_variation(*images) - ROUNDING) / bound,
        moved / (diameter * (a @ np.abs(eg - eh)) / max(a @ eg, a @ eh)),
    ]
