r"""Moment encodings and the moment projection $\Pi$.

A moment encoding $F: E \to R^m$ summarises a measure by $\nu(F)$. Where that moment is the moment
of exactly one point, $\Pi(\nu) = \delta_{F^{-1}(\nu(F))}$ replaces the measure by that point; for
$F = \mathrm{id}$ on a convex set this is $\delta$ at the mean, defined for all measures, and it is
what turns a mixture of values into the output of attention.

Source: Definitions 6 and 7 of [VBT20], as reconstructed in docs/theory.md.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from measattn.checks import ensure
from measattn.kernel import AbstractDiracKernel, AbstractMarkovKernel
from measattn.maps import Identity, as_map
from measattn.measure import EmpiricalMeasure, dirac, integrate
from measattn.points import state


class MomentEncoding(eqx.Module):
    r"""A moment encoding $F$ with its inverse on the image $F(E)$.

    Args:
        encode: $F$, from a state to its moments, arrays or a pytree of them.
        decode: $F^{-1}$ on $F(E)$, from moments to the state.
    """

    encode: Callable
    decode: Callable

    def __init__(self, encode: Any, decode: Any):
        self.encode, self.decode = as_map(encode), as_map(decode)


def identity_encoding() -> MomentEncoding:
    r"""$F = \mathrm{id}$: every measure of finite mean lies in its moment subspace."""
    return MomentEncoding(Identity(), Identity())


def moment(encoding: MomentEncoding, nu: EmpiricalMeasure) -> PyTree:
    r"""The moments $\nu(F)$."""
    return integrate(lambda x: encoding.encode(state(x)), nu)


def project(nu: EmpiricalMeasure, encoding: MomentEncoding | None = None) -> EmpiricalMeasure:
    r"""The moment projection $\Pi(\nu) = \delta_{F^{-1}(\nu(F))}$.

    Raises:
        ValueError: $\nu$ is outside the moment subspace: no point has its moments.
    """
    encoding = encoding or identity_encoding()
    moments = jax.tree.map(lambda m: m[None], moment(encoding, nu))
    return dirac(jax.tree.map(lambda a: a[0], _decoded(encoding, moments)))


def _decoded(encoding: MomentEncoding, moments: PyTree) -> PyTree:
    """The points that have these moments, a block of both."""
    points = jax.vmap(encoding.decode)(moments)
    if isinstance(encoding.encode, Identity):
        return points

    def close(a: Array, b: Array) -> Array:
        tolerance = 64 * jnp.finfo(b.dtype).eps
        return jnp.max(jnp.abs(a - b)) <= tolerance * (1 + jnp.max(jnp.abs(b)))

    again = jax.vmap(encoding.encode)(points)
    matches = jax.tree.leaves(jax.tree.map(jax.vmap(close), again, moments))
    return ensure(
        jnp.stack(matches),
        points,
        "the measure is outside the moment subspace: no point of the space has its moments",
    )


class MomentProjection(AbstractDiracKernel):
    r"""The Dirac-valued kernel $x \mapsto \Pi(K(x, \cdot))$."""

    kernel: AbstractMarkovKernel
    encoding: MomentEncoding

    def send(self, block: PyTree) -> PyTree:
        moments = self.kernel.average(lambda y: jax.vmap(self.encoding.encode)(state(y)), block)
        return _decoded(self.encoding, moments)


def moment_projection(
    kernel: AbstractMarkovKernel, encoding: MomentEncoding | None = None
) -> MomentProjection:
    r"""The kernel $x \mapsto \Pi(K(x,\cdot)) = \delta_{F^{-1}((KF)(x))}$, by default at the mean.

    Args:
        kernel: any Markov kernel; where it has a common support the means are streamed.
        encoding: $F$, the identity by default.
    """
    return MomentProjection(kernel, encoding or identity_encoding())
