"""A Lipschitz constant from both sides: what a search attains, and what a theorem proves."""

from typing import Any

from jaxtyping import Array

from measattn.lipschitz.catalogue import bound
from measattn.lipschitz.domains import AbstractDomain
from measattn.lipschitz.results import Bracket
from measattn.lipschitz.search import Watch, search


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
    if found.exact and found.value > proved.value:
        raise RuntimeError(
            f"the search attains {found.value!r}, above the bound {proved.value!r} of "
            f"{proved.theorem}: one of them is wrong, please report it with the layer and domain"
        )
    return Bracket(found.value, proved.value, found, proved)
