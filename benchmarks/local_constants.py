"""Local Lipschitz constants of one head: how near the two ends are, how fast, in how much memory.

Scores range from weak to strong; tokens, queries, keys and values are random, n = 512, d = 64.

Run: ``python benchmarks/local_constants.py [case ...]``
"""

import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from measuring import peak_memory
from report import Row, run_cases

import measattn as ma
from measattn.lipschitz import local

N, D = 512, 64
STRENGTHS = np.geomspace(0.1, 50, 20)
CHUNK = 64
"""Outputs of which the peer builds the Jacobian at a time."""


def problem(strength: float, n: int = N) -> tuple[ma.SelfAttention, ma.EmpiricalMeasure]:
    """A random head whose scores are about as large as ``strength``, and n random tokens."""
    rng = np.random.default_rng(round(1e6 * strength))
    x = rng.normal(size=(n, D))
    query, key = rng.normal(size=(2, D, D)) / math.sqrt(D) * math.sqrt(strength)
    value = rng.normal(size=(D, D)) / math.sqrt(D)
    return ma.SelfAttention(ma.Bilinear(query, key, 1 / math.sqrt(D)), value), ma.EmpiricalMeasure(
        x
    )


def plain(layer: ma.SelfAttention) -> Callable:
    """The same head in four lines of JAX, which is faster to differentiate than ours."""
    potential = layer.potential
    query, key, value = (
        jnp.asarray(f.weight) for f in (potential.query, potential.key, layer.value)
    )

    def f(x: jax.Array) -> jax.Array:
        scores = (x @ query.T) @ (x @ key.T).T / math.sqrt(D)
        return jax.nn.softmax(scores, axis=1) @ x @ value.T

    return f


def tightness() -> Iterator[Row]:
    """Certified upper over attained, 20 layers from weak to strong scores, whole atoms."""
    limits = {1: (1.001, 1.03), 2: (1.001, 1.003), math.inf: (1.001, 1.03)}
    for p, (median, worst) in limits.items():
        ratios, schur, seconds = [], [], []
        for strength in STRENGTHS:
            layer, mu = problem(strength)
            start = time.perf_counter()
            found = local(layer, mu, p)
            seconds.append(time.perf_counter() - start)
            ratios.append(found.ratio)
            if p == 2:
                schur.append(local(layer, mu, p, probability=1).ratio)
        note = f"{statistics.median(seconds):.2g} s each"
        if p == 2:
            note += (
                f"; with probability 1 - 1e-10; by Schur, without chance: median "
                f"{statistics.median(schur):.3g}, worst {max(schur):.3g}"
            )
        yield Row(f"p = {p:g}: median", statistics.median(ratios), note, at_most=median)
        yield Row(f"p = {p:g}: worst", max(ratios), at_most=worst)


def speed() -> Iterator[Row]:
    """Against the Jacobian by reverse mode in chunks of 64 outputs; compilation does not count."""
    for strength in (0.3, 3.0, 30.0):
        layer, mu = problem(strength)
        found = local(layer, mu, 1)
        ours = []
        for _ in range(5):
            start = time.perf_counter()
            local(layer, mu, 1)
            ours.append(time.perf_counter() - start)
        peer, part = reverse_mode(layer, np.asarray(mu.points))
        note = (
            f"{statistics.median(ours):.3g} s against {peer:.4g} s (float64; {part}), value "
            f"{found.value:.6g}, ratio {found.ratio:.6g}"
        )
        yield Row(f"scores of {strength:g}", peer / statistics.median(ours), note, at_least=200)


def reverse_mode(layer: ma.SelfAttention, x: np.ndarray, chunks: int = 4) -> tuple[float, str]:
    """Seconds to build the whole Jacobian and look at it once, from a few of its chunks."""
    f = plain(layer)

    @jax.jit
    def some(x: jax.Array, directions: jax.Array) -> tuple[jax.Array, jax.Array]:
        pull = jax.vjp(f, x)[1]
        rows = jax.vmap(lambda w: pull(w)[0])(directions)
        return rows, jnp.sum(rows * rows, axis=(0, 2))  # one look at the rows

    def directions(k: int) -> jax.Array:
        return jnp.eye(CHUNK, N * D, k * CHUNK).reshape(CHUNK, N, D)

    points = jnp.asarray(x)
    jax.block_until_ready(some(points, directions(0)))
    given = [directions(k) for k in range(chunks)]
    start = time.perf_counter()
    for block in given:
        np.asarray(some(points, block)[0])
    seconds = (time.perf_counter() - start) * (N * D / CHUNK / chunks)
    return seconds, f"scaled from {chunks} of {N * D // CHUNK} chunks"


def memory() -> Iterator[Row]:
    """Peak memory at n = 2048, p = 1, in a process of its own; the Jacobian alone is 137 GB."""
    for strength in (0.3, 10.0):
        command = [sys.executable, __file__, "--alone", str(strength)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        note = f"{found['seconds']:.3g} s with compilation, ratio {found['ratio']:.6g}"
        yield Row(f"scores of {strength:g}: GB", found["peak"], note, at_most=2.0)


def power() -> Iterator[Row]:
    """For p = 2, against the power iteration by jvp and vjp of "How smooth is attention".

    Like their code the peer runs operation by operation; the note says what compiling it would do.
    Ours is asked for the value and a wide certificate, since the peer certifies nothing.
    """
    for strength in (0.3, 3.0, 30.0):
        layer, mu = problem(strength)
        found = local(layer, mu, 2, tol=0.3)
        ours = []
        for _ in range(5):
            start = time.perf_counter()
            local(layer, mu, 2, tol=0.3)
            ours.append(time.perf_counter() - start)
        step, x = power_step(layer), jnp.asarray(np.asarray(mu.points))
        value, steps, peer = power_iteration(step, x)
        compiled = jax.jit(step)
        power_iteration(compiled, x, 2)
        _, _, quicker = power_iteration(compiled, x)
        note = f"ours {found.value:.8g}, theirs {value:.8g} after {steps} steps"
        difference = abs(found.value / value - 1)
        yield Row(f"scores of {strength:g}: difference", difference, note, at_most=1e-4)
        seconds = statistics.median(ours)
        note = (
            f"{seconds:.2g} s, upper / value {found.ratio:.3g}; theirs {peer:.2g} s, "
            f"{1e3 * peer / steps:.2g} ms a step, compiled {quicker:.2g} s, "
            f"{1e3 * quicker / steps:.2g} ms a step (float64)"
        )
        yield Row(f"scores of {strength:g}: time ratio", peer / seconds, note, at_least=3)


def power_step(layer: ma.SelfAttention) -> Callable:
    """One step of the power iteration: the next vector and the estimate."""
    f = plain(layer)

    def step(x: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        _, image = jax.jvp(f, (x,), (v,))
        back = jax.vjp(f, x)[1](image)[0]
        return back / jnp.linalg.norm(back), jnp.linalg.norm(image)

    return step


def power_iteration(step: Callable, x: jax.Array, most: int = 3000) -> tuple[float, int, float]:
    """The spectral norm, steps and seconds until the estimate moves by less than 1e-7."""
    v = jnp.asarray(np.random.default_rng(0).normal(size=(N, D)))
    v /= jnp.linalg.norm(v)
    start, last, value, steps = time.perf_counter(), 0.0, 1.0, 0
    while abs(value / max(last, 1e-300) - 1) > 1e-7 and steps < most:
        v, size = step(x, v)
        last, value, steps = value, float(size), steps + 1
    return value, steps, time.perf_counter() - start


def _alone(strength: float) -> None:
    layer, mu = problem(strength, 2048)
    start = time.perf_counter()
    found = local(layer, mu, 1)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak": peak_memory(), "ratio": found.ratio}))


CASES = (tightness, speed, memory, power)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    if sys.argv[1:2] == ["--alone"]:
        _alone(float(sys.argv[2]))
    else:
        run_cases(CASES, __doc__)
