"""The bracket against exact arithmetic, and what catches a certificate that is broken."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from measattn.wasserstein import Auto, ColumnGeneration, NetworkSimplex, certificate, tiles
from measattn.wasserstein.problem import pose_points
from measattn.wasserstein.solvers import Run
from measattn.wasserstein.w1 import solve_posed
from tests import oracles
from tests.strategies import bounded, shares

pytestmark = pytest.mark.float64

SPREADS = (1.0, 0.1, 1e-7)
SOLVERS = (Auto(), NetworkSimplex(), ColumnGeneration())


@st.composite
def problems(draw):
    """Points on few sites about an offset that rounds, and masses that are exact."""
    n, m = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    spread = draw(st.sampled_from(SPREADS))
    x, y = (rng.integers(-3, 4, (k, 2)) * spread + np.pi for k in (n, m))
    return x, draw(shares(n)), y, draw(shares(m))


def bracket_and_truth(problem, p, solver):
    x, a, y, b = problem
    posed = pose_points(x, a, y, b, float(p), run=tiles.on_the_host)
    solution = solve_posed(posed, solver, tol=1e-6, start=None, watch=None)
    return solution, oracles.exact_transport(oracles.exact_cost(x, y, p), a, b)


@bounded
@given(
    problems(),
    st.sampled_from([1, 2]),
    st.sampled_from(SOLVERS),
)
def test_the_bracket_contains_the_exact_distance(problem, p, solver):
    solution, exact = bracket_and_truth(problem, p, solver)
    assert Fraction(solution.lower) ** p <= exact <= Fraction(solution.upper) ** p


def test_a_bracket_without_allowance_for_rounding_misses_the_exact_distance(monkeypatch):
    monkeypatch.setattr(certificate, "UNIT", 0.0)
    monkeypatch.setattr("measattn.wasserstein.ground.UNIT", 0.0)
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(40):
        x, y = (0.1 * rng.integers(-3, 4, (4, 2)) + np.pi for _ in range(2))
        masses = np.full(4, 0.25)
        problem = pose_points(x, masses, y, masses, 1.0, run=tiles.on_the_host)
        if len(problem.problem.a) == 0:
            continue
        proposal = Auto().solve(problem.problem, Run())
        bracket = certificate.certify(problem.problem, proposal.plan, proposal.u)
        exact = oracles.exact_transport(oracles.exact_cost(x, y, 1), masses, masses)
        unit = Fraction(problem.unit)
        below, above = (Fraction(c) * unit for c in (bracket.below.lower, bracket.above.upper))
        missed += not below <= exact <= above
    assert missed > 0
