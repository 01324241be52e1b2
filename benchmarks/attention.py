"""The streamed attention beside JAX's own and torch's, in one process.

Prints the median of seven runs and ratios; absolute times on a shared machine mean little.
Run: ``python benchmarks/attention.py [n ...]``
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from measuring import interleaved

import measattn as ma

DIMENSION = 64
RUNS = 7


def compare(n):
    """One head of width 64 in float32: `mu @ SelfAttention` and its peers."""
    x = np.random.default_rng(0).normal(size=(n, DIMENSION)).astype(np.float32)
    points = jnp.asarray(x)
    layer = ma.SelfAttention(ma.DotProduct(DIMENSION**-0.5))
    ours = jax.jit(lambda mu: (mu @ layer).points)
    mu = ma.EmpiricalMeasure(points)
    theirs = jax.jit(
        lambda p: jax.nn.dot_product_attention(p[None, :, None], p[None, :, None], p[None, :, None])
    )
    peers = {
        "measattn": lambda: jax.block_until_ready(ours(mu)),
        "jax.nn.dot_product_attention": lambda: jax.block_until_ready(theirs(points)),
    }
    try:
        import torch
    except ImportError:
        print("torch is not installed: no line for scaled_dot_product_attention")
    else:
        t = torch.from_numpy(x)[None, None]
        peers["torch scaled_dot_product_attention"] = lambda: (
            torch.nn.functional.scaled_dot_product_attention(t, t, t)
        )
    worst = np.abs(np.asarray((mu @ layer).points) - np.asarray(theirs(points))[0, :, 0]).max()
    result, _ = interleaved(peers, RUNS)
    print(f"n = {n}, d = {DIMENSION}, float32, largest difference {worst:.1e}")
    for name, t in result.items():
        rate = 4 * n * n * DIMENSION / t / 1e9
        print(f"  {name:40s} {t:8.3f} s {rate:7.1f} GFLOP/s   {t / result['measattn']:5.2f} x ours")


if __name__ == "__main__":
    for size in [int(a) for a in sys.argv[1:]] or [2048, 8192]:
        compare(size)
