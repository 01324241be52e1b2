"""A public formula for L2 attention that is wrong, and the search that finds it out."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import lambertw

import measattn as ma
from measattn.lipschitz import Box, search
from measattn.potential import AbstractPotential

pytestmark = pytest.mark.float64


class Projected(AbstractPotential):
    """-|Wx - Wy|²/√(D/H)."""

    weight: jax.Array
    scale: jax.Array = eqx.field(converter=jnp.asarray)

    def __call__(self, x, y):
        return -jnp.sum((self.weight @ (x - y)) ** 2) / self.scale


def claimed(n, heads, query, value, output):
    """√(N/(D/H)) (4 W0(N/e) + 1) √(‖W_Q‖ + ‖W_V‖) ‖W_O‖, for values W_V x."""
    query, value, output = (np.linalg.norm(M, 2) for M in (query, value, output))
    growth = 4 * float(lambertw(n / np.e).real) + 1
    return np.sqrt(n * heads / 8) * growth * np.sqrt(query + value) * output


def test_the_search_exceeds_a_public_formula_for_values_that_do_not_factor_through_the_queries():
    rng, heads, n = np.random.default_rng(0), 2, 6
    square = [np.eye(8), *(np.linalg.qr(rng.normal(size=(8, 8)))[0] for _ in range(2))]
    bound = claimed(n, heads, *square)
    assert bound == pytest.approx(7.96, abs=0.01)
    parts = [
        ma.SelfAttention(Projected(jnp.asarray(square[0][rows]), 2.0), square[1][rows])
        for rows in (slice(0, 4), slice(4, 8))
    ]
    layer = ma.MultiHead(parts, square[2])
    # short along the queries of the first head, long along the kernel of its query map
    side = np.repeat([1.0, 100.0], 4)
    found = search(layer, Box(-side, side), p=2, atoms=n, key=jax.random.key(0), starts=8, steps=50)
    assert found.value > 10 * bound
