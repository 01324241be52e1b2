"""What is wrong in a traced value is refused when the compiled program runs, in the same words.

Each test also asks for a part of the result that does not contain the wrong value: no use of an
object escapes the check that made it.
"""

import jax
import jax.numpy as jnp
import pytest

import measattn as ma
from tests.core.closeness import normal

POINTS = normal(0, 4, 2)
NAN_POINTS = POINTS.at[2, 1].set(jnp.nan)
FAR = POINTS.at[3, 0].set(100.0)


def near(x, y):
    return x[0] < 50


BLIND = ma.Masked(ma.DotProduct(), near)
"""A query at x_0 ≥ 50 sees nothing."""

CASES = {
    "points": (ma.EmpiricalMeasure, NAN_POINTS, "points must be finite"),
    "points, weighted": (lambda x: ma.weighted(x, [1, 2, 3, 4]), NAN_POINTS, "points must be fin"),
    "token": (
        lambda x: ma.EmpiricalMeasure(ma.Token(jnp.arange(4.0), x)),
        NAN_POINTS,
        "points must be finite",
    ),
    "keys": (lambda x: ma.pairs(x, POINTS), NAN_POINTS, "must be finite"),
    "values": (lambda x: ma.pairs(POINTS, x), NAN_POINTS, "values must be finite"),
    "dirac": (lambda x: ma.dirac(x[2]), NAN_POINTS, "must be finite"),
    "negative weights": (
        lambda w: ma.weighted(POINTS, w),
        jnp.asarray([1.0, -1.0, 1.0, 1.0]),
        "weights must be finite and not negative",
    ),
    "infinite weights": (
        lambda w: ma.weighted(POINTS, w),
        jnp.asarray([1.0, jnp.inf, 1.0, 1.0]),
        "weights must be finite and not negative",
    ),
    "no mass": (lambda w: ma.weighted(POINTS, w), jnp.zeros(4), "weights are all zero"),
    "log-weights": (
        lambda w: ma.EmpiricalMeasure(POINTS, w),
        jnp.asarray([0.0, jnp.nan, 0.0, 0.0]),
        "log_weights must be finite",
    ),
    "no mass in logarithms": (
        lambda w: ma.EmpiricalMeasure(POINTS, w),
        jnp.full(4, -jnp.inf),
        "log_weights are all -inf",
    ),
    "mixture": (
        lambda w: ma.mixture([ma.dirac(x) for x in POINTS], w),
        jnp.asarray([1.0, -1.0, 1.0, 1.0]),
        "weights must be finite and not negative",
    ),
    "boltzmann_gibbs": (
        lambda x: ma.boltzmann_gibbs(
            lambda y: jnp.where(y[0] > 0, -jnp.inf, 0.0), ma.EmpiricalMeasure(x)
        ),
        jnp.abs(POINTS),
        "no mass",
    ),
    "boltzmann_gibbs, NaN": (
        lambda x: ma.boltzmann_gibbs(lambda y: jnp.log(y[0]), ma.EmpiricalMeasure(x)),
        -jnp.abs(POINTS),
        "log_g must be finite or -inf",
    ),
    "sigma": (lambda s: ma.Gaussian(s[0]), jnp.asarray([-1.0]), "sigma must be positive"),
    "self-attention": (
        lambda x: ma.EmpiricalMeasure(x) @ ma.SelfAttention(BLIND),
        FAR,
        "no mass",
    ),
    "a lambda as a mask": (
        lambda x: (
            ma.EmpiricalMeasure(x)
            @ ma.SelfAttention(lambda x, y: jnp.where(near(x, y), 0.0, -jnp.inf))
        ),
        FAR,
        "no mass",
    ),
    "several heads": (
        lambda x: (
            ma.EmpiricalMeasure(x)
            @ ma.MultiHead([ma.SelfAttention(ma.DotProduct()), ma.SelfAttention(ma.DotProduct())])
            @ ma.MultiHead([ma.SelfAttention(BLIND)] * 2)
        ),
        FAR,
        "no mass",
    ),
    "in a residual in a stack": (
        lambda x: (
            ma.EmpiricalMeasure(x)
            @ ma.Stack([ma.Residual(ma.SelfAttention(BLIND)), ma.LayerNorm()])
        ),
        FAR,
        "no mass",
    ),
    "shared over depth": (
        lambda x: ma.EmpiricalMeasure(x) @ ma.WeightShared(ma.SelfAttention(BLIND), 2),
        FAR,
        "no mass",
    ),
    "cross-attention": (
        lambda x: (
            ma.EmpiricalMeasure(x) @ ma.CrossAttention(BLIND, None, ma.EmpiricalMeasure(POINTS))
        ),
        FAR,
        "no mass",
    ),
    "softmatch at a point": (
        lambda x: ma.SoftmatchKernel(BLIND, ma.EmpiricalMeasure(POINTS))(x[3]),
        FAR,
        "no mass",
    ),
    "softmatch of a measure": (
        lambda x: ma.EmpiricalMeasure(x) @ ma.SoftmatchKernel(BLIND, ma.EmpiricalMeasure(POINTS)),
        FAR,
        "no mass",
    ),
    "attention kernel": (
        lambda x: ma.AttentionKernel(BLIND, POINTS, POINTS)(x[3]),
        FAR,
        "no mass",
    ),
    "frozen layer": (
        lambda x: ma.SelfAttention(BLIND).at(ma.EmpiricalMeasure(POINTS))(x[3]),
        FAR,
        "no mass",
    ),
    "look-up": (lambda x: ma.LookupKernel(POINTS, POINTS)(x[3]), FAR, "no key of this kernel"),
    "look-up of a measure": (
        lambda x: ma.EmpiricalMeasure(x) @ ma.LookupKernel(POINTS, POINTS),
        FAR,
        "no key of this kernel",
    ),
    "moment projection": (
        lambda x: ma.moment.project(
            ma.EmpiricalMeasure(x),
            ma.MomentEncoding(
                lambda t: jnp.concatenate([jnp.cos(t), jnp.sin(t)]),
                lambda m: jnp.arctan2(m[2:], m[:2]),
            ),
        ),
        POINTS,
        "moment subspace",
    ),
}
TRANSPORTS = {
    "self-attention",
    "a lambda as a mask",
    "several heads",
    "in a residual in a stack",
    "shared over depth",
    "cross-attention",
    "softmatch of a measure",
    "attention kernel",
    "frozen layer",
    "look-up of a measure",
}


# a transport keeps the weights of what it moves, or the atoms of the kernel: nothing is wrong there
CONSTRUCTORS = [case for case in CASES if case not in TRANSPORTS]


@pytest.mark.parametrize("case", sorted(TRANSPORTS))
def test_a_bad_value_is_refused_when_the_program_runs(case):
    make, bad, words = CASES[case]
    with pytest.raises(RuntimeError, match=words):
        jax.block_until_ready(jax.jit(make)(bad))


@pytest.mark.parametrize("case", CONSTRUCTORS)
def test_no_leaf_of_what_is_made_escapes_the_check(case):
    make, bad, words = CASES[case]
    leaves = len(jax.tree.leaves(jax.eval_shape(make, bad)))
    for k in range(leaves):

        def part(x, k=k):
            return jax.tree.leaves(make(x))[k]

        with pytest.raises(RuntimeError, match=words):
            jax.block_until_ready(jax.jit(part)(bad))


@pytest.mark.parametrize("case", CASES)
def test_the_same_words_are_used_where_the_value_is_concrete(case):
    make, bad, words = CASES[case]
    # inside the loop over depth all values are traced
    kind = RuntimeError if case == "shared over depth" else ValueError
    with pytest.raises(kind, match=words):
        make(bad)


def test_what_is_concrete_is_refused_with_a_value_error_inside_jit_too():
    with pytest.raises(ValueError, match="weights must be finite and not negative"):
        jax.jit(lambda x: ma.weighted(x, [1.0, -1.0, 1.0, 1.0]).points)(POINTS)
    with pytest.raises(ValueError, match="sigma must be positive"):
        jax.jit(lambda x: ma.EmpiricalMeasure(x) @ ma.SelfAttention(ma.Gaussian(-1.0)))(POINTS)


@pytest.mark.parametrize("case", ["points", "negative weights", "self-attention", "sigma"])
def test_one_bad_measure_in_a_batch_is_refused(case):
    make, bad, words = CASES[case]
    good = jnp.ones_like(bad)
    with pytest.raises(RuntimeError, match=words):
        jax.block_until_ready(jax.jit(jax.vmap(make))(jnp.stack([good, bad])))


@pytest.mark.parametrize("case", ["points", "negative weights", "self-attention"])
def test_a_gradient_that_depends_on_a_bad_value_is_refused(case):
    make, bad, words = CASES[case]

    def energy(x):
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(make(x)))

    with pytest.raises(RuntimeError, match=words):
        jax.block_until_ready(jax.jit(jax.grad(energy))(bad))


def test_attention_on_arrays_refuses_a_traced_mask_that_leaves_no_mass():
    def attend(mask):
        return ma.attention(POINTS, POINTS, POINTS, mask=mask)

    mask = jnp.ones((4, 4), bool).at[1].set(False)
    with pytest.raises(RuntimeError, match="no mass"):
        jax.block_until_ready(jax.jit(attend)(mask))


def test_good_values_pass_all_checks_under_jit():
    def good(x, w, s):
        mu = ma.weighted(x, w)
        nu = mu @ ma.SelfAttention(ma.Masked(ma.Gaussian(s), near))
        return nu.points, nu.log_weights

    points, log_weights = jax.jit(good)(POINTS, jnp.ones(4), 1.0)
    assert bool(jnp.all(jnp.isfinite(points)) & jnp.all(jnp.isfinite(log_weights)))
