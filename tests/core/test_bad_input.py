"""Bad input gets a ValueError that names the argument, the value and the remedy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from tests.core.closeness import normal

GOOD = [[0.0, 1.0], [2.0, 3.0]]
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize(
    "make",
    [
        ma.EmpiricalMeasure,
        lambda points: ma.weighted(points, [1, 1]),
        lambda points: ma.dirac(points[0]),
        lambda points: ma.pairs(points, GOOD),
        lambda points: ma.pairs(GOOD, points),
        lambda points: ma.EmpiricalMeasure(ma.Token(jnp.arange(2.0), jnp.asarray(points))),
        lambda points: ma.SoftmatchKernel(ma.DotProduct(), points),
        lambda points: ma.LookupKernel(GOOD, points),
        lambda points: ma.AttentionKernel(ma.DotProduct(), points, GOOD),
    ],
    ids=["uniform", "weighted", "dirac", "keys", "values", "token", "softmatch", "lookup", "attn"],
)
def test_points_that_are_not_finite_are_refused(make, bad):
    with pytest.raises(
        ValueError, match="(points|keys|values) must be finite.*NaN or infinite.*drop or repair"
    ):
        make([[bad, 1.0], [2.0, 3.0]])


def test_where_single_precision_may_have_overflowed_the_remedy_is_double_precision():
    with pytest.raises(ValueError, match="overflowed float32 needs the option jax_enable_x64"):
        ma.EmpiricalMeasure(np.array([[np.inf]], np.float32))


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0, -0.5], "weights.*not negative"),
        ([1.0, NAN], "weights.*NaN"),
        ([1.0, INF], "weights.*infinite"),
        ([0.0, 0.0], "weights are all zero.*at least one atom"),
        ([1.0], r"weights must have shape \(2,\).*got \(1,\)"),
        ([1.0, 1.0, 1.0], r"weights must have shape \(2,\).*got \(3,\)"),
        ([[1.0, 1.0]], r"weights must have shape \(2,\).*got \(1, 2\)"),
        (1.0, r"weights must have shape \(2,\).*got \(\)"),
    ],
)
@pytest.mark.parametrize("convert", [lambda w: w, np.asarray, jnp.asarray])
def test_bad_weights_are_refused(weights, words, convert):
    with pytest.raises(ValueError, match=words):
        ma.weighted(GOOD, convert(weights))


@pytest.mark.parametrize(
    ("log_weights", "words"),
    [
        ([0.0, NAN], r"log_weights must be finite.*got a NaN or \+inf"),
        ([0.0, INF], r"log_weights must be finite.*got a NaN or \+inf"),
        ([-INF, -INF], "log_weights are all -inf.*at least one atom"),
        ([0.0], r"log_weights must have shape \(2,\).*got \(1,\)"),
        ([[0.0, 0.0]], r"log_weights must have shape \(2,\).*got \(1, 2\)"),
    ],
)
def test_bad_log_weights_are_refused(log_weights, words):
    with pytest.raises(ValueError, match=words):
        ma.EmpiricalMeasure(GOOD, log_weights)


@pytest.mark.parametrize(
    "points",
    [1.0, [1.0, 2.0], np.zeros((2, 2, 2)), np.zeros((0, 2)), np.zeros((2, 0)), []],
    ids=["scalar", "vector", "cube", "no points", "no dimension", "empty list"],
)
def test_points_of_the_wrong_rank_and_empty_measures_are_refused(points):
    with pytest.raises(ValueError, match=r"points|point of dimension"):
        ma.EmpiricalMeasure(points)


@pytest.mark.parametrize(
    "points",
    [[[1.0], [1.0, 2.0]], [["a", "b"]], None, object(), [[1j, 2.0]]],
    ids=["ragged", "words", "none", "object", "complex"],
)
@pytest.mark.filterwarnings("ignore:Data type alias")
def test_points_that_are_no_real_numbers_in_equal_rows_are_refused(points):
    with pytest.raises(ValueError, match="points must be"):
        ma.EmpiricalMeasure(points)


def test_a_vector_of_points_on_the_line_is_told_what_to_write():
    with pytest.raises(ValueError, match=r"points\[:, None\].*dirac"):
        ma.EmpiricalMeasure([1.0, 2.0])


@pytest.mark.parametrize("x", [1.0, [[1.0]]])
def test_a_dirac_needs_a_vector(x):
    with pytest.raises(ValueError, match=r"a point \(d,\) must be a vector, got an array of shape"):
        ma.dirac(x)


def test_tokens_of_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="same number of rows"):
        ma.EmpiricalMeasure(ma.Pair(normal(0, 3, 2), normal(1, 2, 2)))


@pytest.mark.parametrize(
    ("position", "state"), [((3,), (3,)), ((3, 2), (3, 2)), ((3,), (3, 2, 2)), ((), (3, 2))]
)
def test_tokens_of_the_wrong_rank_are_refused(position, state):
    with pytest.raises((ValueError, TypeError)):
        ma.EmpiricalMeasure(ma.Token(jnp.zeros(position), jnp.zeros(state)))


def test_keys_and_values_of_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="one value for each key, got 3 keys and 2 values"):
        ma.pairs(normal(0, 3, 2), normal(1, 2, 2))


def test_a_mixture_of_nothing_or_of_unlike_measures_is_refused():
    with pytest.raises(ValueError, match="at least one measure"):
        ma.mixture([])
    with pytest.raises(ValueError, match=r"same space, got dimensions \[2, 1\]"):
        ma.mixture([ma.dirac([1.0, 2.0]), ma.dirac([1.0])])
    with pytest.raises(ValueError, match="same space"):
        ma.mixture([ma.dirac([1.0]), ma.pairs([[1.0]], [[1.0]])])
    with pytest.raises(ValueError, match=r"weights must have shape \(2,\)"):
        ma.mixture([ma.dirac([1.0]), ma.dirac([2.0])], [1.0])
    with pytest.raises(ValueError, match="weights"):
        ma.mixture([ma.dirac([1.0]), ma.dirac([2.0])], [1.0, -1.0])


def test_a_product_or_transport_with_too_many_atoms_is_refused_with_the_remedy():
    mu = ma.EmpiricalMeasure(np.zeros((3000, 1)))
    with pytest.raises(ValueError, match="9000000 atoms.*integrate one variable"):
        ma.product(mu, mu)
    lookup = ma.LookupKernel(np.zeros((3000, 1)), np.zeros((3000, 1)))
    general = ma.Deterministic(lambda x: x) @ lookup @ lookup
    with pytest.raises(ValueError, match=r"9000000 atoms.*expect\(K, f\).*moment_projection"):
        ma.kernel.AbstractMarkovKernel.act(general, mu)


def test_compact_is_refused_under_jit():
    mu = ma.EmpiricalMeasure(GOOD)
    with pytest.raises(ValueError, match="outside jit"):
        jax.jit(lambda mu: ma.compact(mu).points)(mu)
    with pytest.raises(ValueError, match="outside jit"):
        jax.jit(lambda w: ma.compact(ma.weighted(GOOD, w)).points)(jnp.ones(2))


@pytest.mark.parametrize("sigma", [0.0, -1.0, NAN, INF])
def test_a_bandwidth_must_be_positive_and_finite(sigma):
    with pytest.raises(ValueError, match="sigma must be positive"):
        ma.Gaussian(sigma)


def test_the_message_about_sigma_says_what_was_received():
    with pytest.raises(ValueError, match="-0.25"):
        ma.Gaussian(-0.25)


@pytest.mark.parametrize("make", [ma.DotProduct, ma.Gaussian])
def test_a_number_must_not_be_an_array(make):
    with pytest.raises(
        ValueError, match=r"(scale|sigma) must be a number, got an array of shape \(2,\)"
    ):
        make([1.0, 2.0])


@pytest.mark.parametrize(
    "layer",
    [
        ma.SelfAttention(ma.Bilinear(np.ones((2, 3)), np.ones((2, 3)))),
        ma.SelfAttention(ma.DotProduct(), np.ones((2, 3))),
        ma.SelfAttention(ma.Additive(np.ones((2, 3)), np.ones((2, 3)), np.ones(2))),
        ma.CrossAttention(ma.DotProduct(), None, ma.EmpiricalMeasure(np.ones((4, 3)))),
        ma.CrossAttention(ma.Gaussian(1.0), None, ma.EmpiricalMeasure(np.ones((4, 3)))),
        ma.SoftmatchKernel(ma.DotProduct(), np.ones((4, 3))),
        ma.LookupKernel(np.ones((4, 3)), np.ones((4, 3))),
        ma.AttentionKernel(ma.DotProduct(), np.ones((4, 3)), np.ones((4, 3))),
        ma.Deterministic(np.ones((3, 3))),
        ma.FeedForward(np.ones((4, 3)), np.ones((3, 4)), ma.layer.relu),
        ma.LayerNorm(np.ones(3)),
        ma.LayerNorm(bias=np.ones(1)),
        ma.RMSNorm(np.ones(3)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_kernel_of_another_dimension_is_refused_by_name(layer):
    with pytest.raises(ValueError, match="dimension|shape"):
        ma.EmpiricalMeasure(np.zeros((5, 2))) @ layer


def test_unlike_query_and_key_maps_are_refused():
    with pytest.raises(ValueError, match="one dimension, got matrices with 2 and 3 rows"):
        ma.dirac([1.0, 2.0]) @ ma.SelfAttention(ma.Bilinear(np.ones((2, 2)), np.ones((3, 2))))


@pytest.mark.parametrize("readout", [np.ones(3), np.ones(1)])
def test_an_additive_readout_of_the_wrong_length_is_refused(readout):
    def attend():
        potential = ma.Additive(np.ones((4, 2)), np.ones((4, 2)), readout)
        return ma.EmpiricalMeasure(GOOD) @ ma.SelfAttention(potential)

    with pytest.raises(ValueError, match="readout|shape"):
        attend()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ma.Affine(np.ones(3)), r"weight \(e, d\) must be a matrix.*\(3,\)"),
        (
            lambda: ma.Affine(np.ones((2, 3)), np.ones(3)),
            r"bias must have shape \(2,\).*got \(3,\)",
        ),
        (lambda: ma.SelfAttention(3.0), "expected a potential or a function of two points, got 3"),
        (lambda: ma.SelfAttention(ma.DotProduct(), "x"), "expected a matrix.*function.*got 'x'"),
        (
            lambda: ma.Additive(np.eye(2), np.eye(2), np.eye(2)),
            r"readout \(h,\) must be a vector.*\(2, 2\)",
        ),
        (lambda: ma.LayerNorm(np.eye(2)), r"weight \(d,\) must be a vector.*\(2, 2\)"),
        (lambda: ma.LayerNorm(bias=np.eye(2)), r"bias \(d,\) must be a vector.*\(2, 2\)"),
        (lambda: ma.LayerNorm(eps=-1.0), "eps"),
        (lambda: ma.RMSNorm(eps=-1.0), "eps"),
        (lambda: ma.Learned(np.ones(3)), r"table.*\(3,\)"),
        (lambda: ma.Stack([ma.SoftmatchKernel(ma.DotProduct(), GOOD)]), "SoftmatchKernel.*Determ"),
        (
            lambda: ma.WeightShared(ma.LayerNorm(), -1),
            "depth must be a whole number.*got -1",
        ),
        (lambda: ma.WeightShared(ma.LayerNorm(), 2.5), "depth must be a whole number.*got 2.5"),
        (lambda: ma.MultiHead([]), "at least one head"),
        (lambda: ma.pre_norm([ma.LayerNorm()], []), "one norm for each sublayer, got 1 and 0"),
        (lambda: ma.post_norm([], [ma.LayerNorm()]), "one norm for each sublayer, got 0 and 1"),
    ],
)
def test_what_is_static_is_refused_at_construction(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_potential_that_returns_a_condition_is_told_what_to_return():
    with pytest.raises(ValueError, match=r"booleans.*jnp.where\(condition, 0.0, -jnp.inf\)"):
        ma.attention(GOOD, GOOD, GOOD, potential=lambda x, y: x[0] < y[0])


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (
            lambda mu: mu @ ma.SelfAttention(lambda x, y: x * y),
            r"one number for two points.*\(2,\)",
        ),
        (lambda mu: mu @ ma.SelfAttention(ma.DotProduct(), lambda x: x[0]), r"return.*got \(\)"),
        (lambda mu: mu @ ma.Deterministic(lambda x: x[0]), r"return.*got \(\)"),
        (lambda mu: ma.pushforward(lambda x: x[0], mu), r"return.*got \(\)"),
        (lambda mu: ma.EmpiricalMeasure(mu), "got a EmpiricalMeasure"),
    ],
)
def test_what_returns_or_is_the_wrong_thing_is_refused_where_it_is_used(use, words):
    with pytest.raises(ValueError, match=words):
        use(ma.EmpiricalMeasure(GOOD))


@pytest.mark.parametrize("use", [ma.mean, ma.covariance, lambda mu: mu.weights])
def test_a_batch_of_measures_is_never_taken_for_one_measure(use):
    batch = jax.vmap(ma.EmpiricalMeasure)(normal(0, 4, 3, 2))
    with pytest.raises((ValueError, TypeError)):
        use(batch)


def test_values_that_do_not_belong_to_the_keys_are_refused():
    kernel = ma.SoftmatchKernel(ma.DotProduct(), np.ones((4, 2)))
    with pytest.raises((ValueError, TypeError)):
        kernel.average(lambda points: points[0], jnp.ones((3, 2)))


def test_heads_of_unlike_shapes_are_refused():
    heads = [ma.SelfAttention(ma.DotProduct(), np.ones((e, 2))) for e in (1, 2)]
    with pytest.raises(ValueError, match="all of one structure.*1 of 2 heads unlike"):
        ma.MultiHead(heads)


def test_a_residual_of_another_dimension_is_refused():
    layer = ma.Residual(ma.SelfAttention(ma.DotProduct(), np.ones((3, 2))))
    with pytest.raises(ValueError, match=r"\(2, 2\) became \(2, 3\).*dimension 2"):
        ma.EmpiricalMeasure(GOOD) @ layer


def test_weight_sharing_over_a_layer_that_changes_the_dimension_is_refused():
    layer = ma.WeightShared(ma.SelfAttention(ma.DotProduct(), np.ones((3, 2))), 2)
    with pytest.raises(ValueError, match="2 became 3"):
        ma.EmpiricalMeasure(GOOD) @ layer


@pytest.mark.parametrize(
    "layer",
    [
        ma.SelfAttention(ma.Causal(ma.DotProduct())),
        ma.SelfAttention(ma.Rotary(np.eye(2), np.eye(2))),
        ma.Sinusoidal(),
        ma.Learned(np.ones((4, 2))),
    ],
    ids=["causal", "rotary", "sinusoidal", "learnt"],
)
def test_plain_points_in_a_layer_that_needs_positions_are_told_to_be_tokens(layer):
    with pytest.raises(ValueError, match=r"Token\(position, state\)"):
        ma.EmpiricalMeasure(GOOD) @ layer


def test_rotary_positions_need_an_even_dimension():
    mu = ma.EmpiricalMeasure(ma.Token(jnp.arange(2.0), jnp.ones((2, 3))))
    with pytest.raises(ValueError, match="even dimension, got 3"):
        mu @ ma.SelfAttention(ma.Rotary(np.eye(3), np.eye(3)))


@pytest.mark.parametrize("position", [-1.0, 4.0, 1.5])
def test_a_position_that_a_learnt_table_does_not_have_is_never_that_of_another(position):
    mu = ma.EmpiricalMeasure(ma.Token(jnp.asarray([position]), jnp.zeros((1, 2))))
    layer = ma.Learned(np.arange(8.0).reshape(4, 2))
    try:
        moved = (mu @ layer).points.state
    except ValueError:
        return
    assert np.isnan(moved).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"q": [[NAN, 0.0]]}, "q.* NaN"),
        ({"k": [[NAN, 0.0], [1.0, 0.0]]}, "k.* NaN"),
        ({"v": [[NAN], [0.0]]}, "v.* NaN"),
        ({"q": [0.0, 1.0]}, r"q.*\(2,\)"),
        ({"q": [[0.0, 1.0, 2.0]]}, r"\(3,\)"),
        ({"v": [[0.0]]}, "one value for each key, got 2 keys and 1 values"),
        ({"weights": [1.0, -1.0]}, "weights"),
        ({"weights": [1.0]}, "weights must have shape"),
        ({"mask": [[1, 1]]}, "mask must be booleans"),
        ({"mask": [[True, True, True]]}, r"mask must be booleans of shape \(1, 2\) or \(2,\)"),
        ({"mask": [False, False]}, "no mass"),
        ({"mask": [False, True], "weights": [1.0, 0.0]}, "no mass"),
    ],
    ids=str,
)
def test_attention_on_arrays_refuses_what_does_not_fit(arguments, words):
    good = {"q": [[0.5, 1.0]], "k": GOOD, "v": [[1.0], [2.0]]}
    with pytest.raises(ValueError, match=words):
        ma.attention(**(good | arguments))


def test_products_of_unlike_things_are_refused_in_words():
    kernel = ma.SoftmatchKernel(ma.DotProduct(), GOOD)
    for wrong in (3, "x", None):
        with pytest.raises((TypeError, ValueError)):
            kernel @ wrong
    for points in (jnp.asarray(GOOD), np.asarray(GOOD)):
        with pytest.raises((TypeError, ValueError), match="EmpiricalMeasure"):
            points @ kernel
    with pytest.raises((TypeError, ValueError), match="SoftmatchKernel"):
        ma.SelfAttention(ma.DotProduct()) @ kernel
