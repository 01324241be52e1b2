r"""Input injection: a layer whose equilibrium remembers its input."""

from typing import Any

from jaxtyping import Array, Float, PyTree

from measattn.checks import float_array
from measattn.dynamics.fields import same_dimension
from measattn.kernel import AbstractNonlinearKernel, moved, need_layer
from measattn.layer import Layer
from measattn.measure import EmpiricalMeasure
from measattn.points import finite, state, with_state


class Injected(AbstractNonlinearKernel):
    r"""$x_i \mapsto u_i + f(\mu, x_i)$: each atom is given its own input again at every step.

    Args:
        layer: f, a layer that keeps the dimension of states.
        inputs: $u$, (n, d), one for each atom.

    Source: C5 of docs/theory-dynamics.md; the weight-tied input-injected layer of Bai, Kolter &
        Koltun, *Deep equilibrium models*, arXiv 1909.01377.
    """

    layer: Layer
    inputs: Float[Array, "n d"]

    def __init__(self, layer: Layer, inputs: Any):
        need_layer(layer)
        inputs = float_array("inputs (n, d)", inputs, 2)
        self.layer, self.inputs = layer, finite(inputs, inputs, "inputs")

    def push(self, mu: EmpiricalMeasure, block: PyTree | None = None) -> PyTree:
        if block is not None:
            raise ValueError(
                "inputs belong to the atoms of a measure: an injected layer moves these, mu @ "
                "layer, and no other points"
            )
        if self.inputs.shape != state(mu.points).shape:
            raise ValueError(
                f"inputs must have one row for each atom, got {self.inputs.shape} for states of "
                f"shape {state(mu.points).shape}"
            )
        out = moved(self.layer, mu)
        same_dimension("input injection", self.inputs, state(out))
        return with_state(out, self.inputs.astype(mu.dtype) + state(out))
