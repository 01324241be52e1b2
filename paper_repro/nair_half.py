"""Softmax is ½-Lipschitz in every ℓ_p (2510.23012)."""

import numpy as np

from measattn import plot
from paper_repro.claim import TOLERANCE, Bench, claim
from paper_repro.oracles import softmax

ORDERS = (1.0, 1.5, 2.0, 4.0, np.inf)


@claim(
    id="nair-half",
    group="B",
    title="Softmax is ½-Lipschitz in every ℓp, and ½ is best",
    formulas=[
        r"\Vert\mathrm{softmax}(u)-\mathrm{softmax}(w)\Vert_p\leq\frac{1}{2}\Vert u-w\Vert_p",
        r"J=\mathrm{diag}\,p-pp^{\top},\qquad\Vert J\Vert_1=\Vert J\Vert_\infty="
        r"\max_i\,2p_i(1-p_i)\leq\frac{1}{2}",
    ],
    statement=r"In every $\ell_p$, $1\leq p\leq\infty$, and for any number of logits; with the "
    r"inverse temperature $\beta$ the constant is $\beta/2$ (L1). It is attained in the limit of "
    r"two equal logits far above all others, and not approached where softmax is peaked, as is "
    r"sometimes said: there its Jacobian vanishes.",
    source="arXiv 2510.23012, known from a secondary source; proved in docs/theory-lipschitz, L1",
    hypotheses={"finite": "the logits are finite"},
    cost=(0.5, 3),
)
def half(bench: Bench) -> None:
    """Random pairs, ascents, the extremal pair, temperatures."""
    rows = []
    for p in ORDERS:
        worst = 0.0
        for n in (2, 3, 10, 100):
            size = 10 ** bench.rng.uniform(-2, 1.5, size=(300 if bench.quick else 5000, 1))
            u = size * bench.rng.normal(size=(len(size), n))
            w = u + 10 ** bench.rng.uniform(-3, 1, size=(len(size), 1)) * steps(bench, len(size), n)
            bench.check("finite", np.isfinite(u).all() and np.isfinite(w).all())
            worst = max(worst, quotients(u, w, p).max())
        rows.append([f"{p:g}".replace("inf", "∞"), worst, climbed(bench, p), extremal(p, 1.0)])
    for k, name in ((1, "random pairs"), (2, "ascents"), (3, "two equal logits")):
        worst = max(row[k] for row in rows)
        bench.at_most(f"{name}: quotient over 1/2, every p", worst / 0.5, 1 + TOLERANCE)
    bench.at_least("two equal logits: share of 1/2 attained, every p",
                   min(row[3] for row in rows) / 0.5, 1 - 1e-6)  # fmt: skip
    bench.table("The largest quotient", ["p", "random pairs", "ascents", "two equal logits"], rows)
    bench.close("inverse temperature 7: the constant 7/2",
                [extremal(p, 7.0) for p in ORDERS], np.full(5, 3.5), tolerance=1e-5)  # fmt: skip
    J = jacobian(np.array([0.7, 0.2, 0.1]))
    bench.close("closed form of the largest column sum",
                np.abs(J).sum(axis=0).max(), 2 * 0.7 * 0.3)  # fmt: skip
    bench.control(
        "1/2 lowered by 2 %",
        max(row[3] for row in rows) / 0.49,
        1.0,
        "two equal logits exceed it.",
        predicted=1 / 0.98,
    )
    peaks = np.linspace(0.02, 0.98, 49)
    norms = [np.linalg.norm(jacobian(np.array([t, 1 - t])), 2) for t in peaks]
    bench.figure(
        plot.curve(peaks, norms, bound={"½": np.full(len(peaks), 0.5)}, fit=False,
                   names=("larger or smaller of two weights", "norm of the Jacobian")),
        "Two logits: the norm of the Jacobian of softmax; dashed, ½",
        "The norm rises from zero to one half at equal weights and falls back to zero",
    )  # fmt: skip


def quotients(u: np.ndarray, w: np.ndarray, p: float) -> np.ndarray:
    """Distances after over distances before, row by row."""
    after = np.linalg.norm(softmax(u) - softmax(w), p, axis=1)
    return after / np.linalg.norm(u - w, p, axis=1)


def steps(bench: Bench, count: int, n: int) -> np.ndarray:
    """Dense and sparse directions."""
    out = bench.rng.normal(size=(count, n))
    return out * (bench.rng.random((count, n)) < bench.rng.choice([0.2, 1.0])) + 1e-6 * out


def extremal(p: float, beta: float) -> float:
    """Two equal logits far above the others, moved apart a little."""
    u = np.full((1, 8), -40.0)
    u[0, :2] = 0
    w = u.copy()
    w[0, :2] = 1e-4, -1e-4
    return float(quotients(beta * u, beta * w, p)[0]) * beta


def climbed(bench: Bench, p: float) -> float:
    """Random search uphill, from several starts, for the worst pair of five logits."""
    count = 200
    u, w = bench.rng.normal(size=(2, count, 5))
    best = quotients(u, w, p)
    for k in range(150 if bench.quick else 1000):
        size = 0.5 * 0.98 ** (k % 200)
        new_u, new_w = (z + size * bench.rng.normal(size=z.shape) for z in (u, w))
        value = quotients(new_u, new_w, p)
        better = value > best
        u[better], w[better], best[better] = new_u[better], new_w[better], value[better]
    return float(best.max())


def jacobian(p: np.ndarray) -> np.ndarray:
    """Diag p - pp^T."""
    return np.diag(p) - np.outer(p, p)
