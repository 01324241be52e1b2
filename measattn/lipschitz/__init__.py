"""Lipschitz constants of attention in Wasserstein distance, from both sides."""

from measattn.lipschitz.bracket import bracket
from measattn.lipschitz.catalogue import Bounds, Refused, bound, bounds
from measattn.lipschitz.domains import AbstractDomain, Ball, Box, Everywhere, Simplex, Sphere
from measattn.lipschitz.results import (
    Anywhere,
    Bound,
    Bracket,
    Estimate,
    Hypothesis,
    LocalConstant,
    Split,
    Whole,
    Witness,
)
from measattn.lipschitz.search import search

__all__ = [
    "AbstractDomain",
    "Anywhere",
    "Ball",
    "Bound",
    "Bounds",
    "Box",
    "Bracket",
    "Estimate",
    "Everywhere",
    "Hypothesis",
    "LocalConstant",
    "Refused",
    "Simplex",
    "Sphere",
    "Split",
    "Whole",
    "Witness",
    "bound",
    "bounds",
    "bracket",
    "search",
]
