"""Lipschitz constants of attention in Wasserstein distance, from both sides."""

from measattn.lipschitz.bracket import Bracket, bracket
from measattn.lipschitz.catalogue import Bounds, Refused, bound, bounds, image
from measattn.lipschitz.checker import Report, verify
from measattn.lipschitz.domains import AbstractDomain, Ball, Box, Everywhere, Simplex, Sphere
from measattn.lipschitz.forms import UnreadableLayer
from measattn.lipschitz.local import local
from measattn.lipschitz.moves import Anywhere, Split, Whole
from measattn.lipschitz.results import (
    Bound,
    Estimate,
    Hypothesis,
    LocalConstant,
    Move,
    Witness,
)
from measattn.lipschitz.search import search
from measattn.lipschitz.theorems.concave import log_concave
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
    "Anywhere",
    "Ball",
    "Bound",
    "Bounds",
    "Box",
    "Bracket",
    "Displacement",
    "Estimate",
    "Everywhere",
    "Hypothesis",
    "LocalConstant",
    "Move",
    "Refused",
    "Report",
    "Simplex",
    "Sphere",
    "Split",
    "UnreadableLayer",
    "Whole",
    "Witness",
    "bound",
    "bounds",
    "bracket",
    "contamination",
    "gibbs",
    "image",
    "local",
    "log_concave",
    "parameters",
    "search",
    "theta",
    "verify",
    "yudin",
]
