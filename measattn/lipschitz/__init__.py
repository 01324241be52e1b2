"""Lipschitz constants of attention in Wasserstein distance, from both sides."""

from measattn.lipschitz.bracket import Bracket, bracket
from measattn.lipschitz.catalogue import Bounds, Refused, bound, bounds, image
from measattn.lipschitz.checker import Report, verify
from measattn.lipschitz.domains import AbstractDomain, Ball, Box, Everywhere, Simplex, Sphere
from measattn.lipschitz.forms import UnreadableLayer
from measattn.lipschitz.results import (
    Bound,
    Estimate,
    Hypothesis,
    Witness,
)
from measattn.lipschitz.search import search
from measattn.lipschitz.theorems.literature import yudin
from measattn.lipschitz.theorems.perturbation import (
    Displacement,
    contamination,
    gibbs,
    parameters,
)
from measattn.lipschitz.theorems.theta import theta

__all__ = [
    "AbstractDomain",
    "Ball",
    "Bound",
    "Bounds",
    "Box",
    "Bracket",
    "Displacement",
    "Estimate",
    "Everywhere",
    "Hypothesis",
    "Refused",
    "Report",
    "Simplex",
    "Sphere",
    "UnreadableLayer",
    "Witness",
    "bound",
    "bounds",
    "bracket",
    "contamination",
    "gibbs",
    "image",
    "parameters",
    "search",
    "theta",
    "verify",
    "yudin",
]
