"""Layers, clouds and SciPy's paths for the tests of flows."""

import numpy as np
from scipy.integrate import solve_ivp

import measattn as ma
from measattn import dynamics


def on_sphere(layer):
    return dynamics.Tangential(layer)


def dot(beta, value=None):
    return ma.SelfAttention(ma.DotProduct(beta), value)


def unit(rng, n, d, towards=0.0):
    x = rng.normal(size=(n, d))
    x[:, 0] += towards
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def scipy_flow(velocity, x, times):
    """The path by SciPy's own method of order 8."""
    done = solve_ivp(
        lambda t, y: velocity(y.reshape(x.shape)).ravel(), (0, times[-1]), x.ravel(),
        method="DOP853", t_eval=times, rtol=1e-12, atol=1e-13,
    )  # fmt: skip
    return done.y.T.reshape(-1, *x.shape)
