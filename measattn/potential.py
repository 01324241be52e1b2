r"""Interaction potentials $G(x, y) = e^{a(x, y)}$, given by their logarithm.

A potential is called with two points and returns $a(x, y) = \log G(x, y)$, a scalar; $-\infty$
forbids the pair. That is all that a new potential has to say: blocks of points are made from it by
`jax.vmap`. Two methods exist for speed and accuracy alone:

* `block` evaluates $a$ on all pairs of two blocks of points;
* `factor` writes $a(x, y) = b(\varphi(x), \psi(y))$, so that $\varphi$ and $\psi$ (the query and
  key maps) are evaluated once a point and not once a pair.

Source: the similarity function a and the potential G of Definition 4 and Proposition 9 of [VBT20].
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from measattn import tiling
from measattn.checks import float_array, number
from measattn.maps import Affine, Identity, as_map
from measattn.points import need_token, state

Scalar = Float[Array, ""]


class AbstractPotential(eqx.Module):
    r"""The logarithm of a potential, $a(x, y) = \log G(x, y)$."""

    @property
    def masks(self) -> bool:
        r"""Whether $-\infty$ may be returned; then every use checks that queries keep mass."""
        return False

    @abc.abstractmethod
    def __call__(self, x: PyTree, y: PyTree) -> Scalar:
        """The log-potential of the query point ``x`` and the key point ``y``."""

    def block(self, x: PyTree, y: PyTree) -> Float[Array, "n m"]:
        """The log-potential of all pairs of n query points and m key points."""
        return jax.vmap(lambda a: jax.vmap(lambda b: self(a, b))(y))(x)

    def factor(self) -> tuple["AbstractPotential", Callable, Callable]:
        r"""The triple $(b, \varphi, \psi)$ with $a(x, y) = b(\varphi(x), \psi(y))$."""
        return self, Identity(), Identity()


def as_potential(a: Any) -> AbstractPotential:
    """Take a potential as it is; any other function of two points becomes an `Interaction`."""
    if isinstance(a, AbstractPotential):
        return a
    if callable(a):
        return Interaction(a)
    raise ValueError(f"expected a potential or a function of two points, got {a!r}")


def stream(
    potential: AbstractPotential,
    queries: PyTree,
    keys: PyTree,
    log_weights: Float[Array, " m"],
    values: Float[Array, "m v"],
) -> tuple[Float[Array, "n v"], Float[Array, " n"]]:
    r"""Means $\sum_j p_{ij}v_j$ and log-normalisers $\log\sum_j\omega_j G(x_i, y_j)$.

    All softmax weights of the library come from here; see `measattn.tiling` for the formulas and
    `softmax_mean` there for the arguments.
    """
    return _compiled_stream(potential, queries, keys, log_weights, values)


@eqx.filter_jit
def _compiled_stream(potential, queries, keys, log_weights, values):
    core, query_map, key_map = potential.factor()
    queries, keys = jax.vmap(query_map)(queries), jax.vmap(key_map)(keys)
    mean, log_z = tiling.softmax_mean(core.block, queries, keys, log_weights, values)
    if not potential.masks:
        # only underflow can take a query's mass away here, and 0 would be a wrong mean
        mean = jnp.where(jnp.isneginf(log_z)[:, None], jnp.nan, mean)
    return mean, log_z


def refuse_indicator(who: str, value: Array) -> None:
    """Refuse booleans where a logarithm is expected: log 1 = 0 and log 0 = -inf, not 1 and 0."""
    if value.dtype == bool:
        raise ValueError(
            f"{who} must return log g, got booleans: for an indicator return "
            "jnp.where(condition, 0.0, -jnp.inf), or use Masked"
        )


def _same_shape(x: Array, y: Array) -> None:
    if x.shape != y.shape:
        raise ValueError(
            f"the potential compares points of one dimension, got shapes {x.shape} and {y.shape}: "
            "measure and kernel must have the same dimension"
        )


def _same_height(query: Callable, key: Callable) -> None:
    if isinstance(query, Affine) and isinstance(key, Affine):
        heights = query.weight.shape[0], key.weight.shape[0]
        if heights[0] != heights[1]:
            raise ValueError(
                f"query and key must map to one dimension, got matrices with {heights[0]} and "
                f"{heights[1]} rows"
            )


def _dot(x: Array, y: Array) -> Scalar:
    return jnp.dot(x, y, precision=jax.lax.Precision.HIGHEST)


class DotProduct(AbstractPotential):
    r"""$a(x, y) = \text{scale}\cdot\langle x, y\rangle$ on the states."""

    scale: Scalar

    def __init__(self, scale: Any = 1.0):
        self.scale = number("scale", scale)

    def __call__(self, x: PyTree, y: PyTree) -> Scalar:
        x, y = state(x), state(y)
        _same_shape(x, y)
        return _dot(self.scale.astype(x.dtype) * x, y)


class Bilinear(AbstractPotential):
    r"""$a(x, y) = \text{scale}\cdot\langle Q x, K y\rangle$ on the states.

    Args:
        query: $Q$, a matrix (e, d) or an affine map such as `equinox.nn.Linear`.
        key: $K$, likewise; the same e.
        scale: usually $1/\sqrt{e}$.
    """

    query: Callable
    key: Callable
    scale: Scalar

    def __init__(self, query: Any, key: Any, scale: Any = 1.0):
        self.query, self.key, self.scale = as_map(query), as_map(key), number("scale", scale)
        _same_height(self.query, self.key)

    def __call__(self, x: PyTree, y: PyTree) -> Scalar:
        core, query_map, key_map = self.factor()
        return core(query_map(x), key_map(y))

    def factor(self) -> tuple[AbstractPotential, Callable, Callable]:
        return DotProduct(self.scale), _OnState(self.query), _OnState(self.key)


class Relation(AbstractPotential):
    r"""$a(x, y) = \langle\varphi(x), \psi(y)\rangle$, feature maps of the whole points.

    With $\varphi = \psi$ a symmetric positive relation, otherwise any continuous relation can be
    approximated (Altabaa & Lafferty, arXiv 2402.08856).
    """

    phi: Callable
    psi: Callable

    def __init__(self, phi: Any, psi: Any):
        self.phi, self.psi = as_map(phi), as_map(psi)

    def __call__(self, x: PyTree, y: PyTree) -> Scalar:
        phi, psi = self.phi(x), self.psi(y)
        _same_shape(phi, psi)
        return _dot(phi, psi)

    def factor(self) -> tuple[AbstractPotential, Callable, Callable]:
        return DotProduct(1.0), self.phi, self.psi


class Rotary(AbstractPotential):
    r"""$a((s,x),(t,y)) = \text{scale}\cdot\langle R_s Q x, R_t K y\rangle$ on tokens.

    $R_s$ turns the plane of coordinates $(i, i + e/2)$ by the angle $s\cdot\text{base}^{-2i/e}$,
    so that $a$ depends on the positions through $t - s$ alone.

    Source: Su et al., arXiv 2104.09864, with the halves of a vector paired (as checkpoints in the
    Hugging Face layout have it), not neighbouring coordinates.
    """

    query: Callable
    key: Callable
    scale: Scalar
    base: Scalar

    def __init__(self, query: Any, key: Any, scale: Any = 1.0, base: Any = 1e4):
        self.query, self.key = as_map(query), as_map(key)
        _same_height(self.query, self.key)
        self.scale, self.base = number("scale", scale), number("base", base)

    def __call__(self, x: PyTree, y: PyTree) -> Scalar:
        core, query_map, key_map = self.factor()
        return core(query_map(x), key_map(y))

    def factor(self) -> tuple[AbstractPotential, Callable, Callable]:
        return (
            DotProduct(self.scale),
            _Rotated(self.query, self.base),
            _Rotated(self.key, self.base),
        )


class Additive(AbstractPotential):
    r"""$a(x, y) = \langle w, \tanh(Qx + Ky)\rangle$ on the states (Bahdanau et al.).

    Args:
        query: $Q$, a matrix (h, d) or an affine map.
        key: $K$, likewise; the same h.
        readout: $w$, (h,).

    Source: Bahdanau, Cho & Bengio, arXiv 1409.0473, the source of Definition 1 of [VBT20].
    """

    query: Callable
    key: Callable
    readout: Float[Array, " h"]

    def __init__(self, query: Any, key: Any, readout: Any):
        self.query, self.key, self.readout = (
            as_map(query),
            as_map(key),
            float_array("readout (h,)", readout, 1),
        )

    def __call__(self, x: PyTree, y: PyTree) -> Scalar:
        q, k = self.query(state(x)), self.key(state(y))
        _same_shape(q, k)
        _same_shape(q, self.readout)
        # a sum over h fuses with tanh; a matrix product would hold (rows, columns, h) for a tile
        return jnp.sum(self.readout.astype(q.dtype) * jnp.tanh(q + k))

    def factor(self) -> tuple[AbstractPotential, Callable, Callable]:
        core = Additive(Identity(), Identity(), self.readout)
        return core, _OnState(self.query), _OnState(self.key)


class Gaussian(AbstractPotential):
    r"""$a(x, y) = -|x - y|^2 / (2\sigma^2)$ on the states: L2 attention.

    Args:
        sigma: the bandwidth $\sigma > 0$.
    """

    sigma: Scalar

    def __init__(self, sigma: Any):
        self.sigma = number("sigma", sigma, positive=True)

    def __call__(self, x: PyTree, y: PyTree) -> Scalar:
        x, y = state(x), state(y)
        _same_shape(x, y)
        u = (x - y) / self.sigma.astype(x.dtype)
        return -_dot(u, u) / 2

    def block(self, x: PyTree, y: PyTree) -> Float[Array, "n m"]:
        r"""All pairs, by a matrix product where that is accurate, by differences elsewhere.

        With points centred and scaled, of norm at most r, the product form
        $\langle u, w\rangle - |u|^2/2 - |w|^2/2$ errs by about $\epsilon r^2$. Up to r² = 128
        that is the rounding of any dot product; beyond it close points would lose their digits.
        """
        x, y = state(x), state(y)
        _same_shape(x[0], y[0])
        sigma = self.sigma.astype(x.dtype)
        centre = jax.lax.stop_gradient(jnp.mean(y, axis=0))

        def centred(x: Array) -> tuple[Array, Array]:
            u = (x - centre[None, :]) / sigma
            return u, jnp.sum(u * u, axis=1) / 2

        def product(x: Array, y: Array) -> Array:
            (u, uu), (w, ww) = centred(x), centred(y)
            cross = jnp.matmul(u, w.T, precision=jax.lax.Precision.HIGHEST)
            return cross - (uu[:, None] + ww[None, :])

        def differences(x: Array, y: Array) -> Array:
            @jax.checkpoint
            def add(total: Array, coordinate: tuple[Array, Array]) -> tuple[Array, None]:
                a, b = coordinate
                return total - ((a[:, None] - b[None, :]) / sigma) ** 2 / 2, None

            start = jnp.zeros((x.shape[0], y.shape[0]), x.dtype)
            return jax.lax.scan(add, start, (x.T, y.T))[0]

        accurate = jnp.max(centred(x)[1]) + jnp.max(centred(y)[1]) <= 128
        return jax.lax.cond(accurate, product, differences, x, y)


class Interaction(AbstractPotential):
    """Any function of two points as a potential; it may return -inf to forbid a pair.

    Arrays that it closes over can be differentiated.
    """

    function: Callable

    def __init__(self, function: Callable):
        self.function = as_map(function)

    @property
    def masks(self) -> bool:
        return True

    def __call__(self, x: PyTree, y: PyTree) -> Scalar:
        value = jnp.asarray(self.function(x, y))
        refuse_indicator("a potential", value)
        if value.shape != ():
            raise ValueError(
                f"a potential must return one number for two points, got shape {value.shape}"
            )
        return value.astype(state(x).dtype)


class _OnState(eqx.Module):
    """A map of states as a map of points."""

    map: Callable

    def __call__(self, point: PyTree) -> Array:
        return self.map(state(point))


class _Rotated(eqx.Module):
    """A map of states followed by the rotation that belongs to the token's position."""

    map: Callable
    base: Scalar

    def __call__(self, point: PyTree) -> Array:
        need_token(point, "a rotary potential")
        return rotate(self.map(point.state), point.position, self.base)


def rotate(x: Float[Array, " e"], position: Scalar, base: Scalar) -> Float[Array, " e"]:
    r"""Turn the planes $(i, i + e/2)$ of ``x`` by the angles position·base^(-2i/e); e even."""
    half = x.shape[0] // 2
    if 2 * half != x.shape[0]:
        raise ValueError(f"rotary positions need an even dimension, got {x.shape[0]}")
    base = base.astype(x.dtype)
    angles = position.astype(x.dtype) * base ** (-jnp.arange(half, dtype=x.dtype) / half)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = x[:half], x[half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin])
