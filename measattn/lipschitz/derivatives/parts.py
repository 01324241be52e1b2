r"""The derivative of a layer with one attention sublayer, token-wise maps around it and residuals.

$$ J_{ij} = 1_{i=j}K_i + \Psi_i M_{ij}\Phi_j, \qquad
   M_{ij} = \sum_h P^h_{ij}V_h\bigl(I + (y_j-\bar y^h_i)(g^h_{ij})^\top\bigr), $$

Φ the Jacobians of what comes before attention and Ψ of what comes after, at each token; K is
everything that reaches a token's output from the token itself, past attention (C) and as a query,
$K_i = C_i + \Psi_i\sum_hD^h_i\Phi_i$. This form is closed under residuals and token-wise maps on
either side.
Source: B7 of docs/theory.md and the chain rule.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from measattn.attention import AbstractAttention
from measattn.kernel import AbstractDiracKernel, Stack, moved
from measattn.layer import Residual, WeightShared
from measattn.lipschitz.derivatives.rows import Rows, as_keys, as_queries, rows
from measattn.lipschitz.forms import UnreadableLayer, form
from measattn.measure import EmpiricalMeasure, measure
from measattn.points import one_row, state, with_state

TOKENS = 16
"""Token-wise Jacobians are computed for so many tokens at a time."""


@dataclass(frozen=True)
class Parts:
    """The derivative of a layer at a measure with n atoms.

    Attributes:
        heads: the softmax rows of each head; those of a fixed memory have no part in M.
        past: C (n, v, d), or (1, v, d) where it is one matrix for all; None for 0.
        after: Ψ (n, v, e), None for the identity.
        before: Φ (n, e, d), None for the identity.
        masked: whether a head sees the order of the tokens.
        jumps: whether a mask may look at states, on whose edges there is no derivative.
    """

    heads: tuple[Rows, ...]
    past: NDArray | None = None
    after: NDArray | None = None
    before: NDArray | None = None
    masked: bool = False
    jumps: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """n, v and d."""
        if self.past is not None and not self.heads:  # without attention all goes past it
            n, v, d = self.past.shape
            return n, v, d
        head = self.heads[0]
        v = len(head.value) if self.after is None else self.after.shape[1]
        return len(head.p), v, head.matrix.shape[1] if self.before is None else self.before.shape[2]

    @cached_property
    def own(self) -> NDArray:
        """K (n, v, d)."""
        own = np.zeros(self.shape) if self.past is None else np.broadcast_to(self.past, self.shape)
        return own + self._around(as_queries(self.heads)) if self.heads else own

    @cached_property
    def diagonal(self) -> NDArray:
        r"""The blocks $J_{ii}$ (n, v, d): what reaches an atom from itself, as query and key."""
        if not self.mixing:
            return self.own
        return self.own + self._around(as_keys(self.mixing))

    @property
    def alone(self) -> bool:
        """Whether there is one head, with nothing before or after it but residuals."""
        return len(self.heads) == 1 and self.after is None and self.before is None

    @property
    def mixing(self) -> tuple[Rows, ...]:
        """The heads through which the moves of one atom reach another one."""
        return tuple(head for head in self.heads if head.own)

    def _around(self, inner: Any) -> NDArray:
        """Matrices of the attention (n, v, e), between what is before and after it."""
        with jax.enable_x64(True):
            if self.after is not None:
                inner = jnp.matmul(self.after, inner)
            return np.asarray(inner if self.before is None else jnp.matmul(inner, self.before))


def parts(layer: Any, mu: EmpiricalMeasure) -> Parts | None:
    """The derivative of a layer at a measure in float64; None if the layer has no closed form.

    Layers without closed form are those with several attention sublayers one after the other, with
    potentials or maps that are no matrices, and foreign ones.

    Raises:
        ValueError: an atom sees no key.
    """
    try:
        # what is not finite is found, and told with its atom, by who asked
        with np.errstate(invalid="ignore", over="ignore"):
            return _of(layer, mu, np.asarray(mu.weights, np.float64))
    except UnreadableLayer:
        return None


def tokenwise(layer: Any) -> bool:
    """Whether a layer moves each point by itself."""
    if isinstance(layer, (Residual, WeightShared)):
        return tokenwise(layer.layer)
    if isinstance(layer, Stack):
        return all(tokenwise(part) for part in layer.layers)
    return isinstance(layer, AbstractDiracKernel)


def jacobians(layer: Any, points: Any) -> NDArray:
    """The Jacobians of a token-wise map at the points, (n, v, d)."""
    with jax.enable_x64(True):
        return np.asarray(_jacobians(layer, points))


@eqx.filter_jit
def _jacobians(layer: Any, points: Any) -> Float[Array, "n v d"]:
    def one(point: Any) -> Array:
        def f(x: Array) -> Array:
            row = one_row(with_state(point, x))
            return state(moved(layer, measure(row, jnp.zeros(1, x.dtype)), None))[0]

        return jax.jacfwd(f)(state(point))

    return jax.lax.map(one, points, batch_size=TOKENS)


def _times(a: NDArray, b: NDArray) -> NDArray:
    """Products of many matrices, on all cores."""
    with jax.enable_x64(True):
        return np.asarray(jnp.matmul(a, b))


def _of(layer: Any, mu: EmpiricalMeasure, weights: NDArray) -> Parts:
    if isinstance(layer, AbstractAttention):
        return _attention(layer, mu, weights)
    if isinstance(layer, Residual):
        inner, still = _of(layer.layer, mu, weights), np.eye(mu.dimension)[None]
        return replace(inner, past=still if inner.past is None else inner.past + still)
    if isinstance(layer, (Stack, WeightShared)):
        return _stack(tuple(_layers(layer)), mu, weights)
    if tokenwise(layer):
        return Parts((), jacobians(layer, mu.points))
    raise UnreadableLayer(f"nothing is known of the derivative of a {type(layer).__name__}")


def _layers(layer: Stack | WeightShared) -> Iterator[Any]:
    if isinstance(layer, WeightShared):
        for _ in range(layer.depth):
            yield layer.layer
    else:
        yield from layer.layers


def _attention(layer: AbstractAttention, mu: EmpiricalMeasure, weights: NDArray) -> Parts:
    known = form(layer, mu.dimension)
    heads = tuple(rows(head, mu.points, weights) for head in known.heads)
    jumps = not all(head.of_positions for head in known.heads)
    return Parts(heads, masked=known.masked, jumps=jumps)


def _joined(layers: tuple) -> Iterator[Any]:
    """Token-wise maps in a row as one, whose Jacobian costs no more than that of the widest."""
    for alone, some in groupby(layers, tokenwise):
        run = list(some)
        yield from [Stack(run)] if alone and len(run) > 1 else run


def _stack(layers: tuple, mu: EmpiricalMeasure, weights: NDArray) -> Parts:
    found, before = None, None
    for layer in _joined(layers):
        if tokenwise(layer):
            step = jacobians(layer, mu.points)
            if found is None:
                before = step if before is None else _times(step, before)
            else:
                after = step if found.after is None else _times(step, found.after)
                past = None if found.past is None else _times(step, found.past)
                found = replace(found, past=past, after=after)
        elif found is not None:
            raise UnreadableLayer("a layer with two attention sublayers has no closed form here")
        else:
            found = _of(layer, mu, weights)
            if before is not None:
                inner = before if found.before is None else _times(found.before, before)
                past = None if found.past is None else _times(found.past, before)
                found = replace(found, past=past, before=inner)
        mu = measure(moved(layer, mu, None), mu.log_weights)
    if found is None:  # no attention: nothing reaches a token but from itself
        return Parts(
            (), np.tile(np.eye(mu.dimension), (mu.size, 1, 1)) if before is None else before
        )
    return found
