"""The peers, each a function of two clouds, from points to a distance.

POT and SciPy's assignment are exact. OTT-JAX and GeomLoss are entropic: they do not promise the
distance, and are here for cost and error where they are installed.
"""

import importlib.util
import os
from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

BLUR = 0.05
"""The entropic scale: far below the distances between random points in d = 8."""


def pot(x, y, a=None, b=None):
    for backend in ("PYTORCH", "JAX", "CUPY", "TENSORFLOW"):
        os.environ.setdefault(f"POT_BACKEND_DISABLE_{backend}", "1")  # they take seconds to import
    import ot

    a, b = (np.full(len(z), 1 / len(z)) if w is None else w for z, w in ((x, a), (y, b)))
    return float(ot.emd2(a, b, ot.dist(x, y, "euclidean"), numItermax=10**8))


def assignment(x, y):
    cost = cdist(x, y)
    return cost[linear_sum_assignment(cost)].mean()


def entropic(x, y) -> dict[str, Callable[[], float]]:
    """The entropic peers that are installed, with a line for each that is not."""
    peers = {}
    for name, make, packages in (
        ("OTT-JAX", _ott, ["ott"]),
        ("GeomLoss", _geomloss, ["geomloss", "torch"]),
    ):
        if all(map(importlib.util.find_spec, packages)):
            peers[name] = partial(make(), x, y)
        else:
            print(f"  {name} is not installed: no line for it")
    return peers


def _ott():
    import jax
    from ott.geometry import costs, pointcloud
    from ott.solvers import linear

    @jax.jit
    def primal(x, y):
        cloud = pointcloud.PointCloud(x, y, cost_fn=costs.Euclidean(), epsilon=BLUR)
        return linear.solve(cloud, max_iterations=10_000).primal_cost

    return lambda x, y: float(primal(x, y))


def _geomloss():
    import torch
    from geomloss import SamplesLoss

    loss = SamplesLoss("sinkhorn", p=1, blur=BLUR, debias=False, backend="tensorized")
    return lambda x, y: float(loss(torch.from_numpy(x), torch.from_numpy(y)))
