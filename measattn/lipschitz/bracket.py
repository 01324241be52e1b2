"""A Lipschitz constant from both sides: what a search attains, and what a theorem proves."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Array

from measattn.digits import order_name, printed
from measattn.lipschitz import certificate
from measattn.lipschitz.catalogue import bound
from measattn.lipschitz.domains import AbstractDomain
from measattn.lipschitz.results import VACUOUS, Bound, Estimate, among
from measattn.lipschitz.search import Watch, search

ASSUMED = 1e-6
"""By how much a lower end that is no certificate may exceed the upper one, relatively."""


@dataclass(frozen=True)
class Bracket:
    """A Lipschitz constant on a domain from both sides.

    Attributes:
        lower: attained by two measures.
        upper: certified by a theorem.
        estimate: what attains ``lower``.
        bound: what proves ``upper``.
        layer: the layer that they are about.
    """

    lower: float
    upper: float
    estimate: Estimate = field(repr=False)
    bound: Bound = field(repr=False)
    layer: Any = field(repr=False)

    def save(self, file: Any) -> Path:
        """Write a certificate that `verify` can check; it is checked before this returns.

        Args:
            file: the name of a JSON file, or a folder for ``certificate.json``; the arrays go
                beside it, under the same name with the suffix .npz.

        Returns:
            The JSON file.

        Raises:
            UnreadableLayer: a layer that holds a plain function, has a mask, or is several layers.
            ValueError: a name without the suffix .json, or an upper end that is infinite.

        Source: G5 of docs/theory.md for the lower end, the theorem of ``bound`` for the upper one.
        """
        return certificate.write(file, self.layer, self.estimate, self.bound)

    def __repr__(self) -> str:
        ratio = f"ratio {self.upper / self.lower:.4g}; {self.bound.theorem}"
        if math.isinf(self.upper):
            ratio = f"{self.bound.theorem} is {VACUOUS}"
        return (
            f"Lip(W{order_name(self.bound.p)}) in [{printed(self.lower, -1)}, "
            f"{printed(self.upper, 1)}] on {self.bound.domain}{among(self.bound.atoms)} "
            f"({ratio})"
        )


def bracket(
    layer: Any,
    domain: AbstractDomain,
    *,
    key: Array,
    p: float | int = 1,
    atoms: int | None = None,
    dimension: int | None = None,
    starts: int = 64,
    steps: int = 400,
    watch: Watch | None = None,
) -> Bracket:
    r"""$\sup W_p(\mu f,\nu f)/W_p(\mu,\nu)$ over measures on a domain, from both sides.

    Args:
        layer: a layer on arrays (d,) that the catalogue can read.
        domain: where both measures live, bounded.
        key: a random key, for the search.
        p: the order, a number of at least 1 or infinity.
        atoms: compete among measures of this many equally heavy atoms only.
        dimension: d, where neither the layer nor the domain determines it.
        starts: the number of random starts of the search.
        steps: the steps of each ascent.
        watch: as for `search`.

    Raises:
        ValueError: as `bound` and `search`.
        RuntimeError: the two ends contradict each other, which would be a fault of the library.

    Source: `search` from below, `bound` from above.
    """
    proved = bound(layer, domain, p, atoms=atoms, dimension=dimension)
    found = search(
        layer,
        domain,
        key=key,
        p=p,
        atoms=atoms,
        dimension=dimension,
        starts=starts,
        steps=steps,
        watch=watch,
    )
    assumed = 1.0 if found.exact else 1 + ASSUMED
    if found.value > proved.value * assumed:
        raise RuntimeError(
            f"the search attains {found.value!r}, above the bound {proved.value!r} of "
            f"{proved.theorem}: one of them is wrong, please report it with the layer and domain"
        )
    return Bracket(found.value, proved.value, found, proved, layer)
