"""The solvers, one a file: each proposes a plan and a potential, for the certificate to judge."""

from measattn.wasserstein.solvers.assignment import Assignment
from measattn.wasserstein.solvers.auto import Auto
from measattn.wasserstein.solvers.base import AbstractSolver, Proposal, Run, Start
from measattn.wasserstein.solvers.columns import ColumnGeneration
from measattn.wasserstein.solvers.line import Line
from measattn.wasserstein.solvers.simplex import NetworkSimplex
from measattn.wasserstein.solvers.single import Single
from measattn.wasserstein.solvers.sinkhorn import Sinkhorn

__all__ = [
    "AbstractSolver",
    "Assignment",
    "Auto",
    "ColumnGeneration",
    "Line",
    "NetworkSimplex",
    "Proposal",
    "Run",
    "Single",
    "Sinkhorn",
    "Start",
]
