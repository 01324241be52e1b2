"""What transport cannot use is refused by name, with a remedy; what it can use is accepted."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from measattn.wasserstein import (
    NetworkSimplex,
    Problem,
    TransportError,
    barycentric_map,
    conditional,
    displacement,
    distance,
    solve,
    total_variation,
    transport_problem,
    w1,
    w1_to_gaussian,
    w2_gaussians,
    w_inf,
    wp,
)
from measattn.wasserstein.ground import Table
from measattn.wasserstein.w1 import check_method
from tests import oracles
from tests.transport.clouds import cloud, line
from tests.transport.test_relatives import tokens

pytestmark = pytest.mark.float64

MU, NU = line(0, 1, 2), line(0.5, 1.5, 2.5)
TWO = np.ones((2, 2))
TOKENS = tokens([0, 1], np.eye(2))
HALF = np.full(2, 0.5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: w2_gaussians([np.nan], 1.0, 0.0, 1.0), "^mean must be finite, got nan"),
        (lambda: w2_gaussians(0.0, 1.0, [np.inf], 1.0), "^other_mean must be finite, got inf"),
        (lambda: w2_gaussians(0.0, [[np.nan]], 0.0, 1.0), "^covariance must be finite, got nan"),
        (lambda: w2_gaussians(0.0, 1.0, 0.0, [[1.0, 2.0]]), r"^other_covariance must be a matrix"),
        (
            lambda: w2_gaussians([0, 0], [[1, 2], [0, 1]], [0, 0], np.eye(2)),
            "^covariance must be symmetric",
        ),
        (lambda: w2_gaussians("a", 1.0, 0.0, 1.0), "^mean must be real numbers"),
        (lambda: w2_gaussians(1j, 1.0, 0.0, 1.0), "^mean must be real numbers.*complex"),
        (lambda: jax.jit(lambda m: w2_gaussians(m, 1.0, 0.0, 1.0))(0.0), "^mean must be concrete"),
        (
            lambda: jax.jit(lambda s: w2_gaussians(0.0, 1.0, 0.0, s))(1.0),
            "^other_covariance must be concrete",
        ),
        (lambda: w1_to_gaussian(cloud(0, 1, 2), [1, 2, 3], 1.0), r"^mean must have shape \(2,\)"),
        (lambda: w1_to_gaussian(MU, "a", 1.0), "^mean must be real numbers"),
        (lambda: w1_to_gaussian(MU, 0.0, -1.0), r"^sd must be positive, got -1\.0.*dirac"),
        (lambda: w1_to_gaussian(MU, 0.0, np.nan), "^sd must be finite, got nan"),
        (lambda: jax.jit(lambda m: w1_to_gaussian(MU, m, 1.0))(0.0), "^mean must be concrete"),
        (lambda: jax.jit(lambda s: w1_to_gaussian(MU, 0.0, s))(1.0), "^sd must be concrete"),
        (lambda: transport_problem(TWO * 1j), "^cost must be real numbers.*complex"),
        (lambda: transport_problem([["a"]]), "^cost must be real numbers"),
        (lambda: transport_problem([[1, 2], [3]]), "^cost must be real numbers in rows of equal"),
        (lambda: transport_problem(TWO, [1j, 1]), "^a must be real numbers.*complex"),
        (
            lambda: jax.jit(lambda t: displacement(w1(MU, NU), MU, NU, t).points)(0.5),
            r"^t must lie in \[0, 1\] and be known outside jit",
        ),
        (
            lambda: jax.jit(lambda m: barycentric_map(w1(MU, NU), MU, m))(NU),
            "^nu has traced values.*call this outside jit",
        ),
        (
            lambda: barycentric_map(w1(MU, NU), MU, tokens([0, 1, 2], np.ones((3, 1)))),
            r"^nu must have points that are arrays, got tokens: take states\(nu\)",
        ),
        (
            lambda: w1(MU, NU, metric=lambda x, y: np.linalg.norm(x - y)),
            "^metric must be a JAX function.*jnp.linalg.norm",
        ),
        (
            lambda: w1(MU, NU, metric=lambda x, y: 1.0 if x[0] > y[0] else 0.0),
            "^metric must be a JAX function.*jnp.where for if",
        ),
        (
            lambda: w1(MU, NU, metric=lambda x, y: float(x[0])),
            "^metric must be a JAX function",
        ),
        (
            lambda: w1(MU, NU, metric=lambda x: 1.0),
            r"^metric must be .*metric\(x, y\) with x = f64\[1\] of mu and y = f64\[1\] of nu: .* "
            "TypeError: .*1 positional argument but 2 were given",
        ),
        (
            lambda: w1(MU, NU, metric=lambda x, y: abs(x.position - y.position)),
            r"^metric must be .*x = f64\[1\] of mu.* AttributeError: .*position",
        ),
        (
            lambda: w1(TOKENS, TOKENS, metric=lambda x, y: jnp.linalg.norm(x - y)),
            r"^metric must be .*x = Token\(position=f64\[\], state=f64\[2\]\) of mu.* TypeError",
        ),
        (lambda: w1(MU, NU, metric=lambda x, y: x - y), r"^metric .*scalar.*got f64\[1\]$"),
        (
            lambda: w1(MU, NU, metric=lambda x, y: x[0].astype(complex)),
            r"^metric .*scalar.*got c128\[\]$",
        ),
        (lambda: w1(MU, NU, metric=lambda x, y: None), "^metric .*scalar.*got None$"),
        (lambda: jax.jit(lambda p: distance(MU, NU, p))(2.0), "^p must be .*static_argnames"),
        (lambda: wp(MU, NU, 10**400), "^p must be a finite number of at least 1, got inf: see w_i"),
        (lambda: distance(MU, NU, 10**400), "^p must be a finite number of at least 1, got inf"),
        (lambda: wp(MU, NU, -(10**400)), "^p must be a number of at least 1, got -1"),
        (lambda: w1_to_gaussian(MU, 10**400, 1.0), "^mean must be real numbers"),
        (
            lambda: w2_gaussians([0, 0], 1.0, [0, 0], np.eye(2)),
            r"^covariance must be a matrix \(2, 2\), got shape \(\); .*np.diag",
        ),
        (
            lambda: total_variation(MU, TOKENS),
            r"got points that are arrays and tokens: take .*states\(mu\)",
        ),
        (lambda: w_inf(TOKENS, TOKENS), r"^mu is a measure on tokens.*states\(mu\)"),
        (lambda: wp(MU, NU, jnp.bool_(True)), "^p must be a number of at least 1"),
        (lambda: wp(MU, NU, jnp.float32(jnp.nan)), "^p must be a number of at least 1"),
        (lambda: w1(MU, NU, tol=jnp.float32(-1)), "^tol must be a number of at least 0"),
        (lambda: check_method(np.ones(3), 1e-9), "^solver must be a solver"),
        (lambda: Problem(HALF, np.full(3, 1 / 3), Table(TWO)), r"shapes \(2,\) and \(3,\)"),
        (lambda: solve(transport_problem(TWO), start=w1(MU, NU)), "^start must be the solution of"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_what_a_metric_raised_is_kept_as_the_cause():
    mistake = KeyError("of the metric")

    def metric(x, y):
        raise mistake

    with pytest.raises(ValueError, match="KeyError: 'of the metric'") as caught:
        w1(MU, NU, metric=metric)
    assert caught.value.__cause__ is mistake


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.bool_])
def test_a_metric_of_another_dtype_is_raised_to_its_power_in_float64(dtype):
    # 3/8 + 1/4096 has too many digits for the square in float32
    x, y = line(0, 0), line(0.375 + 2.0**-12, 1)
    cost = np.asarray(jnp.asarray([0.375 + 2.0**-12, 1]).astype(dtype)).astype(np.float64)
    solution = wp(x, y, 2, metric=lambda x, y: jnp.abs(x[0] - y[0]).astype(dtype))
    assert solution.value**2 == pytest.approx(np.mean(cost**2), rel=1e-14)


REFUSALS = {
    "dimension": (cloud(0, 3, 2), "^mu and nu must live on one space, got dimensions 1 and 2: map"),
    "tokens": (TOKENS, r"^nu is a measure on tokens.*states\(nu\).*conditional\(mu, nu\)"),
    "batch": (
        jax.vmap(ma.EmpiricalMeasure)(np.ones((2, 3, 1))),
        "^nu is a batch of measures: .*vmap",
    ),
}


@pytest.mark.parametrize("solver", [w1, w_inf, distance, jax.jit(distance)])
@pytest.mark.parametrize("what", REFUSALS)
def test_all_distances_refuse_what_is_no_measure_on_the_space_in_the_same_words(solver, what):
    other, words = REFUSALS[what]
    with pytest.raises(ValueError, match=words):
        solver(MU, other)


@pytest.mark.parametrize("two", [2, np.float32(2), np.int64(2), np.array(2), jnp.float32(2)])
def test_an_order_may_be_any_concrete_scalar(two):
    assert wp(MU, NU, two).value == wp(MU, NU, 2.0).value
    assert float(distance(MU, NU, two)) == pytest.approx(wp(MU, NU, 2.0).value, rel=1e-15)
    mu, nu = tokens([0, 1], np.zeros((2, 1))), tokens([0, 1], np.ones((2, 1)))
    assert conditional(mu, nu, two).p == 2
    assert solve(transport_problem(TWO, p=two)).p == 2


@pytest.mark.parametrize("small", [np.float32(1e-6), np.array(1e-6), jnp.float32(1e-6)])
def test_a_tolerance_may_be_any_concrete_scalar(small):
    assert "within 1e-06" in w1(MU, NU, tol=small).status
    assert float(distance(MU, NU, tol=small)) == pytest.approx(0.5, rel=1e-15)


def test_a_time_may_be_any_concrete_scalar():
    middle = displacement(w1(MU, NU), MU, NU, jnp.float32(0.5))
    np.testing.assert_allclose(middle.points[:, 0], [0.25, 1.25, 2.25], rtol=1e-15)


WITHOUT_TYPES_CHECKED = """
import numpy as np
import measattn as ma
import jax
from measattn.wasserstein import Problem, barycentric_map, distance, solve, w1, w_inf
mu, nu = (ma.EmpiricalMeasure(np.full((3, 1), at)) for at in (0.0, 1.0))
half, two = np.full(2, 0.5), np.ones((2, 2))
for make, words in (
    (lambda: w1(mu, nu, start=w1(mu, nu).plan), "as w1 returns it, got a Plan"),
    (lambda: w1(mu, nu, start=np.ones(9)), "got a ndarray"),
    (lambda: w1(mu, nu, solver=np.ones(9)), "solver must be a solver"),
    (lambda: solve(Problem(half, half, two)), "shapes (2,) and (2,) and a ndarray: make"),
    (lambda: solve(Problem([0.5, 0.5], half, two)), "got shapes None and (2,)"),
    (lambda: w1(mu, nu, metric="cosine"), "metric must be a function of two points, got 'cosine'"),
    (lambda: barycentric_map(w1(mu, nu).plan, mu, nu), "that of w1, wp or w_inf, got a Plan"),
    *(
        (lambda f=f: f(mu, two), "nu must be an EmpiricalMeasure, got a ndarray: wrap points as")
        for f in (w1, w_inf, distance, lambda mu, nu: jax.jit(lambda mu: distance(mu, nu))(mu))
    ),
):
    try:
        make()
    except ValueError as error:
        assert words in str(error), error
    else:
        raise SystemExit(f"accepted, instead of: {words}")
"""


def test_what_type_checkers_would_refuse_is_refused_without_them_too():
    subprocess.run([sys.executable, "-c", WITHOUT_TYPES_CHECKED], check=True)


def test_a_problem_of_ones_own_may_start_from_the_solution_of_a_nearby_one():
    rng = np.random.default_rng(0)
    cost = oracles.distances(rng.normal(size=(400, 3)), rng.normal(size=(300, 3)))
    first = solve(transport_problem(cost), solver=ma.wasserstein.ColumnGeneration())
    near = transport_problem(cost + 1e-4 * rng.random(cost.shape))
    warm = solve(near, solver=ma.wasserstein.ColumnGeneration(), start=first)
    cold = solve(near, solver=ma.wasserstein.ColumnGeneration())
    assert warm.value == pytest.approx(cold.value, rel=1e-12)
    assert warm.iterations < cold.iterations


def test_where_rounding_leaves_the_gap_a_smaller_order_is_advised_and_no_longer_run():
    rng = np.random.default_rng(0)
    mu, nu = (ma.weighted(rng.normal(size=(30, 2)), rng.random(30)) for _ in range(2))
    with pytest.raises(TransportError, match="whatever the solver: take a smaller order") as raised:
        wp(mu, nu, 32)
    words, bracket = str(raised.value), raised.value.solution
    assert "longer" not in words
    # what is offered besides is true: so wide a tolerance accepts
    accepted = wp(mu, nu, 32, tol=float(words.rsplit("tol=", 1)[1].rstrip(".")))
    assert accepted.upper == pytest.approx(bracket.upper, rel=1e-3)
    with pytest.raises(TransportError, match="rounding.*smaller order, or see w_inf.$"):
        wp(mu, nu, 256)


def test_where_the_solver_gave_up_a_longer_run_or_a_larger_tolerance_is_advised():
    rng = np.random.default_rng(0)
    mu, nu = (ma.EmpiricalMeasure(rng.normal(size=(30, 2))) for _ in range(2))
    with pytest.raises(TransportError, match="Let the solver run longer.*another"):
        w1(mu, nu, solver=NetworkSimplex(pivots=1))
