r"""Potentials that look at part of a point, or forbid pairs of points.

A forbidden pair has $G(x, y) = 0$, that is $\log G = -\infty$: masks are potentials, and nothing
else in the library knows about them.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from measattn.maps import as_map
from measattn.points import Pair, Token, need_token, state
from measattn.potential import AbstractPotential, as_potential

Scalar = Float[Array, ""]


class Causal(AbstractPotential):
    r"""$G((s,x),(t,y)) = e^{a((s,x),(t,y))}\, 1\{t \le s\}$ on tokens: no look into the future."""

    potential: AbstractPotential

    @property
    def masks(self) -> bool:
        return True

    def __init__(self, potential: Any):
        self.potential = as_potential(potential)

    def __call__(self, x: PyTree, y: PyTree) -> Scalar:
        need_token(x, "a causal mask")
        need_token(y, "a causal mask")
        return jnp.where(y.position <= x.position, self.potential(x, y), -jnp.inf)

    def factor(self) -> tuple[AbstractPotential, Callable, Callable]:
        core, query_map, key_map = self.potential.factor()
        return Causal(core), _Positioned(query_map), _Positioned(key_map)


class Masked(AbstractPotential):
    r"""$G(x, y)\,1\{(x, y)\text{ allowed}\}$ for any condition on two points.

    A condition on positions alone leaves attention smooth; one on states makes it jump where a pair
    crosses its edge.

    Args:
        potential: the potential where the pair is allowed.
        allowed: a function of two points, returning a boolean.
    """

    potential: AbstractPotential
    allowed: Callable[[PyTree, PyTree], Bool[Array, ""]]

    @property
    def masks(self) -> bool:
        return True

    def __init__(self, potential: Any, allowed: Callable):
        self.potential = as_potential(potential)
        self.allowed = as_map(allowed)

    def __call__(self, x: PyTree, y: PyTree) -> Scalar:
        allowed = jnp.asarray(self.allowed(x, y))
        if allowed.dtype != bool or allowed.shape != ():
            raise ValueError(
                f"allowed must return one boolean for two points, got {allowed.dtype} of shape "
                f"{allowed.shape}"
            )
        return jnp.where(allowed, self.potential(x, y), -jnp.inf)


class OnKey(AbstractPotential):
    r"""$((x), (k, v)) \mapsto a(x, k)$: a potential that looks at the key of a `Pair` alone."""

    potential: AbstractPotential

    def __init__(self, potential: Any):
        self.potential = as_potential(potential)

    @property
    def masks(self) -> bool:
        return self.potential.masks

    def __call__(self, x: PyTree, y: Pair) -> Scalar:
        return self.potential(x, y.key)

    def factor(self) -> tuple[AbstractPotential, Callable, Callable]:
        core, query_map, key_map = self.potential.factor()
        return core, query_map, _OfKey(key_map)


class _Positioned(eqx.Module):
    """A feature of a token that keeps the token's position."""

    map: Callable

    def __call__(self, point: PyTree) -> Token:
        need_token(point, "a causal mask")
        return Token(point.position, state(self.map(point)))


class _OfKey(eqx.Module):
    """A map of keys as a map of pairs."""

    map: Callable

    def __call__(self, point: Pair) -> PyTree:
        return self.map(point.key)
