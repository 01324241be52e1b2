"""Gaussian laws in closed form against quadrature, particles and samples."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import lambertw

import measattn as ma
from measattn import dynamics

pytestmark = pytest.mark.float64

MEAN = np.array([0.2, -0.1])
ROOT = np.array([[1.0, 0.0], [0.4, 0.7]])
LAW = dynamics.GaussianLaw(MEAN, ROOT @ ROOT.T)
A = np.array([[0.3, 0.1], [-0.2, 0.25]])
V = np.array([[1.0, 0.5], [0.0, 0.8]])
DOT = ma.SelfAttention(ma.Bilinear(A, np.eye(2)), V)
SHIFTED = ma.SelfAttention(
    ma.Bilinear(ma.Affine(A, [0.3, -0.2]), ma.Affine(np.eye(2), [1.0, 2.0]), 0.7),
    ma.Affine(V, [0.1, -0.4]),
)
L2 = ma.SelfAttention(ma.Gaussian(0.9), V)
HEADS = ma.MultiHead([SHIFTED, SHIFTED], np.hstack([np.eye(2), 0.5 * V]))
LAYERS = {
    "dot product": DOT,
    "with all biases": SHIFTED,
    "L2": L2,
    "two heads": HEADS,
    "residual": ma.Residual(DOT),
    "increment": dynamics.Increment(L2),
}


def quadrature(law, size=40):
    """A law on nodes of Gauss and Hermite, whose integrals of e^{<b,x>} x x^T are exact."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(size)
    z = np.array(list(itertools.product(nodes, repeat=law.dimension)))
    w = np.prod(list(itertools.product(weights, repeat=law.dimension)), axis=1)
    root = np.linalg.cholesky(law.covariance)
    return ma.weighted(law.mean + z @ root.T, w)


def moments(mu):
    return np.asarray(ma.mean(mu)), np.asarray(ma.covariance(mu))


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_the_image_of_a_gaussian_has_the_moments_of_the_image_of_its_quadrature(layer):
    image = LAW @ layer
    mean, covariance = moments(quadrature(LAW) @ layer)
    np.testing.assert_allclose(image.mean, mean, atol=1e-10)
    np.testing.assert_allclose(image.covariance, covariance, atol=1e-10)


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_a_layer_is_affine_under_a_gaussian_law(layer):
    x = np.array([[0.5, -1.0], [2.0, 1.0], [0.0, 0.0]])
    matrix, shift = dynamics.affine(layer, LAW)
    got = layer.push(quadrature(LAW), jnp.asarray(x))
    np.testing.assert_allclose(got, x @ matrix.T + shift, atol=1e-9)


def test_a_layer_has_the_value_that_was_worked_out_by_hand():
    matrix, shift = dynamics.affine(DOT, LAW)
    np.testing.assert_allclose(matrix @ [0.5, -1.0] + shift, [-0.04375, -0.246], atol=1e-14)
    S = LAW.covariance
    image = LAW @ DOT
    np.testing.assert_allclose(image.mean, V @ (MEAN + S @ A @ MEAN), atol=1e-14)
    np.testing.assert_allclose(image.covariance, V @ S @ A @ S @ A.T @ S @ V.T, atol=1e-14)


def test_a_singular_law_and_a_change_of_dimension_are_no_exception():
    law = dynamics.GaussianLaw([1.0, 0.0], [[1.0, 1.0], [1.0, 1.0]])
    image = law @ ma.SelfAttention(ma.Gaussian(1.0), np.ones((3, 2)))
    assert image.dimension == 3
    # along (1, 1): variance 2, half of it seen through σ = 1 as 2/(2 + 1)
    np.testing.assert_allclose(image.covariance, 4 * (2 / 3) ** 2, atol=1e-12)


def test_two_opposite_tokens_go_where_the_formula_says():
    for x in (0.3, 2.0):
        mu = ma.EmpiricalMeasure([[x], [-x]])
        dot = mu @ ma.SelfAttention(ma.DotProduct(0.7))
        l2 = mu @ ma.SelfAttention(ma.Gaussian(0.9))
        assert dot.points[0, 0] == pytest.approx(x * np.tanh(0.7 * x * x), rel=1e-13)
        assert l2.points[0, 0] == pytest.approx(x * np.tanh(x * x / 0.81), rel=1e-13)


# flows


def test_a_covariance_flows_by_the_closed_form_for_values_that_are_multiples():
    # V = vI: the inverse of S moves at the constant speed -v(A + A^T)
    for v, time in ((1.0, 0.5), (-0.7, 3.0)):
        layer = ma.SelfAttention(ma.Bilinear(A, np.eye(2)), v * np.eye(2))
        path = dynamics.gaussian_flow(layer, LAW, time, save=7)
        for t, law in zip(path.times, path.laws, strict=True):
            want = np.linalg.inv(np.linalg.inv(LAW.covariance) - v * t * (A + A.T))
            np.testing.assert_allclose(law.covariance, want, atol=1e-10)


def test_mean_shift_shrinks_a_gaussian_as_lambert_says():
    # s' = -2σ²s/(s + σ²): s + σ² log s falls at the speed 2σ²
    sigma, s = 0.8, 1.7
    law = dynamics.GaussianLaw([0.3], [[s]])
    layer = dynamics.Increment(ma.SelfAttention(ma.Gaussian(sigma)))
    path = dynamics.gaussian_flow(layer, law, 4.0, save=9)
    r = s / sigma**2
    want = sigma**2 * lambertw(r * np.exp(r - 2 * path.times)).real
    np.testing.assert_allclose([law.covariance[0, 0] for law in path.laws], want, atol=1e-11)
    np.testing.assert_allclose([law.mean[0] for law in path.laws], 0.3, atol=1e-12)


@pytest.mark.parametrize("layer", [SHIFTED, dynamics.Increment(L2)], ids=["dot product", "L2"])
def test_particles_at_nodes_of_quadrature_flow_as_the_gaussian_does(layer):
    # an affine image of the nodes is a quadrature of the moved law, so nothing is sampled
    law = dynamics.GaussianLaw(MEAN, 0.5 * LAW.covariance)
    exact = dynamics.gaussian_flow(layer, law, 0.5).laws[-1]
    path = dynamics.flow(layer, quadrature(law, 20), 0.5, rtol=1e-10)
    mean, covariance = moments(path.measure(-1))
    np.testing.assert_allclose(mean, exact.mean, atol=1e-8)
    np.testing.assert_allclose(covariance, exact.covariance, atol=1e-8)


def test_a_covariance_that_becomes_infinite_does_so_at_its_time():
    # s' = 2s²: infinite at 1/(2s)
    law = dynamics.GaussianLaw([0.0], [[0.8]])
    with pytest.raises(dynamics.FlowError, match="becomes infinite") as caught:
        dynamics.gaussian_flow(ma.SelfAttention(ma.DotProduct()), law, 1.0, save=3)
    path = caught.value.flow
    assert path.times[-1] == pytest.approx(0.625, rel=1e-8)
    assert all(np.isfinite(law.covariance).all() for law in path.laws)


def test_gaussian_answers_do_not_depend_on_the_dtype_in_use():
    with jax.enable_x64(False):
        path = dynamics.gaussian_flow(DOT, LAW, 0.5)
    want = dynamics.gaussian_flow(DOT, LAW, 0.5)
    np.testing.assert_allclose(
        path.laws[-1].covariance, want.laws[-1].covariance, rtol=1e-13, atol=0
    )


# samples


def images(law, layer, n, seeds):
    """Mean and covariance of the image of n samples, side by side, one row a seed.

    In float32, whose rounding is far below the error of any sample.
    """
    upper = np.triu_indices(law.dimension)

    def one(key):
        mu = ma.EmpiricalMeasure(law.sample(n, key=key).points.astype(jnp.float32))
        out = mu @ layer
        return jnp.concatenate([ma.mean(out), ma.covariance(out)[upper]])

    keys = jax.random.split(jax.random.fold_in(jax.random.key(0), n), seeds)
    return np.asarray(jax.lax.map(one, keys), np.float64)


def exact(law, layer):
    image = law @ layer
    return np.concatenate([image.mean, image.covariance[np.triu_indices(law.dimension)]])


def strength(law, matrix):
    values, vectors = np.linalg.eigh(law.covariance)
    root = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    return np.linalg.norm(root @ matrix @ root, 2)


@pytest.mark.slow
def test_moments_of_samples_converge_at_the_rate_of_one_over_the_square_root_of_n():
    # six dimensions: 27 numbers a sample, so that forty samples give the rate to a few hundredths
    A = 0.3 * np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    law, layer = (
        dynamics.GaussianLaw(np.ones(6) / 3, np.eye(6)),
        ma.SelfAttention(ma.Bilinear(A, np.eye(6))),
    )
    assert strength(law, A) < 0.5
    sizes = np.array([250, 500, 1000, 2000, 4000])
    errors = np.array([images(law, layer, n, 40) - exact(law, layer) for n in sizes])
    for part in (errors[..., :6], errors[..., 6:]):
        scale = np.sqrt(np.mean(part[-1] ** 2, axis=0))
        rms = np.sqrt(np.mean((part / scale) ** 2, axis=(1, 2)))
        rate = np.polyfit(np.log(sizes), np.log(rms), 1)[0]
        assert rate == pytest.approx(-0.5, abs=0.05)


@pytest.mark.slow
def test_a_hundred_thousand_samples_have_the_moments_of_the_closed_form():
    assert strength(LAW, A) < 0.5
    n, small = 100_000, 4000
    error = images(LAW, DOT, n, 1)[0] - exact(LAW, DOT)
    spread = images(LAW, DOT, small, 60).std(axis=0, ddof=1) * np.sqrt(small / n)
    assert np.all(np.abs(error) < 3 * spread)
    assert np.all(spread < 0.05 * np.abs(exact(LAW, DOT)).max())


# blurring mean shift


def blurring_mean_shift(x, sigma, steps):
    for _ in range(steps):
        kernel = np.exp(-np.sum((x[:, None] - x) ** 2, axis=2) / (2 * sigma**2))
        x = kernel @ x / kernel.sum(axis=1, keepdims=True)
    return x


def flat_mean_shift(x, bandwidth):
    """Means of all points within the bandwidth, again and again: the data do not move."""
    at = x.copy()
    for _ in range(100):
        near = np.linalg.norm(at[:, None] - x, axis=2) <= bandwidth
        at = near @ x / near.sum(axis=1, keepdims=True)
    return np.unique(np.round(at, 6), axis=0)


CENTRES = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 5.0]])


def blobs():
    rng = np.random.default_rng(0)
    return (CENTRES[:, None] + 0.2 * rng.normal(size=(3, 20, 2))).reshape(-1, 2)


def test_gaussian_self_attention_again_and_again_is_blurring_mean_shift():
    x = blobs()
    got = ma.EmpiricalMeasure(x) @ ma.WeightShared(ma.SelfAttention(ma.Gaussian(0.7)), 6)
    np.testing.assert_allclose(got.points, blurring_mean_shift(x, 0.7, 6), atol=1e-12)


def clusters(x, sigma=0.7):
    end = ma.EmpiricalMeasure(x) @ ma.WeightShared(ma.SelfAttention(ma.Gaussian(sigma)), 30)
    return np.unique(np.round(np.asarray(end.points), 6), axis=0)


def test_its_clusters_are_the_centres_of_mean_shift_with_a_flat_kernel():
    x = blobs()
    got, want = clusters(x), flat_mean_shift(x, 1.5)
    assert len(got) == len(want) == 3
    np.testing.assert_allclose(got, want, atol=0.02)


def test_its_clusters_are_the_centres_of_scikit_learn():
    cluster = pytest.importorskip("sklearn.cluster")
    want = cluster.MeanShift(bandwidth=1.5).fit(blobs()).cluster_centers_
    want = want[np.lexsort(np.round(want, 3).T[::-1])]
    np.testing.assert_allclose(clusters(blobs()), want, atol=0.02)


# what is refused


@pytest.mark.parametrize(
    ("mean", "covariance", "words"),
    [
        ([0.0], np.eye(2), "mean must be a vector"),
        ([0.0, 0.0], [[1.0, 1.0], [0.0, 1.0]], "must be symmetric"),
        ([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]], "no negative eigenvalue"),
        ([np.nan, 0.0], np.eye(2), "must be finite"),
    ],
)
def test_what_is_no_gaussian_law_is_refused(mean, covariance, words):
    with pytest.raises(ValueError, match=words):
        dynamics.GaussianLaw(mean, covariance)


def test_layers_that_leave_the_gaussian_laws_are_refused():
    masked = ma.SelfAttention(ma.Masked(ma.DotProduct(), lambda x, y: x[0] < y[0]))
    memory = ma.CrossAttention(ma.DotProduct(), None, np.eye(2))
    for layer in (masked, memory, ma.LayerNorm(), ma.SelfAttention(ma.DotProduct(), jnp.tanh)):
        with pytest.raises(ValueError, match="mask or a memory|must be"):
            LAW @ layer
    with pytest.raises(ValueError, match="keeps the dimension"):
        dynamics.gaussian_flow(ma.SelfAttention(ma.DotProduct(), np.ones((3, 2))), LAW, 1.0)
