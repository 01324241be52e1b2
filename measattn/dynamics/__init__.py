"""Depth: weight-shared stacks as dynamics on measures."""

from measattn.dynamics.anderson import Anderson
from measattn.dynamics.collapse import diameter_bound, rank_one_bound
from measattn.dynamics.contraction import Contraction, NotProved, contraction
from measattn.dynamics.fixed_point import FixedPoint, equilibrium, fixed_point
from measattn.dynamics.implicit import equilibrium_points
from measattn.dynamics.injection import Injected
from measattn.dynamics.observables import clusters, diameter, energy, radius
from measattn.dynamics.rate import Rate, fit_rate
from measattn.dynamics.spectrum import Spectrum, spectrum
from measattn.dynamics.trajectory import Trajectory, iterate

__all__ = [
    "Anderson",
    "Contraction",
    "FixedPoint",
    "Injected",
    "NotProved",
    "Rate",
    "Spectrum",
    "Trajectory",
    "clusters",
    "contraction",
    "diameter",
    "diameter_bound",
    "energy",
    "equilibrium",
    "equilibrium_points",
    "fit_rate",
    "fixed_point",
    "iterate",
    "radius",
    "rank_one_bound",
    "spectrum",
]
