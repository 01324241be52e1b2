"""Figures of measures, kernels and laws.

Every function returns a `matplotlib.figure.Figure` and takes an optional ``ax`` to draw into. This
is the only package that imports matplotlib, and it does so when the first figure is drawn:
``pip install 'measattn[repro]'``.
"""

from measattn.plot.curves import curve, errors_by_layer, margins
from measattn.plot.kernels import kernel, weights
from measattn.plot.measures import law, measure
from measattn.plot.style import ACCENTS, INK, PAPER

__all__ = [
    "ACCENTS",
    "INK",
    "PAPER",
    "curve",
    "errors_by_layer",
    "kernel",
    "law",
    "margins",
    "measure",
    "weights",
]
