"""Attention to n sampled tokens approaches attention to their law at the rate 1/√n on a ball."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import binom

import measattn as ma
from measattn.plot import ACCENTS
from measattn.plot.style import house_style, logarithmic
from paper_repro import oracles, stacks
from paper_repro.claim import Bench, claim
from paper_repro.jacobians import in_ball

QUERIES = 48
FEWEST = 64


@claim(
    id="token-sampling",
    group="B",
    title="Attention to a sample approaches attention to the law at 1/√n, uniformly on a ball",
    formulas=[
        r"\left(\mathbb{E}\,|\Gamma_{\mu_n}(x)-\Gamma_\mu(x)|^2\right)^{1/2}\leq"
        r"\frac{\Vert V\Vert e^{\omega}R}{\sqrt{n}}",
        r"\mu=N(m,I),\ a=\langle Ax,y\rangle:\qquad n\,\mathbb{E}\,|\Gamma_{\mu_n}(x)-m-Ax|^2"
        r"\to e^{|Ax|^2}(d+|Ax|^2)",
    ],
    statement=r"For tokens drawn from a law on a ball of radius $R$ and a query that is not among "
    r"them (E4), $\omega$ the oscillation of its scores; checked without any sampling on two "
    r"points, where the error is a binomial sum. For a normal law, which is sub-Gaussian but not "
    r"bounded, the largest error over all queries of a ball falls at the same rate, with a "
    r"constant that grows like $e^{|Ax|^2/2}$: the error of self-normalised importance sampling.",
    source="arXiv 2512.10656, known by its abstract; E4 and F5 are proved in docs/theory",
    hypotheses={
        "independent": r"tokens are drawn independently, and the query is none of them",
        "ball": r"E4: the law lives on the ball of radius $R$; the normal law is sub-Gaussian",
    },
    cost=(2, 4),
)
def sampling(bench: Bench) -> None:
    """Two points exactly, random laws, the normal law on a ball; heavy tails as the control."""
    bench.check("independent", True, "by construction")
    bench.check("ball", True, "by construction")
    exact = two_points(bench)
    random_laws(bench)
    sizes, error, spread = normal(bench)
    bench.figure(
        picture(exact, sizes, error, spread),
        "Left: two points, exact error (lines) and E4 (dashed) for three oscillations of the "
        "scores. Right: a normal law, the largest error over the unit disc, with standard errors",
        "All errors fall with slope one half, those on the left below their dashed bounds",
    )


def binomial_error(n: int, omega: float, rho: float) -> float:
    """The root mean square error for atoms 1, drawn with probability ρ, and -1; exact."""
    k = np.arange(n + 1)
    of_one = np.where(k > 0, k * np.exp(omega), 0.0)
    out = 1 - 2 * (n - k) / (of_one + n - k)
    mean = 1 - 2 * (1 - rho) / (rho * np.exp(omega) + 1 - rho)
    return float(np.sqrt(binom.pmf(k, n, rho) @ (out - mean) ** 2))


def two_points(bench: Bench) -> list[tuple[float, Any, Any, Any]]:
    """E4 where the error is a finite sum: the rarer point is the one that attention prefers."""
    sizes = 4 ** np.arange(2, 8)
    drawn, shares = [], []
    for omega in (0.5, 2.0, 4.0):
        rho = 1 / (1 + np.exp(omega))
        error = np.array([binomial_error(int(n), omega, rho) for n in sizes])
        drawn.append((omega, sizes, error, np.exp(omega) / np.sqrt(sizes)))
        shares.append((error / drawn[-1][3]).max())
        # delta method: both points weigh one half in the limit
        limit = 0.5 / np.sqrt(rho * (1 - rho))
        bench.close(f"two points, ω = {omega:g}: error times √n, n = {sizes[-1]:,}, and its limit",
                    error[-1] * np.sqrt(sizes[-1]), limit, tolerance=0.01)  # fmt: skip
    bench.at_most("two points: exact error over E4", max(shares), 1.0)
    bench.control(
        r"E4 without $e^{\omega}$, ω = 4",
        drawn[-1][2][-1] * np.sqrt(sizes[-1]),
        1.0,
        "the token that attention turns to is rare in the sample.",
    )
    bench.control(
        "a rate of 1/n: n times the error does not grow",
        drawn[0][2][-1] * sizes[-1] / (drawn[0][2][0] * sizes[0]),
        1.0,
        "it grows like the root of n.",
    )
    # the library on one sample
    x = np.array([[1.0]] * 3 + [[-1.0]] * 13)
    got = ma.CrossAttention(ma.DotProduct(1.0), None, ma.EmpiricalMeasure(x))
    k, n = 3, 16
    want = 1 - 2 * (n - k) / (k * np.exp(2.0) + n - k)
    found = got.push(ma.dirac([1.0]), jnp.ones((1, 1)))
    bench.close("the library on one sample, closed form", np.asarray(found)[0, 0], want)
    return drawn


def random_laws(bench: Bench) -> None:
    """E4 on random finite laws on the disc: the mean of many samples, less three of its errors."""
    shares, repeats = [], 400
    for _ in range(6 if bench.quick else 40):
        n = int(2 ** bench.rng.integers(4, 9))
        atoms, law = in_ball(bench.rng, 6, 2), bench.rng.dirichlet(np.ones(6))
        block = stacks.random_block(bench.rng, 2, score=bench.rng.uniform(0.2, 2), value=1.0)
        query = in_ball(bench.rng, 1, 2)
        scores = (query @ block.A.T @ atoms.T)[0]
        counts = bench.rng.multinomial(n, law, size=repeats)
        weighted = counts * np.exp(scores - scores.max())
        out = weighted / weighted.sum(axis=1, keepdims=True) @ atoms @ block.V.T
        mean = oracles.softmax(scores, law) @ atoms @ block.V.T
        square = np.sum((out - mean) ** 2, axis=1)
        low = square.mean() - 3 * square.std() / np.sqrt(repeats)
        bound = np.exp(np.ptp(scores)) * stacks.row_norms(atoms).max() / np.sqrt(n)
        shares.append(np.sqrt(max(low, 0.0)) / bound)
    bench.at_most("random laws: error, less three standard errors of its square, over E4",
                  max(shares), 1.0)  # fmt: skip


@jax.jit
def answers(samples: Any, queries: Any, A: Any) -> Any:
    """Γ at the queries for each of many samples: (samples, queries, d)."""

    def one(tokens: Any) -> Any:
        layer = ma.CrossAttention(ma.Bilinear(A, jnp.eye(2)), None, ma.EmpiricalMeasure(tokens))
        return layer.push(ma.EmpiricalMeasure(queries), queries)

    return jax.lax.map(one, samples)


def normal(bench: Bench) -> tuple[Any, Any, Any]:
    """N(m, I) on the plane, all queries of the unit disc: the rate, its constant, heavy tails."""
    repeats = 60 if bench.quick else 400
    sizes = FEWEST * 4 ** np.arange(4)
    A = np.array([[0.8, 0.3], [-0.2, 0.6]])
    A = A / np.linalg.norm(A, 2)
    m = np.array([0.2, -0.1])
    angle = 2 * np.pi * np.arange(QUERIES) / QUERIES
    queries = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    queries = np.concatenate([queries[::2], 0.5 * queries[1::2]])
    limit, size = m + queries @ A.T, np.sum((queries @ A.T) ** 2, axis=1)
    mean, spread, tails = [], [], []
    square = np.zeros((1, QUERIES))
    for n in sizes:
        draws = m + bench.rng.normal(size=(repeats, int(n), 2))
        off = stacks.row_norms(np.asarray(answers(draws, queries, A)) - limit)
        mean.append(off.max(axis=1).mean())
        spread.append(off.max(axis=1).std() / np.sqrt(repeats))
        square = off**2
        heavy = bench.rng.standard_t(2.5, size=(repeats, int(n), 2))
        tails.append(np.median(stacks.row_norms(np.asarray(answers(heavy, queries, A))).max(1)))
    one = oracles.attention(queries, draws[0], draws[0], oracles.bilinear(A, np.eye(2)))
    bench.close("one sample of the normal law against NumPy",
                np.asarray(answers(draws[:1], queries, A))[0], one, tolerance=1e-10)  # fmt: skip
    slope, error = oracles.fitted_slope(sizes, np.array(mean), np.array(spread))
    bench.at_most(f"normal law: slope {slope:.3f} of the largest error, distance to -1/2",
                  abs(slope + 0.5), 0.03 + 3 * error)  # fmt: skip
    constant = np.exp(size) * (2 + size)
    shares = (square * sizes[-1] / constant).mean(axis=1)
    bench.at_most(
        f"normal law, n = {sizes[-1]:,}: square error times n over its limit, distance to one",
        abs(shares.mean() - 1), 0.03 + 4 * shares.std() / np.sqrt(repeats),
    )  # fmt: skip
    bench.control(
        "tokens with heavy tails: the output at the largest n over that at the least",
        tails[-1] / tails[0],
        1.5,
        "attention to such a law is not defined: it runs after the largest token of the sample.",
    )
    return sizes, np.array(mean), np.array(spread)


@house_style
def picture(exact: Any, sizes: Any, error: Any, spread: Any) -> Any:
    """Errors against the number of tokens."""
    figure, (left, right) = stacks.panels("Two points", "Normal law")
    for colour, (omega, n, seen, bound) in zip(ACCENTS, exact, strict=False):
        left.plot(n, seen, "o-", color=colour, markersize=4, label=f"ω = {omega:g}")
        left.plot(n, bound, "--", color=colour)
    left.legend(fontsize=8)
    right.errorbar(sizes, error, spread, fmt="o-", color=ACCENTS[0], capsize=2, label="observed")
    right.plot(sizes, error[0] * np.sqrt(sizes[0] / sizes), "--", color=ACCENTS[1],
               label="slope −1/2")  # fmt: skip
    right.legend(fontsize=8)
    for axes in (left, right):
        logarithmic(axes.xaxis)
        logarithmic(axes.yaxis)
        axes.set(xlabel="tokens n", ylabel="error")
    return figure
