"""Dot-product self-attention is not Lipschitz on R^d (2006.04710, Theorem 3.1)."""

import jax
import numpy as np
from scipy.special import lambertw

import measattn as ma
from measattn import plot
from measattn.lipschitz import Ball, bound
from measattn.wasserstein import w1, w_inf, wp
from paper_repro import jacobians
from paper_repro.claim import Bench, claim

LAYER = ma.SelfAttention(ma.DotProduct(1.0))


@claim(
    id="kim-not-lipschitz",
    group="B",
    title="Dot-product self-attention is not Lipschitz on ℝᵈ",
    formulas=[
        r"X=(m-Mv,\,m,\,m+Mv):\qquad df_2=\frac{1}{3}Vu+\frac{2}{3}M^2Vv\;\to\;\infty",
        r"\sup_{\mu\neq\nu}\frac{W_p(\mathrm{Att}\,\mu,\mathrm{Att}\,\nu)}{W_p(\mu,\nu)}=\infty,"
        r"\qquad 1\leq p\leq\infty",
    ],
    statement=r"For every $V\neq 0$ and $A\neq 0$, every $p$, already among three equal tokens: "
    r"with one in the middle of two others its output moves by $\frac{2}{3}M^2$ per unit (F4). "
    r"So there is no constant for lists of tokens in $\mathbb{R}^{N\times D}$ in any norm, either. "
    r"On balls there is one, and it must grow with the radius.",
    source="Theorem 3.1 of arXiv 2006.04710, recalled and not checked against the text; proved as "
    "F4 (i) in docs/theory-lipschitz",
    hypotheses={"nonzero": r"$V\neq 0$ and $A\neq 0$"},
    cost=(2, 3),
)
def not_lipschitz(bench: Bench) -> None:
    """The three tokens: quotients of distances, Jacobians, random scores, and balls."""
    sizes, rows = np.array([2.0, 5.0, 10.0, 30.0]), []
    for size in sizes:
        x = np.array([[-size], [0.0], [size]])
        step = 0.1 / size
        y = x + np.array([[0], [step], [0]])
        mu, nu = ma.EmpiricalMeasure(x), ma.EmpiricalMeasure(y)
        line = [size]
        for distance in (w1, lambda a, b: wp(a, b, 2), w_inf):
            line.append(distance(image(mu), image(nu)).lower / distance(mu, nu).upper)
        J = jacobians.jacobian(x, jacobians.dot_slopes(x, np.eye(1)))
        rows.append([*line, float(J[1, 0, 1, 0]), jacobians.frobenius(J), moved(size, step) / step])
    exact = 1 / 3 + 2 / 3 * sizes**2
    bench.close("derivative of the middle output, against 1/3 + 2M²/3", [r[4] for r in rows], exact)
    for k, name in ((1, "W_1"), (2, "W_2"), (3, r"W_\infty")):
        share = min(row[k] / row[6] for row in rows)
        bench.at_least(f"${name}$: quotient over that of the middle output", share, 1 - 1e-4)
    bench.at_least("Frobenius norm of the Jacobian over the same",
                   min(r[5] / v for r, v in zip(rows, exact, strict=True)), 1.0)  # fmt: skip
    bench.table("Three tokens at -M, 0 and M; the middle one moves",
                ["M", "W1", "W2", "W∞", "∂f₂/∂x₂", "Frobenius", "middle"], rows)  # fmt: skip
    any_scores(bench)
    on_balls = [bound(LAYER, Ball(size), np.inf, dimension=1).value for size in sizes]
    bench.at_most("on the ball of radius M: quotient of W∞ over the constant of the ball",
                  max(r[3] / b for r, b in zip(rows, on_balls, strict=True)), 1.0)  # fmt: skip
    constant = 1 + 4 * float(lambertw(2 / np.e).real)
    bench.control(
        "the constant of Gaussian scores for three tokens (F1), taken for dot products, M = 10",
        rows[2][3],
        constant,
        "scores that do not decay have no such constant.",
        predicted=rows[2][6],
    )
    bench.figure(
        plot.curve(sizes, [r[1] for r in rows], bound={"of W∞, on the ball": on_balls},
                   names=("M", "quotient of W1")),
        "Three tokens at -M, 0, M; dashed, the constant of $W_\\infty$ on the ball of radius M",
        "The quotient grows as the square of M, below the dashed line of the same slope",
    )  # fmt: skip


def moved(size: float, step: float) -> float:
    """The middle output after its token has moved, in closed form."""
    up, down, own = np.exp(size * step), np.exp(-size * step), np.exp(step**2)
    return float((size * (up - down) + step * own) / (up + down + own))


image = jax.jit(lambda mu: mu @ LAYER)


def any_scores(bench: Bench) -> None:
    """Random A and V in three dimensions: the tokens of F4's proof."""
    ratios = []
    for _ in range(10 if bench.quick else 100):
        A, V = bench.rng.normal(size=(2, 3, 3))
        v, m = bench.rng.normal(size=(2, 3))
        m -= (A.T @ v) @ m / ((A.T @ v) @ (A.T @ v)) * (A.T @ v)  # ⟨v, Am⟩ = 0
        u = A.T @ v / ((A.T @ v) @ (A.T @ v))
        for size in (10.0, 100.0):
            x = np.array([m - size * v, m, m + size * v])
            J = jacobians.jacobian(x, jacobians.dot_slopes(x, A), V)
            bench.check("nonzero", np.linalg.norm(A) * np.linalg.norm(V) > 0)
            exact = V @ u / 3 + 2 / 3 * size**2 * V @ v
            ratios.append(np.linalg.norm(J[1, :, 1] @ u - exact) / np.linalg.norm(exact))
    bench.at_most("random A and V: derivative against F4's formula", max(ratios), 1e-8)
