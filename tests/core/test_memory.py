"""No n × n matrix, in any mode of differentiation: peak memory in a process of its own."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
D = 64
LIMIT = 0.75
"""In GB of 1e9 bytes; the matrix of 65,536 points alone would take 17 GB in float32, and that of
32,768, enough for what takes longest, 4.3 GB."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "n"),
    [("forward", 65_536), ("vjp", 65_536), ("jvp", 32_768), ("forward over reverse", 32_768)],
)
def test_self_attention_of_many_points_stays_below_a_fraction_of_its_matrix(mode, n):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    done = subprocess.run(
        [sys.executable, "tests/memory_probe.py", mode, str(n), str(D)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    peak = float(done.stdout) * 2**30 / 1e9
    assert 0.1 < peak < LIMIT
