"""Independent answers, in NumPy and SciPy float64: nothing here imports the library.

What a derivative is taken of accepts complex numbers, for `directional`.
"""

import numpy as np
from scipy.optimize import linprog
from scipy.special import erf


def softmax(logits):
    """Rows of the softmax of a matrix of logits."""
    mass = np.exp(logits - logits.real.max(axis=-1, keepdims=True))
    return mass / mass.sum(axis=-1, keepdims=True)


def attention(logits, values, weights=None):
    """softmax(logits + log weights) @ values."""
    return softmatch(logits, weights) @ _wide(values)


def softmatch(logits, weights=None):
    """softmax(logits + log weights), the attention matrix."""
    logits = _wide(logits)
    if weights is not None:
        with np.errstate(divide="ignore"):
            logits = logits + np.log(_wide(weights))
    return softmax(logits)


def log_normaliser(logits, weights):
    """log sum_j weights_j exp(logits_ij), the weights normalised."""
    weights = _wide(weights) / _wide(weights).sum()
    top = np.where(weights > 0, logits, -np.inf).max(axis=-1, keepdims=True)
    return top[..., 0] + np.log(np.exp(logits - top) @ weights)


def gaussian_logits(x, y, sigma):
    """-|x - y|²/2σ² for all pairs, by direct differences."""
    x, y = _wide(x), _wide(y)
    return -(((x[:, None] - y[None]) / sigma) ** 2).sum(-1) / 2


def covariance(points, weights, others=None):
    """Cov_p(points, others) for a law p on the rows."""
    points, weights = np.asarray(points, np.float64), np.asarray(weights, np.float64)
    others = points if others is None else np.asarray(others, np.float64)
    left = points - weights @ points
    right = others - weights @ others
    return (weights[:, None] * left).T @ right


def directional(f, x, u):
    """The derivative of f at x in the direction u by a complex step: no cancellation."""
    step = 1e-30
    return f(np.asarray(x) + 1j * step * np.asarray(u)).imag / step


def jacobian(f, x):
    """All directional derivatives, with the axes of x last."""
    x = np.asarray(x, np.float64)
    units = np.eye(x.size).reshape(x.size, *x.shape)
    columns = np.stack([directional(f, x, u) for u in units], axis=-1)
    return columns.reshape(*columns.shape[:-1], *x.shape)


def layer_norm(x, weight=1.0, bias=0.0, eps=1e-5):
    """Rows centred, divided by sqrt(var + eps), scaled and shifted."""
    centred = x - x.mean(-1, keepdims=True)
    return weight * centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) + bias


def rms_norm(x, weight=1.0, eps=1e-6):
    """Rows divided by the root of their mean square."""
    return weight * x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)


def gelu(x):
    """x Φ(x)."""
    return x * (1 + erf(x / np.sqrt(2))) / 2


def gelu_tanh(x):
    """The tanh form of gelu."""
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def silu(x):
    """x / (1 + e^-x)."""
    return x / (1 + np.exp(-x))


def sinusoidal(positions, d, base=1e4):
    """sin in the even coordinates, cos in the odd ones, of position / base^(2i/d)."""
    out = np.zeros((len(positions), d))
    for column in range(d):
        angle = positions / base ** (2 * (column // 2) / d)
        out[:, column] = np.cos(angle) if column % 2 else np.sin(angle)
    return out


def rotate(x, position, base=1e4):
    """Turn the plane (i, i + e/2) as the complex number x_i + i x_{i + e/2}."""
    half = len(x) // 2
    z = (x[:half] + 1j * x[half:]) * np.exp(1j * position * base ** (-np.arange(half) / half))
    return np.concatenate([z.real, z.imag])


def gauss_hermite(mean, factor, order=30):
    """Points and weights of a quadrature of the normal law N(mean, factor factorᵀ)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    grid = np.stack(np.meshgrid(*[nodes] * len(mean), indexing="ij"), -1).reshape(-1, len(mean))
    masses = np.stack(np.meshgrid(*[weights] * len(mean), indexing="ij"), -1)
    return mean + grid @ np.asarray(factor).T, masses.reshape(-1, len(mean)).prod(axis=1)


def w1_by_linear_program(x, y, a, b):
    """W1 as a linear program, for small problems."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    n, m = len(x), len(y)
    cost = np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))
    rows = np.kron(np.eye(n), np.ones(m))
    cols = np.kron(np.ones(n), np.eye(m))
    out = linprog(
        cost.ravel(), A_eq=np.vstack([rows, cols]), b_eq=np.concatenate([a, b]), method="highs"
    )
    return out.fun


def _wide(a):
    a = np.asarray(a)
    return a if np.iscomplexobj(a) else a.astype(np.float64)
