"""Every public object passes through plain jax.jit, vmap, grad and flattening."""

import inspect
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from tests.core.closeness import assert_close, float64, normal, uniform

MU = ma.weighted(normal(0, 4, 3), uniform(1, 4))
TOKENS = ma.EmpiricalMeasure(ma.Token(jnp.arange(4.0), normal(0, 4, 3)))
E3, W23 = jnp.eye(3), normal(2, 2, 3)
ATTENTION = ma.SelfAttention(ma.Bilinear(W23, W23, 0.5), E3)


def half(x):
    return 0.5 * x


OBJECTS = [
    ma.Affine(W23, uniform(3, 2)),
    ma.Function(half),
    ma.Token(jnp.asarray(1.0), jnp.ones(3)),
    ma.Pair(jnp.ones(2), jnp.ones(3)),
    MU,
    TOKENS,
    ma.pairs(MU, normal(4, 4, 2)),
    ma.DotProduct(0.5),
    ma.Bilinear(W23, W23, 0.5),
    ma.Gaussian(0.7),
    ma.Additive(W23, W23, jnp.ones(2)),
    ma.Relation(half, half),
    ma.Interaction(lambda x, y: x[0] * y[1]),
    ma.Rotary(jnp.ones((2, 3)), jnp.ones((2, 3))),
    ma.Causal(ma.DotProduct(0.5)),
    ma.Masked(ma.Gaussian(0.7), lambda x, y: x[0] <= 50),
    ma.OnKey(ma.DotProduct(0.5)),
    ma.Deterministic(half),
    ma.SoftmatchKernel(ma.Gaussian(0.7), MU),
    ma.LookupKernel(MU, normal(4, 4, 2)),
    ma.SoftmatchKernel(ma.DotProduct(), MU) @ ma.LookupKernel(MU, normal(4, 4, 2)),
    ma.MomentEncoding(jnp.log, jnp.exp),
    ma.moment_projection(ma.SoftmatchKernel(ma.DotProduct(), MU)),
    ma.AttentionKernel(ma.DotProduct(), MU, normal(4, 4, 2)),
    ATTENTION,
    ATTENTION.at(MU),
    ma.CrossAttention(ma.DotProduct(), None, MU),
    ma.MultiHead([ATTENTION, ATTENTION], jnp.ones((3, 6))),
    ma.Residual(ATTENTION),
    ma.LayerNorm(jnp.ones(3), jnp.ones(3)),
    ma.RMSNorm(jnp.ones(3)),
    ma.FeedForward(W23, W23.T, ma.layer.gelu),
    ma.Sinusoidal(),
    ma.Learned(jnp.ones((6, 3))),
    ma.Stack([ATTENTION, ma.LayerNorm()]),
    ma.WeightShared(ATTENTION, 2),
    ma.pre_norm([ATTENTION], [ma.LayerNorm()]),
]
NAMES = [f"{k} {type(thing).__name__}" for k, thing in enumerate(OBJECTS)]
every_object = pytest.mark.parametrize("thing", OBJECTS, ids=NAMES)


def same(one, two):
    """Equal structure, static fields and arrays."""
    return bool(eqx.tree_equal(one, two))


def test_no_public_class_of_the_core_is_missing_here():
    public = {
        item
        for name, item in vars(ma).items()
        if inspect.isclass(item) and issubclass(item, eqx.Module) and not inspect.isabstract(item)
    }
    public = {item for item in public if not item.__name__.startswith("Abstract")}
    assert public <= {type(thing) for thing in OBJECTS}


@every_object
def test_flattening_and_building_again_gives_the_same_object(thing):
    leaves, structure = jax.tree.flatten(thing)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    again = jax.tree.unflatten(structure, leaves)
    assert type(again) is type(thing)
    assert same(again, thing)
    assert repr(again) == repr(thing)


@every_object
def test_an_object_goes_through_jit_and_comes_back(thing):
    assert same(jax.jit(lambda t: t)(thing), thing)


@every_object
def test_a_batch_of_objects_goes_through_vmap(thing):
    if not jax.tree.leaves(thing):
        pytest.skip("it holds no arrays")
    both = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), thing)
    out = jax.vmap(lambda t: t)(both)
    assert same(out, both)
    repr(out)


@every_object
def test_the_gradient_in_an_object_is_an_object_of_its_structure(thing):
    def energy(t):
        return sum((jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(t)), jnp.zeros(()))

    slope = jax.grad(energy)(thing)
    assert jax.tree.structure(slope) == jax.tree.structure(thing)
    for leaf, gradient in zip(jax.tree.leaves(thing), jax.tree.leaves(slope), strict=True):
        assert_close(gradient, np.cos(float64(leaf)))


@every_object
def test_leaves_that_are_not_arrays_are_no_obstacle_to_tree_transformations(thing):
    empty = jax.tree.map(lambda a: None, thing)
    repr(empty)
    shapes = jax.eval_shape(lambda t: t, thing)
    repr(shapes)
    assert jax.tree.structure(shapes) == jax.tree.structure(thing)
    repr(jax.tree.map(lambda a: "leaf", thing))


@pytest.mark.parametrize("thing", [MU, TOKENS, ATTENTION, ma.MultiHead([ATTENTION, ATTENTION])])
def test_measures_and_layers_can_be_sent_to_other_processes(thing):
    assert same(pickle.loads(pickle.dumps(thing)), thing)


LAYERS = [
    thing
    for thing in OBJECTS
    if isinstance(thing, (ma.AbstractMarkovKernel, ma.AbstractNonlinearKernel))
    and not isinstance(thing, (ma.RMSNorm, ma.FeedForward, ma.Sinusoidal, ma.Deterministic))
]


def reduced(mu, layer):
    out = mu @ layer
    values = jax.tree.leaves(out.points)[-1]
    return jnp.sum(jnp.sin(values)) + jnp.sum(out.weights**2)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_transport_under_jit_vmap_and_grad_is_the_eager_one(layer):
    mu = TOKENS if isinstance(layer, ma.Learned) else MU
    expected = float(reduced(mu, layer))
    value, slope = jax.jit(jax.value_and_grad(reduced, argnums=(0, 1)))(mu, layer)
    assert_close(value, expected, scale=10)
    for leaf in jax.tree.leaves(slope):
        assert np.isfinite(leaf).all()
    both = jax.tree.map(lambda a: jnp.stack([a, a]), mu)
    batch = jax.jit(jax.vmap(reduced, in_axes=(0, None)))(both, layer)
    assert_close(batch, [expected] * 2, scale=10)


TRACE_CASES = {
    "scale": (lambda s: ma.SelfAttention(ma.DotProduct(s)), [0.1, 0.2, 3.0]),
    "sigma": (lambda s: ma.SelfAttention(ma.Gaussian(s)), [0.1, 0.2, 3.0]),
    "base": (lambda b: ma.Stack([ma.Sinusoidal(b)]), [10.0, 100.0, 1e4]),
    "eps": (lambda e: ma.Stack([ma.LayerNorm(eps=e)]), [1e-5, 1e-6, 1e-3]),
}


@pytest.mark.parametrize("case", TRACE_CASES)
def test_another_number_in_a_layer_compiles_nothing_new(case):
    make, numbers = TRACE_CASES[case]
    push = jax.jit(
        eqx.debug.assert_max_traces(lambda mu, layer: (mu @ layer).points.state, max_traces=1)
    )
    outs = [push(TOKENS, make(number)) for number in numbers]
    assert float(jnp.abs(outs[0] - outs[-1]).max()) > 1e-9


def test_another_measure_of_the_same_shape_compiles_nothing_new():
    push = jax.jit(eqx.debug.assert_max_traces(lambda mu: mu @ ATTENTION, max_traces=1))
    for seed in range(3):
        push(ma.weighted(normal(seed, 4, 3), uniform(seed, 4)))
        push(ma.EmpiricalMeasure(normal(seed + 5, 4, 3)))


def test_the_trace_counter_fails_when_it_must():
    push = jax.jit(eqx.debug.assert_max_traces(lambda mu: mu @ ATTENTION, max_traces=1))
    push(ma.EmpiricalMeasure(normal(0, 4, 3)))
    with pytest.raises(RuntimeError, match="traced"):
        push(ma.EmpiricalMeasure(normal(0, 5, 3)))


def test_eager_transport_does_not_compile_again_for_the_same_shapes():
    potential_calls = []

    class Counting(ma.AbstractPotential):
        scale: jax.Array

        def __call__(self, x, y):
            potential_calls.append(1)
            return self.scale * jnp.dot(x, y)

    for scale in (0.1, 0.2, 0.3):
        MU @ ma.SelfAttention(Counting(jnp.asarray(scale)))
        if scale == 0.1:
            first = len(potential_calls)
    assert len(potential_calls) == first


def test_fields_can_be_replaced_by_tree_at():
    layer = eqx.tree_at(lambda t: t.potential.scale, ATTENTION, jnp.asarray(2.0))
    expected = ma.SelfAttention(ma.Bilinear(W23, W23, 2.0), E3)
    assert_close((MU @ layer).points, float64((MU @ expected).points))


def test_a_law_whose_log_weights_were_replaced_is_normalised_where_it_is_used():
    raw = eqx.tree_at(lambda mu: mu.log_weights, MU, MU.log_weights + 3)
    assert_close(raw.weights, float64(MU.weights))
    assert_close(ma.mean(raw), float64(ma.mean(MU)))
    assert_close(ma.covariance(raw), float64(ma.covariance(MU)))
    assert_close((raw @ ATTENTION).points, float64((MU @ ATTENTION).points))
    got = ma.log_normaliser(ma.DotProduct(), raw, jnp.ones(3))
    assert_close(got, float(ma.log_normaliser(ma.DotProduct(), MU, jnp.ones(3))), scale=3)
    kernel = ma.SoftmatchKernel(ma.DotProduct(), raw)
    assert_close(
        (raw @ kernel).weights, float64((MU @ ma.SoftmatchKernel(ma.DotProduct(), MU)).weights)
    )
    one = ma.boltzmann_gibbs(lambda x: x[0], raw)
    assert_close(one.weights, float64(ma.boltzmann_gibbs(lambda x: x[0], MU).weights))
    assert_close(ma.mean(ma.mixture([raw, MU])), float64(ma.mean(MU)))
    assert_close(ma.mean(raw @ ma.Deterministic(half)), 0.5 * float64(ma.mean(MU)))
    joint = ma.product(raw, raw)
    assert_close(jnp.sum(joint.weights), 1.0)
    assert_close(ma.compact(raw).weights, float64(MU.weights))
