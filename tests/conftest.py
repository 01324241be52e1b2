"""The strictest JAX: true float64, no silent promotion of dtypes or ranks, types checked."""

import os

import jax
from jaxtyping import install_import_hook

X64 = os.environ.get("MEASATTN_TEST_X64", "1") == "1"

jax.config.update("jax_enable_x64", X64)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

install_import_hook("measattn", "beartype.beartype")
