"""Entropic transport: an estimate with a certified bracket of its own."""

from dataclasses import dataclass

import numpy as np

from measattn.checks import positive, whole
from measattn.wasserstein.ground import Matrix, Vector
from measattn.wasserstein.plan import Plan
from measattn.wasserstein.problem import Problem
from measattn.wasserstein.solvers.base import AbstractSolver, Proposal, Run

LARGEST = 2**24
"""More pairs than this are not held as a plan."""

COOLING = 4.0
"""The factor between one temperature and the next."""

UNDERFLOWN = 1e-250
"""Sums of the kernel are held above this: the scalings then grow until the potentials take them."""

LARGEST_SCALING = 1e100
"""Scalings beyond this are taken into the potentials."""


@dataclass(frozen=True)
class Sinkhorn(AbstractSolver):
    r"""The plan of least $\sum C_{ij}\pi_{ij} + \varepsilon\,\mathrm{KL}(\pi | a\otimes b)$.

    It stops when the mass that is still out of place, times the largest cost, is below
    $\varepsilon$. Its plan is rounded to the exact marginals (Altschuler, Weed and Rigollet 2017,
    Algorithm 2), its potential c-transformed: the bracket is certified, but its width is about
    $\varepsilon\log n$ of the largest cost and is not promised to close. With the default
    temperature that is a few per cent of $W_1$; of $W_2$ a tenth to a third between clouds that are
    near against their diameter, because costs are squares.

    Attributes:
        epsilon: the temperature relative to the largest cost; the iterations grow as its inverse.
        iterations: the most iterations.
    """

    epsilon: float | int = 1e-3
    iterations: int = 10_000
    exact = False

    def __post_init__(self):
        object.__setattr__(self, "epsilon", positive("epsilon", self.epsilon, "1e-2"))
        object.__setattr__(self, "iterations", whole("iterations", self.iterations, 1))

    def solve(self, problem: Problem, run: Run) -> Proposal:
        """Iterations at falling temperatures."""
        n, m = problem.ground.shape
        if n * m > LARGEST:
            raise ValueError(
                f"Sinkhorn holds the plan of {n}·{m} entries, more than {LARGEST}: use "
                "ColumnGeneration(), which is exact and needs memory for few of them"
            )
        cost, total = problem.cost, problem.a.sum()
        largest = max(float(cost.max()), np.finfo(float).tiny)
        a, b = problem.a / total, problem.b / problem.b.sum()
        f, plan, count = _iterated(cost / largest, a, b, float(self.epsilon), self.iterations)
        rounded = _with_marginals(plan, a, b) * total
        rows, cols = np.nonzero(rounded)
        return Proposal(Plan(rows, cols, rounded[rows, cols]), largest * f, "Sinkhorn", count)


def _iterated(
    cost: Matrix, a: Vector, b: Vector, epsilon: float, iterations: int
) -> tuple[Vector, Matrix, int]:
    r"""The potential f, the plan $a_i b_j e^{(f_i + g_j - C_{ij})/\varepsilon}$, and the count.

    The temperature falls from 1, each solution starting the next one. At each temperature the
    plan is scaled by vectors, which are taken into the potentials before they leave float64.
    """
    temperature, count, g = max(1.0, epsilon), 0, np.zeros(len(b))
    while True:
        f, kernel = _rows_met(cost, g, a, b, temperature)
        u, v, met = np.ones(len(a)), np.ones(len(b)), False
        while not met and count < iterations and _moderate(u) and _moderate(v):
            count += 1
            column = np.maximum(u @ kernel, UNDERFLOWN)
            met = np.abs(v * column - b).sum() <= temperature
            v = b / column
            u = a / np.maximum(kernel @ v, UNDERFLOWN)
        f, g = f + temperature * np.log(u), g + temperature * np.log(v)
        if count == iterations or (met and temperature == epsilon):
            return f, u[:, None] * kernel * v, count
        if met:
            temperature = max(temperature / COOLING, epsilon)


def _moderate(scaling: Vector) -> bool:
    return bool(scaling.max() < LARGEST_SCALING and scaling.min() > 1 / LARGEST_SCALING)


def _rows_met(
    cost: Matrix, g: Vector, a: Vector, b: Vector, epsilon: float
) -> tuple[Vector, Matrix]:
    """The potential f of least free energy for a given g, and the plan: its rows sum to a."""
    exponent = (g - cost) / epsilon + np.log(b)
    largest = exponent.max(axis=1, keepdims=True)
    kernel = np.exp(exponent - largest)
    total = kernel.sum(axis=1, keepdims=True)
    return -epsilon * (largest + np.log(total))[:, 0], kernel * (a[:, None] / total)


def _with_marginals(plan: Matrix, a: np.ndarray, b: np.ndarray) -> Matrix:
    """The nearby plan that has the marginals: shrink what is too much, spread what is missing."""
    rows = plan.sum(axis=1)
    plan = plan * np.minimum(1, a / np.where(rows > 0, rows, 1))[:, None]
    cols = plan.sum(axis=0)
    plan = plan * np.minimum(1, b / np.where(cols > 0, cols, 1))[None, :]
    short_a = np.maximum(a - plan.sum(axis=1), 0)
    short_b = np.maximum(b - plan.sum(axis=0), 0)
    missing = short_a.sum()
    return plan if missing == 0 else plan + np.outer(short_a, short_b) / missing
