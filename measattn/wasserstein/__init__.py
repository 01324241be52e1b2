"""Exact Wasserstein distances with a certificate."""

from measattn.wasserstein.bottleneck import BottleneckSolution, w_inf
from measattn.wasserstein.conditional import conditional
from measattn.wasserstein.couplings import barycentric_map, displacement
from measattn.wasserstein.distance import distance
from measattn.wasserstein.gaussian import w1_to_gaussian, w2_gaussians
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
from measattn.wasserstein.variation import total_variation
from measattn.wasserstein.w1 import solve, w1, wp

__all__ = [
    "Assignment",
    "Auto",
    "BottleneckSolution",
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
    "conditional",
    "displacement",
    "distance",
    "solve",
    "total_variation",
    "transport_problem",
    "w1",
    "w1_to_gaussian",
    "w2_gaussians",
    "w_inf",
    "wp",
]
