"""Depth: exact answers, certified equilibria, and long trajectories beside plain loops.

Run: ``python benchmarks/depth.py [case ...]``
"""

import time
from collections.abc import Iterator, Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from report import Row, run_cases

import measattn as ma
from measattn import dynamics
from measattn.dynamics.contraction import norm


def orthogonal() -> Iterator[Row]:
    """The flow on the sphere from an orthonormal start against its scalar equation."""
    for n in (2, 16, 128):
        for beta, end in ((1.0, 8.0), (4.0, 20.0), (9.0, 3000.0)):
            layer = dynamics.Tangential(ma.SelfAttention(ma.DotProduct(beta)))
            turn = np.linalg.qr(np.random.default_rng(n).normal(size=(n, n)))[0]
            mu = ma.EmpiricalMeasure(turn)
            times = np.linspace(0, end, 9)
            path = dynamics.flow(layer, mu, end, save=9)
            got = np.asarray(jnp.sum(path.points[:, 0] * path.points[:, 1], axis=1))
            expected = np.asarray(dynamics.orthogonal_start(n, beta, times))
            error = float(np.abs(got - expected).max())
            note = f"cosine from 0 to {got[-1]:.6f}, {path.steps} steps"
            yield Row(f"n = {n}, beta = {beta:g}: error", error, note, at_most=1e-8)


def equilibrium() -> Iterator[Row]:
    """C5 with n = 1,000, d = 64: certified error, and steps of Anderson over Picard."""
    for seed in range(3):
        layer, inputs = _contractive(seed, 1000, 64, slow=True)
        fast = dynamics.equilibrium(layer, inputs)
        slow = dynamics.equilibrium(layer, inputs, solver=_picard(1e-10))
        proof = fast.contraction.value
        note = f"{fast.verdict}, q = {proof:.4f}, rounding covered: {fast.exact}"
        yield Row(f"seed {seed}: certified error", fast.error, note, at_most=1e-8)
        note = f"{fast.steps} and {slow.steps} steps"
        yield Row(f"seed {seed}: Anderson over Picard", fast.steps / slow.steps, note, at_most=0.5)


def certified() -> Iterator[Row]:
    """200 random contractive layers: observed distance to the limit above its certified bound."""
    violations, tightness = 0, []
    for seed in range(200):
        layer, inputs = _contractive(seed, 12, 3)
        far = dynamics.equilibrium(layer, inputs, 1e-3, solver=_picard(1e-3))
        near = dynamics.equilibrium(layer, inputs, 1e-13)
        moves = np.asarray(far.measure.points) - np.asarray(near.measure.points)
        distance = norm(far.contraction.p, moves, np.full(len(moves), 1 / len(moves)))
        violations += distance > far.error + near.error
        tightness.append(far.error / distance)
    note = f"bound over distance: median {np.median(tightness):.2f}, worst {max(tightness):.3g}"
    yield Row("violations", float(violations), note, at_most=0)


def layers() -> Iterator[Row]:
    """100 layers, n = 4,096, d = 64, float32: time over a scan of jax.nn.dot_product_attention."""
    n, d, depth = 4096, 64, 100
    x = jax.random.normal(jax.random.key(0), (n, d), jnp.float32) / 8
    layer = ma.SelfAttention(ma.DotProduct(1.0))
    mu = ma.EmpiricalMeasure(x)

    def ours() -> jax.Array:
        path = dynamics.iterate(layer, mu, depth, distances=False, observe=False)
        return path[-1].points

    @jax.jit
    def peer(x: jax.Array) -> jax.Array:
        def step(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            y = x[None, :, None, :]
            return jax.nn.dot_product_attention(y, y, y, scale=1.0)[0, :, 0], None

        return jax.lax.scan(step, x, None, length=depth)[0]

    seconds = {"ours": [], "peer": []}
    off = 0.0
    for turn in range(3):
        for name, run in (("ours", ours), ("peer", lambda: peer(x))):
            start = time.perf_counter()
            out = np.asarray(run())
            if turn:  # the first run compiles
                seconds[name].append(time.perf_counter() - start)
            off = max(off, float(np.abs(out - np.asarray(out)).max()))
    ratio = min(seconds["ours"]) / min(seconds["peer"])
    agreement = float(np.abs(np.asarray(ours()) - np.asarray(peer(x))).max())
    note = f"{min(seconds['ours']):.1f} and {min(seconds['peer']):.1f} s, differ by {agreement:.1e}"
    yield Row("time over the loop", ratio, note, at_most=0.5)


def trajectory() -> Iterator[Row]:
    """1,000 layers, n = 1,024, d = 8: W1 of each step and to the start at every layer."""
    mu = ma.EmpiricalMeasure(np.random.default_rng(0).normal(size=(1024, 8)))
    turn = 0.3 * np.kron(np.eye(4), [[0.0, -1.0], [1.0, 0.0]])
    for name, value, required in (("clustering", 0.01 * np.eye(8), 0.5), ("turning", turn, None)):
        attention = ma.SelfAttention(ma.DotProduct(1.0), value)
        layer = ma.post_norm([attention], [ma.layer.RMSNorm()])
        start = time.perf_counter()
        path = dynamics.iterate(layer, mu, 1000, reference=mu, keep="all")
        minutes = (time.perf_counter() - start) / 60
        gap = float(np.max((path.upper - path.lower) / path.w1))
        far = path.reference
        gap = max(gap, float(np.max((far.upper - far.lower)[1:] / far.w1[1:])))
        note = f"{path.steps} steps, 2,000 distances, largest gap {gap:.0e} of them"
        yield Row(f"{name}: minutes for 1,000 layers", minutes, note)
        laws = list(path)
        to_start = [(law, mu) for law in laws[1:]]
        yield from _warm(f"{name}: to the start", to_start, required)
        yield from _warm(f"{name}: steps", list(pairwise(laws)), None)


def _warm(name: str, problems: Sequence[tuple], required: float | None) -> Iterator[Row]:
    """Warm over cold, both on each of the same problems; `iterate` starts cold after no rounds."""
    seconds = {"cold": 0.0, "warm": 0.0}
    rounds = {"cold": 0, "warm": 0}
    for first in range(50, len(problems), 100):
        last = ma.wasserstein.w1(*problems[first])
        for step in range(first + 1, first + 5):
            cold = ma.wasserstein.w1(*problems[step])
            last = ma.wasserstein.w1(*problems[step], start=last)
            for kind, solution in (("cold", cold), ("warm", last)):
                seconds[kind] += solution.seconds
                rounds[kind] += solution.iterations
    note = (
        f"40 layers: {seconds['warm']:.2f} s / {seconds['cold']:.2f} s, "
        f"rounds {rounds['warm']} / {rounds['cold']}"
    )
    yield Row(f"{name}, warm / cold", seconds["warm"] / seconds["cold"], note, at_most=required)


def spectrum() -> Iterator[Row]:
    """Arnoldi at a fixed point, n = 1,000, d = 64: spectral radius against the observed rate."""
    layer, inputs = _contractive(0, 1000, 64, slow=True)
    injected = dynamics.Injected(layer, inputs)
    end = dynamics.equilibrium(layer, inputs, 1e-12)
    start = time.perf_counter()
    found = dynamics.spectrum(injected, end.measure, 6)
    seconds = time.perf_counter() - start
    path = dynamics.iterate(injected, ma.EmpiricalMeasure(inputs), 120, observe=False)
    rate = path.rate()
    note = (
        f"radius {found.radius:.5f}, {rate}, residuals {found.residuals.max():.0e}, {seconds:.0f} s"
    )
    yield Row("difference", abs(found.radius - rate.value), note, at_most=0.01)


def sampling() -> Iterator[Row]:
    """Gaussian layers: mean and covariance of n samples against the closed form, rate in n."""
    rng = np.random.default_rng(0)
    d = 6
    score = rng.normal(size=(d, d))
    score *= 0.4 / np.linalg.norm(score, 2)
    law = dynamics.GaussianLaw(0.5 * rng.normal(size=d), np.eye(d))
    layer = ma.SelfAttention(ma.Bilinear(score, np.eye(d)), rng.normal(size=(d, d)))
    exact = law @ layer
    sizes, errors = np.array([250, 500, 1000, 2000, 4000]), []
    for n in sizes:
        square = 0.0
        for seed in range(40):
            out = np.asarray((law.sample(int(n), key=jax.random.key(seed)) @ layer).points)
            square += float(np.sum((out.mean(axis=0) - np.asarray(exact.mean)) ** 2))
            square += float(np.sum((np.cov(out.T, bias=True) - np.asarray(exact.covariance)) ** 2))
        errors.append(np.sqrt(square / 40))
    t = np.log(sizes) - np.log(sizes).mean()
    slope = float(t @ np.log(errors) / (t @ t))
    yield Row("rate of the error in n, at least", slope, at_least=-0.55)
    yield Row("rate of the error in n, at most", slope, at_most=-0.45)


def _contractive(seed: int, n: int, d: int, slow: bool = False) -> tuple:
    """A layer and inputs that C5 proves to be contractive; ``slow`` with q near 0.95."""
    rng = np.random.default_rng(seed)
    size, q = (0.9, 0.95) if slow else (0.5, 0.8)
    value, score = rng.normal(size=(d, d)), rng.normal(size=(d, d))
    value = np.linalg.qr(value)[0] * size if not slow else value + value.T
    value *= size / np.linalg.norm(value, 2)
    inputs = rng.normal(size=(n, d))
    inputs *= 0.1 / np.linalg.norm(inputs, axis=1).max()
    radius = 0.1 / (1 - size)
    score *= (q / size - 1) / (2 * radius**2) / np.linalg.norm(score, 2)
    return ma.SelfAttention(ma.Bilinear(score, np.eye(d)), value), inputs


def _picard(tol: float) -> optx.FixedPointIteration:
    return optx.FixedPointIteration(rtol=0.0, atol=tol)


CASES = (orthogonal, sampling, equilibrium, certified, layers, trajectory, spectrum)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    run_cases(CASES, __doc__)
