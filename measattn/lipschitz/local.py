r"""The Lipschitz constant of a layer near one measure: attained and certified.

Which measures near $\mu$ compete is said by ``moves``. Whole, for atoms $x_i$ of weights
$\omega_i$ and $J_{ji} = \partial f_j/\partial x_i$,

$$ \sup_\varepsilon\Bigl(\sum_j\omega_j\bigl|\sum_iJ_{ji}\varepsilon_i\bigr|^p\Big/
   \sum_i\omega_i|\varepsilon_i|^p\Bigr)^{1/p} . $$
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from measattn.checks import positive, traced, whole
from measattn.kernel import need_layer
from measattn.lipschitz.anywhere import anywhere
from measattn.lipschitz.branch import branch_and_bound, readable
from measattn.lipschitz.catalogue import bound
from measattn.lipschitz.closed import anywhere_bound, euclidean, sums
from measattn.lipschitz.derivatives.parts import Parts, parts
from measattn.lipschitz.derivatives.sampled import Sampled, largest
from measattn.lipschitz.domains import AbstractDomain
from measattn.lipschitz.forms import form
from measattn.lipschitz.masses import masses
from measattn.lipschitz.moves import Anywhere, Moves, Split, Whole
from measattn.lipschitz.norms.lanczos import spectral_norm
from measattn.lipschitz.quotient import in_float64
from measattn.lipschitz.results import LocalConstant, Move, metric_name
from measattn.lipschitz.threads import one_blas_thread
from measattn.measure import EmpiricalMeasure, measure, need_measure
from measattn.points import Token, state

WHOLE = Whole()
"""The moves if nothing else is asked for."""

AUTODIFF = 1e-9
"""What is taken off a value that comes from automatic differentiation, relatively."""

EDGES = (
    " Yet nothing is certified above: a mask looks at states, and where a pair of them lies on its "
    "edge the layer jumps."
)
"""Said of layers whose constant is that of their derivative, away from edges."""


def local(
    layer: Any,
    mu: EmpiricalMeasure,
    p: float | int = 1,
    moves: Moves = WHOLE,
    *,
    atoms: Sequence[int] | None = None,
    tol: float | int = 1e-3,
    probability: float | int = 1 - 1e-10,
    starts: int = 16,
    steps: int = 100,
    seed: int = 0,
) -> LocalConstant:
    r"""The local Lipschitz constant of a layer at a measure in $W_p$, from both sides.

    For a masked layer the metric is the position-wise one. Atoms without mass are left out. Layers
    with one attention sublayer have closed forms: attention (self, cross, several heads, masks),
    with residuals, norms and feed-forward maps around it. Of others, such as stacks of blocks, the
    value is attained among the ``atoms`` that are named, by jvp and vjp, and nothing is certified.

    Args:
        layer: a layer.
        mu: the measure, of points (n, d) or of tokens.
        p: the order: 1, 2 or infinity.
        moves: which measures near mu compete: `Whole`, `Split` (p = 1) or `Anywhere` (p = 1).
        atoms: numbers of the atoms to look at, for p = 1 and infinity and layers without closed
            form: those that move (p = 1), or whose outputs are watched (p = ∞).
        tol: how far ``upper`` may exceed ``value``, relatively, before more work is done; for p = 1
            and infinity no promise, since the certificate need not be tight.
        probability: with which the upper bound for p = 2 is to hold if n·d is large, over the
            random start that ``seed`` gives; 1 asks for one without chance, by the weighted Schur
            test, which is wider.
        starts: for `Anywhere`: random starts of the ascent over points of the domain, at least 1.
        steps: of each of these ascents, at least 1.
        seed: a whole number of at least 0, of the random starts.

    Raises:
        ValueError: an order or class of moves that is not known for this layer, a domain that does
            not hold the measure, atoms that are missing or do not exist, a number out of its range,
            or a derivative that is not finite.
        RuntimeError: a value exceeds a theorem, which would be a fault of the library.

    Source: G1, G3 and G4 of docs/theory-lipschitz.md; for `Anywhere` G2 or the theorem of `bound`.
    """
    order = _order(p)
    _check(layer, mu, moves)
    _check_numbers(tol, probability)
    starts, steps, seed = whole("starts", starts, 1), whole("steps", steps, 1), whole("seed", seed)
    if not isinstance(moves, Whole) and order != 1:
        raise ValueError(
            f"p must be 1 for moves={moves}, got {p!r}: for other orders only Whole() is known"
        )
    with jax.enable_x64(True), one_blas_thread():
        layer, (law, kept) = in_float64(layer), _positive(mu)
        weights = masses(law)
        derivative = parts(layer, law)
    rng = np.random.default_rng(seed)
    if derivative is not None:
        if atoms is not None:
            raise ValueError(
                f"atoms must be None for a layer with a closed form, where all count, got {atoms!r}"
            )
        if derivative.masked and isinstance(moves, Anywhere):
            raise ValueError(
                f"moves must be Whole() or Split() for a masked layer, got {moves}: where a point "
                "crosses the mask the layer jumps"
            )
        _check_finite(kept, derivative.past, derivative.after, derivative.before)
        if order == 2:
            found = euclidean(derivative, weights, law, tol, 1.0 - probability, rng)
        else:
            _check_finite(kept, derivative.own)
            inner = WHOLE if isinstance(moves, Whole) else Split()
            found = sums(derivative, weights, law, order, inner, tol)
        if derivative.jumps:
            found = replace(found, upper=math.inf, how=found.how + EDGES)
    elif isinstance(moves, Split):
        raise ValueError(
            "moves=Split() needs a layer with one attention sublayer, which this one is not: use "
            "Whole() with atoms=..., or ask for each of its blocks"
        )
    elif isinstance(moves, Anywhere):
        found = None
    else:
        found = _sampled(Sampled(layer, law, weights), law, kept, order, atoms, rng)
    if isinstance(moves, Anywhere):
        return _anywhere(
            layer, law, derivative, weights, moves, found, kept, (starts, steps), tol, rng
        )
    return _renumbered(found, kept)


def _renumbered(found: Any, kept: NDArray) -> LocalConstant:
    """With the atom counted among all atoms of the measure."""
    atom = found.witness.atom
    if atom is None:
        return found
    return replace(found, witness=found.witness._replace(atom=int(kept[atom])))


def _sampled(
    jacobian: Sampled,
    mu: EmpiricalMeasure,
    kept: NDArray,
    p: float,
    atoms: Any,
    rng: np.random.Generator,
) -> LocalConstant:
    """What some atoms attain, of a layer without closed form."""
    x, root = np.asarray(state(mu.points)), np.sqrt(masses(mu))
    metric = metric_name(isinstance(mu.points, Token), p)
    nothing = "Nothing is certified above: the layer has no closed form."
    if p == 2:
        found = spectral_norm(jacobian, rng, 1.05, 1e-3)
        direction = found.direction.reshape(len(x), -1) / root[:, None]
        how = "value is attained by the witness, by Lanczos with jvp and vjp. " + nothing
        value, witness = found.value, Move(None, x, direction)
    else:
        value, witness = -1.0, Move(None, x, x)
        named = _named(atoms, kept)
        for k in named:
            blocks = jacobian.row(k) if math.isinf(p) else jacobian.column(k)
            if not np.isfinite(blocks).all():
                raise ValueError(
                    f"the Jacobian of the layer is not finite at atom {kept[k]}: the layer is not "
                    "differentiable there; move or drop that atom"
                )
            if p == 1:
                blocks = blocks * (root**2 / root[k] ** 2)[:, None, None]
            size, direction = largest(blocks, rng)
            if size > value:
                value, witness = size, Move(k, x[k], direction)
        how = f"value is attained by the witness, the best of {len(named)} atoms. " + nothing
    return LocalConstant(
        value=value * (1 - AUTODIFF),
        upper=math.inf,
        p=p,
        moves=WHOLE,
        metric=metric,
        witness=witness,
        how=how,
    )


def _anywhere(
    layer: Any,
    mu: EmpiricalMeasure,
    derivative: Parts | None,
    weights: NDArray,
    moves: Anywhere,
    split: LocalConstant | None,
    kept: NDArray,
    effort: tuple[int, int],
    tol: float,
    rng: np.random.Generator,
) -> LocalConstant:
    """From below by ascent over the domain, from above by a theorem or by branch and bound."""
    x = np.asarray(state(mu.points))
    first = (x[0], np.eye(x.shape[1])[0])
    if split is not None:
        first = split.witness.point, split.witness.direction
    with jax.enable_x64(True):
        value, point, direction = anywhere(layer, x, weights, moves.domain, first, *effort, rng)
    value, witness = value * (1 - AUTODIFF), Move(None, point, direction)
    if split is not None and split.value >= value:
        value, witness = split.value, _renumbered(split, kept).witness
    how = f"value is attained by the witness, the best of {effort[0] + 1} ascents over the domain; "
    upper, reason = _above(layer, derivative, weights, moves.domain, x.shape[1])
    if derivative is not None and upper > value * (1 + tol) and readable(derivative, x.shape[1]):
        known = form(layer, x.shape[1])
        ceiling = branch_and_bound(derivative, known, weights, moves.domain, value, tol)
        if ceiling.upper < upper:
            upper = ceiling.upper
            reason = f"certified by branch and bound over {ceiling.cubes:,} cubes (G2)"
        if ceiling.value > value:
            first = ceiling.point, ceiling.direction
            with jax.enable_x64(True):
                value, *place = anywhere(layer, x, weights, moves.domain, first, 0, effort[1], rng)
            value, witness = value * (1 - AUTODIFF), Move(None, *place)
    if value > upper:
        raise RuntimeError(
            f"the search attains {value!r}, above the upper end {upper!r} that is {reason}: one of "
            "them is wrong, please report it with the layer, the measure and the domain"
        )
    how += (
        f"upper is {reason}." if math.isfinite(upper) else f"nothing is certified above: {reason}"
    )
    return LocalConstant(
        value=value, upper=upper, p=1.0, moves=moves, metric="W1", witness=witness, how=how
    )


def _above(
    layer: Any, derivative: Parts | None, weights: NDArray, domain: AbstractDomain, dimension: int
) -> tuple[float, str]:
    """The smallest proved upper bound of the constant Anywhere, and its reason."""
    upper, reason = math.inf, "no theorem applies"
    try:
        proved = bound(layer, domain, 1, dimension=dimension)
        if proved.metric == "W1":
            upper, reason = proved.value, f"certified by {proved.theorem} for the whole domain"
        if derivative is not None:
            near = anywhere_bound(derivative, form(layer, dimension), weights, domain)
            if near < upper:
                upper, reason = near, "certified by G2, from the atoms of the measure"
    except ValueError as refusal:
        reason = reason if math.isfinite(upper) else str(refusal)
    return upper, reason


def _named(atoms: Any, kept: NDArray) -> list[int]:
    """The places, among atoms with mass, of the atoms that the caller names."""
    if atoms is None or not len(atoms):
        raise ValueError(
            f"atoms must name the atoms to look at, got {atoms!r}: a layer without closed form is "
            "differentiated once for each of their coordinates; give atoms=[0, 1, ...]"
        )
    where = {int(k): place for place, k in enumerate(kept)}
    missing = [k for k in atoms if int(k) not in where]
    if missing:
        raise ValueError(
            f"atoms must be numbers of atoms of mu with mass, got {missing[0]!r}: there are "
            f"{len(kept)} such atoms, the last is {kept[-1]}"
        )
    return [where[int(k)] for k in atoms]


def _order(p: Any) -> float:
    known = isinstance(p, (int, float, np.integer)) and not isinstance(p, bool)
    if not known or float(p) not in (1.0, 2.0, math.inf):
        raise ValueError(f"p must be 1, 2 or infinity for a local constant, got {p!r}")
    return float(p)


def _check_numbers(tol: Any, probability: Any) -> None:
    positive("tol", tol, "1e-3")
    if not _real(probability) or not 0 < probability <= 1:
        raise ValueError(
            f"probability must be between 0 and 1, such as 1 - 1e-10, or 1 for a bound without "
            f"chance, got {probability!r}"
        )


def _real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check(layer: Any, mu: Any, moves: Any) -> None:
    need_layer(layer)
    need_measure("mu", mu)
    if traced(layer, mu):
        raise ValueError(
            "layer and mu must be concrete, and got traced values: constants are certified on the "
            "host, so call local outside jit, grad and vmap"
        )
    if not isinstance(moves, (Whole, Split, Anywhere)):
        raise ValueError(f"moves must be Whole(), Split() or Anywhere(domain), got {moves!r}")
    if isinstance(moves, Anywhere):
        if not isinstance(moves.domain, AbstractDomain) or not math.isfinite(moves.domain.radius):
            raise ValueError(
                f"domain of Anywhere must be a bounded domain such as Ball(1.0), got "
                f"{moves.domain!r}"
            )
        if isinstance(mu.points, Token):
            raise ValueError(
                "moves=Anywhere(domain) needs points without positions, got tokens: pass "
                "states(mu), or use Whole() for a layer that looks at positions"
            )
        centre = moves.domain.centre
        if centre is not None and len(centre) != mu.dimension:
            raise ValueError(
                f"domain of Anywhere must have the dimension {mu.dimension} of mu, got "
                f"{moves.domain!r} in dimension {len(centre)}"
            )
        moves.domain.check(mu)


def _positive(mu: EmpiricalMeasure) -> tuple[EmpiricalMeasure, NDArray]:
    """The atoms with mass, in float64, and their numbers."""
    kept = np.flatnonzero(masses(mu) > 0)
    points = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64)[kept], mu.points)
    if not np.isfinite(np.asarray(state(points))).all():
        raise ValueError(
            "mu must have finite points, got NaN or infinity: drop or repair these atoms"
        )
    return measure(points, jnp.asarray(mu.log_weights, jnp.float64)[kept]), kept


def _check_finite(kept: NDArray, *matrices: NDArray | None) -> None:
    """Refuse matrices of the atoms with entries that are NaN or infinite, naming the first atom."""
    for what in matrices:
        bad = [] if what is None else np.flatnonzero(~np.isfinite(what).all(axis=(1, 2)))
        if len(bad):
            raise ValueError(
                f"the Jacobian of the layer is not finite at atom {kept[bad[0]]}: the layer is not "
                "differentiable there, or its scores overflow; move or drop that atom"
            )
