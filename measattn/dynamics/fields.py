r"""Layers as vector fields: what turns $f_\mu(x)$ into the velocity of a token.

`flow` reads what a layer returns as a velocity, $\dot x = f_\mu(x)$. The kernels of this file make
velocities of other layers, and are layers themselves: the increment $f_\mu(x) - x$, whose Euler
steps of size one are the layer, and the part of $f_\mu(x)$ that is tangential to the sphere.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from measattn.attention import AbstractAttention, Outputs
from measattn.kernel import AbstractNonlinearKernel, block_or_atoms, moved, need_layer
from measattn.layer import Layer
from measattn.measure import EmpiricalMeasure, measure
from measattn.points import state, with_state


class Increment(AbstractNonlinearKernel):
    r"""$x \mapsto f_\mu(x) - x$: the velocity whose Euler step of size one is the layer.

    For Gaussian self-attention with the identity as value map this is mean shift,
    $\sigma^2\nabla\log(\mu * N(0, \sigma^2 I))(x)$ (Tweedie), and its flow is the continuous
    form of *blurring* mean shift, in which the law that is climbed moves, too.

    Args:
        layer: $f$, a nonlinear or Dirac-valued kernel that keeps the dimension.
    """

    layer: Layer

    def __check_init__(self):
        need_layer(self.layer)

    def push(self, mu: EmpiricalMeasure, block: PyTree | None = None) -> PyTree:
        x = state(block_or_atoms(mu, block))
        new = moved(self.layer, mu, block)
        same_dimension("an increment", x, state(new))
        return with_state(new, state(new) - x)


class Tangential(AbstractNonlinearKernel):
    r"""$x \mapsto |x|\,(f_\nu(u) - \langle f_\nu(u), u\rangle u)$, $u = x/|x|$, ν the law of u.

    On the unit sphere this is the projection of $f_\mu(x)$ to the tangent space. Off it, it is the
    extension of degree one: $|x|$ does not change, and u moves as on the sphere whatever $|x|$ is,
    so that a small drift of the radius, which a numerical solution has, never bends the path.

    Args:
        layer: $f$, a nonlinear or Dirac-valued kernel that keeps the dimension.
    """

    layer: Layer

    def __check_init__(self):
        need_layer(self.layer)

    def push(self, mu: EmpiricalMeasure, block: PyTree | None = None) -> PyTree:
        points = block_or_atoms(mu, block)
        atoms, _ = directions(state(mu.points))
        nu = measure(with_state(mu.points, atoms), mu.log_weights)
        u, radius = directions(state(points))
        new = moved(self.layer, nu, None if block is None else with_state(block, u))
        same_dimension("a tangential field", u, state(new))
        along = jnp.sum(state(new) * u, axis=1, keepdims=True)
        return with_state(new, radius * (state(new) - along * u))


class Unnormalised(AbstractAttention):
    r"""Attention without its normaliser: $x \mapsto \int G(x, y)\,v(y)\,\mu(dy)$.

    For equal atoms this is $\frac1n\sum_j e^{a(x, x_j)}v(x_j)$.

    Args:
        attention: a `SelfAttention` or `CrossAttention` kernel, or a `MultiHead` of one head.

    Source: (USA) of Geshkovski et al., arXiv 2312.10794.
    """

    attention: AbstractAttention

    def __init__(self, attention: Any):
        heads = getattr(attention, "count", 1)
        if not isinstance(attention, AbstractAttention) or heads != 1:
            raise ValueError(
                "attention must be one head, a SelfAttention or CrossAttention kernel, got "
                f"{type(attention).__name__}; for several heads pass MultiHead([Unnormalised(h)])"
            )
        self.attention = attention

    @property
    def masks(self) -> bool:
        return False  # a query that sees nothing has the velocity 0

    def evaluate(self, mu: EmpiricalMeasure, block: PyTree) -> Outputs:
        out, log_z = self.attention.evaluate(mu, block)
        seen = log_z > -jnp.inf
        size = jnp.where(seen, jnp.exp(jnp.where(seen, log_z, 0)), 0)
        return jnp.where(seen[:, None], size[:, None] * out, 0), log_z


def directions(x: Float[Array, "n d"]) -> tuple[Float[Array, "n d"], Float[Array, "n 1"]]:
    """The points over their norms, and the norms."""
    radius = jnp.sqrt(jnp.sum(x * x, axis=1, keepdims=True))
    return x / radius, radius


def same_dimension(who: str, x: Array, new: Array) -> None:
    """Refuse states that a layer has brought into another dimension.

    Raises:
        ValueError: it has; ``who`` needs one that does not.
    """
    if new.shape != x.shape:
        raise ValueError(
            f"{who} needs a layer that keeps the dimension: states of shape {x.shape} became "
            f"{new.shape}; give the layer an output map to dimension {x.shape[-1]}"
        )
