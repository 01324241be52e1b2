"""The strictest JAX: true float64, no silent promotion of dtypes or ranks, types checked."""

import os
from pathlib import Path

import jax
import pytest
from jaxtyping import install_import_hook

X64 = os.environ.get("MEASATTN_TEST_X64", "1") == "1"

jax.config.update("jax_enable_x64", X64)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

install_import_hook("measattn", "beartype.beartype")

MAPS = Path("/proc/self/maps")


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs():
    """Each compiled program holds memory maps, of which Linux allows a process 65,530."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
