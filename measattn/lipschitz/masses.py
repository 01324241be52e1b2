"""The weights of a measure in float64, whatever the precision of JAX."""

import math

import numpy as np
from numpy.typing import NDArray

from measattn.measure import EmpiricalMeasure


def masses(mu: EmpiricalMeasure) -> NDArray:
    """The weights (n,), as they are read off the logarithms: float32 would lose small ones."""
    weights = np.exp(np.asarray(mu.log_weights, np.float64))
    return weights / math.fsum(weights)
