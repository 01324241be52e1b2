"""Counts and lengths are refused in one place, in one form of words."""

import subprocess
import sys
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from measattn.checks import positive, whole

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "three", [3, 3.0, np.int8(3), np.uint64(3), np.float32(3), jnp.asarray(3), Fraction(3)]
)
def test_every_form_of_a_whole_number_is_an_int(three):
    assert whole("steps", three) == 3
    assert type(whole("steps", three)) is int


def test_integers_beyond_the_precision_of_floats_keep_their_digits():
    assert whole("seed", 2**60 + 1) == 2**60 + 1
    assert whole("seed", np.uint64(2**63 + 1)) == 2**63 + 1


@pytest.mark.parametrize(
    "bad",
    [NAN, INF, -INF, 2.5, -1, True, np.True_, jnp.asarray(True), "3", None, 3j, [3], np.arange(1)],
)
def test_what_is_no_count_is_refused_with_its_value(bad):
    with pytest.raises(ValueError, match="^steps must be a whole number of at least 0, got ") as no:
        whole("steps", bad)
    assert str(no.value).endswith(repr(bad))


def test_the_range_of_a_count_is_named():
    assert whole("count", 4, 1, 4) == 4
    for bad in (0, 5):
        with pytest.raises(
            ValueError, match=f"^count must be a whole number from 1 to 4, got {bad}"
        ):
            whole("count", bad, 1, 4)


def test_a_traced_count_or_length_is_told_what_to_do():
    with pytest.raises(ValueError, match="^steps must be a whole number.*static_argnames"):
        jax.jit(lambda steps: jnp.ones(whole("steps", steps)))(3)
    with pytest.raises(ValueError, match="^tol must be positive.*outside jit"):
        jax.jit(lambda tol: positive("tol", tol))(1.0)


@pytest.mark.parametrize("bad", [NAN, INF, 0, -1.0, True, "1", None])
def test_a_length_is_positive_and_finite(bad):
    with pytest.raises(ValueError, match="^tol must be positive and finite, such as 1e-9, got "):
        positive("tol", bad)


def test_a_length_is_a_float():
    assert positive("tol", jnp.asarray(0.5)) == 0.5
    assert type(positive("tol", np.float32(0.5))) is float


WITHOUT_TYPES_CHECKED = r"""
import re
import numpy as np
import measattn as ma
from measattn import dynamics, lipschitz, wasserstein
head = ma.SelfAttention(ma.DotProduct())
for bad in (float("nan"), float("inf"), 2.5, -1, "many", None):
    for name, use in (
        ("depth", lambda: ma.WeightShared(ma.LayerNorm(), bad)),
        ("n", lambda: dynamics.orthogonal_start(bad, 1.0, 1.0)),
        ("rounds", lambda: dynamics.SinkhornAttention(ma.DotProduct(), rounds=bad)),
        ("dimension", lambda: lipschitz.Simplex(bad)),
        ("dimension", lambda: lipschitz.bound(head, lipschitz.Ball(1), dimension=bad or 0)),
        ("pivots", lambda: wasserstein.NetworkSimplex(pivots=bad)),
        ("iterations", lambda: wasserstein.Sinkhorn(iterations=bad)),
        ("rounds", lambda: wasserstein.ColumnGeneration(rounds=bad)),
    ):
        try:
            use()
        except ValueError as error:
            assert re.match(f"{name} must be a whole number .*, got ", str(error)), error
        else:
            raise SystemExit(f"accepted: {name} = {bad!r}")
assert wasserstein.NetworkSimplex(pivots=np.int64(7)).pivots == 7
assert wasserstein.Sinkhorn(iterations=1e4).iterations == 10_000
"""


def test_counts_are_refused_in_the_same_words_everywhere():
    subprocess.run([sys.executable, "-c", WITHOUT_TYPES_CHECKED], check=True)
