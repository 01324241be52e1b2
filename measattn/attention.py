r"""Attention: softmatch, then look-up, then moment projection.

$$ A(q, \cdot) = \Pi\bigl[\Psi_{G(q,\cdot)}(m(K))\,L\bigr] = \delta_{\mathrm{Attention}(q, K, V)},
   \qquad \mathrm{Attention}(q, K, V) = \sum_j \mathrm{softmax}_j(a(q, k_\cdot))\, v_j . $$

Self-attention reads keys and values off the measure that it moves, which makes it a nonlinear
Markov kernel $A_\mu$ and $\mu \mapsto \mu A_\mu$ a system of self-interacting particles.

Source: Definitions 1 and 8 and Proposition 9 of [VBT20].
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from measattn.gibbs import kept_mass
from measattn.kernel import AbstractDiracKernel, AbstractNonlinearKernel, block_or_atoms
from measattn.maps import Identity, as_map
from measattn.masks import Masked, OnKey
from measattn.measure import EmpiricalMeasure, normalise, pairs, weighted
from measattn.points import (
    Token,
    as_points,
    count,
    finite,
    moved_points,
    row_numbers,
    state,
    with_state,
)
from measattn.potential import AbstractPotential, DotProduct, as_potential, stream

Outputs = tuple[Float[Array, "n v"], Float[Array, " n"]]


class AttentionKernel(AbstractDiracKernel):
    r"""The Markov kernel $q \mapsto \delta_{\mathrm{Attention}(q, K, V)}$.

    Args:
        potential: $a(q, k) = \log G(q, k)$.
        keys: an `EmpiricalMeasure` (its weights count) or an array (m, e).
        values: an array (m, v).

    Source: Definition 8 of [VBT20]; Proposition 9 there says that it is attention.
    """

    potential: AbstractPotential
    joint: EmpiricalMeasure

    def __init__(self, potential: Any, keys: Any, values: Any):
        self.potential = as_potential(potential)
        self.joint = pairs(keys, values)

    def send(self, block: PyTree) -> Float[Array, "n v"]:
        joint = self.joint
        out, log_z = stream(
            OnKey(self.potential), block, joint.points, joint.log_weights, state(joint.points)
        )
        return _checked(self.potential, log_z, jnp.zeros_like(log_z), out)


class AbstractAttention(AbstractNonlinearKernel):
    """A nonlinear kernel that replaces each state by an average of values."""

    @abc.abstractmethod
    def evaluate(self, mu: EmpiricalMeasure, block: PyTree) -> Outputs:
        """New states (n, v) of a block of points, and its log-normalisers, the least over heads."""

    @property
    @abc.abstractmethod
    def masks(self) -> bool:
        """Whether a query may be left without mass."""

    def push(self, mu: EmpiricalMeasure, block: PyTree | None = None) -> PyTree:
        points = block_or_atoms(mu, block)
        out, log_z = _compiled(self, mu, points)
        if self.masks:
            log_weights = mu.log_weights if block is None else jnp.zeros_like(log_z)
            return kept_mass(log_z, log_weights, with_state(points, out))
        return with_state(points, out)


@eqx.filter_jit
def _compiled(attention: AbstractAttention, mu: EmpiricalMeasure, block: PyTree) -> Outputs:
    return attention.evaluate(mu, block)


class SelfAttention(AbstractAttention):
    r"""The nonlinear kernel $A_\mu(x, \cdot) = \delta_{\Gamma_\mu(x)}$ of self-attention.

    $$ \Gamma_\mu(x) = \int v(y)\, \Psi_{G(x,\cdot)}(\mu)(dy) . $$

    ``mu @ T`` is the law of the tokens one layer on, ``T.at(mu)`` the Markov kernel $A_\mu$.

    Args:
        potential: $\log G(x, y)$ on points.
        value: $v$, a map of states: a matrix (v, d), an affine map or a function; the identity by
            default.
    """

    potential: AbstractPotential
    value: Callable

    def __init__(self, potential: Any, value: Any = None):
        self.potential = as_potential(potential)
        self.value = Identity() if value is None else as_map(value)

    @property
    def masks(self) -> bool:
        return self.potential.masks

    def evaluate(self, mu: EmpiricalMeasure, block: PyTree) -> Outputs:
        values = moved_points(jax.vmap(self.value)(state(mu.points)), "the value map")
        return stream(self.potential, block, mu.points, normalise(mu.log_weights), values)


class CrossAttention(AbstractAttention):
    r"""Attention to a fixed memory $\nu$: $x \mapsto \int v(y)\,\Psi_{G(x,\cdot)}(\nu)(dy)$.

    Args:
        potential: $\log G(x, y)$, x a point of the measure that moves, y a point of the memory.
        value: $v$ on the states of the memory; the identity if None.
        memory: the measure $\nu$ of the memory, or an array of points.
    """

    potential: AbstractPotential
    value: Callable
    memory: EmpiricalMeasure

    def __init__(self, potential: Any, value: Any, memory: Any):
        self.potential = as_potential(potential)
        self.value = Identity() if value is None else as_map(value)
        self.memory = memory if isinstance(memory, EmpiricalMeasure) else EmpiricalMeasure(memory)

    @property
    def masks(self) -> bool:
        return self.potential.masks

    def evaluate(self, mu: EmpiricalMeasure, block: PyTree) -> Outputs:
        return SelfAttention(self.potential, self.value).evaluate(self.memory, block)


class MultiHead(AbstractAttention):
    r"""Several heads side by side: $x \mapsto W\,[\Gamma^1_\mu(x); \dots; \Gamma^H_\mu(x)]$.

    Args:
        heads: H `SelfAttention` or `CrossAttention` kernels of equal structure; they are kept
            stacked, every array with a leading axis H.
        output: $W$, a map of the concatenated outputs (H·v,), the identity if None.
    """

    heads: AbstractAttention
    output: Callable
    count: int = eqx.field(static=True)

    def __init__(self, heads: Sequence[AbstractAttention], output: Any = None):
        heads = tuple(heads)
        if not heads:
            raise ValueError("heads must hold at least one head, got none")
        for head in heads:
            if not isinstance(head, AbstractAttention):
                raise ValueError(
                    f"heads must be SelfAttention or CrossAttention kernels, got a "
                    f"{type(head).__name__}"
                )
        arrays, rest = zip(*(eqx.partition(head, eqx.is_array) for head in heads), strict=True)
        forms = [(jax.tree.map(jnp.shape, a), r) for a, r in zip(arrays, rest, strict=True)]
        unlike = sum(not eqx.tree_equal(form, forms[0]) for form in forms)
        if unlike:
            raise ValueError(
                "heads must be all of one structure with arrays of one shape, got "
                f"{unlike} of {len(heads)} heads unlike the first; put unlike heads into several "
                "MultiHead kernels"
            )
        self.heads = eqx.combine(jax.tree.map(lambda *a: jnp.stack(a), *arrays), rest[0])
        self.output = Identity() if output is None else as_map(output)
        self.count = len(heads)

    def head(self, index: int) -> AbstractAttention:
        """One of the heads, counted from 0."""
        if not 0 <= index < self.count:
            raise ValueError(f"index must be from 0 to {self.count - 1}, got {index}")
        arrays, rest = eqx.partition(self.heads, eqx.is_array)
        return eqx.combine(jax.tree.map(lambda a: a[index], arrays), rest)

    @property
    def masks(self) -> bool:
        return self.heads.masks

    def evaluate(self, mu: EmpiricalMeasure, block: PyTree) -> Outputs:
        # all heads at once while their logits are small together, else one after the other
        together = count(block) * mu.size * self.count <= 2**22
        arrays, rest = eqx.partition(self.heads, eqx.is_array)
        out, log_z = jax.lax.map(
            lambda a: eqx.combine(a, rest).evaluate(mu, block),
            arrays,
            batch_size=self.count if together else None,
        )
        joined = jnp.moveaxis(out, 0, 1).reshape(out.shape[1], -1)
        return jax.vmap(self.output)(joined), jnp.min(log_z, axis=0)


def attention(
    q: Any,
    k: Any,
    v: Any,
    *,
    potential: Any = None,
    weights: Any = None,
    mask: Any = None,
) -> Float[Array, "n v"]:
    r"""Attention on plain arrays: $o_i = \sum_j p_{ij} v_j$, $p_{ij} \propto \omega_j G(q_i, k_j)$.

    Args:
        q: queries (n, d).
        k: keys (m, d).
        v: values (m, v); all three are brought to the widest of their dtypes.
        potential: $\log G$ on arrays; scaled dot product $\langle q, k\rangle/\sqrt d$ by default.
        weights: $\omega_j \ge 0$, (m,), equal by default.
        mask: booleans (n, m), or (m,) for all queries: where True, the query sees the key.

    Raises:
        ValueError: shapes that do not fit, NaN, or a query that sees no key.
    """
    queries, keys, v = as_points(q, "q"), as_points(k, "k"), as_points(v, "v")
    dtype = np.promote_types(np.promote_types(queries.dtype, keys.dtype), v.dtype)
    queries, keys, v = (
        finite(a, a.astype(dtype), name) for a, name in ((queries, "q"), (keys, "k"), (v, "v"))
    )
    keys = EmpiricalMeasure(keys) if weights is None else weighted(keys, weights)
    if potential is None:
        potential = DotProduct(1 / np.sqrt(keys.dimension))
    if mask is None:
        return AttentionKernel(potential, keys, v).send(queries)
    mask = jnp.asarray(mask)
    if mask.dtype != bool or mask.shape not in {(keys.size,), (count(queries), keys.size)}:
        raise ValueError(
            f"mask must be booleans of shape ({count(queries)}, {keys.size}) or ({keys.size},), "
            f"True where the query sees the key, got {mask.dtype} of shape {mask.shape}"
        )
    mask = jnp.broadcast_to(mask, (count(queries), keys.size))
    seen = Masked(_OfStates(as_potential(potential)), _Table(mask))
    tokens = eqx.tree_at(lambda mu: mu.points, keys, _numbered(keys.points))
    return AttentionKernel(seen, tokens, v).send(_numbered(queries))


def _numbered(states: Array) -> Token:
    return Token(row_numbers(count(states)), states)


class _OfStates(AbstractPotential):
    """A potential of arrays on tokens that only carry their row's number."""

    potential: AbstractPotential

    @property
    def masks(self) -> bool:
        return self.potential.masks

    def __call__(self, x: Token, y: Token) -> Float[Array, ""]:
        return self.potential(x.state, y.state)


class _Table(eqx.Module):
    """A mask by row and column number."""

    table: Array

    def __call__(self, x: Token, y: Token) -> Array:
        return self.table[x.position.astype(int), y.position.astype(int)]


def _checked(potential: AbstractPotential, log_z: Array, log_weights: Array, out: Array) -> Array:
    return kept_mass(log_z, log_weights, out) if potential.masks else out
