r"""The derivative of a layer as a linear map $\Omega^{1/2}J\Omega^{-1/2}$ of displacements.

With $z_j = \Phi_j\varepsilon_j$ and the change of the scores
$s_{ij} = \langle Az_i, y_j\rangle + \langle g_{ij}, z_j\rangle$,

$$ (J\varepsilon)_i = C_i\varepsilon_i
   + \Psi_i\sum_hV_h\sum_jP_{ij}\bigl[z_j + s_{ij}(y_j-\bar y_i)\bigr], $$

$O(n^2d)$ for a product and for one with the transpose. No block of J is formed.
Source: B7 of docs/theory.md.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from measattn.lipschitz.derivatives.blocks import AUTODIFF, deflated, levers, spectral
from measattn.lipschitz.derivatives.parts import Parts
from measattn.lipschitz.derivatives.rows import Rows, thin
from measattn.lipschitz.norms.lanczos import AbstractLinearMap
from measattn.lipschitz.norms.problem import UNIT, UP


class Head(NamedTuple):
    """What a product with the derivative of one head takes; V is ``out @ into``."""

    p: Any  # (n m)
    turned: Any  # (m n): its transpose, which to multiply by is slower than to keep
    asking: Any  # (s e): A is left @ asking
    asked: Any  # (m s): the keys under left
    sought: Any  # (s m): its transpose
    images: Any  # (m r): the keys under ``into``
    means: Any  # (n r)
    out: Any  # (v r), None for the identity
    into: Any  # (r e)
    slopes: Any  # (n e), None for a memory, whose points do not move
    tilts: Any  # (m e) or None


class Operator(AbstractLinearMap):
    r"""$\Omega^{1/2}J\Omega^{-1/2}$ of a layer at a measure, on vectors (n·d,).

    Args:
        parts: the derivative.
        weights: of the atoms (n,), positive.
    """

    heads: tuple[Head, ...]
    past: Any
    after: Any
    before: Any
    root: Any
    shape: tuple[int, int] = eqx.field(static=True)

    def __init__(self, parts: Parts, weights: NDArray):
        n, v, d = parts.shape
        self.shape = n * v, n * d
        with jax.enable_x64(True):
            self.heads = tuple(_head(rows) for rows in parts.heads)
            self.past, self.after, self.before, self.root = (
                None if a is None else jnp.asarray(a)
                for a in (parts.past, parts.after, parts.before, np.sqrt(weights))
            )

    def push(self, x: Float[Array, " N"]) -> Float[Array, " M"]:
        n = len(self.root)
        moves = x.reshape(n, -1) / self.root[:, None]
        z = moves if self.before is None else jnp.einsum("ned,nd->ne", self.before, moves)
        total: Any = 0.0
        for head in self.heads:
            total += _pushed(head, z)
        if self.after is not None and self.heads:
            total = jnp.einsum("nve,ne->nv", self.after, total)
        if self.past is not None:  # one matrix for all atoms, or one for each
            total += jnp.matmul(self.past, moves[:, :, None])[:, :, 0]
        return (self.root[:, None] * total).reshape(-1)

    def pull(self, y: Float[Array, " M"]) -> Float[Array, " N"]:
        n = len(self.root)
        outputs = y.reshape(n, -1) * self.root[:, None]
        inner = outputs
        if self.after is not None:
            inner = jnp.einsum("nve,nv->ne", self.after, outputs)
        total: Any = 0.0
        for head in self.heads:
            total += _pulled(head, inner)
        if self.before is not None and self.heads:
            total = jnp.einsum("ned,ne->nd", self.before, total)
        if self.past is not None:
            total += jnp.matmul(outputs[:, None, :], self.past)[:, 0, :]
        return (total / self.root[:, None]).reshape(-1)


def rounding(parts: Parts, weights: NDArray) -> float:
    r"""What rounding may add to the norm of the operator: Schur's test with equal vectors.

    The block (i, j) of a head errs by at most $P_{ij}|\Psi_i||\Phi_j|$ times what ``levers`` says
    and, for i = j, by $2|\Psi_i||A||\Phi_i|\rho^2e$ more, ρ the largest distance of a key from
    their mean, $e = 8\epsilon\|V\|+10^{-11}\|V\|_F$, ε the error of softmax weights.
    Source: G4 of docs/theory-lipschitz.md.
    """
    n, root = len(weights), np.sqrt(weights)
    after, before = (_sizes(a, n) for a in (parts.after, parts.before))
    rows, columns = np.zeros(n), np.zeros(n)
    own = np.zeros(n)
    if parts.past is not None:
        own = np.broadcast_to(AUTODIFF * np.linalg.norm(parts.past, axis=(1, 2)) * UP, n)
    for head in parts.heads:
        value = _norm(head.value)
        size = 8 * head.error * value + AUTODIFF * float(np.linalg.norm(head.value))
        own = own + 2 * size * _norm(head.matrix) * head.reach**2 * after * before
        if head.own:
            lever = levers(head, size, value)
            rows += lever * root * after * (head.p @ (before / root))
            columns += before / root * ((lever * root * after) @ head.p)
    return math.sqrt(float((rows + own).max()) * float((columns + own).max())) * UP


def _norm(matrix: NDArray) -> float:
    return float(spectral(matrix[None])[0])


def _sizes(matrices: NDArray | None, n: int) -> NDArray:
    """At least the norms of matrices (n,), by one product and no eigenvalues; 1 if there are none.

    They exceed them by what is left of the Gram matrix's Frobenius norm beside its first direction.
    """
    if matrices is None:
        return np.ones(n)
    squares = np.sum(matrices**2, axis=(1, 2))
    with jax.enable_x64(True):
        grams = jnp.matmul(matrices.swapaxes(1, 2), matrices)
        found = np.asarray(deflated(grams, 0)[1])
    lost = 8 * UNIT * (matrices.shape[1] + 4) * squares
    # of a matrix that is 0, or whose squares underflow, nothing is found
    return np.broadcast_to(np.sqrt(np.where(np.isfinite(found), found, squares) + lost) * UP, n)


def _head(rows: Rows) -> Head:
    left, asking = thin(rows.matrix)
    out, into = thin(rows.value)
    slopes, tilts = (rows.slopes, rows.tilts) if rows.own else (None, None)
    keys = jnp.asarray(rows.keys)
    images, means = jnp.matmul(keys, into.T), jnp.matmul(rows.means, into.T)
    asked, turned = jnp.matmul(keys, left), np.ascontiguousarray(rows.p.T)
    sought = np.ascontiguousarray(np.asarray(asked).T)
    out = None if len(into) == len(rows.value) else out  # then ``thin`` left all as it is
    head = Head(rows.p, turned, asking, asked, sought, images, means, out, into, slopes, tilts)
    return jax.tree.map(jnp.asarray, head)


def _pushed(head: Head, z: Float[Array, "n e"]) -> Float[Array, "n v"]:
    """What all outputs of a head do when the points move."""
    change = jnp.matmul(jnp.matmul(z, head.asking.T), head.asked.T)
    if head.slopes is not None:
        change += jnp.matmul(head.slopes, z.T)
    if head.tilts is not None:
        change += jnp.sum(head.tilts * z, axis=1)[None, :]
    change = head.p * change
    moved = jnp.matmul(change, head.images) - jnp.sum(change, axis=1)[:, None] * head.means
    if head.slopes is not None:
        moved += jnp.matmul(head.p, jnp.matmul(z, head.into.T))
    return moved if head.out is None else jnp.matmul(moved, head.out.T)


def _pulled(head: Head, w: Float[Array, "n v"]) -> Float[Array, "n e"]:
    """The transpose of ``_pushed``, from the outputs of a head to the points."""
    w = w if head.out is None else jnp.matmul(w, head.out)
    change = jnp.matmul(head.images, w.T) - jnp.sum(head.means * w, axis=1)[None, :]
    change = head.turned * change
    moved = jnp.einsum("sn,se->ne", jnp.matmul(head.sought, change), head.asking)
    if head.slopes is not None:
        moved += jnp.matmul(change, head.slopes)
        moved += jnp.matmul(jnp.matmul(head.turned, w), head.into)
    if head.tilts is not None:
        moved += jnp.sum(change, axis=1)[:, None] * head.tilts
    return moved
