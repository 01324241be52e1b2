"""Certificates for the tests of this folder."""

import numpy as np
import pytest

import measattn as ma
from measattn import lipschitz as lip
from tests.lipschitz.forging import MATRIX, copied, shown


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A certificate whose bound is a closed formula."""
    layer = ma.SelfAttention(ma.Bilinear(MATRIX, np.eye(2)), [[1.0, 0.2], [0.0, 0.7]])
    found = shown(layer, lip.Ball(1.0))
    return found, found.save(tmp_path_factory.mktemp("b3"))


@pytest.fixture(scope="module")
def maximum(tmp_path_factory):
    """One whose bound is a maximum."""
    found = shown(ma.SelfAttention(ma.DotProduct(1.0)), lip.Ball(1.0))
    return found, found.save(tmp_path_factory.mktemp("h6"))


@pytest.fixture
def file(original, tmp_path):
    """A copy to tamper with."""
    return copied(original, tmp_path)
