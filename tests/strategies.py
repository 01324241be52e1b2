"""Hypothesis strategies for measures: ties, zero masses and single atoms come up often."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

# few shapes, since each one compiles anew; few values, so that points coincide
SIZES = (1, 4)
COORDINATES = (-2.0, -0.5, 0.0, 0.25, 1.0, 3.0)
MASSES = (0.0, 1e-3, 0.25, 1.0, 7.0)

bounded = settings(max_examples=12, deadline=None, derandomize=True, database=None)


@st.composite
def clouds(draw, dimension=2, sizes=SIZES):
    """Points (n, d) and weights (n,) that are not all zero, as NumPy arrays."""
    n = draw(st.sampled_from(sizes))
    points = draw(arrays(np.float64, (n, dimension), elements=st.sampled_from(COORDINATES)))
    weights = draw(
        arrays(np.float64, n, elements=st.sampled_from(MASSES)).filter(lambda w: w.any())
    )
    return points, weights


@st.composite
def shares(draw, n, of=16):
    """Masses (n,) that are whole multiples of 1/16 and sum to one, some of them zero."""
    owners = draw(st.lists(st.integers(0, n - 1), min_size=of, max_size=of))
    return np.bincount(owners, minlength=n) / of
