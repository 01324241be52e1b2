r"""The weighted Schur test: a deterministic upper bound of a spectral norm from block norms.

$$ \|J\|_2^2 \le \max_i\frac{(Bh)_i}{k_i}\cdot\max_j\frac{(B^\top k)_j}{h_j}, \qquad
   B_{ij} \ge \|J_{ij}\|, \quad h, k > 0 ; $$

at the leading singular vectors of B both factors are $\|B\|_2$.
Source: G4 of docs/theory-lipschitz.md.
"""

import math

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from measattn.lipschitz.norms.problem import UP


def schur(blocks: Float[NDArray, "n m"], steps: int = 200) -> float:
    """The Schur bound of a matrix with blocks of at most these norms.

    Args:
        blocks: upper bounds of the spectral norms of the blocks, at least 0.
        steps: of the power method that finds h and k; the bound holds for any number of them.

    Raises:
        ValueError: a bound is negative, NaN or infinite.
    """
    if not np.all(np.isfinite(blocks) & (blocks >= 0)):
        raise ValueError("blocks must be norms, finite and at least 0: the Jacobian is not finite")
    if not blocks.any():
        return 0.0
    # a small constant keeps h and k positive where B has no entries
    h = np.ones(blocks.shape[1])
    for _ in range(steps):
        k = blocks @ h
        h = blocks.T @ (k / np.linalg.norm(k))
        h = np.maximum(h / np.linalg.norm(h), 1e-12)
    k = np.maximum((k := blocks @ h) / np.linalg.norm(k), 1e-12)
    return math.sqrt(float((blocks @ h / k).max()) * float((blocks.T @ k / h).max())) * UP
