"""How fast the law of n particles nears its mean-field limit: in W1, on the line and in space."""

from typing import Any

import jax
import numpy as np
from scipy.stats import norm

import measattn as ma
from measattn import dynamics as dyn
from measattn.plot import ACCENTS
from measattn.plot.style import house_style, logarithmic
from measattn.wasserstein import w1
from paper_repro import oracles, stacks
from paper_repro.claim import Bench

LAYERS, STRENGTH = 3, 0.35


def laws(bench: Bench) -> None:
    """Normal tokens through three layers: W1 to the exact limit, or to a sample of it."""
    line, space = rates(bench, 1), rates(bench, 3)
    for (sizes, mean, error), d, rate in ((line, 1, 2), (space, 3, 3)):
        slope, spread = oracles.fitted_slope(sizes, mean, error)
        bench.at_most(
            f"d = {d}: fitted slope {slope:.3f} ± {spread:.3f} of $W_1$ after {LAYERS} layers: "
            f"distance to −1/{rate} in standard errors",
            abs(slope + 1 / rate) / spread,
            4.0,
        )
    slope, spread = oracles.fitted_slope(*space)
    bench.control(
        f"d = 3: fitted slope {slope:.3f} ± {spread:.3f}: distance to −1/2 in standard errors",
        abs(slope + 0.5) / spread,
        4.0,
        "moments converge at that rate, laws in space do not.",
    )
    bench.figure(
        picture(line, space),
        f"Normal tokens through {LAYERS} layers: $W_1$ between their law and the limit; on the "
        "line to the limit itself, in space to a sample of it",
        "Both fall along dashed lines on logarithmic axes, the one of the line more steeply",
    )
    rows = [[int(n), *values] for n, *values in zip(line[0], *line[1:], *space[1:], strict=True)]
    bench.table("Distances of laws to their limit",
                ["n", "d = 1", "standard error", "d = 3", "standard error"], rows)  # fmt: skip


@house_style
def picture(line: Any, space: Any) -> Any:
    """Both distances, with the rates that they are held against."""
    figure, (axes,) = stacks.panels("mean W1")
    for (sizes, mean, error), d, rate, colour in ((line, 1, 2, 0), (space, 3, 3, 1)):
        axes.errorbar(sizes, mean, error, fmt="o", color=ACCENTS[colour], label=f"d = {d}")
        slope = mean[-1] * (sizes / sizes[-1]) ** (-1 / rate)
        axes.plot(sizes, slope, "--", color=ACCENTS[colour], label=f"slope −1/{rate}")
    logarithmic(axes.xaxis)
    logarithmic(axes.yaxis)
    axes.set(xlabel="tokens n", ylabel="W1")
    axes.legend(fontsize=8)
    return figure


def rates(bench: Bench, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes, the mean distance over samples and its standard error."""
    rng = bench.rng
    sizes = 2 ** np.arange(6, 10 if bench.quick else 12)
    repeats = {1: 40, 3: 12} if bench.quick else {1: 200, 3: 24}
    A, V = rng.normal(size=(2, d, d))
    score = ma.Bilinear(STRENGTH * A / np.linalg.norm(A, 2), np.eye(d))
    layer = ma.Residual(ma.SelfAttention(score, 0.5 * V / np.linalg.norm(V, 2)))
    start = dyn.GaussianLaw(np.full(d, 0.2), np.eye(d))
    limit = start
    for _ in range(LAYERS):
        limit = limit @ layer
    shared = ma.WeightShared(layer, LAYERS)
    run = jax.jit(lambda x: jax.lax.map(lambda x: (ma.EmpiricalMeasure(x) @ shared).points, x))
    means, errors = [], []
    for n in sizes:
        bench.progress(f"d = {d}, n = {n}")
        samples = start.mean + rng.normal(size=(repeats[d], n, d))
        far = [distance(x, limit, rng) for x in np.asarray(run(samples))]
        means.append(np.mean(far))
        errors.append(np.std(far, ddof=1) / np.sqrt(len(far)))
    return sizes, np.array(means), np.array(errors)


def distance(x: np.ndarray, law: Any, rng: np.random.Generator) -> float:
    """To the law itself on the line; in space to as large a sample of it.

    By convexity the mean of the latter is at least that of the distance to the law, and it is at
    most by the same distance of a sample to its law larger: the rates agree.
    """
    if x.shape[1] == 1:
        return to_normal(x[:, 0], float(law.mean[0]), float(np.sqrt(law.covariance[0, 0])))
    other = law.mean + rng.normal(size=x.shape) @ np.linalg.cholesky(law.covariance).T
    return w1(ma.EmpiricalMeasure(x), ma.EmpiricalMeasure(other)).value


def to_normal(x: np.ndarray, mean: float, deviation: float) -> float:
    r"""$W_1 = \int|F_n-\Phi|$ of n equal masses on the line to a normal law, in closed form."""
    z = np.sort((x - mean) / deviation)

    def integral(t: np.ndarray) -> np.ndarray:
        return t * norm.cdf(t) + norm.pdf(t)

    level = np.arange(1, len(z)) / len(z)  # of F_n between two neighbours
    left, right = z[:-1], z[1:]
    cross = np.clip(norm.ppf(level), left, right)
    below = level * (cross - left) - (integral(cross) - integral(left))
    above = integral(right) - integral(cross) - level * (right - cross)
    tails = integral(z[0]) + integral(-z[-1])
    return float(deviation * (below.sum() + above.sum() + tails))
