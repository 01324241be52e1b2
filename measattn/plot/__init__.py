"""Figures of measures, kernels, laws, transport and depth.

Every function returns a `matplotlib.figure.Figure`; those of one panel take an optional ``ax`` to
draw into. This is the only package that imports matplotlib, and it does so when the first figure is
drawn: ``pip install 'measattn[repro]'``.
"""

from measattn.plot.constants import growth, two_sided
from measattn.plot.curves import curve, errors_by_layer, margins
from measattn.plot.kernels import kernel, weights
from measattn.plot.measures import law, measure
from measattn.plot.style import ACCENTS, INK, PAPER
from measattn.plot.trajectories import trajectory
from measattn.plot.transports import bracket, potential, transport

__all__ = [
    "ACCENTS",
    "INK",
    "PAPER",
    "bracket",
    "curve",
    "errors_by_layer",
    "growth",
    "kernel",
    "law",
    "margins",
    "measure",
    "potential",
    "trajectory",
    "transport",
    "two_sided",
    "weights",
]
