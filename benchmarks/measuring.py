"""How the benchmarks measure: medians of interleaved runs, and one problem in a process of its own.

Run as a script it is that process: ``measuring.py PEER CLOUDS.npz TOL BYTES`` solves the problem in
the file, once and alone, and prints what it took as one JSON object.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from peers import pot

WARM = 4096
"""Atoms of the warm-up: from here on the compiled tiles have the shapes of all larger problems."""


def interleaved(peers: dict[str, Callable], runs: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds of each peer and what it returned; their runs alternate, after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in peers}
    results = {name: run() for name, run in peers.items()}
    for _ in range(runs):
        for name, run in peers.items():
            start = time.perf_counter()
            results[name] = run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t) for name, t in times.items()}, results


def alone(
    peer: str, x: Any, y: Any, *, tol: float = 1e-9, memory: float = 0, limit: float | None = None
) -> dict:
    """Seconds, peak memory and bracket of one problem, solved in a process of its own.

    Args:
        peer: ``"measattn"`` or ``"pot"``.
        x: points (n, d).
        y: points (m, d).
        tol: the relative gap asked for.
        memory: bytes of address space that the process may take; 0 for all. JAX reserves far more
            than it uses, so this is for other peers.
        limit: seconds.

    Returns:
        Its ``seconds``, its ``peak`` memory in GB, its ``value``; ours also ``gap`` and ``rounds``.

    Raises:
        subprocess.TimeoutExpired: the time was not enough.
        subprocess.CalledProcessError: the memory was not enough, or the gap did not close.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clouds.npz"
        np.savez(file, x=x, y=y)
        command = [sys.executable, __file__, peer, str(file), repr(tol), repr(int(memory))]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=limit, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory() -> float:
    """The peak resident memory of this process in GB.

    Read from /proc where there is one: getrusage counts, across exec, the parent that forked us.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if "VmHWM" in line)
        return int(line.split()[1]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _solve(peer: str, x: np.ndarray, y: np.ndarray, tol: float) -> dict:
    if peer == "measattn":
        _measattn(x[:WARM], y[:WARM], 1e-2, progress=None)
    start = time.perf_counter()
    answer = {"value": pot(x, y)} if peer == "pot" else _measattn(x, y, tol, progress=sys.stderr)
    return {"seconds": time.perf_counter() - start, "peak": peak_memory(), **answer}


def _measattn(x: np.ndarray, y: np.ndarray, tol: float, progress: TextIO | None) -> dict:
    import jax

    jax.config.update("jax_enable_x64", True)
    import measattn as ma

    began = time.perf_counter()

    def watch(bracket: Any) -> None:
        gap = 1 - bracket.lower / bracket.upper
        line = f"{bracket.lower:.9g} <= W1 <= {bracket.upper:.9g}, gap {gap:.1e}"
        if progress is not None:
            seconds = time.perf_counter() - began
            print(f"    {seconds:7.1f} s  {line}, {bracket.arcs:,} arcs", file=progress)

    mu, nu = ma.EmpiricalMeasure(x), ma.EmpiricalMeasure(y)
    solution = ma.wasserstein.w1(mu, nu, tol=tol, watch=watch)
    relative = solution.gap / solution.upper
    return {"value": solution.value, "gap": relative, "rounds": solution.iterations}


if __name__ == "__main__":
    peer, file, tol, memory = sys.argv[1:]
    if int(memory):
        resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    with np.load(file) as clouds:
        x, y = clouds["x"], clouds["y"]
    print(json.dumps(_solve(peer, x, y, float(tol))))
