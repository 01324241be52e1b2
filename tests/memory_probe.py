"""Peak resident memory of one derivative of `mu @ SelfAttention`; a script for test_memory.py."""

import resource
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

import measattn as ma


def probe(mode: str, n: int, d: int) -> float:
    """Run ``mode`` at n points in dimension d; return the peak resident memory in GiB."""
    layer = ma.SelfAttention(ma.DotProduct(d**-0.5))
    x = jax.random.normal(jax.random.key(0), (n, d), jnp.float32)
    u = jax.random.normal(jax.random.key(1), (n, d), jnp.float32)

    def attend(x):
        return (ma.EmpiricalMeasure(x) @ layer).points

    def energy(x):
        return jnp.sum(jnp.sin(attend(x)))

    modes = {
        "forward": lambda x, u: attend(x),
        "jvp": lambda x, u: jax.jvp(attend, (x,), (u,))[1],
        "vjp": lambda x, u: jax.vjp(attend, x)[1](u)[0],
        "forward over reverse": lambda x, u: jax.jvp(jax.grad(energy), (x,), (u,))[1],
    }
    out = jax.block_until_ready(jax.jit(modes[mode])(x, u))
    if out.shape != (n, d) or not bool(jnp.all(jnp.isfinite(out))):
        raise SystemExit(f"{mode} returned {out.shape} with non-finite entries")
    return peak_memory()


def peak_memory() -> float:
    """The peak resident memory of this process, in GiB.

    Read from /proc where there is one: getrusage counts, across exec, the parent that forked us.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if "VmHWM" in line)
        return int(line.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    print(probe(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
