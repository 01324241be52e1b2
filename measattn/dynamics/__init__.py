"""Depth as a dynamical system on measures."""

from measattn.dynamics.cone import clustering_rate, cosine_bound, least_cosine
from measattn.dynamics.energy import energy_rate, interaction_energy, sinkhorn_energy
from measattn.dynamics.fields import Increment, Tangential, Unnormalised
from measattn.dynamics.flow import Flow, flow
from measattn.dynamics.gaussian import GaussianFlow, GaussianLaw, affine, gaussian_flow
from measattn.dynamics.ode import FlowError
from measattn.dynamics.orthogonal import orthogonal_start
from measattn.dynamics.sinkhorn import SinkhornAttention, scalings

__all__ = [
    "Flow",
    "FlowError",
    "GaussianFlow",
    "GaussianLaw",
    "Increment",
    "SinkhornAttention",
    "Tangential",
    "Unnormalised",
    "affine",
    "clustering_rate",
    "cosine_bound",
    "energy_rate",
    "flow",
    "gaussian_flow",
    "interaction_energy",
    "least_cosine",
    "orthogonal_start",
    "scalings",
    "sinkhorn_energy",
]
