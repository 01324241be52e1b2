"""What a solver is given, and what it gives."""

import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from measattn.wasserstein.certificate import Certified
from measattn.wasserstein.ground import Vector
from measattn.wasserstein.plan import Arcs, Plan
from measattn.wasserstein.problem import Problem
from measattn.wasserstein.solution import Bracket


class Start(NamedTuple):
    """Where to start: the potentials of a nearby problem and the arcs that were active there."""

    u: Vector
    v: Vector
    arcs: Arcs


def _unwatched(bracket: Bracket) -> None:
    """No one watches."""


@dataclass(frozen=True)
class Run:
    """How a problem is to be solved.

    Attributes:
        tol: the relative gap that will be accepted.
        start: the solution of a nearby problem, for solvers that can use it.
        watch: called with the bracket after each round.
    """

    tol: float | int = 1e-9
    start: Start | None = None
    watch: Callable[[Bracket], None] = field(default=_unwatched)


@dataclass(frozen=True, eq=False)
class Proposal:
    """A plan and a potential on the sources, not yet judged.

    Attributes:
        plan: the plan.
        u: the potential (n,).
        solver: who proposes it, and why.
        iterations: rounds or pivots.
        trace: the brackets of the rounds.
        certified: the judgement, where the solver has asked for it already.
        active: arcs of small reduced cost, for the next problem, where the solver has them.
    """

    plan: Plan
    u: Vector
    solver: str
    iterations: int = 0
    trace: tuple[Bracket, ...] = ()
    certified: Certified | None = None
    active: Arcs | None = None


class AbstractSolver(abc.ABC):
    """A method for the Kantorovich problem."""

    exact: bool = True
    """Whether the method promises to close the gap."""

    @abc.abstractmethod
    def solve(self, problem: Problem, run: Run) -> Proposal:
        """A plan and a dual potential."""
