r"""Maps of R^d: what a query, a key, a value or an output map may be.

One converter, `as_map`, for every function-valued field of the library: a matrix becomes the
linear map $x \mapsto Wx$, an `equinox.nn.Linear` the affine map $x \mapsto Wx + b$, any other
`equinox.Module` stays a pytree whose arrays can be differentiated, and a plain function becomes a
`Function`, static and compared by identity.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from measattn.checks import float_array


class Affine(eqx.Module):
    r"""The affine map $x \mapsto Wx + b$ of R^d to R^e.

    The parameters are cast to the dtype of ``x``: what goes in as float64 comes out as float64.
    """

    weight: Float[Array, "e d"]
    bias: Float[Array, " e"] | None

    def __init__(self, weight: Any, bias: Any = None):
        self.weight = float_array("weight (e, d)", weight, 2)
        self.bias = None if bias is None else float_array("bias (e,)", bias, 1)
        if self.bias is not None and self.bias.shape != self.weight.shape[:1]:
            raise ValueError(
                f"bias must have shape {self.weight.shape[:1]} to go with weight of shape "
                f"{self.weight.shape}, got {self.bias.shape}"
            )

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, " e"]:
        if x.shape != self.weight.shape[1:]:
            raise ValueError(
                f"this map takes points of dimension {self.weight.shape[1]}, got a point of shape "
                f"{x.shape}: measure and kernel must have the same dimension"
            )
        y = jnp.matmul(self.weight.astype(x.dtype), x, precision=jax.lax.Precision.HIGHEST)
        return y if self.bias is None else y + self.bias.astype(x.dtype)


class Function(eqx.Module):
    """A plain function as a map: no leaves, static under `jax.jit`, equal only to itself.

    Arrays that the function closes over can be differentiated. A new lambda is a new function and
    compiles anew; write an `equinox.Module` where that matters.
    """

    function: Callable = eqx.field(static=True)

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


class Identity(eqx.Module):
    r"""The identity map $x \mapsto x$."""

    def __call__(self, x: Any) -> Any:
        return x


def as_map(f: Any) -> Callable:
    """Convert a matrix, an `equinox.nn.Linear`, a module or a function to a map.

    Raises:
        ValueError: ``f`` is neither an array of rank two nor callable.
    """
    if isinstance(f, eqx.nn.Linear):
        return Affine(f.weight, f.bias)
    if isinstance(f, eqx.Module) and callable(f):
        return f
    if callable(f):
        return Function(f)
    if eqx.is_array_like(f) or isinstance(f, (list, tuple)):
        return Affine(f)
    raise ValueError(
        f"expected a matrix, an affine map (eqx.nn.Linear) or a function of a point, got {f!r}"
    )
