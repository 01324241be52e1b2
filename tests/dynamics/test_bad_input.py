"""Bad input is refused before any work, in words that name the argument, the value, the remedy."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

import measattn as ma
from measattn import dynamics as dyn

pytestmark = pytest.mark.float64

RNG = np.random.default_rng(0)
CLOUD = RNG.normal(size=(12, 3))
MU = ma.EmpiricalMeasure(CLOUD)
LAYER = ma.SelfAttention(ma.DotProduct(0.01), 0.5 * np.eye(3))
WIDE = ma.SelfAttention(ma.DotProduct(1.0), np.ones((5, 3)))
OTHER = ma.SelfAttention(ma.DotProduct(1.0), np.eye(5))
RAW = ma.Deterministic(lambda x: jnp.matmul(x, jnp.eye(5)))
BATCH = jax.vmap(ma.EmpiricalMeasure)(jnp.asarray(RNG.normal(size=(2, 12, 3))))
LAW = dyn.GaussianLaw(np.zeros(3), np.eye(3))
NAN, INF = float("nan"), float("inf")

ON_MEASURES = {
    "iterate": lambda layer, mu: dyn.iterate(layer, mu, 3),
    "through": lambda layer, mu: dyn.through([layer], mu),
    "fixed_point": dyn.fixed_point,
    "spectrum": dyn.spectrum,
    "contraction": dyn.contraction,
    "flow": lambda layer, mu: dyn.flow(layer, mu, 1.0),
}


@pytest.mark.parametrize("use", ON_MEASURES.values(), ids=ON_MEASURES)
@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (
            WIDE,
            "(dimension 3 became 5|got velocities of shape .12, 5.).*output map",
        ),
        (OTHER, "takes points of dimension 5, got a point of shape .3,"),
    ],
    ids=["wide", "other"],
)
def test_a_layer_of_another_dimension_is_refused(use, layer, words):
    with pytest.raises(ValueError, match=words) as raised:
        use(layer, MU)
    assert type(raised.value) is ValueError


@pytest.mark.parametrize("use", ON_MEASURES.values(), ids=ON_MEASURES)
def test_a_map_that_fails_on_the_states_is_refused_in_words(use):
    with pytest.raises(ValueError, match="^layer must take states of dimension 3, as mu has"):
        use(RAW, MU)


@pytest.mark.parametrize(
    "use",
    [
        *ON_MEASURES.values(),
        lambda layer, mu: dyn.iterate(layer, MU, 2, reference=mu),
    ],
    ids=[*ON_MEASURES, "reference"],
)
def test_a_batch_of_measures_is_refused(use):
    with pytest.raises(ValueError, match="^(mu|reference) must be one measure, got a batch"):
        use(LAYER, BATCH)


@pytest.mark.parametrize(
    "use", [use for name, use in ON_MEASURES.items() if name != "flow"],
)  # fmt: skip
def test_what_is_computed_on_the_host_says_so_under_jit(use):
    with pytest.raises(ValueError, match="must be concrete, got traced values.*outside jit"):
        jax.jit(lambda x: use(LAYER, ma.EmpiricalMeasure(x)))(jnp.asarray(CLOUD))


COUNTS = {
    "iterate": ("steps", lambda n: dyn.iterate(LAYER, MU, n)),
    "fixed_point": ("steps", lambda n: dyn.fixed_point(LAYER, MU, steps=n)),
    "equilibrium": ("steps", lambda n: dyn.equilibrium(LAYER, CLOUD, steps=n)),
    "equilibrium_points": ("steps", lambda n: dyn.equilibrium_points(LAYER, CLOUD, steps=n)),
    "spectrum": ("count", lambda n: dyn.spectrum(LAYER, MU, n)),
    "seed": ("seed", lambda n: dyn.spectrum(LAYER, MU, seed=n)),
    "diameter_bound": ("steps", lambda n: dyn.diameter_bound(LAYER, 1.0, n, dimension=3)),
    "dimension": ("dimension", lambda n: dyn.diameter_bound(LAYER, 1.0, 2, dimension=n)),
    "rank_one_bound": ("dimension", lambda n: dyn.rank_one_bound([LAYER], [1.0], dimension=n)),
    "flow": ("max_steps", lambda n: dyn.flow(LAYER, MU, 1.0, max_steps=n)),
    "save": ("save", lambda n: dyn.flow(LAYER, MU, 1.0, save=n)),
    "gaussian_flow": ("max_steps", lambda n: dyn.gaussian_flow(LAYER, LAW, 1.0, max_steps=n)),
    "orthogonal_start": ("n", lambda n: dyn.orthogonal_start(n, 1.0, 1.0)),
    "sample": ("n", lambda n: LAW.sample(n, key=jax.random.key(0))),
    "rounds": ("rounds", lambda n: dyn.SinkhornAttention(ma.DotProduct(), rounds=n)),
}


@pytest.mark.parametrize("bad", [NAN, INF, 2.5, -1, True])
@pytest.mark.parametrize(("name", "use"), COUNTS.values(), ids=COUNTS)
def test_counts_are_whole_numbers(name, use, bad):
    with pytest.raises(ValueError, match=f"^{name} must be a whole number .*, got {bad}"):
        use(bad)


def test_counts_may_be_scalars_of_numpy_and_jax():
    for three in (np.int64(3), jnp.asarray(3), 3.0):
        assert dyn.iterate(LAYER, MU, three, distances=False, observe=False).steps == 3
        assert dyn.fixed_point(LAYER, MU, steps=three).steps == 3
        assert len(dyn.spectrum(LAYER, MU, three).values) == 3
        assert len(dyn.diameter_bound(LAYER, 1.0, three, dimension=three)) == 4


POSITIVE = {
    "fixed_point": ("tol", lambda x: dyn.fixed_point(LAYER, MU, x)),
    "equilibrium": ("tol", lambda x: dyn.equilibrium(LAYER, CLOUD, x)),
    "bandwidth": ("bandwidth", lambda x: dyn.iterate(LAYER, MU, 2, bandwidth=x)),
    "flow": ("time", lambda x: dyn.flow(LAYER, MU, x)),
    "gaussian_flow": ("time", lambda x: dyn.gaussian_flow(LAYER, LAW, x)),
}


@pytest.mark.parametrize("bad", [NAN, INF, 0.0, -1.0])
@pytest.mark.parametrize(("name", "use"), POSITIVE.values(), ids=POSITIVE)
def test_lengths_and_times_are_positive_and_finite(name, use, bad):
    with pytest.raises(ValueError, match=f"^{name} must be positive and finite.*, got {bad}"):
        use(bad)


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: dyn.iterate(LAYER, MU, 2, tol=NAN), "^tol must be a number of at least 0"),
        (lambda: dyn.iterate(LAYER, MU, 2, tol=-1.0), "^tol must be a number of at least 0"),
        (lambda: dyn.through([LAYER], MU, keep="al"), "^keep must be steps.* or \"all\", got 'al'"),
        (
            lambda: dyn.fixed_point(LAYER, MU, solver=optx.Newton(1e-9, 1e-9)),
            r"^solver must be a fixed-point solver of optimistix, such as Anderson\(\), got Newton",
        ),
        (lambda: dyn.fixed_point(dyn.Injected(LAYER, CLOUD[:4]), MU), "^inputs must have one row"),
        (lambda: dyn.contraction(dyn.Injected(LAYER, CLOUD[:4]), MU), "^inputs must have one row"),
        (lambda: dyn.spectrum(dyn.Injected(LAYER, CLOUD[:, :2]), MU), "^inputs must have one row"),
        (lambda: dyn.Injected(LAYER, NAN * CLOUD), "^inputs must be finite"),
        (lambda: dyn.equilibrium(LAYER, CLOUD[:, 0]), r"^inputs \(n, d\) must be a matrix"),
        (lambda: dyn.equilibrium(WIDE, CLOUD), "keeps the dimension.*became .12, 5.; give"),
        (lambda: dyn.equilibrium_points(WIDE, CLOUD), "keeps the dimension.*became .12, 5.; give"),
        (lambda: dyn.equilibrium_points(OTHER, CLOUD), "takes points of dimension 5"),
        (lambda: dyn.equilibrium_points(LAYER, NAN * CLOUD), "must be finite"),
        (
            lambda: dyn.equilibrium_points(LAYER, CLOUD, log_weights=np.zeros(4)),
            r"^log_weights must have shape \(12,\)",
        ),
        (lambda: dyn.contraction(LAYER, MU, 0.5), "^p must be a number of at least 1.*got 0.5"),
        (lambda: dyn.contraction(LAYER, MU, NAN), "^p must be a number of at least 1.*got nan"),
        (lambda: dyn.fit_rate(np.ones((3, 6))), r"^values must be a vector.*\(3, 6\)"),
        (lambda: dyn.fit_rate(3.0), r"^values must be a vector.*\(\)"),
        (lambda: dyn.fit_rate([]), "at least 5 steps above rounding, got 0"),
        (lambda: dyn.fit_rate([NAN] * 8), "at least 5 steps above rounding, got 0"),
        (lambda: dyn.fit_rate([1.0] * 8, NAN), "^floor must be finite and at least 0.*got nan"),
        (lambda: dyn.fit_rate([-1.0] * 8, -2.0), "^floor must be finite and at least 0.*got -2.0"),
        (lambda: dyn.diameter_bound(LAYER, NAN, 2, dimension=3), "^diameter must be finite.*nan"),
        (lambda: dyn.diameter_bound(LAYER, -1.0, 2, dimension=3), "^diameter must be finite.*-1.0"),
        (
            lambda: dyn.diameter_bound(WIDE, 1.0, 2, dimension=3),
            "^layer must keep.*became 5",
        ),
        (
            lambda: dyn.rank_one_bound([WIDE, LAYER], [1.0, 1.0], dimension=3),
            "^layer must keep the dimension.*3 became 5",
        ),
        (lambda: dyn.rank_one_bound([LAYER], [NAN], dimension=3), "^diameters must be finite.*nan"),
        (lambda: dyn.rank_one_bound([LAYER], [-1.0], dimension=3), "^diameters must be .*-1.0"),
        (lambda: dyn.rank_one_bound([LAYER], 1.0, dimension=3), "^diameters must be a vector"),
        (
            lambda: dyn.rank_one_bound([LAYER], [1.0, 2.0], dimension=3),
            "^diameters must be one for each layer, got 2 for 1 layers",
        ),
        (lambda: dyn.flow(LAYER, MU, 1.0, save=[0.5, 0.1]), "^save must be .* increase within"),
        (lambda: dyn.flow(LAYER, MU, 1.0, save=[-1.0, 0.5]), "^save must be .* increase within"),
        (lambda: dyn.flow(LAYER, MU, 1.0, save=[NAN]), "^save must be .* increase within"),
        (lambda: dyn.flow(LAYER, MU, 1.0, save=[]), "^save must be .* increase within"),
        (lambda: dyn.flow(LAYER, MU, 1.0, save=["a"]), "^save must be real numbers"),
        (lambda: dyn.flow(LAYER, MU, [0.0, 1.0]), "^time must be positive and finite"),
        (lambda: dyn.flow(LAYER, MU, 1.0, rtol=NAN), "^rtol must be from .* to 1, got nan"),
        (lambda: dyn.flow(LAYER, MU, 1.0, rtol=1e-300), "^rtol must be from .* to 1, got 1e-300"),
        (lambda: dyn.flow(LAYER, MU, 1.0, atol=NAN), "^atol must be finite and at least 0.*nan"),
        (lambda: dyn.flow(LAYER, MU, 1.0).measure(2), "^k, which counts the times, must be"),
        (lambda: dyn.GaussianLaw([], np.zeros((0, 0))), "^mean must be a vector"),
        (
            lambda: LAW @ ma.SelfAttention(ma.DotProduct(0.1), 1e200 * np.eye(3)),
            "^layer must send the law to one that is finite in float64.*scale",
        ),
        (lambda: dyn.gaussian_flow(WIDE, LAW, 1.0), "keeps the dimension, this one maps 3 to 5"),
        (lambda: dyn.orthogonal_start(4, NAN, 1.0), "^beta must be a finite number.*got nan"),
        (lambda: dyn.orthogonal_start(4, 1.0, []), r"^times must be one or more .*got \[\]"),
        (lambda: dyn.orthogonal_start(4, 1.0, [1.0, 0.5]), "^times must be .*increasing order"),
        (lambda: dyn.cosine_bound(0.5, 1.0, [NAN]), "^times must be .*increasing order"),
        (lambda: dyn.Anderson(memory=0), "^memory must be a whole number of at least 1, got 0"),
        (lambda: dyn.Anderson(atol=NAN), "^atol must be finite and at least 0, got nan"),
    ],
)
def test_other_arguments_are_named_with_their_value_and_a_remedy(use, words):
    with pytest.raises(ValueError, match=words):
        use()


def test_bounds_of_huge_clouds_are_infinite_or_finite_and_no_error():
    still = ma.SelfAttention(ma.DotProduct(0.0), np.eye(3))
    assert dyn.diameter_bound(still, 1e200, 1, dimension=3)[-1] == 0
    large = dyn.diameter_bound(ma.SelfAttention(ma.DotProduct()), 1e200, 2, dimension=3)
    np.testing.assert_allclose(large, 1e200, rtol=1e-8)
    assert dyn.rank_one_bound([LAYER], [1e200], dimension=3) <= 2 * (1 + 1e-9)
    heads = [ma.SelfAttention(ma.DotProduct(), 1e200 * np.eye(3)), still]
    grown = dyn.diameter_bound(
        ma.MultiHead(heads, np.eye(3, 6) + np.eye(3, 6, 3)), 1e200, 2, dimension=3
    )
    assert grown.tolist() == [1e200, np.inf, np.inf]


def test_the_spectrum_of_a_huge_derivative_has_finite_residuals():
    huge = dyn.spectrum(ma.SelfAttention(ma.DotProduct(), 1e200 * np.eye(3)), MU)
    assert np.all(huge.residuals <= 1e-10 * huge.radius)


def test_states_that_are_not_finite_end_an_iteration_at_the_last_good_ones():
    growing = ma.SelfAttention(ma.DotProduct(1.0), 1e60 * np.eye(3))
    for solver in (None, dyn.Anderson()):
        end = dyn.fixed_point(growing, MU, solver=solver, steps=50)
        assert end.verdict == "diverged"
        assert np.isfinite(end.measure.points).all()
        assert not np.isfinite((end.measure @ growing).points).all()
        assert f"Step {end.steps} has states that are not finite" in end.status


def test_an_equilibrium_that_is_not_reached_is_refused_in_words_with_and_without_jit():
    growing = ma.SelfAttention(ma.DotProduct(1.0), 1e200 * np.eye(3))
    with pytest.raises(
        RuntimeError, match=r"^no equilibrium was reached \(steps=5\): .*allow more"
    ):
        dyn.equilibrium_points(growing, CLOUD, steps=5)
    with pytest.raises(RuntimeError, match=r"no equilibrium was reached \(steps=5\): .*allow more"):
        jax.jit(lambda x: dyn.equilibrium_points(growing, x, steps=5))(CLOUD)


WITHOUT_TYPES_CHECKED = r"""
import re
import numpy as np
import measattn as ma
from measattn import dynamics as dyn
cloud = np.random.default_rng(0).normal(size=(12, 3))
mu, layer = ma.EmpiricalMeasure(cloud), ma.SelfAttention(ma.DotProduct(0.01), 0.5 * np.eye(3))
law = dyn.GaussianLaw(np.zeros(3), np.eye(3))
kernel = "layer must be a nonlinear or Dirac-valued kernel, got a "
measure = "mu must be an EmpiricalMeasure, got a ndarray: wrap points as"
on_measures = (
    lambda layer, mu: dyn.iterate(layer, mu, 3),
    dyn.fixed_point, dyn.spectrum, dyn.contraction,
    lambda layer, mu: dyn.flow(layer, mu, 1.0),
)
for make, words in (
    *((lambda use=use: use(3, mu), kernel + "int") for use in on_measures),
    *((lambda use=use: use(layer, cloud), measure) for use in on_measures),
    (lambda: dyn.through([layer, 3], mu), "layers must be nonlinear or Dirac-valued kernels"),
    (lambda: dyn.through(3, mu), "layers must be a sequence, got one int"),
    (lambda: dyn.through([layer], cloud), measure),
    (lambda: dyn.equilibrium(3, cloud), kernel + "int"),
    (lambda: dyn.equilibrium_points(3, cloud), kernel + "int"),
    (lambda: dyn.iterate(layer, mu, "many"), "steps must be a whole number"),
    (lambda: dyn.iterate(layer, mu, 2, keep=1), "keep must be steps, such as [5, 10], or \"all\""),
    (lambda: dyn.iterate(layer, mu, 2, keep=None), "keep must be steps"),
    (lambda: dyn.iterate(layer, mu, 2, keep=[1.5]), "a step of keep must be a whole number"),
    (lambda: dyn.iterate(layer, mu, 2, tol="small"), "tol must be a number of at least 0"),
    (lambda: dyn.iterate(layer, mu, 2, watch=3), "watch must be a function of step and steps"),
    (lambda: dyn.iterate(layer, mu, 2, potential="a"), "expected a potential or a function of two"),
    (lambda: dyn.iterate(layer, mu, 2, reference=cloud), "reference must be an EmpiricalMeasure"),
    (lambda: dyn.fixed_point(layer, mu, "small"), "tol must be positive and finite"),
    (lambda: dyn.fixed_point(layer, mu, solver="picard"), "solver must be a fixed-point solver"),
    (lambda: dyn.fixed_point(layer, mu, watch=3), "watch must be a function of step, steps"),
    (lambda: dyn.equilibrium(layer, cloud, None), "tol must be positive and finite"),
    (lambda: dyn.equilibrium_points(layer, cloud, solver="a"), "solver must be a solver of opt"),
    (
        lambda: dyn.equilibrium_points(layer, cloud, linear_solver="a"),
        "linear_solver must be a solver of lineax, got 'a'",
    ),
    (lambda: dyn.fit_rate("abc"), "values must be real numbers"),
    (lambda: dyn.fit_rate([1j] * 8), "values must be real numbers"),
    (lambda: dyn.fit_rate([1.0] * 8, "a"), "floor must be finite and at least 0"),
    (lambda: dyn.diameter_bound(layer, "a", 2, dimension=3), "diameter must be finite"),
    (lambda: dyn.diameter_bound(layer, 1.0, None, dimension=3), "steps must be a whole number"),
    (lambda: dyn.diameter_bound(3, 1.0, 2, dimension=3), "layer must be an attention layer"),
    (lambda: dyn.rank_one_bound(layer, [1.0], dimension=3), "layers must be a sequence, got one"),
    (lambda: dyn.flow(layer, mu, "long"), "time must be positive and finite"),
    (lambda: dyn.flow(layer, mu, 1.0, save="all"), "save must be a whole number of at least 2"),
    (lambda: dyn.flow(layer, mu, 1.0, rtol="a"), "rtol must be from"),
    (lambda: dyn.flow(layer, mu, 1.0, max_steps="a"), "max_steps must be a whole number"),
    (lambda: dyn.gaussian_flow(layer, mu, 1.0), "law must be a GaussianLaw, got a EmpiricalM"),
    (lambda: dyn.affine(layer, mu), "law must be a GaussianLaw"),
    (lambda: dyn.GaussianLaw("a", 1.0), "mean must be real numbers"),
    (lambda: dyn.orthogonal_start(4, "a", 1.0), "beta must be a finite number"),
    (lambda: dyn.orthogonal_start(4, 1.0, "a"), "times must be real numbers"),
    (lambda: dyn.clustering_rate("a", 1.0), "cosine, beta and least_weight must be numbers"),
    *(
        (lambda use=use: use(cloud), measure)
        for use in (
            dyn.radius, dyn.diameter, dyn.mean_cosine, dyn.effective_rank, dyn.least_cosine,
            lambda mu: dyn.clusters(mu, 1.0),
            lambda mu: dyn.interaction_energy(ma.DotProduct(), mu),
            lambda mu: dyn.sinkhorn_energy(ma.DotProduct(), mu),
        )
    ),
    (lambda: dyn.sinkhorn_energy(ma.DotProduct(), mu, rounds="a"), "rounds must be a whole number"),
    *((lambda make=make: make(3), kernel + "int") for make in (dyn.Increment, dyn.Tangential)),
    (lambda: dyn.Injected(3, cloud), kernel + "int"),
    (lambda: dyn.Anderson(memory="a"), "memory must be a whole number"),
):
    try:
        make()
    except ValueError as error:
        assert str(error).startswith(words), error
    else:
        raise SystemExit(f"accepted, instead of: {words}")
"""


def test_what_type_checkers_would_refuse_is_refused_without_them_too():
    subprocess.run([sys.executable, "-c", WITHOUT_TYPES_CHECKED], check=True)
