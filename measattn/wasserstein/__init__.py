"""Exact Wasserstein distances with a certificate."""

from measattn.wasserstein.couplings import barycentric_map, displacement
from measattn.wasserstein.distance import distance
from measattn.wasserstein.plan import Plan
from measattn.wasserstein.problem import Problem, transport_problem
from measattn.wasserstein.solution import Bracket, Solution, TransportError
from measattn.wasserstein.solvers import (
    Assignment,
    Auto,
    ColumnGeneration,
    Line,
    NetworkSimplex,
    Single,
    Sinkhorn,
)
from measattn.wasserstein.w1 import solve, w1, wp

__all__ = [
    "Assignment",
    "Auto",
    "Bracket",
    "ColumnGeneration",
    "Line",
    "NetworkSimplex",
    "Plan",
    "Problem",
    "Single",
    "Sinkhorn",
    "Solution",
    "TransportError",
    "barycentric_map",
    "displacement",
    "distance",
    "solve",
    "transport_problem",
    "w1",
    "wp",
]
