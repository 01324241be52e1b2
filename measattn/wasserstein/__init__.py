"""Exact Wasserstein-1 distances with a certificate: `w1` and what it returns."""

from measattn.wasserstein.problem import Problem
from measattn.wasserstein.solution import Plan, TransportError, W1Solution
from measattn.wasserstein.solvers import Assignment, Line, NetworkSimplex
from measattn.wasserstein.w1 import w1

__all__ = [
    "Assignment",
    "Line",
    "NetworkSimplex",
    "Plan",
    "Problem",
    "TransportError",
    "W1Solution",
    "w1",
]
