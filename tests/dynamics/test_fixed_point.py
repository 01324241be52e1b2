"""Fixed points: what is proved of them, and what iterations do that have none."""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

import measattn as ma
from measattn import dynamics as dyn
from measattn.dynamics.contraction import norm
from measattn.dynamics.rounding import images
from measattn.lipschitz.exact import outputs
from measattn.lipschitz.forms import form
from measattn.wasserstein import w1

pytestmark = pytest.mark.float64

RNG = np.random.default_rng(0)
CLOUD = ma.EmpiricalMeasure(RNG.normal(size=(30, 3)))


def contractive(seed, n=12, d=3, q=0.8):
    """A random layer with inputs that C5 proves to be a contraction."""
    rng = np.random.default_rng(seed)
    value, score = rng.normal(size=(d, d)), rng.normal(size=(d, d))
    value *= 0.5 / np.linalg.norm(value, 2)
    inputs = rng.normal(size=(n, d))
    inputs *= 0.5 / np.linalg.norm(inputs, axis=1).max()
    score *= (q / 0.5 - 1) / 2 / np.linalg.norm(score, 2)  # R = 0.5 / (1 - 0.5)
    return ma.SelfAttention(ma.Bilinear(score, np.eye(d)), value), inputs


def test_a_contraction_goes_to_the_point_at_zero_with_a_proof():
    found = dyn.fixed_point(ma.SelfAttention(ma.DotProduct(0.1), 0.5 * np.eye(3)), CLOUD)
    assert found.verdict == "certified"
    assert found.exact
    zero = ma.EmpiricalMeasure(np.zeros((1, 3)))
    assert w1(found.measure, zero).value <= found.error <= 1e-9
    assert abs(found.rate.value - 0.5) <= 0.01


def test_an_affine_value_goes_to_its_own_fixed_point():
    matrix, shift = 0.4 * RNG.normal(size=(3, 3)), np.array([1.0, -2.0, 0.5])
    matrix *= 0.5 / np.linalg.norm(matrix, 2)
    layer = ma.SelfAttention(ma.DotProduct(0.001), ma.Affine(matrix, shift))
    found = dyn.fixed_point(layer, CLOUD)
    expected = np.linalg.solve(np.eye(3) - matrix, shift)
    assert found.verdict == "certified"
    assert np.abs(np.asarray(found.measure.points) - expected).max() <= found.error + 1e-12


@pytest.mark.parametrize("solver", [None, optx.FixedPointIteration(rtol=0.0, atol=1e-10)])
def test_an_injected_equilibrium_is_certified_and_remembers_its_input(solver):
    layer, inputs = contractive(0)
    found = dyn.equilibrium(layer, inputs, solver=solver)
    assert found.verdict == "certified"
    assert found.error <= 1e-9
    x = np.asarray(found.measure.points)
    image = np.asarray((found.measure @ layer).points)
    np.testing.assert_allclose(x, inputs + image, atol=1e-9)
    assert float(dyn.diameter(found.measure)) > 0.1


def test_the_distance_to_the_limit_never_exceeds_its_certified_bound():
    for seed in range(30):
        layer, inputs = contractive(seed)
        far = dyn.equilibrium(layer, inputs, 1e-3, solver=_picard(1e-3))
        near = dyn.equilibrium(layer, inputs, 1e-13)
        assert far.verdict == near.verdict == "certified"
        moves = np.asarray(far.measure.points) - np.asarray(near.measure.points)
        distance = norm(far.contraction.p, moves, np.full(len(moves), 1 / len(moves)))
        assert distance <= far.error + near.error
        assert distance >= 1e-3 * far.error  # the bound says something


def _picard(tol):
    return optx.FixedPointIteration(rtol=0.0, atol=tol)


def test_anderson_needs_fewer_steps_than_picard():
    layer = ma.SelfAttention(ma.DotProduct(0.002), 0.9 * np.eye(3))
    inputs = RNG.normal(size=(50, 3)) / 10
    fast, slow = (dyn.equilibrium(layer, inputs, solver=s) for s in (None, _picard(1e-10)))
    assert fast.verdict == slow.verdict == "certified"
    assert fast.steps <= 0.5 * slow.steps


def test_no_rate_is_claimed_for_a_layer_that_is_no_contraction():
    # every consensus is fixed, so the constant is at least one
    found = dyn.fixed_point(ma.SelfAttention(ma.DotProduct(1.0)), CLOUD)
    assert found.verdict == "converged"
    assert found.error == np.inf
    assert found.contraction is None
    with pytest.raises(dyn.NotProved, match="no ball|smallest bound"):
        dyn.contraction(ma.SelfAttention(ma.DotProduct(1.0)), CLOUD)


def test_a_run_that_was_cut_short_does_not_claim_convergence():
    layer, inputs = contractive(1)
    found = dyn.equilibrium(layer, inputs, solver=_picard(1e-10), steps=3)
    assert (found.verdict, found.steps) == ("undecided", 3)
    # how far the limit is, is certified all the same
    assert 1e-4 < found.error < 1
    assert found.status.startswith("Not converged in 3 steps")


def test_a_fixed_memory_is_a_contraction():
    memory = ma.EmpiricalMeasure(RNG.normal(size=(8, 3)))
    layer = ma.CrossAttention(ma.DotProduct(0.1), np.eye(3), memory)
    found = dyn.fixed_point(layer, CLOUD)
    assert found.verdict == "certified"
    assert float(dyn.diameter(found.measure)) <= 1e-8


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    "potential", [ma.Bilinear(RNG.normal(size=(3, 3)), np.eye(3)), ma.Gaussian(0.7)]
)
def test_the_error_of_the_computed_images_is_below_its_bound(residual, potential):
    layer = ma.SelfAttention(potential, RNG.normal(size=(3, 3)))
    known = form(ma.Residual(layer) if residual else layer, 3)
    x = 3 * RNG.normal(size=(20, 3))
    weights = RNG.random(20)
    got = images(known, x, weights / weights.sum())
    exact = np.array([[float(a) for a in row] for row in outputs(known, x, weights)])
    errors = np.linalg.norm(got.points - exact, axis=1)
    assert errors.max() <= got.error
    assert got.error <= 1e-9


def test_the_implicit_derivative_is_that_of_the_unrolled_iteration():
    layer, inputs = contractive(3, n=5)
    score, value = layer.potential, layer.value

    def implicit(value, inputs):
        return jnp.sum(jnp.sin(dyn.equilibrium_points(ma.SelfAttention(score, value), inputs)))

    def unrolled(value, inputs):
        injected = dyn.Injected(ma.SelfAttention(score, value), inputs)

        def step(x, _):
            return (ma.EmpiricalMeasure(x) @ injected).points, None

        return jnp.sum(jnp.sin(jax.lax.scan(step, jnp.asarray(inputs), None, length=150)[0]))

    arguments = np.asarray(value.weight), inputs
    got, expected = (jax.jit(jax.grad(f, argnums=(0, 1)))(*arguments) for f in (implicit, unrolled))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), got, expected)


def test_the_limit_moves_with_its_input_by_no_more_than_is_proved():
    layer, inputs = contractive(4)
    other = inputs + 1e-3 * RNG.normal(size=inputs.shape)
    other *= np.minimum(1, 0.5 / np.linalg.norm(other, axis=1, keepdims=True))
    first, second = (dyn.equilibrium(layer, u) for u in (inputs, other))
    proof = dyn.contraction(dyn.Injected(layer, inputs), first.measure, np.inf)
    moved = np.abs(np.linalg.norm(first.measure.points - second.measure.points, axis=1)).max()
    given = np.linalg.norm(inputs - other, axis=1).max()
    assert moved <= given / (1 - proof.value) + first.error + second.error


def test_inputs_belong_to_the_atoms():
    layer, inputs = contractive(5)
    injected = dyn.Injected(layer, inputs)
    with pytest.raises(ValueError, match="one row for each atom"):
        ma.EmpiricalMeasure(inputs[:-1]) @ injected
    with pytest.raises(ValueError, match="inputs belong to the atoms"):
        injected.at(ma.EmpiricalMeasure(inputs))(jnp.zeros(3))


def test_a_layer_whose_rounding_is_not_bounded_says_so():
    layer, inputs = contractive(6)
    points = ma.Token(jnp.arange(12.0), jnp.asarray(inputs))
    masked = ma.SelfAttention(ma.Causal(layer.potential), layer.value)
    found = dyn.fixed_point(dyn.Injected(masked, inputs), ma.EmpiricalMeasure(points))
    assert found.verdict == "certified"
    assert not found.exact
    assert "without rounding" in found.status
