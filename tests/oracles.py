"""Independent answers, in NumPy and SciPy float64: nothing here imports the library.

What a derivative is taken of accepts complex numbers, for `directional`.
"""

import math
from fractions import Fraction
from itertools import permutations

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import eye, kron, vstack
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


def transport(cost, a, b):
    """The least cost of a transport problem and its potentials (u, v), by HiGHS."""
    cost = np.asarray(cost, np.float64)
    (n, m), unit = cost.shape, cost.max() or 1.0
    marginals = vstack([kron(eye(n), np.ones((1, m))), kron(np.ones((1, n)), eye(m))]).tocsr()
    out = linprog(
        (cost / unit).ravel(), A_eq=marginals, b_eq=np.concatenate([a, b]), method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )  # fmt: skip
    assert out.status == 0, out.message
    dual = unit * out.eqlin.marginals
    return unit * out.fun, dual[:n], dual[n:]


def distances(x, y):
    """|x_i - y_j| for all pairs, by direct differences."""
    return np.sqrt(((_wide(x)[:, None] - _wide(y)[None]) ** 2).sum(-1))


def wasserstein(x, y, a, b, p=1):
    """W_p as a linear program, for small problems."""
    return transport(distances(x, y) ** p, a, b)[0] ** (1 / p)


def wasserstein_on_the_line(x, y, a, b, p=1):
    """W_p of measures on the line: the integral of |F^-1 - G^-1|^p."""
    i, j = np.argsort(x), np.argsort(y)
    ends_a, ends_b = np.cumsum(a[i]), np.cumsum(b[j])
    ends = np.sort(np.concatenate([ends_a, ends_b]))
    middle = (ends + np.concatenate([[0.0], ends[:-1]])) / 2
    left = x[i][np.minimum(np.searchsorted(ends_a, middle), len(x) - 1)]
    right = y[j][np.minimum(np.searchsorted(ends_b, middle), len(y) - 1)]
    return np.sum(np.diff(ends, prepend=0.0) * np.abs(left - right) ** p) ** (1 / p)


def exact_cost(x, y, p):
    """|x_i - y_j|^p as fractions, exact for even p, otherwise to 60 digits; p is a whole number."""
    squares = [[sum((Fraction(s) - Fraction(t)) ** 2 for s, t in zip(r, c, strict=True))
                for c in _wide(y).tolist()] for r in _wide(x).tolist()]  # fmt: skip
    return [[s ** (p // 2) * (_root(s) if p % 2 else 1) for s in row] for row in squares]


def _root(s, digits=60):
    scale = 10**digits
    return Fraction(math.isqrt(s.numerator * s.denominator * scale**2), s.denominator * scale)


def exact_transport(cost, a, b):
    """The least cost in exact fractions, by successive shortest paths, for a few atoms."""
    left, right = ([Fraction(mass) for mass in masses] for masses in (a, b))
    assert sum(left) == sum(right)
    flow = [[Fraction(0)] * len(right) for _ in left]
    while any(left):
        best_i = [0 if mass else None for mass in left]
        best_j, to_j, to_i = [None] * len(right), {}, {}
        changed = True
        while changed:  # Bellman and Ford, forwards at the cost, backwards along the flow
            changed = False
            for i, row in enumerate(cost):
                for j, c in enumerate(row):
                    d, e = best_i[i], best_j[j]
                    if d is not None and (e is None or d + c < e):
                        best_j[j], to_j[j], changed = d + c, i, True
                    e = best_j[j]
                    back = None if e is None or not flow[i][j] else e - c
                    if back is not None and (best_i[i] is None or back < best_i[i]):
                        best_i[i], to_i[i], changed = back, j, True
        end = min((j for j, mass in enumerate(right) if mass), key=lambda j: best_j[j])
        path, i = [(to_j[end], end, 1)], to_j[end]
        while i in to_i:
            path += [(i, to_i[i], -1), (to_j[to_i[i]], to_i[i], 1)]
            i = to_j[to_i[i]]
        amount = min([left[i], right[end]] + [flow[r][c] for r, c, s in path if s < 0])
        for r, c, sign in path:
            flow[r][c] += sign * amount
        left[i] -= amount
        right[end] -= amount
    return sum(c * f for pair in zip(cost, flow, strict=True) for c, f in zip(*pair, strict=True))


def least_permutation(cost):
    """The least cost of a permutation, trying all; the entries may be fractions."""
    rows = range(len(cost))
    return min(sum(cost[i][s[i]] for i in rows) for s in permutations(rows))


def _wide(a):
    a = np.asarray(a)
    return a if np.iscomplexobj(a) else a.astype(np.float64)
