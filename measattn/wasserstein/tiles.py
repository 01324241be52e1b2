r"""Lower bounds of reduced costs in float32: the fast pass over all n·m pairs.

For each group of sources and each target the bound is $\min_{i}(\underline C_{ij} - u_i)$ with

$$ \underline C_{ij} = \Big(\sqrt{\big((1-c)(|x_i|^2 + |y_j|^2) - 2\langle x_i, y_j\rangle\big)_+}
   - \rho\Big)_+^p, \qquad c = \frac{2\gamma}{1-\gamma},\quad \gamma = (d + 12)\,2^{-24}, $$

on points centred and rounded to float32. $c$ covers every rounding of the squared distance: its
d + 2 products and sums err by at most $(d+3)2^{-24}\cdot 2(|x|^2+|y|^2)$, the rounded points by
$2\cdot2^{-24}$ times the same. $\rho$ covers the centring. So no pair with a smaller reduced cost
is missed; what the bound does not exclude is evaluated exactly. Source: docs/theory.md, W2.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

TILE = 4096
"""Sources and targets of one compiled tile."""

Tiles = Callable[..., Any]
"""An engine: (x (r, d+2), y (d+2, t), u (r,), rho, p, group) to bounds (r / group, t)."""


@partial(jax.jit, static_argnames=("p", "group"))
def _by_groups(x: Any, y: Any, u: Any, rho: Any, *, p: float | int, group: int) -> Any:
    def bound(rows: tuple) -> Any:
        return _bound(jnp, rows[0], y, rows[1], rho, p)

    return jax.lax.map(bound, (x.reshape(-1, group, x.shape[1]), u.reshape(-1, group)))


def compiled(x: Any, y: Any, u: Any, rho: Any, *, p: float | int, group: int) -> Any:
    """The bounds by XLA, group by group; a plain function, which can be pickled by its name."""
    return _by_groups(x, y, u, rho, p=p, group=group)


def on_the_host(x: Any, y: Any, u: Any, rho: Any, *, p: float | int, group: int) -> Any:
    """The bounds by NumPy: a host callback that calls JAX can wait for itself for ever."""
    parts = range(0, len(x), group)
    return np.stack([_bound(np, x[i : i + group], y, u[i : i + group], rho, p) for i in parts])


def _bound(xp: Any, x: Any, y: Any, u: Any, rho: Any, p: float | int) -> Any:
    exact = {"precision": jax.lax.Precision.HIGHEST} if xp is jnp else {}
    square = xp.maximum(xp.matmul(x, y, **exact), 0)
    distance = xp.maximum(xp.sqrt(square) - rho, 0)
    cost = distance if p == 1 else distance * distance if p == 2 else distance**p
    return xp.min(cost - u[:, None], axis=0)


def bounds(
    x: np.ndarray,
    y: np.ndarray,
    u: np.ndarray,
    *,
    p: float | int,
    groups: list,
    largest: float,
    run: Tiles,
) -> Iterator[tuple[slice, np.ndarray]]:
    """The bounds for groups of the sources, by slices of the targets.

    Args:
        x: sources (n, d), float64.
        y: targets (m, d).
        u: potential (n,).
        p: the exponent.
        groups: a partition of the sources into index arrays of one length, but for the last.
        largest: an upper bound of all costs.
        run: the engine, `compiled` or `on_the_host`.
    """
    (n, d), m = x.shape, len(y)
    order, group = np.concatenate(groups), len(groups[0])
    half = float(np.finfo(np.float32).eps) / 2
    gamma = (d + 12) * half
    keep = 1 - 2 * gamma / (1 - gamma)
    size = max(np.abs(x).max(), np.abs(y).max())
    rho = np.float32(8 * np.finfo(float).eps * np.sqrt(d) * size)
    # roundings of u, of the power and of the difference; the last term is underflow
    margin = 8 * (p + 2) * half * (np.abs(u).max() + largest) + 2.0**-60
    centre = x.mean(axis=0)
    x, y = x[order] - centre, y - centre

    height, width = _tile(n, group), _tile(m, 1)
    left = np.zeros((-(-n // height) * height, d + 2), np.float32)
    left[:n] = np.column_stack([-2 * x, keep * np.sum(x * x, axis=1), np.ones(n)])
    left[n:, d] = np.inf  # rows that fill the last tile are far away
    potential = np.zeros(len(left), np.float32)
    potential[:n] = u[order]
    right = np.zeros((d + 2, -(-m // width) * width), np.float32)
    right[:, :m] = np.vstack([y.T, np.ones(m), keep * np.sum(y * y, axis=1)])
    right[d, m:] = 1

    for start in range(0, m, width):
        stop = min(start + width, m)
        targets = np.ascontiguousarray(right[:, start : start + width])
        tiles = []
        for i in range(0, len(left), height):
            rows = slice(i, i + height)
            tiles.append(run(left[rows], targets, potential[rows], rho, p=p, group=group))
        table = np.concatenate([np.asarray(tile) for tile in tiles])
        yield slice(start, stop), table[: len(groups), : stop - start] - margin


def _tile(count: int, group: int) -> int:
    """A tile as long as `TILE`, or for fewer atoms the next power of two: few shapes to compile."""
    return min(TILE, max(group, 2 ** int(np.ceil(np.log2(count)))))
