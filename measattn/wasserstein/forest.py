r"""The forest of a plan: how its masses follow the weights, and its potentials the costs.

The arcs of a basic plan form a forest on the n + m atoms. Along it $u_i + v_j = C_{ij}$, and the
mass of an arc is what the atoms beyond it have to send or receive. So, while the forest stays the
same, potentials are path sums of costs, $\pi$ are subtree sums of weights, and one linear map with
its transpose gives both. Source: derived in docs/theory.md, W3.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from measattn.wasserstein.ground import Index
from measattn.wasserstein.plan import Arcs


class Forest(NamedTuple):
    """The forest of some arcs between n sources and m targets; atom n + j is target j.

    Attributes:
        parent: for each atom the next one towards the root of its tree; roots have themselves.
        arc: the number of the arc between the two; 0 at roots.
        sign: 1 at sources, -1 at targets, 0 at roots.
    """

    parent: Any
    arc: Any
    sign: Any

    @classmethod
    def of(cls, arcs: Arcs, shape: tuple[int, int]) -> "Forest":
        """A spanning forest of the arcs."""
        n, m = shape
        size = n + m
        ends = arcs.rows, n + arcs.cols
        tree = connected_components(_graph(*ends, size), directed=False)[1]
        firsts = np.unique(tree, return_index=True)[1]
        # one more atom joins the trees, so that one search finds all parents
        joined = (
            np.concatenate([ends[0], firsts]),
            np.concatenate([ends[1], np.full(len(firsts), size)]),
        )
        parent = breadth_first_order(_graph(*joined, size + 1), size, directed=False)[1][:size]
        atom = np.arange(size)
        root = parent == size
        parent = np.where(root, atom, parent)
        pair = np.minimum(atom, parent) * m + np.maximum(atom, parent) - n
        known = arcs.rows * m + arcs.cols
        order = np.argsort(known, kind="stable")
        arc = order[np.minimum(np.searchsorted(known[order], pair), max(len(known) - 1, 0))]
        return cls(parent, np.where(root, 0, arc), np.where(root, 0, np.where(atom < n, 1, -1)))


def _graph(tails: Index, heads: Index, size: int) -> csr_array:
    return coo_array((np.ones(len(tails)), (tails, heads)), shape=(size, size)).tocsr()


def potentials(forest: Forest, costs: Array) -> Array:
    """(u, -v) with u + v equal to the costs of the arcs of the forest, 0 at roots."""
    return _path_sums(forest.parent)(forest.sign.astype(costs.dtype) * costs[forest.arc])


def masses(forest: Forest, balance: Array, count: int) -> Array:
    """The masses of ``count`` arcs that send the weights (a, -b); transpose of `potentials`."""
    like = jax.ShapeDtypeStruct(balance.shape, balance.dtype)
    (beyond,) = jax.linear_transpose(_path_sums(forest.parent), like)(balance)
    return (
        jnp.zeros(count, balance.dtype)
        .at[forest.arc]
        .add(forest.sign.astype(beyond.dtype) * beyond)
    )


def _path_sums(parent: Array) -> Callable[[Array], Array]:
    """The sums of values along the paths to the roots, by doubling; values at roots count not."""

    def sums(values: Array) -> Array:
        ahead = parent
        values = jnp.where(parent == jnp.arange(len(parent), dtype=parent.dtype), 0, values)
        for _ in range(len(parent).bit_length()):
            values, ahead = values + values[ahead], ahead[ahead]
        return values

    return sums
