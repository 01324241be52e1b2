"""The same objects in plain NumPy and SciPy, float64: what the claims compare measattn with.

Rows are queries and columns are keys; nothing here is tiled, streamed or compiled.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import erf, logsumexp

Array = np.ndarray
Score = Callable[[Array, Array], Array]


def log_softmax(scores: Array, weights: Array | None = None) -> Array:
    """Log of the row-wise softmax of ``scores`` plus the logarithms of the keys' weights."""
    if weights is not None:
        with np.errstate(divide="ignore"):
            scores = scores + np.log(weights)
    return scores - logsumexp(scores, axis=-1, keepdims=True)


def softmax(scores: Array, weights: Array | None = None) -> Array:
    """Row-wise softmax of ``scores``, each key with its weight (equal if None)."""
    return np.exp(log_softmax(scores, weights))


def attention(q: Array, k: Array, v: Array, score: Score, weights: Array | None = None) -> Array:
    """Row i is the sum over j of softmax_j(score(q_i, k_j)) v_j."""
    return softmax(score(q, k), weights) @ v


def dot(scale: float = 1.0) -> Score:
    """Scale · ⟨x, y⟩."""
    return lambda x, y: scale * (x @ y.T)


def bilinear(query: Array, key: Array, scale: float = 1.0) -> Score:
    """Scale · ⟨query x, key y⟩."""
    return lambda x, y: scale * ((x @ query.T) @ (y @ key.T).T)


def gaussian(sigma: float) -> Score:
    """−|x − y|² / (2 sigma²)."""
    return lambda x, y: -np.sum((x[:, None] - y[None]) ** 2, axis=-1) / (2 * sigma**2)


def additive(query: Array, key: Array, readout: Array) -> Score:
    """⟨readout, tanh(query x + key y)⟩."""
    return lambda x, y: np.tanh((x @ query.T)[:, None] + (y @ key.T)[None]) @ readout


def relation(phi: Callable[[Array], Array], psi: Callable[[Array], Array]) -> Score:
    """⟨phi(x), psi(y)⟩, maps of rows."""
    return lambda x, y: phi(x) @ psi(y).T


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    """Each row centred and divided by its standard deviation (no n − 1)."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return weight * centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps) + bias


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """Each row divided by its root mean square."""
    return weight * x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.where(x > 0, x, 0.0)


def gelu(x: Array) -> Array:
    """X Φ(x)."""
    return x * (1 + erf(x / np.sqrt(2))) / 2


def silu(x: Array) -> Array:
    """X / (1 + e^{−x})."""
    return x / (1 + np.exp(-x))


def sinusoids(positions: Array, d: int, base: float = 1e4) -> Array:
    """Row s holds sin(s base^{−2i/d}) at 2i and cos of the same at 2i + 1."""
    out = np.zeros((len(positions), d))
    for row, s in enumerate(positions):
        for j in range(d):
            angle = s / base ** (2 * (j // 2) / d)
            out[row, j] = np.sin(angle) if j % 2 == 0 else np.cos(angle)
    return out


def rotate(x: Array, positions: Array, base: float) -> Array:
    """Rotary positions: coordinates i and i + e/2 form the complex number that is turned."""
    half = x.shape[1] // 2
    z = x[:, :half] + 1j * x[:, half:]
    z = z * np.exp(1j * positions[:, None] * base ** (-np.arange(half) / half))
    return np.concatenate([z.real, z.imag], axis=1)


def causal(n: int) -> Array:
    """The additive mask M: 0 where the key is not later than the query, else −∞."""
    return np.where(np.tril(np.ones((n, n), bool)), 0.0, -np.inf)


def distances(x: Array, y: Array) -> Array:
    """All |x_i − y_j|, by direct differences."""
    return np.sqrt(np.sum((x[:, None] - y[None]) ** 2, axis=-1))


def kl(p: Array, q: Array) -> float:
    """KL(p | q) of two probability vectors."""
    has = p > 0
    return float(np.sum(p[has] * (np.log(p[has]) - np.log(q[has]))))


def fitted_slope(x: Array, y: Array, y_error: Array) -> tuple[float, float]:
    """Slope of log y against log x with its standard error, given standard errors of y."""
    u, z, s = np.log(x), np.log(y), y_error / y
    w = 1 / s**2
    centre = (w @ u) / w.sum()
    spread = w @ (u - centre) ** 2
    return float(w @ ((u - centre) * z) / spread), float(1 / np.sqrt(spread))
