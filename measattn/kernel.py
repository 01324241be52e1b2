r"""Markov kernels and their actions.

A Markov kernel $K(x, dy)$ sends a point to a probability measure. It acts on measures from the
right and on functions from the left,

$$ \mu K = \int \mu(dx) K(x, \cdot), \qquad (Kf)(x) = \int K(x, dy) f(y), \qquad
   (KL)(x, \cdot) = \int K(x, dy) L(y, \cdot), $$

written ``mu @ K``, ``expect(K, f)`` and ``K @ L``. A nonlinear kernel is a family $K_\mu$ of
Markov kernels, one for each measure; it acts by $\mu \mapsto \mu K_\mu$, also ``mu @ K``.

Three shapes occur, and `transport` keeps each as small as it is: Dirac-valued kernels send n atoms
to n atoms; kernels with a common support re-weight it; all others give n·m atoms.

Source: Definition 2 of [VBT20]; nonlinear kernels are those of Del Moral, *Feynman-Kac Formulae*.
"""

import abc
from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from measattn.maps import as_map
from measattn.measure import LARGEST_SUPPORT, EmpiricalMeasure, integrate, measure, normalise
from measattn.points import moved_points, one_row


class AbstractMarkovKernel(eqx.Module):
    r"""A Markov kernel $x \mapsto K(x, \cdot)$."""

    @abc.abstractmethod
    def __call__(self, x: PyTree) -> EmpiricalMeasure:
        r"""The probability measure $K(x, \cdot)$."""

    def act(self, mu: EmpiricalMeasure) -> EmpiricalMeasure:
        r"""The measure $\mu K$; in general with all atoms of all $K(x_i, \cdot)$."""
        rows = jax.eval_shape(jax.vmap(self), mu.points).log_weights.shape
        if rows[0] * rows[1] > LARGEST_SUPPORT:
            raise ValueError(
                f"this transport would have {rows[0]}·{rows[1]} = {rows[0] * rows[1]} atoms, more "
                f"than {LARGEST_SUPPORT}: integrate a function with expect(K, f) instead, or "
                "project the kernel with moment_projection(K)"
            )
        out = _laws(self, mu.points)
        points = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), out.points)
        log_weights = normalise(mu.log_weights)[:, None] + jax.vmap(normalise)(out.log_weights)
        return measure(points, log_weights.reshape(-1))

    def average(self, f: Callable[[PyTree], PyTree], block: PyTree) -> PyTree:
        r"""The values $(Kf)(x_i)$ at a block of points; f too maps blocks of points to values."""
        laws = _laws(self, block)
        n, m = laws.log_weights.shape
        flat = jax.tree.map(lambda a: a.reshape(n * m, *a.shape[2:]), laws.points)
        values = jax.tree.map(lambda v: v.reshape(n, m, *v.shape[1:]), f(flat))
        return jax.vmap(lambda v, w: integrate(lambda x: x, measure(v, w)))(
            values, laws.log_weights
        )

    def after(self, first: "AbstractMarkovKernel") -> "AbstractMarkovKernel":
        """The composition ``first @ self``; a kernel that knows a smaller form gives that."""
        return Composed(first, self)

    def __rmatmul__(self, mu: Any) -> EmpiricalMeasure:
        return transport(mu, self)

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, AbstractMarkovKernel):
            return other.after(self)
        if isinstance(other, AbstractNonlinearKernel) and isinstance(self, AbstractDiracKernel):
            return Stack((self, other))
        raise ValueError(
            f"a Markov kernel composes with Markov kernels, got a {type(other).__name__}; a "
            "nonlinear kernel can follow Dirac-valued kernels only, or be frozen: T.at(mu)"
        )

    __array_ufunc__ = None  # NumPy leaves `x @ K` to us, which refuses it with words


@eqx.filter_jit
def _laws(kernel: AbstractMarkovKernel, block: PyTree) -> EmpiricalMeasure:
    return jax.vmap(kernel)(block)


class AbstractDiracKernel(AbstractMarkovKernel):
    r"""A kernel whose values are Dirac masses, $K(x, \cdot) = \delta_{f(x)}$: it moves points."""

    @abc.abstractmethod
    def send(self, block: PyTree) -> PyTree:
        """Where a block of points goes, (n, ...) to (n, ...)."""

    def __call__(self, x: PyTree) -> EmpiricalMeasure:
        row = self.send(one_row(x))
        return measure(row, jnp.zeros(1, jax.tree.leaves(row)[0].dtype))

    def average(self, f: Callable[[PyTree], PyTree], block: PyTree) -> PyTree:
        return f(self.send(block))

    def after(self, first: AbstractMarkovKernel) -> AbstractMarkovKernel:
        if isinstance(first, AbstractDiracKernel):
            return Moves((first, self))
        return Composed(first, self)

    def act(self, mu: EmpiricalMeasure) -> EmpiricalMeasure:
        return measure(self.send(mu.points), mu.log_weights)


class Deterministic(AbstractDiracKernel):
    r"""The kernel $x \mapsto \delta_{f(x)}$ of a map of points; $\mu K = f_\#\mu$."""

    map: Callable

    def __init__(self, f: Any):
        self.map = as_map(f)

    def send(self, block: PyTree) -> PyTree:
        return moved_points(jax.vmap(self.map)(block), "the map of a Deterministic kernel")


class AbstractNonlinearKernel(eqx.Module):
    r"""A family of Dirac-valued Markov kernels $K_\mu(x, \cdot) = \delta_{f(\mu, x)}$.

    Two of them compose by $(g\circ f)(\mu, x) = g(f(\mu, \cdot)_\#\mu,\, f(\mu, x))$, so that a
    whole transformer is one nonlinear kernel.
    """

    @abc.abstractmethod
    def push(self, mu: EmpiricalMeasure, block: PyTree | None = None) -> PyTree:
        r"""Where a block of points goes, given $\mu$: the points $f(\mu, x)$.

        Args:
            mu: the measure that the kernel looks at.
            block: points (n, ...); ``None`` stands for the atoms of ``mu`` themselves, which a
                composition moves anyway and so need not move twice.
        """

    def at(self, mu: EmpiricalMeasure) -> "Frozen":
        r"""The Markov kernel $K_\mu$."""
        return Frozen(self, mu)

    def __rmatmul__(self, mu: Any) -> EmpiricalMeasure:
        return transport(mu, self)

    def __matmul__(
        self, other: "AbstractNonlinearKernel | AbstractDiracKernel"
    ) -> "AbstractNonlinearKernel":
        return Stack((self, other))

    __array_ufunc__ = None  # NumPy leaves `x @ T` to us, which refuses it with words


def need_layer(layer: Any) -> None:
    """Refuse what is no layer.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(layer, (AbstractNonlinearKernel, AbstractDiracKernel)):
        raise ValueError(
            f"layer must be a nonlinear or Dirac-valued kernel, got a {type(layer).__name__}; wrap "
            "a map of points as Deterministic(f)"
        )


class Frozen(AbstractDiracKernel):
    r"""The Markov kernel $K_\mu$ of a nonlinear kernel at one measure, linear in what it moves."""

    kernel: AbstractNonlinearKernel
    mu: EmpiricalMeasure

    def send(self, block: PyTree) -> PyTree:
        return self.kernel.push(self.mu, block)


class Stack(AbstractNonlinearKernel):
    r"""Nonlinear kernels one after the other: $\mu_{t+1} = \mu_t K^{(t)}_{\mu_t}$.

    Args:
        layers: nonlinear kernels, or Dirac-valued Markov kernels (norms, feed-forward maps, any
            `Deterministic` map), in the order in which they act.
    """

    layers: tuple[AbstractNonlinearKernel | AbstractDiracKernel, ...]

    def __init__(self, layers: Any):
        if not isinstance(layers, Iterable):
            raise ValueError(f"layers must be a sequence, got one {type(layers).__name__}")
        self.layers = tuple(layers)
        for layer in self.layers:
            if not isinstance(layer, (AbstractNonlinearKernel, AbstractDiracKernel)):
                raise ValueError(
                    "layers must be nonlinear or Dirac-valued kernels, got a "
                    f"{type(layer).__name__}; wrap a map of points as Deterministic(f)"
                )

    def push(self, mu: EmpiricalMeasure, block: PyTree | None = None) -> PyTree:
        for layer in self.layers[:-1]:
            if block is not None:
                block = moved(layer, mu, block)
            mu = transport(mu, layer)
        return moved(self.layers[-1], mu, block) if self.layers else block_or_atoms(mu, block)


def block_or_atoms(mu: EmpiricalMeasure, block: PyTree | None) -> PyTree:
    """The points that `AbstractNonlinearKernel.push` is asked to move."""
    return mu.points if block is None else block


def moved(
    layer: AbstractNonlinearKernel | AbstractDiracKernel,
    mu: EmpiricalMeasure,
    block: PyTree | None = None,
) -> PyTree:
    r"""Where a layer sends a block of points given $\mu$; a Markov kernel does not look at it."""
    if isinstance(layer, AbstractDiracKernel):
        return layer.send(block_or_atoms(mu, block))
    return layer.push(mu, block)


def transport(mu: Any, kernel: AbstractMarkovKernel | AbstractNonlinearKernel) -> EmpiricalMeasure:
    r"""The left action ``mu @ K``: $\mu K$, for a nonlinear kernel $\mu K_\mu$.

    Raises:
        ValueError: measure and kernel have different dimensions, a query of positive weight is
            left without mass by a mask, or the result would have too many atoms.
    """
    if not isinstance(mu, EmpiricalMeasure):
        raise ValueError(
            f"a kernel transports measures, got a {type(mu).__name__}: wrap points as "
            "EmpiricalMeasure(points)"
        )
    if isinstance(kernel, AbstractNonlinearKernel):
        return measure(kernel.push(mu), mu.log_weights)
    return kernel.act(mu)


def expect(kernel: AbstractMarkovKernel, f: Callable[[PyTree], Any]) -> Callable[[PyTree], Any]:
    r"""The right action: the function $(Kf)(x) = \int K(x, dy) f(y)$."""
    return lambda x: integrate(f, kernel(x))


class Composed(AbstractMarkovKernel):
    r"""The composition $(KL)(x, \cdot) = \int K(x, dy) L(y, \cdot)$."""

    first: AbstractMarkovKernel
    second: AbstractMarkovKernel

    def __call__(self, x: PyTree) -> EmpiricalMeasure:
        return transport(self.first(x), self.second)

    def act(self, mu: EmpiricalMeasure) -> EmpiricalMeasure:
        return transport(transport(mu, self.first), self.second)

    def average(self, f: Callable[[PyTree], PyTree], block: PyTree) -> PyTree:
        return self.first.average(lambda points: self.second.average(f, points), block)


class Moves(AbstractDiracKernel):
    """The composition of Dirac-valued kernels: one move after the other."""

    kernels: tuple[AbstractDiracKernel, ...]

    def send(self, block: PyTree) -> PyTree:
        for kernel in self.kernels:
            block = kernel.send(block)
        return block
