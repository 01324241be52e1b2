"""What a transport solver returns: a distance, its certified bracket, a plan and potentials."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

from measattn.digits import order_name
from measattn.wasserstein.ground import Vector
from measattn.wasserstein.number import AbstractNumber
from measattn.wasserstein.plan import Arcs, Plan
from measattn.wasserstein.support import Support


class TransportError(RuntimeError):
    """A solver did not close the gap; ``solution`` carries the bracket that it reached."""

    def __init__(self, message: str, solution: "Solution"):
        super().__init__(message)
        self.solution = solution

    def __reduce__(self) -> tuple:
        return type(self), (str(self), self.solution)


class Bracket(NamedTuple):
    """What is certified after one round of a solver: ``lower`` ≤ the distance ≤ ``upper``."""

    lower: float
    upper: float
    arcs: int


@dataclass(frozen=True, eq=False, repr=False)
class Solution(AbstractNumber):
    """A Wasserstein distance of order p with a two-sided certificate.

    Attributes:
        value: the p-th root of the cost of the plan (attained up to the rounding of its masses).
        lower: certified, from feasible dual potentials.
        upper: certified, from the plan.
        plan: the plan between the atoms of mu and nu as they were given, sparse.
        p: the order.
        solver: the name of the solver and why it was chosen.
        status: how it ended, in full sentences.
        iterations: the rounds or pivots that the solver counts; 0 for direct methods.
        seconds: the time it took.
        trace: the certified brackets round by round, for solvers that have rounds.
        supports: how many atoms mu and nu have and, between measures, a fingerprint of where.
        active: arcs of small reduced cost, from which a nearby problem may start; None for solvers
            that have no use for them.
    """

    value: float
    lower: float
    upper: float
    plan: Plan
    p: float
    solver: str
    status: str
    iterations: int
    seconds: float
    trace: tuple[Bracket, ...]
    dual: Callable[[], tuple[Vector, Vector]]
    supports: tuple[Support, Support]
    active: Arcs | None = None

    @cached_property
    def potentials(self) -> tuple[Vector, Vector]:
        r"""Feasible dual potentials (u, v) on all atoms: $u_i + v_j \le |x_i - y_j|^p$.

        Computed on first use: atoms whose mass was cancelled get theirs by a c-transform. Those of
        `conditional` are feasible for atoms at one position. Infinite where they leave float64.
        """
        return self.dual()

    def __getstate__(self) -> dict:
        # the potentials themselves, because a metric of one's own may have no name to be pickled by
        return self.__dict__ | {"dual": partial(tuple, self.potentials)}

    def __repr__(self) -> str:
        return f"W{order_name(self.p)} {self._known(self.solver, f'{self.seconds:.2g} s')}"
