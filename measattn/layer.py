r"""What stands around attention in a transformer, as kernels on measures.

Norms, feed-forward maps and positional encodings move each point by itself: they are Dirac-valued
Markov kernels, $\mu \mapsto f_\#\mu$. Residuals, stacks and weight sharing wrap any layer. All of
them change the state of a point and leave its position alone.
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from measattn.checks import ensure, float_array, number, whole
from measattn.kernel import (
    AbstractDiracKernel,
    AbstractNonlinearKernel,
    Stack,
    block_or_atoms,
    moved,
    transport,
)
from measattn.maps import as_map
from measattn.measure import EmpiricalMeasure, measure
from measattn.points import Token, need_token, state, with_state

Layer = AbstractNonlinearKernel | AbstractDiracKernel


class AbstractStateMap(AbstractDiracKernel):
    r"""The kernel $x \mapsto \delta_{f(x)}$ of a map of states."""

    @abc.abstractmethod
    def map(self, x: Float[Array, " d"]) -> Float[Array, " e"]:
        """The image of one state."""

    def send(self, block: PyTree) -> PyTree:
        return with_state(block, _map_all(self, state(block)))


@eqx.filter_jit
def _map_all(kernel: AbstractStateMap, states: Array) -> Array:
    return jax.vmap(kernel.map)(states)


class LayerNorm(AbstractStateMap):
    r"""$x \mapsto g\odot(x - \bar x)/\sqrt{\mathrm{var}(x) + \varepsilon} + b$ over coordinates.

    Args:
        weight: $g$, (d,); ones if None.
        bias: $b$, (d,); zeros if None.
        eps: $\varepsilon > 0$. Without it the map is not continuous at constant vectors.

    Source: Ba, Kiros & Hinton, arXiv 1607.06450.
    """

    weight: Float[Array, " d"] | None
    bias: Float[Array, " d"] | None
    eps: Float[Array, ""]

    def __init__(self, weight: Any = None, bias: Any = None, eps: Any = 1e-5):
        self.weight, self.bias = _vector("weight", weight), _vector("bias", bias)
        self.eps = number("eps", eps, positive=True)

    def map(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        centred = x - jnp.mean(x)
        variance = jnp.mean(centred * centred)
        out = centred / jnp.sqrt(variance + self.eps.astype(x.dtype))
        out = out if self.weight is None else out * _as_long_as(x, self.weight)
        return out if self.bias is None else out + _as_long_as(x, self.bias)


class RMSNorm(AbstractStateMap):
    r"""$x \mapsto g\odot x/\sqrt{|x|^2/d + \varepsilon}$.

    Args:
        weight: $g$, (d,); ones if None.
        eps: $\varepsilon > 0$.

    Source: Zhang & Sennrich, arXiv 1910.07467.
    """

    weight: Float[Array, " d"] | None
    eps: Float[Array, ""]

    def __init__(self, weight: Any = None, eps: Any = 1e-6):
        self.weight, self.eps = _vector("weight", weight), number("eps", eps, positive=True)

    def map(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        out = x / jnp.sqrt(jnp.mean(x * x) + self.eps.astype(x.dtype))
        return out if self.weight is None else out * _as_long_as(x, self.weight)


class FeedForward(AbstractStateMap):
    r"""$x \mapsto W_2\,\sigma(W_1 x)$, or gated $x \mapsto W_2(\sigma(W_g x)\odot W_1 x)$.

    Args:
        up: $W_1$, a matrix (f, d) or an affine map.
        down: $W_2$, a matrix (d, f) or an affine map.
        activation: $\sigma$: `relu`, `gelu`, `gelu_tanh`, `silu` or any function of an array.
        gate: $W_g$, like ``up``; with `silu` this is SwiGLU (Shazeer, arXiv 2002.05202).
    """

    up: Callable
    down: Callable
    activation: Callable
    gate: Callable | None

    def __init__(self, up: Any, down: Any, activation: Callable, gate: Any = None):
        self.up, self.down, self.activation = as_map(up), as_map(down), as_map(activation)
        self.gate = None if gate is None else as_map(gate)

    def map(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        if self.gate is None:
            return self.down(self.activation(self.up(x)))
        return self.down(self.activation(self.gate(x)) * self.up(x))


def relu(x: Array) -> Array:
    r"""$\max(x, 0)$."""
    return jax.nn.relu(x)


def gelu(x: Array) -> Array:
    r"""$x\,\Phi(x)$, $\Phi$ the normal distribution function (Hendrycks & Gimpel, 1606.08415)."""
    return jax.nn.gelu(x, approximate=False)


def gelu_tanh(x: Array) -> Array:
    r"""$\tfrac x2(1 + \tanh(\sqrt{2/\pi}(x + 0.044715x^3)))$, the approximation that GPT-2 uses."""
    return jax.nn.gelu(x, approximate=True)


def silu(x: Array) -> Array:
    r"""$x/(1 + e^{-x})$."""
    return jax.nn.silu(x)


class Sinusoidal(AbstractDiracKernel):
    r"""$(s, x) \mapsto (s, x + e(s))$ with $e(s)_{2i} = \sin(sb^{-2i/d})$, $e(s)_{2i+1} = \cos$.

    Args:
        base: $b$, 10,000 in Vaswani et al., arXiv 1706.03762.
    """

    base: Float[Array, ""]

    def __init__(self, base: Any = 1e4):
        self.base = number("base", base, positive=True)

    def send(self, block: PyTree) -> Token:
        need_token(block, "a positional encoding")
        d, dtype = block.state.shape[-1], block.state.dtype
        even = jnp.arange(0, d, 2, dtype=dtype)
        angles = (
            block.position.astype(dtype)[:, None]
            * (self.base.astype(dtype) ** (-even / d))[None, :]
        )
        waves = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(len(angles), -1)
        return Token(block.position, block.state + waves[:, :d])


class Learned(AbstractDiracKernel):
    r"""$(s, x) \mapsto (s, x + E_s)$ with a learnt table; s a whole number below its length.

    Args:
        table: $E$, (positions, d).
    """

    table: Float[Array, "p d"]

    def __init__(self, table: Any):
        self.table = float_array("table (positions, d)", table, 2)

    def send(self, block: PyTree) -> Token:
        need_token(block, "a positional encoding")
        length, d = self.table.shape
        if d != block.state.shape[-1]:
            raise ValueError(
                f"the table of positions has dimension {d}, the states {block.state.shape[-1]}"
            )
        index = block.position.astype(int)
        index = ensure(
            (index.astype(block.position.dtype) == block.position)
            & (index >= 0)
            & (index < length),
            index,
            f"positions must be whole numbers from 0 to {length - 1}, the rows of the table",
        )
        return Token(block.position, block.state + self.table[index].astype(block.state.dtype))


class Residual(AbstractNonlinearKernel):
    r"""$x \mapsto x + f(\mu, x)$ on the states.

    Args:
        layer: $f$, a nonlinear or Dirac-valued kernel that keeps the dimension.
    """

    layer: Layer

    def push(self, mu: EmpiricalMeasure, block: PyTree | None = None) -> PyTree:
        x = state(block_or_atoms(mu, block))
        new = moved(self.layer, mu, block)
        if state(new).shape != x.shape:
            raise ValueError(
                f"a residual adds what a layer returns to what it got: states of shape {x.shape} "
                f"became {state(new).shape}; give the layer an output map to dimension "
                f"{x.shape[-1]}"
            )
        return with_state(new, x + state(new))


class WeightShared(AbstractNonlinearKernel):
    r"""The same layer applied again and again: $\mu_{t+1} = \mu_t K_{\mu_t}$, t < depth.

    Args:
        layer: the layer, which must keep the shape of points.
        depth: how many times; compiled once, whatever the depth.
    """

    layer: Layer
    depth: int = eqx.field(static=True)

    def __init__(self, layer: Layer, depth: Any):
        self.layer, self.depth = layer, whole("depth", depth)

    def push(self, mu: EmpiricalMeasure, block: PyTree | None = None) -> PyTree:
        def step(carry: tuple, _: None) -> tuple[tuple, None]:
            points, block = carry
            mu_now = measure(points, mu.log_weights)
            if block is not None:
                block = moved(self.layer, mu_now, block)
            return (transport(mu_now, self.layer).points, block), None

        before = (mu.points, block)
        after = jax.eval_shape(lambda c: step(c, None)[0], before)
        if jax.tree.map(jnp.shape, before) != jax.tree.map(jnp.shape, after):
            raise ValueError(
                f"a layer that shares its weights over depth must keep the dimension of points, "
                f"{mu.dimension} became {state(after[0]).shape[-1]}"
            )
        points, block = jax.lax.scan(step, before, None, length=self.depth)[0]
        return points if block is None else block


def post_norm(sublayers: Sequence[Layer], norms: Sequence[AbstractStateMap]) -> Stack:
    r"""The block $x \mapsto \mathrm{norm}(x + f(x))$, once for each sublayer f.

    With (attention, feed-forward) this is the encoder block of Vaswani et al. and BERT; with
    (causal self-attention, cross-attention, feed-forward) the decoder block.
    """
    _one_norm_each(sublayers, norms)
    return Stack(
        layer for f, norm in zip(sublayers, norms, strict=True) for layer in (Residual(f), norm)
    )


def pre_norm(sublayers: Sequence[Layer], norms: Sequence[AbstractStateMap]) -> Stack:
    r"""The block $x \mapsto x + f(\mathrm{norm}(x))$, once for each sublayer f (GPT-2, Llama)."""
    _one_norm_each(sublayers, norms)
    return Stack(Residual(Stack((norm, f))) for f, norm in zip(sublayers, norms, strict=True))


def _one_norm_each(sublayers: Sequence, norms: Sequence) -> None:
    if len(sublayers) != len(norms):
        raise ValueError(
            f"there must be one norm for each sublayer, got {len(sublayers)} and {len(norms)}"
        )


def _vector(name: str, value: Any) -> Array | None:
    if value is None:
        return None
    return float_array(f"{name} (d,)", value, 1)


def _as_long_as(x: Array, parameter: Array) -> Array:
    if parameter.shape != x.shape:
        raise ValueError(
            f"this norm is for dimension {parameter.shape[0]}, got a state of shape {x.shape}"
        )
    return parameter.astype(x.dtype)
