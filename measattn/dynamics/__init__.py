"""Depth: weight-shared stacks and flows as dynamics on measures."""

from measattn.dynamics.anderson import Anderson
from measattn.dynamics.collapse import diameter_bound, rank_one_bound
from measattn.dynamics.cone import clustering_rate, cosine_bound, least_cosine
from measattn.dynamics.contraction import Contraction, NotProved, contraction
from measattn.dynamics.energy import energy_rate, interaction_energy, sinkhorn_energy
from measattn.dynamics.fields import Increment, Tangential, Unnormalised
from measattn.dynamics.fixed_point import FixedPoint, equilibrium, fixed_point
from measattn.dynamics.flow import Flow, flow
from measattn.dynamics.gaussian import GaussianFlow, GaussianLaw, affine, gaussian_flow
from measattn.dynamics.implicit import equilibrium_points
from measattn.dynamics.injection import Injected
from measattn.dynamics.observables import clusters, diameter, effective_rank, mean_cosine, radius
from measattn.dynamics.ode import FlowError
from measattn.dynamics.orthogonal import orthogonal_start
from measattn.dynamics.rate import Rate, fit_rate
from measattn.dynamics.sinkhorn import SinkhornAttention, scalings
from measattn.dynamics.spectrum import Spectrum, spectrum
from measattn.dynamics.trajectory import Trajectory, iterate, through

__all__ = [
    "Anderson",
    "Contraction",
    "FixedPoint",
    "Flow",
    "FlowError",
    "GaussianFlow",
    "GaussianLaw",
    "Increment",
    "Injected",
    "NotProved",
    "Rate",
    "SinkhornAttention",
    "Spectrum",
    "Tangential",
    "Trajectory",
    "Unnormalised",
    "affine",
    "clustering_rate",
    "clusters",
    "contraction",
    "cosine_bound",
    "diameter",
    "diameter_bound",
    "effective_rank",
    "energy_rate",
    "equilibrium",
    "equilibrium_points",
    "fit_rate",
    "fixed_point",
    "flow",
    "gaussian_flow",
    "interaction_energy",
    "iterate",
    "least_cosine",
    "mean_cosine",
    "orthogonal_start",
    "radius",
    "rank_one_bound",
    "scalings",
    "sinkhorn_energy",
    "spectrum",
    "through",
]
