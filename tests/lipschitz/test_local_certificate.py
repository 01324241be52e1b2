"""What proves the upper ends: any weights give a bound, a forged number does not."""

import numpy as np
import pytest
import scipy.linalg
from threadpoolctl import threadpool_info, threadpool_limits

import measattn as ma
from measattn.lipschitz import Split, closed, local
from measattn.lipschitz.derivatives.blocks import block_norms
from measattn.lipschitz.derivatives.families import columns, outputs
from measattn.lipschitz.derivatives.parts import parts
from measattn.lipschitz.norms import weights as module
from measattn.lipschitz.norms.cholesky import cholesky_norm
from measattn.lipschitz.norms.maximum import maximise
from measattn.lipschitz.norms.schur import schur
from measattn.lipschitz.norms.weights import _below, certify
from tests.lipschitz import dense

pytestmark = pytest.mark.float64

N, D = 5, 3


def family(seed, kind="columns", scale=1.0):
    rng = np.random.default_rng(seed)
    layer, mu = dense.head(rng, D, D, scale=scale), ma.EmpiricalMeasure(rng.normal(size=(N, D)))
    if kind == "mixed":
        layer = ma.MultiHead(
            [layer, dense.head(rng, D, D, scale=scale)], rng.normal(size=(D, 2 * D))
        )
    if kind == "block":
        both = ma.MultiHead([layer, dense.head(rng, D, D)], rng.normal(size=(D, 2 * D)))
        layer = ma.layer.post_norm([ma.Stack([ma.RMSNorm(), both])], [ma.LayerNorm()])
    derivative = parts(layer, mu)
    blocks = block_norms(derivative)
    if kind == "outputs":
        return layer, mu, outputs(derivative, blocks)
    return layer, mu, columns(derivative, np.full(N, 1 / N), blocks, False)


def terms(j, kind, problem):
    return j[problem].transpose(1, 2, 0) if kind == "outputs" else j[:, :, problem]


@pytest.mark.parametrize("kind", ["columns", "outputs", "mixed", "block"])
def test_any_weights_give_an_upper_bound_and_the_one_of_the_formula(kind):
    layer, mu, sums = family(0, kind)
    rng, j = np.random.default_rng(1), dense.jacobian(layer, mu)
    truths = [dense.largest_sum(terms(j, kind, k)) for k in range(N)]
    for _ in range(5):
        w = rng.random((N + 1, N)) * sums.sizes + 1e-3 * (sums.sizes > 0)
        found = certify(sums, np.arange(N), w).upper
        for k in range(N):
            n = terms(j, kind, k)
            assert truths[k] <= found[k]
            # the own block is the last term here, not the k-th
            v = np.where(np.arange(N) == k, w[-1, k], w[:-1, k])
            gram = np.einsum("mvd,mve,m->de", n, n, 1 / v)
            expected = np.sqrt(v.sum() * np.linalg.eigvalsh(gram)[-1])
            assert found[k] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("kind", ["columns", "outputs", "mixed"])
def test_a_certificate_with_a_forged_eigenvalue_or_a_lost_weight_is_caught(kind):
    layer, mu, sums = family(2, kind)
    best = maximise(sums)
    n = terms(dense.jacobian(layer, mu), kind, best.problem)
    truth = dense.largest_sum(n)
    assert truth <= best.upper
    assert truth > best.upper * np.sqrt(0.98)  # the eigenvalue lowered by two per cent
    index = np.array([best.problem])
    w = sums.norms(index, best.direction[None]).copy()
    w[int(np.argmax(w))] = 0  # a weight of zero drops its term
    assert truth > certify(sums, index, w).upper[0]


@pytest.mark.parametrize("scale", [0.5, 100.0])
def test_no_search_finds_more_than_the_upper_end(scale):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(N, D))
        if seed % 3 == 0:
            x[1] = x[0]
        layer, mu = dense.head(rng, D, D, scale=scale), ma.EmpiricalMeasure(x)
        for p in (1, np.inf):
            found = local(layer, mu, p)
            expected = dense.whole(layer, mu, p)
            assert found.value * (1 - 1e-12) <= expected <= found.upper
            assert expected * (1 - 1e-4) <= found.value
            assert found.ratio < 1.03


def test_bounds_of_the_norms_of_blocks_hold_and_are_near():
    for seed in range(5):
        layer, mu, _ = family(seed, scale=3.0)
        blocks = block_norms(parts(layer, mu))
        norms = np.linalg.norm(dense.jacobian(layer, mu).transpose(0, 2, 1, 3), 2, axis=(2, 3))
        assert (norms <= blocks.norms * (1 + 1e-12) + blocks.rounding).all()
        assert (blocks.norms <= 2 * norms + 1e-9).all()


def test_the_schur_test_bounds_a_spectral_norm_by_those_of_its_blocks():
    rng = np.random.default_rng(0)
    for _ in range(20):
        blocks = rng.random((4, 6)) * (rng.random((4, 6)) < 0.6)
        assert np.linalg.norm(blocks, 2) <= schur(blocks)
        assert schur(blocks) <= np.linalg.norm(blocks, 2) * 1.001 + 1e-9
    with pytest.raises(ValueError, match="finite"):
        schur(np.array([[np.nan]]))


def test_a_factor_of_cholesky_bounds_the_spectral_norm_closely():
    rng = np.random.default_rng(0)
    for shape in [(3, 5), (40, 30), (1, 1)]:
        for matrix in (rng.normal(size=shape), np.zeros(shape), np.ones(shape)):
            found, truth = cholesky_norm(matrix), np.linalg.norm(matrix, 2)
            assert found.value <= truth * (1 + 1e-14) <= found.upper * (1 + 1e-14)
            assert found.upper <= truth * (1 + 1e-9) + 1e-150
    with pytest.raises(ValueError, match="finite"):
        cholesky_norm(np.array([[np.inf]]))


@pytest.mark.parametrize("points", [[[9.5], [9.2], [-1.3]], [[6.6, 37.4], [25.8, 7.9]]])
def test_eigenvalues_that_are_nearly_multiple_have_a_vector(points, monkeypatch):
    """LAPACK's search for a part of the spectrum finds none for some of them."""
    layer, mu = ma.SelfAttention(ma.Gaussian(1.24)), ma.EmpiricalMeasure(points)
    assert local(layer, mu, 2).ratio <= 1 + 1e-6
    eigh = scipy.linalg.eigh

    def lost(matrix, subset_by_index=None):
        values, vectors = eigh(matrix)
        return (values[:0], vectors[:, :0]) if subset_by_index else (values, vectors)

    monkeypatch.setattr(scipy.linalg, "eigh", lost)
    found = cholesky_norm(np.diag([1.0, 2.0]))
    assert found.value == pytest.approx(2.0)
    np.testing.assert_allclose(np.abs(found.direction), [0, 1])


def test_a_head_on_scores_without_noise_splits_no_better_than_it_should():
    # with no scores all rows are equal: |D u| = 0, and each output follows the mean
    mu = ma.EmpiricalMeasure(np.random.default_rng(0).normal(size=(N, D)))
    found = local(ma.SelfAttention(ma.DotProduct(0.0)), mu, 1, Split())
    assert found.value == pytest.approx(1.0, rel=1e-9)
    assert 1 <= found.upper <= 1 + 1e-3


def test_a_factor_tells_which_eigenvalues_are_below_a_level():
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(40, 12, 9)) * 10.0 ** rng.uniform(-5, 5, size=(40, 1, 1))
    grams = roots.swapaxes(1, 2) @ roots
    top = np.linalg.eigvalsh(grams)[:, -1]
    for factor, expected in ((1 - 1e-9, False), (1 + 1e-9, True), (0.0, False), (1e3, True)):
        assert (_below(grams, factor * top) == expected).all()
    assert not _below(np.zeros((8, 3, 3)), np.zeros(8)).any()
    assert not _below(np.full((8, 3, 3), np.nan), np.ones(8)).any()


@pytest.mark.parametrize("kind", ["columns", "outputs", "mixed", "block"])
def test_what_is_enough_closes_the_same_problems_that_eigenvalues_would(kind, monkeypatch):
    monkeypatch.setattr(module, "MANY", 1)
    _, _, sums = family(3, kind)
    index = np.arange(N)
    w = np.random.default_rng(0).random((N + 1, N)) * sums.sizes + 1e-3 * (sums.sizes > 0)
    exact = certify(sums, index, w)
    assert exact.open.all()
    for k in np.argsort(exact.upper):
        for factor, enough_for_it in ((1 - 1e-6, False), (1 + 1e-6, True)):
            enough = float(exact.upper[k]) * factor
            found = certify(sums, index, w, enough)
            assert found.open[k] != enough_for_it
            assert (found.open == (exact.upper > enough)).all()
            np.testing.assert_allclose(found.upper[found.open], exact.upper[found.open], rtol=1e-9)
            assert (found.upper[~found.open] == enough).all()
            np.testing.assert_allclose(
                np.abs(np.sum(found.directions * exact.directions[found.open], axis=1)),
                1,
                rtol=1e-6,
            )


def test_blas_has_one_thread_while_sums_are_certified_and_its_own_again_after(monkeypatch):
    def threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    seen, inner = [], closed.maximise

    def watched(family, tol):
        seen.append(threads())
        return inner(family, tol)

    monkeypatch.setattr(closed, "maximise", watched)
    mu = ma.EmpiricalMeasure(np.random.default_rng(0).normal(size=(3, 2)))
    with threadpool_limits(limits=2, user_api="blas"):
        before = threads()
        local(ma.SelfAttention(ma.DotProduct(1.0)), mu)
        assert seen == [{1}]
        assert threads() == before
