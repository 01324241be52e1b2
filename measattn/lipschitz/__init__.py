"""Lipschitz constants of attention in Wasserstein distance, from both sides."""

from measattn.lipschitz.bracket import bracket
from measattn.lipschitz.catalogue import Bounds, Refused, bound, bounds
from measattn.lipschitz.domains import AbstractDomain, Ball, Box, Everywhere, Simplex, Sphere
from measattn.lipschitz.results import (
    Bound,
    Bracket,
    Estimate,
    Hypothesis,
    Witness,
)
from measattn.lipschitz.search import search
from measattn.lipschitz.theorems.theta import theta

__all__ = [
    "AbstractDomain",
    "Ball",
    "Bound",
    "Bounds",
    "Box",
    "Bracket",
    "Estimate",
    "Everywhere",
    "Hypothesis",
    "Refused",
    "Simplex",
    "Sphere",
    "Witness",
    "bound",
    "bounds",
    "bracket",
    "search",
    "theta",
]
