r"""The path of a measure through a deep stack, $\mu_{t+1} = \mu_t K^{(t)}_{\mu_t}$.

Source: the infinitely deep self-attention of [VBT20] is the limit of such paths, for weights that
all layers share.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ScalarLike
from numpy.typing import NDArray

from measattn.attention import SelfAttention
from measattn.checks import callback, positive, whole
from measattn.dynamics.distances import Chain, Distances
from measattn.dynamics.observables import Observed, diameter, observed
from measattn.dynamics.rate import Rate, fit_rate
from measattn.dynamics.steps import advance, check_layer, one_measure
from measattn.kernel import Stack
from measattn.measure import EmpiricalMeasure, measure
from measattn.potential import as_potential
from measattn.wasserstein import Auto
from measattn.wasserstein.w1 import check_method

CHUNK = 2**26
"""Bytes of states that one scan may return."""

LONGEST = 256
"""The most steps of one scan, so that progress is seen."""

WIDTH = 0.05
"""The bandwidth of clusters, as a part of the first diameter."""

SHOWN = 8
"""So many steps are named one by one."""

Watch = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Trajectory:
    r"""Measures $\mu_0, \mu_1, \dots, \mu_T$, and what was seen of them.

    Attributes:
        steps: T, how many steps were made.
        kept: some of the measures by their step, the first and the last among them.
        w1: $W_1(\mu_{t-1}, \mu_t)$, (T,), attained by a plan; empty if it was not asked for.
        lower: certified from below (T,).
        upper: certified from above (T,).
        reference: $W_1(\mu_t, \nu)$ to the reference measure ν, ``reference.w1`` (T + 1,) with
            ``reference.lower`` and ``reference.upper``; empty if there is none.
        radius: of each measure (T + 1,), likewise empty if it was not asked for.
        diameter: likewise.
        clusters: their effective number, likewise.
        cosine: the mean cosine of the angle between two atoms, likewise.
        rank: the effective rank of the centred cloud, likewise.
        energy: the interaction energy (T + 1,); empty without a potential.
        status: in full sentences, whether all steps were made, and at which a distance could not
            be certified as exactly as ``tol`` asks; its ``lower`` and ``upper`` hold all the same.
    """

    steps: int
    kept: dict[int, EmpiricalMeasure] = field(repr=False)
    w1: NDArray = field(repr=False)
    lower: NDArray = field(repr=False)
    upper: NDArray = field(repr=False)
    reference: Distances = field(repr=False)
    radius: NDArray = field(repr=False)
    diameter: NDArray = field(repr=False)
    clusters: NDArray = field(repr=False)
    cosine: NDArray = field(repr=False)
    rank: NDArray = field(repr=False)
    energy: NDArray = field(repr=False)
    status: str

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, step: Any) -> EmpiricalMeasure:
        if not isinstance(step, Integral):
            raise TypeError(
                f"a step is a whole number, got {step!r}: for several write [path[k] for k in ...]"
            )
        at = int(step)
        at += (self.steps + 1) * (at < 0)
        if not 0 <= at <= self.steps:
            raise IndexError(f"step {step} does not exist: this path has steps 0 to {self.steps}")
        if at not in self.kept:
            raise KeyError(f"step {step} was not kept: pass keep=[{at}] or keep='all'")
        return self.kept[at]

    def __iter__(self) -> Iterator[EmpiricalMeasure]:
        return (self.kept[step] for step in sorted(self.kept))

    def rate(self) -> Rate:
        """The fitted factor by which W1 steps shrink.

        Raises:
            ValueError: no distances, or too few above rounding.
        """
        if len(self.w1) == 0:
            remedy = "pass distances=True" if self.steps else "it has no steps"
            raise ValueError(f"the trajectory has no distances: {remedy}")
        return fit_rate(self.w1, float(np.max(self.upper - self.lower)))

    def __repr__(self) -> str:
        seen = ""
        if len(self.w1):
            seen = f", last W1 step {self.w1[-1]:.4g}"
        if len(self.diameter):
            seen += f", diameter {self.diameter[0]:.4g} to {self.diameter[-1]:.4g}"
        return f"Trajectory({self.steps} steps{seen}: {self.status})"


def iterate(
    layer: Any,
    mu: EmpiricalMeasure,
    steps: ScalarLike,
    *,
    distances: bool = True,
    reference: Any = None,
    observe: bool = True,
    keep: Iterable[int] | str = (),
    bandwidth: ScalarLike | None = None,
    potential: Any = None,
    tol: ScalarLike = 1e-9,
    watch: Watch | None = None,
) -> Trajectory:
    r"""Apply a layer again and again, $\mu_{t+1} = \mu_t K_{\mu_t}$.

    The steps run in compiled scans. Distances are exact and certified; after one that needed
    column generation the next starts from its arcs and potentials.

    Args:
        layer: a layer that keeps the dimension of states.
        mu: $\mu_0$.
        steps: T.
        distances: compute $W_1(\mu_{t-1},\mu_t)$ between the laws of the states.
        reference: ν, to compute $W_1(\mu_t,\nu)$ as well: ``mu`` itself, or a limit.
        observe: record radius, diameter, effective number of clusters, mean cosine and rank.
        keep: the steps whose measures are kept besides the first and the last; "all" keeps all.
        bandwidth: of the clusters; 0.05 times the diameter of ``mu`` by default.
        potential: whose interaction energy is observed; that of the layer if it is self-attention.
        tol: of the distances, as for `wasserstein.w1`.
        watch: called as ``watch(step, steps)`` on the way, ``measattn.progress`` for a bar.

    Raises:
        ValueError: a layer that changes the dimension, steps that is no whole number, or another
            argument that makes no sense.

    A state that is not finite ends the path; the last good measure is kept, ``status`` says where.
    So it does where the gap of a distance did not close, the TransportError of `wasserstein.w1`.
    """
    check_layer(layer, mu)
    steps = whole("steps", steps)
    if potential is None and isinstance(layer, SelfAttention):
        potential = layer.potential
    size = min(LONGEST, max(1, CHUNK // (mu.size * mu.dimension * mu.dtype.itemsize)))
    runs = [(layer, min(size, steps - done)) for done in range(0, steps, size)]
    records = _Records(mu, steps, keep, distances, reference, tol)
    look = _look(mu, observe, bandwidth, potential, records.needed)
    callback("watch", watch, "step and steps")
    return _follow(runs, mu, look, records, watch)


def through(
    stack: Any,
    mu: EmpiricalMeasure,
    *,
    distances: bool = True,
    reference: Any = None,
    observe: bool = True,
    keep: Iterable[int] | str = (),
    bandwidth: ScalarLike | None = None,
    potential: Any = None,
    tol: ScalarLike = 1e-9,
    watch: Watch | None = None,
) -> Trajectory:
    r"""Go through different layers, one a step: $\mu_{t+1} = \mu_t K^{(t)}_{\mu_t}$.

    Layers of one structure, such as those of a trained transformer, are compiled once.

    Args:
        stack: a `Stack`, or a sequence of layers, such as ``ma.pretrained.minilm().layers``; each
            keeps the dimension of states.
        mu: $\mu_0$.
        distances: as for `iterate`, likewise the rest.
        reference: ν.
        observe: what is recorded besides.
        keep: steps whose measures are kept.
        bandwidth: of the clusters.
        potential: whose interaction energy is observed; none by default.
        tol: of the distances.
        watch: called as ``watch(step, steps)``.

    Raises:
        ValueError: no sequence of layers, or a layer that changes the dimension.
    """
    layers = (stack if isinstance(stack, Stack) else Stack(stack)).layers
    for layer in layers:
        check_layer(layer, mu)
    records = _Records(mu, len(layers), keep, distances, reference, tol)
    look = _look(mu, observe, bandwidth, potential, records.needed)
    callback("watch", watch, "step and steps")
    return _follow([(layer, 1) for layer in layers], mu, look, records, watch)


def _look(
    mu: EmpiricalMeasure, observe: bool, bandwidth: Any, potential: Any, path: bool
) -> "_Look":
    wide = _bandwidth(mu, bandwidth) if observe or bandwidth is not None else None
    known = None if potential is None else as_potential(potential)
    return _Look(wide, known, path) if observe else _Look(None, None, path)


class _Look(eqx.Module):
    """What is recorded of each measure: its points, and what is observed."""

    bandwidth: Array | None
    potential: Any
    path: bool = eqx.field(static=True)

    def __call__(self, mu: EmpiricalMeasure) -> tuple:
        seen = observed(mu, self.bandwidth, self.potential)
        return (mu.points if self.path else None), seen


class _Records:
    """What is computed from each measure after its step: distances, and which are kept."""

    def __init__(
        self,
        mu: EmpiricalMeasure,
        steps: int,
        keep: Any,
        distances: bool,
        reference: Any,
        tol: Any,
    ):
        tol = check_method(Auto(), tol)
        self.kept, self._wanted = {0: mu}, _wanted(keep, steps)
        self._distances, self._reference = distances, _reference(reference, mu)
        self.between, self.away = Chain(tol), Chain(tol)
        if self._reference is not None:
            self.away.add(mu, self._reference)

    @property
    def needed(self) -> bool:
        return self._distances or self._reference is not None or bool(self._wanted)

    @property
    def doubts(self) -> str:
        """Which distances are not as exact as was asked for, in a sentence for each kind."""
        told = ""
        for kind, wide in (
            ("The distances of steps", [number + 1 for number in self.between.wide]),
            ("The distances to the reference after steps", self.away.wide),
        ):
            if wide:
                listed = ", ".join(map(str, wide[:SHOWN])) + ", ..." * (len(wide) > SHOWN)
                told += f" {kind} {listed} have wider brackets than tol asks for."
        return told

    def add(self, step: int, before: EmpiricalMeasure, after: EmpiricalMeasure) -> None:
        if self._distances:
            self.between.add(before, after)
        if self._reference is not None:
            self.away.add(after, self._reference)
        if step in self._wanted:
            self.kept[step] = after


def _follow(
    runs: Sequence[tuple[Any, int]],
    mu: EmpiricalMeasure,
    look: _Look,
    records: _Records,
    watch: Watch | None,
) -> Trajectory:
    """A path through runs, each a layer and how often it is applied in one compiled scan."""
    steps = sum(count for _, count in runs)
    looks = [_first(look, mu)]
    done, last, status = 0, mu, "All steps were made."
    for layer, count in runs:
        points, finite, (path, seen) = advance(layer, last.points, mu.log_weights, count, look)
        good = int(np.sum(finite))
        looks.append(jax.tree.map(lambda a, good=good: np.asarray(a)[:good], seen))
        for k in range(good) if look.path else ():
            nu = measure(jax.tree.map(lambda a, k=k: a[k], path), mu.log_weights)
            records.add(done + k + 1, last, nu)
            last = nu
            if watch is not None and k + 1 < good:
                watch(done + k + 1, steps)
        done, last = done + good, measure(points, mu.log_weights)
        if watch is not None:
            watch(done, steps)
        if good < count:
            status = f"Step {done + 1} has states that are not finite; step {done} is the last."
            break
    status += records.doubts
    seen = Observed(*(np.concatenate(part).reshape(-1) for part in zip(*looks, strict=True)))
    return Trajectory(
        steps=done,
        kept={**records.kept, done: last},
        **records.between.distances._asdict(),
        reference=records.away.distances,
        status=status,
        **seen._asdict(),
    )


def _reference(reference: Any, mu: EmpiricalMeasure) -> EmpiricalMeasure | None:
    if reference is None:
        return None
    if not isinstance(reference, EmpiricalMeasure) or reference.dimension != mu.dimension:
        is_one = isinstance(reference, EmpiricalMeasure)
        got = repr(reference) if is_one else f"a {type(reference).__name__}"
        raise ValueError(
            f"reference must be an EmpiricalMeasure with states of dimension {mu.dimension}, as mu "
            f"has, got {got}"
        )
    one_measure("reference", reference)
    return reference


def _wanted(keep: Iterable[int] | str, steps: int) -> set[int]:
    if isinstance(keep, str):
        if keep != "all":
            raise ValueError(f'keep must be steps, such as [5, 10], or "all", got {keep!r}')
        return set(range(steps + 1))
    if not isinstance(keep, Iterable):
        raise ValueError(f'keep must be steps, such as [5, 10], or "all", got {keep!r}')
    wanted = {whole("a step of keep", step) for step in keep}
    if late := sorted(step for step in wanted if step > steps):
        raise ValueError(f"keep must name steps from 0 to {steps}, got {late}")
    return wanted


def _first(look: _Look, mu: EmpiricalMeasure) -> Observed:
    return jax.tree.map(lambda a: np.asarray(a)[None], eqx.filter_jit(look)(mu)[1])


def _bandwidth(mu: EmpiricalMeasure, bandwidth: Any) -> Array:
    if bandwidth is not None:
        return jnp.asarray(positive("bandwidth", bandwidth, "0.1"), mu.dtype)
    wide = WIDTH * diameter(mu)
    return jnp.where(wide > 0, wide, 1)
