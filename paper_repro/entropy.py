"""The maximum-entropy view of [VBT20]: attention weights minimise a free energy."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import brentq, minimize

import measattn as ma
from measattn import plot
from paper_repro import oracles
from paper_repro.claim import Bench, claim

SOLVER = 1e-7
"""Accuracy asked of weights found by a general solver, whose stopping rule sees values only."""


@claim(
    id="max-entropy",
    group="A",
    title="Attention weights are the solution of a maximum-entropy problem",
    formulas=[
        r"\mathrm{KL}(p\,|\,\mu)-p(\log\,g)=\mathrm{KL}(p\,|\,\Psi_g(\mu))-\log\,\mu(g)",
        r"\Psi_{e^{\beta a}}(\mu)=\operatorname*{argmin}_{p\,:\;p(a)=u}\mathrm{KL}(p\,|\,\mu)",
        r"\mu_Q\otimes\Psi_{G}(\mu)=\operatorname*{argmin}_{\pi\,:\;\pi_1=\mu_Q}"
        r"\left\{\mathrm{KL}(\pi\,|\,\mu_Q\otimes\mu)-\int a\,d\pi\right\}",
    ],
    statement=r"$\Psi_g(\mu)$ is the unique minimiser of the free energy "
    r"$p\mapsto\mathrm{KL}(p|\mu)-p(\log\,g)$, with minimum $-\log\,\mu(g)$ (D1); among the laws "
    r"with a given mean score it is closest to $\mu$ (D2), which on uniform tokens is the largest "
    r"entropy; a whole attention matrix solves the same problem over couplings of which one "
    r"marginal is fixed (D3). Each minimiser is found again by a solver that knows nothing of "
    r"softmax (SciPy's sequential quadratic programming on the simplex).",
    source="[VBT20], as reconstructed in docs/theory; D1, D2 and D3 are proved there",
    hypotheses={
        "positive": r"$g>0$ and $0<\mu(g)<\infty$",
        "attainable": r"D2: $u$ lies strictly between the least and the largest score",
    },
    cost=(6, 6),
)
def max_entropy(bench: Bench) -> None:
    """D1, D2, D3, each against SciPy; wrong temperature and a second marginal as controls."""
    free_energy(bench)
    given_mean(bench)
    couplings(bench)


def free_energy(bench: Bench) -> None:
    """D1: the identity, the minimum, and the minimiser found by a solver."""
    rng, n = bench.rng, 12
    a, mu = rng.normal(size=n) * 1.5, rng.dirichlet(np.ones(n) * 3)
    bench.check("positive", np.isfinite(a).all() and 0 < mu @ np.exp(a) < np.inf)
    points = np.arange(n, dtype=float)[:, None]
    law, scores = ma.weighted(points, mu), jnp.asarray(a)

    def log_g(y: jax.Array) -> jax.Array:
        return scores[y[0].astype(int)]

    energy = jax.jit(jax.vmap(lambda p: ma.gibbs.free_energy(log_g, law, ma.weighted(points, p))))
    psi = np.asarray(ma.boltzmann_gibbs(log_g, law).weights)
    least = -np.log(mu @ np.exp(a))
    ps = rng.dirichlet(np.ones(n) * 0.3, size=2000)
    ps[:, 0] = np.where(np.arange(2000) % 4 == 0, 0.0, ps[:, 0])
    ps /= ps.sum(axis=1, keepdims=True)
    got = np.asarray(energy(ps))
    exact = np.exp(a) * mu / (mu @ np.exp(a))
    want = np.array([oracles.kl(p, exact) for p in ps]) + least
    bench.close("D1: the identity, for 2,000 laws", got, want)
    bench.at_least("D1: least free energy of 2,000 laws", got.min() - least, 0.0)
    bench.close(r"D1: the minimum is $-\log\,\mu(g)$", energy(psi[None])[0], least)

    def objective(p: np.ndarray) -> float:
        return float(np.sum(p * (np.log(p / mu) - a)))

    found = solve(objective, lambda p: np.log(p / mu) - a + 1, np.ones((1, n)), np.ones(1))
    bench.close("D1: the minimiser, found by SciPy", psi, found, tolerance=SOLVER)
    warm = mu * np.exp(1.1 * a)
    warm /= warm.sum()
    bench.control(
        r"$\Psi_{g^{1.1}}(\mu)$ taken for the minimiser: its free energy above the minimum",
        energy(warm[None])[0] - least,
        1e-12,
        r"it exceeds the minimum by $\mathrm{KL}(\Psi_{g^{1.1}}|\Psi_g)$.",
        predicted=oracles.kl(warm, exact),
    )


def given_mean(bench: Bench) -> None:
    """D2: the inverse temperature is the multiplier of the constraint on the mean score."""
    rng, n = bench.rng, 10
    a, uniform = rng.normal(size=n), np.full(10, 0.1)
    rows, errors, slopes = [], [], []
    law, scores = ma.EmpiricalMeasure(np.arange(n, dtype=float)[:, None]), jnp.asarray(a)

    @jax.jit
    def tilted(beta: jax.Array) -> jax.Array:
        return ma.boltzmann_gibbs(lambda y: beta * scores[y[0].astype(int)], law).weights

    slope = jax.jit(jax.grad(lambda beta: tilted(beta) @ scores))
    levels = np.quantile(a, [0.15, 0.4, 0.6, 0.9])
    bench.check("attainable", a.min() < levels.min() and levels.max() < a.max())
    for u in levels:
        beta = brentq(lambda b, u=u: float(oracles.softmax(b * a) @ a) - u, -200, 200, xtol=1e-14)
        psi = np.asarray(tilted(beta))
        found = solve(
            lambda p: float(np.sum(p * np.log(p / uniform))),
            lambda p: np.log(p / uniform) + 1,
            np.vstack([np.ones(n), a]),
            np.array([1.0, u]),
        )
        variance = psi @ a**2 - (psi @ a) ** 2
        errors.append(np.abs(psi - found).max())
        slopes.append(abs(float(slope(beta)) - variance))
        rows.append([u, beta, -np.sum(psi * np.log(psi)), errors[-1], variance])
    bench.at_most("D2: largest distance to SciPy's minimisers", max(errors), SOLVER)
    bench.at_most(r"D2: $d\Psi(a)/d\beta$ against the variance of $a$", max(slopes), 1e-12)
    bench.table(
        "D2: the law of largest entropy with mean score u",
        ["u", "β", "entropy", "distance to SciPy", "variance of a"],
        rows,
    )


def couplings(bench: Bench) -> None:
    """D3: one marginal fixed gives softmatch; both fixed would give Sinkhorn's coupling."""
    rng, n, m, d = bench.rng, 4, 6, 2
    x, y = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    mu_q, mu = rng.dirichlet(np.ones(n) * 4), rng.dirichlet(np.ones(m) * 4)
    scores = oracles.gaussian(0.7)(x, y)
    K = ma.SoftmatchKernel(ma.Gaussian(0.7), ma.weighted(y, mu))
    rows = np.asarray(jax.jit(jax.vmap(lambda q: K(q).weights))(x))
    coupling, reference = mu_q[:, None] * rows, mu_q[:, None] * mu[None]
    first = np.kron(np.eye(n), np.ones(m))
    found = solve(
        lambda p: float(np.sum(p * (np.log(p / reference.ravel()) - scores.ravel()))),
        lambda p: np.log(p / reference.ravel()) - scores.ravel() + 1,
        first,
        mu_q,
    )
    bench.close("D3: the coupling, found by SciPy", coupling.ravel(), found, tolerance=SOLVER)
    columns = np.asarray((ma.weighted(x, mu_q) @ K).weights)
    true = oracles.softmax(scores, mu)
    bench.control_close(
        r"the second marginal $\mu_QK$ taken for $\mu$",
        columns,
        mu,
        mu_q @ true,
        "D3 fixes one marginal only; to fix both is Sinkhorn attention.",
    )
    both = np.vstack([first, np.tile(np.eye(m), n)])[:-1]
    sinkhorn = solve(
        lambda p: float(np.sum(p * (np.log(p / reference.ravel()) - scores.ravel()))),
        lambda p: np.log(p / reference.ravel()) - scores.ravel() + 1,
        both,
        np.concatenate([mu_q, mu])[:-1],
    ).reshape(n, m)
    figure = plot.weights(rows)
    bench.figure(figure, "D3: softmatch rows, the optimal coupling given its first marginal",
                 "Heat map of four rows and six columns")  # fmt: skip
    bench.note(
        "For comparison, the coupling with both marginals fixed (Sinkhorn attention) differs from "
        f"it by {np.abs(sinkhorn - coupling).sum() / 2:.3f} in total variation."
    )


def solve(objective, gradient, constraints: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Minimise over p > 0 with linear equality constraints, by SciPy's SLSQP."""
    start = np.linalg.lstsq(constraints, levels, rcond=None)[0]
    start = np.maximum(start, 1e-3)
    result = minimize(
        objective,
        start,
        jac=gradient,
        method="SLSQP",
        bounds=[(1e-12, 1.0)] * constraints.shape[1],
        constraints=[
            {"type": "eq", "fun": lambda p: constraints @ p - levels, "jac": lambda p: constraints}
        ],
        options={"ftol": 1e-16, "maxiter": 2000},
    )
    if not result.success and "directional derivative" not in result.message:
        raise RuntimeError(f"SLSQP stopped: {result.message}")
    return result.x
