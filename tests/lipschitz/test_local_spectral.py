"""The largest singular value from random starts: what the steps that were taken prove."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import measattn as ma
from measattn.lipschitz import local
from measattn.lipschitz.derivatives import blocks
from measattn.lipschitz.derivatives.operator import Operator, _sizes, rounding
from measattn.lipschitz.derivatives.parts import parts
from measattn.lipschitz.norms import lanczos as module
from measattn.lipschitz.norms.chance import excludes, highest, least_share, steps_enough
from measattn.lipschitz.norms.lanczos import AbstractLinearMap, lanczos, spectral_norm
from tests.lipschitz import dense

pytestmark = pytest.mark.float64


class Given(AbstractLinearMap):
    """A dense matrix by its products."""

    matrix: jnp.ndarray
    shape: tuple

    def __init__(self, matrix):
        self.matrix, self.shape = jnp.asarray(matrix), matrix.shape

    def push(self, x):
        return self.matrix @ x

    def pull(self, y):
        return self.matrix.T @ y


def coefficients(eigenvalues, start, steps):
    """Lanczos in plain NumPy on a diagonal matrix: what stands on the diagonal and beside it."""
    basis, diagonal, beside = [start / np.linalg.norm(start)], [], []
    for _ in range(steps):
        image = eigenvalues * basis[-1]
        diagonal.append(basis[-1] @ image)
        for _ in range(2):
            image = image - np.array(basis).T @ (np.array(basis) @ image)
        beside.append(np.linalg.norm(image))
        basis.append(image / beside[-1])
    return np.array(diagonal), np.array(beside)


def ritz(diagonal, beside):
    k = len(diagonal)
    full = np.diag(diagonal) + np.diag(beside[: k - 1], 1) + np.diag(beside[: k - 1], -1)
    return float(np.linalg.eigvalsh(full)[-1])


@pytest.mark.parametrize("share", [1e-2, 1e-6])
def test_a_start_with_enough_of_the_top_proves_its_bound_at_every_step_and_one_with_less_does_not(
    share,
):
    rng = np.random.default_rng(0)
    eigenvalues = np.r_[3.0, rng.random(60)]
    for factor, holds in ((1.01, True), (1e-3, False)):
        start = rng.normal(size=61)
        start[0] = 0
        start[0] = factor * share * np.linalg.norm(start)
        diagonal, beside = coefficients(eigenvalues, start, 20)
        ends = [
            highest(diagonal[:k], beside[:k], ritz(diagonal[:k], beside[:k]), share)
            for k in range(1, 20)
        ]
        assert (min(ends) >= eigenvalues[0] * (1 - 1e-9)) == holds


def test_the_chance_counts_all_steps_together():
    rng = np.random.default_rng(1)
    eigenvalues, probability, trials = np.array([1.0, 0.9, 0.5, 0.2, 0.0]), 0.3, 400
    share = least_share(5, probability)
    missed = [0, 0]
    for _ in range(trials):
        diagonal, beside = coefficients(eigenvalues, rng.normal(size=5), 4)
        for turn, s in enumerate((share, min(3 * share, 0.99))):
            missed[turn] += any(
                highest(diagonal[:k], beside[:k], ritz(diagonal[:k], beside[:k]), s) < 1 - 1e-9
                for k in range(1, 5)
            )
    # three deviations of the number of misses; control: a share three times as large misses more
    most = trials * probability + 3 * np.sqrt(trials * probability * (1 - probability))
    assert missed[0] <= most < missed[1]


def test_the_bound_is_the_one_of_orthonormal_polynomials():
    rng = np.random.default_rng(2)
    eigenvalues, start = rng.random(30), rng.normal(size=30)
    weights = start**2 / np.sum(start**2)
    diagonal, beside = coefficients(eigenvalues, start, 5)
    for x in (1.1, 2.0):
        # the least integral of Q^2 over polynomials of degree 5 with Q(x) = 1, by least squares
        powers = np.vander(2 * eigenvalues - 1, 6, increasing=True) * np.sqrt(weights)[:, None]
        at = np.vander([2 * x - 1], 6, increasing=True)[0]
        least = 1 / (at @ np.linalg.solve(powers.T @ powers, at))
        assert excludes(diagonal, beside, x, np.sqrt(least) * 1.01)
        assert not excludes(diagonal, beside, x, np.sqrt(least) * 0.99)


@pytest.mark.parametrize(("ratio", "probability"), [(1.3, 1e-10), (1.01, 1e-3)])
def test_no_matrix_takes_more_steps_than_foreseen(ratio, probability):
    rng = np.random.default_rng(3)
    size = 2000
    steps = steps_enough(size, ratio, probability)
    for eigenvalues in (
        rng.random(size),
        1 - np.linspace(0, 1, size) ** 2,
        np.linspace(0, 1, size),
    ):
        diagonal, beside = coefficients(eigenvalues, rng.normal(size=size), steps)
        x = ritz(diagonal, beside) * ratio**2
        assert excludes(diagonal, beside, x, least_share(size, probability))


def test_more_certainty_takes_more_steps():
    assert steps_enough(1000, 1.001, 1e-10) > steps_enough(1000, 1.01, 1e-10)
    assert steps_enough(1000, 1.001, 1e-10) > steps_enough(1000, 1.001, 1e-3)


@pytest.mark.parametrize("probability", [1e-3, 1e-10])
@pytest.mark.parametrize("kind", ["random", "rank one", "identity", "zero", "two equal", "tiny"])
def test_lanczos_brackets_the_norm_where_its_space_is_soon_invariant_too(kind, probability):
    rng = np.random.default_rng(0)
    n = 120
    matrix = {
        "random": rng.normal(size=(n, n)),
        "rank one": np.outer(rng.normal(size=n), rng.normal(size=n)),
        "identity": np.eye(n),
        "zero": np.zeros((n, n)),
        "two equal": np.diag(np.r_[2.0, 2.0, rng.random(n - 2)]),
        "tiny": 1e-100 * rng.normal(size=(n, n)),
    }[kind]
    found, truth = lanczos(Given(matrix), rng, 1.01, probability), np.linalg.norm(matrix, 2)
    assert found.value <= truth * (1 + 1e-13) <= found.upper * (1 + 1e-13)
    assert found.upper <= found.value * 1.0101
    assert found.probability == probability
    assert found.steps <= steps_enough(n, 1.01, probability)


@pytest.mark.parametrize("kind", ["random", "rank one", "identity"])
def test_vectors_stay_orthogonal_where_nothing_is_left_of_the_next_one_too(kind, monkeypatch):
    rng = np.random.default_rng(8)
    n, given, inner = 60, [], module._squared
    matrix = {
        "random": rng.normal(size=(n, n)) * 0.7 ** np.arange(n),
        "rank one": np.outer(rng.normal(size=n), rng.normal(size=n)),
        "identity": np.eye(n),
    }[kind]

    def watched(matrix, v, scale):
        given.append(np.array(v))
        return inner(matrix, v, scale)

    monkeypatch.setattr(module, "_squared", watched)
    monkeypatch.setattr(module, "excludes", lambda *_: False)
    found = lanczos(Given(matrix), rng, 1.01, 1e-10)
    assert len(given) == found.steps > 40
    np.testing.assert_allclose(np.array(given) @ np.array(given).T, np.eye(len(given)), atol=1e-12)


def test_room_is_made_for_more_steps(monkeypatch):
    rng = np.random.default_rng(4)
    matrix = np.diag(1 - np.linspace(0, 1, 120) ** 2)
    at_once = lanczos(Given(matrix), np.random.default_rng(0), 1.0001, 1e-10)
    monkeypatch.setattr(module, "FIRST", 2)
    found = lanczos(Given(matrix), np.random.default_rng(0), 1.0001, 1e-10)
    assert found.steps == at_once.steps > 16
    assert found.value == pytest.approx(at_once.value, rel=1e-14)
    assert found.upper == pytest.approx(at_once.upper, rel=1e-12)
    large = Given(rng.normal(size=(40, 1100)))
    assert spectral_norm(large, rng).probability > 0
    assert spectral_norm(Given(large.matrix.T), rng).probability == 0


def test_what_is_not_finite_is_refused():
    matrix = np.eye(50)
    matrix[3, 4] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        lanczos(Given(matrix), np.random.default_rng(0), 1.01, 1e-3)


def test_a_product_takes_no_blocks_and_is_that_of_the_jacobian():
    rng = np.random.default_rng(5)
    memory = ma.EmpiricalMeasure(rng.normal(size=(7, 3)))
    heads = ma.MultiHead([dense.head(rng, 3, 2, 1) for _ in range(2)], rng.normal(size=(3, 4)))
    layers = [
        heads,
        ma.SelfAttention(ma.Gaussian(0.8), rng.normal(size=(2, 3))),
        ma.CrossAttention(ma.DotProduct(1.0), rng.normal(size=(3, 3)), memory),
        ma.layer.pre_norm([heads], [ma.LayerNorm()]),
        ma.layer.post_norm([heads], [ma.LayerNorm()]),
    ]
    weights = rng.random(5) + 0.1
    weights /= weights.sum()
    for layer in layers:
        mu = ma.weighted(rng.normal(size=(5, 3)), weights)
        derivative = parts(layer, mu)
        operator = Operator(derivative, weights)
        assert "own" not in vars(derivative)
        root = np.sqrt(weights)
        jacobian = dense.jacobian(layer, mu) * root[:, None, None, None] / root[:, None]
        whole = jacobian.reshape(operator.shape)
        x, y = rng.normal(size=operator.shape[1]), rng.normal(size=operator.shape[0])
        np.testing.assert_allclose(operator.push(jnp.asarray(x)), whole @ x, atol=1e-12)
        np.testing.assert_allclose(operator.pull(jnp.asarray(y)), whole.T @ y, atol=1e-12)


def test_layers_of_one_shape_are_compiled_once():
    rng = np.random.default_rng(6)
    mu = ma.EmpiricalMeasure(rng.normal(size=(130, 8)))
    local(dense.head(rng, 8, 8, 8), mu, 2)
    before = module._squared._cached._cache_size()
    local(dense.head(rng, 8, 8, 8), mu, 2)
    assert module._squared._cached._cache_size() == before > 0


@pytest.mark.parametrize("seed", range(8))
def test_the_allowance_for_rounding_covers_errors_of_softmax_weights(seed):
    rng = np.random.default_rng(seed)
    n, d, error = 9, 4, 1e-5
    x = (rng.normal(size=(n, d)) + 2 * rng.normal(size=d)) * 10.0 ** rng.uniform(-1, 0.5)
    weights = rng.dirichlet(np.full(n, 2.0))
    mu = ma.weighted(x, weights)
    heads = [dense.head(rng, d, d) for _ in range(2)]
    layer = ma.layer.post_norm([ma.MultiHead(heads, rng.normal(size=(d, 2 * d)))], [ma.LayerNorm()])
    derivative = parts(layer, mu)
    assert derivative.after is not None
    known, wrong = [], []
    for head in derivative.heads:
        p = head.p * (1 + error * np.where(rng.random((n, n)) < 0.5, 1, -1))
        known.append(head._replace(error=error))
        wrong.append(head._replace(p=p, means=p @ head.keys))
    allowed = rounding(replace(derivative, heads=tuple(known)), weights)
    assert 1e-4 * allowed <= difference(derivative, weights, known, wrong) <= allowed


def difference(derivative, weights, *heads):
    """The norm of the difference of the operators with two tuples of heads."""
    operators = [Operator(replace(derivative, heads=tuple(h)), weights) for h in heads]
    one, two = (np.asarray(module._formed(operator)) for operator in operators)
    return np.linalg.norm(one - two, 2)


@pytest.mark.parametrize("seed", range(8))
def test_the_allowance_covers_the_rounding_of_slopes_shorter_than_their_summands(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    n, d, error = 9, 4, 1e-5
    mu = ma.EmpiricalMeasure(rng.normal(size=(n, d)))
    weights = np.full(n, 1 / n)
    heads = [dense.head(rng, d, d) for _ in range(2)]
    derivative = parts(ma.MultiHead(heads, rng.normal(size=(d, 2 * d))), mu)
    known, wrong = [], []
    for head in derivative.heads:
        short = head._replace(slopes=1e-6 * head.slopes)
        noise = rng.normal(size=(n, d))
        noise *= error * head.slope / np.linalg.norm(noise, axis=1, keepdims=True)
        known.append(short)
        wrong.append(short._replace(slopes=short.slopes + noise))
    # what slopes are wrong by, in place of what automatic differentiation is
    monkeypatch.setattr(blocks, "AUTODIFF", error)
    allowed = rounding(replace(derivative, heads=tuple(known)), weights)
    assert 1e-3 * allowed <= difference(derivative, weights, known, wrong) <= allowed


@pytest.mark.parametrize("seed", range(8))
def test_the_allowance_covers_errors_of_what_queries_see_of_a_memory(seed):
    rng = np.random.default_rng(seed)
    n, m, d, error = 6, 9, 4, 1e-5
    memory = ma.EmpiricalMeasure(rng.normal(size=(m, d)) * 10.0 ** rng.uniform(-1, 0.5))
    layer = ma.CrossAttention(ma.DotProduct(1.0), rng.normal(size=(d, d)), memory)
    derivative = parts(layer, ma.EmpiricalMeasure(rng.normal(size=(n, d))))
    head, weights = derivative.heads[0]._replace(error=error), np.full(n, 1 / n)
    p = head.p * (1 + error * np.where(rng.random((n, m)) < 0.5, 1, -1))
    wrong = head._replace(p=p, means=p @ head.keys)
    allowed = rounding(replace(derivative, heads=(head,)), weights)
    assert 1e-4 * allowed <= difference(derivative, weights, (head,), (wrong,)) <= allowed


def test_the_allowance_goes_with_slopes_and_hardly_with_their_summands():
    rng = np.random.default_rng(0)
    derivative = parts(dense.head(rng, 4, 4), ma.EmpiricalMeasure(rng.normal(size=(9, 4))))
    head, weights = derivative.heads[0]._replace(error=1e-6), np.full(9, 1 / 9)
    allowed = [
        rounding(replace(derivative, heads=(head._replace(**more),)), weights)
        for more in ({}, {"slope": 100 * head.slope}, {"slopes": 100 * head.slopes})
    ]
    assert allowed[0] < allowed[1] < 1.01 * allowed[0] < 10 * allowed[0] < allowed[2]


def test_sizes_are_at_least_norms_and_nearer_than_frobenius():
    matrices = np.random.default_rng(0).normal(size=(20, 30, 40))
    norms = np.linalg.norm(matrices, 2, axis=(1, 2))
    sizes = _sizes(matrices, 20)
    assert (norms <= sizes).all()
    assert (sizes <= 0.6 * np.linalg.norm(matrices, axis=(1, 2))).all()
    apart = matrices + 100 * matrices[:, :, :1] * matrices[:, :1, :]  # the largest one stands out
    np.testing.assert_allclose(_sizes(apart, 20), np.linalg.norm(apart, 2, axis=(1, 2)), rtol=1e-6)
    assert (_sizes(np.zeros((3, 2, 2)), 3) == 0).all()
    single = np.outer(np.arange(3.0), np.ones(4))[None]  # of rank one nothing is lost
    assert _sizes(single, 2) == pytest.approx(np.full(2, np.linalg.norm(single)), rel=1e-8)
    assert (_sizes(single, 2) >= np.linalg.norm(single)).all()


def test_blas_has_one_thread_beside_lanczos_and_its_own_again_after(monkeypatch):
    def threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    seen, inner = [], module._squared

    def watched(*args):
        seen.append(threads())
        return inner(*args)

    monkeypatch.setattr(module, "_squared", watched)
    rng = np.random.default_rng(7)
    with threadpool_limits(limits=2, user_api="blas"):
        before = threads()
        local(dense.head(rng, 8, 8, 8), ma.EmpiricalMeasure(rng.normal(size=(130, 8))), 2)
        assert seen
        assert all(now == {1} for now in seen)
        assert threads() == before
