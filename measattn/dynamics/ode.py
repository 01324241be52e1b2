r"""Ordinary differential equations $\dot y = F(t, y)$ through diffrax, with a status in words.

Steps are adaptive and end at the times that are to be saved, so that nothing is interpolated. This
is the only file that imports diffrax, and it does so when the first equation is solved.
"""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from measattn.checks import host_array, host_number, positive, traced, whole

ARRIVED = "the end was reached, each step within the tolerance"
OUT_OF_STEPS = "the steps ran out"
BLOWN_UP = (
    "the steps shrank to the spacing of floats: the solution becomes infinite, or is not smooth"
)
NOT_FINITE = "the velocity is not finite at the start"

REMEDIES = {
    OUT_OF_STEPS: "ask for a shorter time, a larger tolerance or more max_steps",
    NOT_FINITE: "scale the layer or the start down until scores and values are finite",
}
"""What to do about it; where the solution itself ends, a shorter time."""


class FlowError(RuntimeError):
    """A flow did not reach its last time; ``flow`` holds what was reached before."""

    def __init__(self, message: str, flow: Any):
        super().__init__(message)
        self.flow = flow


class Path(NamedTuple):
    """A solution at the times that were reached, and how its computation ended.

    Attributes:
        times: (k,); after a failure the last one is that of the last accepted step.
        values: as the start, each leaf with a leading axis k.
        status: a sentence; `ARRIVED` if all times were reached.
        steps: accepted steps.
        rejected: steps that were tried again with a smaller size.
    """

    times: Float[Array, " k"]
    values: PyTree
    status: str
    steps: int | Int[Array, ""]
    rejected: int | Int[Array, ""]


def tolerances(dtype: Any, rtol: Any, atol: Any) -> tuple[float, float]:
    """The two tolerances of a step: near the rounding of the dtype unless given.

    Raises:
        ValueError: negative, both 0, or a relative one below the rounding of the dtype.
    """
    eps = float(jnp.finfo(dtype).eps)
    rtol = (2e4 * eps if eps < 1e-10 else 50 * eps) if rtol is None else rtol
    relative = host_number(rtol)
    if relative is None or not 4 * eps <= relative < 1:
        raise ValueError(
            f"rtol must be from {4 * eps:.1g} (the rounding of {jnp.dtype(dtype).name}) to 1, got "
            f"{rtol!r}; for smaller errors pass points in float64"
        )
    absolute = relative / 100 if atol is None else host_number(atol)
    if absolute is None or not 0 <= absolute < np.inf:
        raise ValueError(f"atol must be finite and at least 0, such as 1e-12, got {atol!r}")
    return relative, absolute


def grid(time: Any, save: Any, dtype: Any) -> np.ndarray:
    """The times to be saved: equally many of them from 0 to ``time``, or those that are given.

    Raises:
        ValueError: the time is not positive, or the times do not increase from 0 to it.
    """
    time = positive("time", time, "1.0")
    if np.ndim(save) == 0:
        times = np.linspace(0, time, whole("save", save, 2))  # the start and the end
    else:
        times = host_array("save", save)
    steps = np.diff(times.astype(jnp.dtype(dtype)).astype(np.float64))
    ordered = times.ndim == 1 and len(times) > 0 and np.all(steps > 0)
    if not (ordered and times[0] >= 0 and times[-1] <= time and np.all(np.isfinite(times))):
        raise ValueError(
            f"save must be a number of times, or times that increase within [0, {time}], got {save}"
        )
    return times


def solve(
    field: Callable[[Any, PyTree, PyTree], PyTree],
    start: PyTree,
    time: Any,
    times: np.ndarray,
    args: PyTree,
    *,
    rtol: float,
    atol: float,
    max_steps: int,
) -> Path:
    """The solution of the equation, at the times; whoever calls raises if it did not arrive.

    Args:
        field: F as a function (t, y, args), defined once: a new lambda compiles anew.
        start: y at time 0, a pytree of arrays of one dtype.
        time: the last time.
        times: (k,), increasing within [0, time].
        args: what the field depends on.
        rtol: bound of the estimated error of a step, relative to the size of y.
        atol: the same, absolute.
        max_steps: how many steps, rejected ones included, may be tried.
    """
    diffrax = _diffrax()
    dtype = jax.tree.leaves(start)[0].dtype
    t1, ts = jnp.asarray(time, dtype), jnp.asarray(times, dtype)
    # numbers as arrays: floats would compile everything anew for each value
    least = jnp.asarray(4 * float(jnp.finfo(dtype).eps) * float(time), dtype)
    controller = diffrax.PIDController(
        rtol=jnp.asarray(rtol, dtype),
        atol=jnp.asarray(atol, dtype),
        dtmin=least,
        force_dtmin=False,
    )
    inner = ts[(times > 0) & (times < float(time))]
    if len(inner):
        controller = diffrax.ClipStepSizeController(controller, step_ts=inner)
    # under jit a sum is traced, also where all that goes in is known
    now = traced(start, args, t1 + 1)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Dopri8() if jnp.finfo(dtype).eps < 1e-10 else diffrax.Tsit5(),
        t0=jnp.zeros((), dtype),
        t1=t1,
        dt0=None,
        y0=start,
        args=args,
        saveat=diffrax.SaveAt(subs=(diffrax.SubSaveAt(ts=ts), diffrax.SubSaveAt(t1=True))),
        stepsize_controller=controller,
        max_steps=max_steps,
        throw=now,
    )
    (saved, end), (values, last) = solution.ts, solution.ys
    accepted, rejected = (solution.stats[f"num_{kind}_steps"] for kind in ("accepted", "rejected"))
    if now:
        return Path(ts, values, ARRIVED, accepted, rejected)
    status = _words(diffrax, solution.result)
    if int(accepted) == 0 and not _finite(field(jnp.zeros((), dtype), start, args)):
        status, end, last = NOT_FINITE, jnp.zeros(1, dtype), jax.tree.map(lambda a: a[None], start)
    reached = int(np.isfinite(np.asarray(saved)).sum())
    ts, values = ts[:reached], jax.tree.map(lambda a: a[:reached], values)
    if status != ARRIVED and (reached == 0 or end[0] > ts[-1]):
        ts, values = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), (ts, values), (end, last))
    return Path(ts, values, status, int(accepted), int(rejected))


def _finite(values: PyTree) -> bool:
    return all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(values))


def _words(diffrax: Any, result: Any) -> str:
    results = diffrax.RESULTS
    if result == results.successful:
        return ARRIVED
    return OUT_OF_STEPS if result == results.max_steps_reached else BLOWN_UP


def _diffrax() -> Any:
    try:
        return importlib.import_module("diffrax")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "flows need diffrax: pip install 'measattn[flow]'", name=error.name
        ) from error
