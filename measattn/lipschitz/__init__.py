"""Lipschitz constants of attention in Wasserstein distance, from both sides."""

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

__all__ = [
    "AbstractDomain",
    "Anywhere",
    "Ball",
    "Bound",
    "Box",
    "Bracket",
    "Estimate",
    "Everywhere",
    "Hypothesis",
    "LocalConstant",
    "Simplex",
    "Sphere",
    "Split",
    "Whole",
    "Witness",
]
