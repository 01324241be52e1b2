"""Search for two measures that a layer drives apart: Lipschitz constants from below."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from measattn.checks import metric_order, whole
from measattn.kernel import moved
from measattn.lipschitz.ascent import Game, Place, climb
from measattn.lipschitz.domains import AbstractDomain, Ball, Everywhere
from measattn.lipschitz.families import Start, equalised, families, filled, scattered
from measattn.lipschitz.forms import Form, UnreadableLayer, form
from measattn.lipschitz.quotient import evaluate, in_float64
from measattn.lipschitz.results import Estimate, Witness
from measattn.lipschitz.space import common_atoms, common_dimension
from measattn.lipschitz.steps import LIGHTEST, pairs
from measattn.measure import EmpiricalMeasure

TRIED = 24
"""How many pairs are evaluated exactly."""

BATCH = 32
"""The number of all starts is a multiple of this."""

LARGEST = 64
"""More atoms than this are not searched: their outputs are computed in decimals."""

Watch = Callable[[int, int, float], None]


def search(
    layer: Any,
    domain: AbstractDomain,
    *,
    key: Array,
    p: float | int = 1,
    dimension: int | None = None,
    atoms: int | None = None,
    radius: float | None = None,
    size: int = 4,
    starts: int = 64,
    steps: int = 400,
    watch: Watch | None = None,
) -> Estimate:
    r"""A lower bound of $\sup W_p(\mu f, \nu f)/W_p(\mu,\nu)$ over measures on a domain.

    The local constant is maximised over points, weights and displacements by Adam with projections,
    from all starts at once; then atoms are moved by a step for which the quotient, bounded below,
    is largest. The value is attained by the witness, whatever the ascent did.

    Args:
        layer: any layer on arrays (d,).
        domain: where both measures live.
        key: a random key.
        p: the order, a number of at least 1 or infinity (then among measures of equal atoms).
        dimension: d, where neither the layer nor the domain determines it.
        atoms: compete among measures of this many equally heavy atoms only.
        radius: look only at the ball of this radius about the origin, for domains without bound.
        size: the number of atoms of the measures that are tried, unless ``atoms`` gives it.
        starts: the least number of random starts, besides the known families.
        steps: steps of each ascent.
        watch: called as ``watch(step, steps, best)`` ten times on the way; `measattn.progress` is a
            bar.

    Raises:
        ValueError: a domain without bound and no radius, an unknown dimension, an impossible
            order or number, a layer of tokens, or one whose derivative is nowhere finite.

    Source: G1 and G2 of docs/theory-lipschitz.md, by which the supremum of the local constants is
        the global one.
    """
    p = metric_order(p)
    atoms = common_atoms(domain, atoms)
    size = whole("size", size if atoms is None else atoms, 1, LARGEST)
    steps = whole("steps", steps, 1)
    kind = getattr(key, "dtype", None)
    if kind is None or not (jnp.issubdtype(kind, jax.dtypes.prng_key) or kind == jnp.uint32):
        raise ValueError(f"key must be a random key such as jax.random.key(0), got {key!r}")
    dimension = common_dimension(layer, domain, dimension)
    region = _region(domain, radius)
    centre = np.zeros(dimension) if region.centre is None else np.asarray(region.centre)
    equal = atoms is not None or math.isinf(p)
    with jax.enable_x64(True):
        layer = in_float64(layer)
        known, near = _form(layer, dimension), _form(layer, dimension, centre)
        _check_layer(layer, size, dimension)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).reshape(-1))
        begun = _starts(near, region.radius, dimension, size, starts, equal, rng)
        game = Game(layer, p, region, region.radius, centre, None if equal else LIGHTEST)
        climbed = climb(game, _stacked(begun, region.radius, p, rng), steps, 0.05, watch)
        if not np.isfinite(climbed.values).any() or climbed.values.max() == 0:
            raise ValueError(
                "the derivative of the layer is zero, NaN or infinite at every start: the layer "
                "is constant, or not differentiable on the domain, or nothing can move in it"
            )
        order = np.argsort(-climbed.values, kind="stable")
        places = [jax.tree.map(lambda a, k=k: a[k], climbed.places) for k in order[:4]]
        tried = [evaluate(layer, known, *pair[1:], p) for pair in pairs(game, places)[:TRIED]]
    best = max(tried, key=lambda evaluation: evaluation.value, default=None)
    if best is None or not best.value > 0:
        raise ValueError(
            "no pair of measures was found whose outputs differ by more than rounding: the layer "
            "is nearly constant on the domain, or the domain has no room to move in"
        )
    family = begun[int(order[0])].family
    return Estimate(
        value=best.value,
        witness=Witness(best.mu, best.nu, best.before, best.after),
        p=p,
        domain=domain,
        starts=len(begun),
        found=_story(family, climbed.first, climbed.values, int(order[0])),
        local=float(climbed.values.max()),
        atoms=atoms,
        exact=best.exact,
    )


def _story(family: str, first: NDArray, values: NDArray, k: int) -> str:
    """How the best place was found, in full sentences."""
    begun, reached = float(first[k]), float(values[k])
    if reached > float(first.max()) * (1 + 1e-9):
        return (
            f"The best of {len(first)} ascents began at {begun:.6g} ({family}) and reached "
            f"{reached:.6g}; the best start was {first.max():.6g}."
        )
    return (
        f"No ascent found anything better than the best of {len(first)} starts, {reached:.6g} "
        f"({family})."
    )


def _starts(
    near: Form | None,
    radius: float,
    d: int,
    size: int,
    count: int,
    equal: bool,
    rng: np.random.Generator,
) -> list[Start]:
    known = families(near, radius, d, LIGHTEST)
    known = [start for start in known if len(start.points) <= size]
    # rounded up, so that layers with more or fewer families share one compiled ascent
    count = whole("starts", count)
    count += -(len(known) + count) % BATCH
    bad = known + scattered(count, size, radius, d, LIGHTEST, rng)
    fit = equalised if equal else filled
    return [fit(start, size, radius, rng) for start in bad]


def _stacked(begun: list[Start], radius: float, p: float, rng: np.random.Generator) -> Place:
    size, d = begun[0].points.shape
    moves = rng.normal(size=(len(begun), size, d))
    # the families move atom 0; the others follow a little, so that they can join in
    moves *= 1 if math.isinf(p) else 1e-2
    moves[:, 0] = [start.direction / np.linalg.norm(start.direction) for start in begun]
    return Place(
        jnp.asarray(np.stack([start.points for start in begun]) / radius),
        jnp.asarray(np.log(np.stack([start.weights for start in begun]))),
        jnp.asarray(moves[:, :1] if p == 1 else moves),
    )


def _region(domain: AbstractDomain, radius: float | None) -> AbstractDomain:
    """What of the domain is looked at."""
    if math.isfinite(domain.radius):
        if radius is not None:
            raise ValueError(f"radius is for domains without bound, got {radius} with {domain}")
        return domain
    if isinstance(domain, Everywhere):
        if domain.local_mass is not None:
            raise ValueError(
                "the search does not keep a least local mass: search a ball instead, or drop "
                "local_mass"
            )
        if domain.second_moment is not None:
            reach = math.sqrt(domain.second_moment) * (1 - 1e-12)
            radius = reach if radius is None else min(radius, reach)
    if radius is None:
        raise ValueError(f"{domain} has no bound: say how far the search may look, with radius=...")
    return Ball(radius)


def _form(layer: Any, dimension: int, centre: NDArray | None = None) -> Form | None:
    try:
        known = form(layer, dimension, centre)
    except UnreadableLayer:
        return None
    return None if known.masked else known


def _check_layer(layer: Any, size: int, dimension: int) -> None:
    """Let the layer say why it does not take measures on R^d, if it does not."""

    def push(points: Array) -> Array:
        return moved(layer, EmpiricalMeasure(points), None)

    out = jax.eval_shape(push, jax.ShapeDtypeStruct((size, dimension), jnp.float64))
    if not hasattr(out, "shape") or len(out.shape) != 2:
        raise ValueError("layer must send arrays (n, d) to arrays (n, v)")
