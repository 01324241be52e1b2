"""In which R^d a layer and a domain live."""

from typing import Any

from measattn.attention import CrossAttention, MultiHead, SelfAttention
from measattn.checks import whole
from measattn.kernel import Stack
from measattn.layer import FeedForward, LayerNorm, Residual, RMSNorm, WeightShared
from measattn.lipschitz.domains import AbstractDomain
from measattn.maps import Affine
from measattn.potential import Bilinear


def common_dimension(layer: Any, domain: AbstractDomain, dimension: int | None = None) -> int:
    """The dimension d that layer and domain have in common.

    Args:
        layer: a layer.
        domain: a domain.
        dimension: d, where neither of them determines it.

    Raises:
        ValueError: nobody says what it is, or they contradict each other.
    """
    own = getattr(domain, "dimension", None)
    if own is None and domain.centre is not None:
        own = len(domain.centre)
    known = {"dimension": dimension, "the domain": own, "the layer": input_dimension(layer)}
    values = {whole("dimension", value, 1) for value in known.values() if value is not None}
    if not values:
        raise ValueError(
            "neither the layer nor the domain says in which dimension it lives: give dimension=..."
        )
    if len(values) > 1:
        told = ", ".join(f"{who}: {value}" for who, value in known.items() if value is not None)
        raise ValueError(f"layer and domain must live in one dimension, got {told}")
    (value,) = values
    return value


def common_atoms(domain: AbstractDomain, atoms: Any) -> int | None:
    """The number of equal atoms that the measures have, if it is given.

    Raises:
        ValueError: it is no number, or domain and argument contradict each other.
    """
    told = getattr(domain, "atoms", None)
    if atoms is None:
        return told
    count = whole("atoms", atoms, 1)
    if told not in (None, count):
        raise ValueError(f"atoms is {count}, but the domain is {domain}: leave one of them out")
    return count


def input_dimension(layer: Any) -> int | None:
    """The dimension of the points that a layer takes; None if any will do, or it does not say."""
    match layer:
        case Residual() | WeightShared():
            return input_dimension(layer.layer)
        case Stack():
            # norms and residuals that take any dimension keep it
            known = (input_dimension(part) for part in layer.layers)
            return next((value for value in known if value is not None), None)
        case MultiHead():
            return input_dimension(layer.head(0))
        case SelfAttention():
            return _first(_of_potential(layer.potential), _of_map(layer.value))
        case CrossAttention():
            of_queries = _of_potential(layer.potential)
            return layer.memory.dimension if of_queries is None else of_queries
        case FeedForward():
            return _of_map(layer.up)
        case LayerNorm() | RMSNorm():
            return None if layer.weight is None else layer.weight.shape[0]
    return None


def _of_potential(potential: Any) -> int | None:
    while hasattr(potential, "potential"):  # masks
        potential = potential.potential
    return _of_map(potential.query) if isinstance(potential, Bilinear) else None


def _of_map(f: Any) -> int | None:
    return f.weight.shape[1] if isinstance(f, Affine) else None


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
