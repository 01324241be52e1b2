"""Lists of tokens, with and without masks: B5 and M1 against Jacobians; sinks."""

import numpy as np

from paper_repro import jacobians, oracles
from paper_repro.claim import TOLERANCE, Bench


def masks(bench: Bench, n: int) -> dict[str, np.ndarray]:
    """Which keys a row sees: all, earlier ones, or its own and some others."""
    some = bench.rng.random((n, n)) < 0.4
    return {
        "none": np.ones((n, n), bool),
        "causal": np.tril(np.ones((n, n), bool)),
        "random": some | np.eye(n, dtype=bool),
    }


def lists(bench: Bench) -> None:
    """B5 and M1: norms of Jacobians at random lists and at lists that one token dominates."""
    d, rows = 2, []
    for n in (3, 12):
        for name, allowed in masks(bench, n).items():
            shares = []
            for trial in range(6 if bench.quick else 60):
                A, V = bench.rng.normal(size=(2, d, d)) * (0.3 + 3 * bench.rng.random())
                x = jacobians.in_ball(bench.rng, n, d)
                if trial % 2:  # a token far out, the others near its half or its opposite
                    x = np.tile(x[-1:] * bench.rng.choice([0.5, -1.0]), (n, 1)) + 0.01 * x
                    x[0] = -x[-1] if trial % 4 == 1 else 2 * x[-1]
                    x /= max(1.0, np.linalg.norm(x, axis=1).max())
                bench.check("ball", np.linalg.norm(x, axis=1).max() <= 1 + TOLERANCE)
                shares.append(shares_of(bench, x, A, V, allowed))
            rows.append([n, name, *np.max(shares, axis=0)])
    names = ["B5, Frobenius norm", "B5, largest displacement", "M1, mean displacement"]
    for k, name in enumerate(names):
        bench.at_most(f"{name}: norm of the Jacobian over its bound, any mask of positions",
                      max(row[2 + k] for row in rows), 1.0)  # fmt: skip
    bench.table("Lists of tokens: the largest share of a bound that was used",
                ["tokens", "mask", "Frobenius", "largest", "mean"], rows)  # fmt: skip


def shares_of(
    bench: Bench, x: np.ndarray, A: np.ndarray, V: np.ndarray, allowed: np.ndarray
) -> tuple[float, float, float]:
    """The three norms of the Jacobian over their bounds."""
    slopes = jacobians.dot_slopes(x, A, allowed)
    J = jacobians.jacobian(x, slopes, V)
    column = float(oracles.softmax(slopes.scores).sum(axis=0).max())
    t, value = float(np.linalg.norm(A, 2)), float(np.linalg.norm(V, 2))
    return (
        jacobians.frobenius(J) / (value * (t + column**0.5 * (1 + t))),
        jacobians.largest(J, bench.rng) / (value * (1 + 2 * t)),
        jacobians.mean(J, bench.rng) / (value * (t + column * (1 + 2 * t))),
    )


def sinks(bench: Bench) -> None:
    """The root of n, and the harmonic sum under a causal mask, for scores that vanish."""
    n, A = 64, np.zeros((2, 2))
    x = jacobians.in_ball(bench.rng, n, 2)
    first = np.zeros((n, n), bool)
    first[:, 0] = True
    J = jacobians.jacobian(x, jacobians.dot_slopes(x, A, first))
    bench.close(rf"B5: {n} rows that see one token attain $\sqrt{{n}}$",
                jacobians.frobenius(J), np.sqrt(n))  # fmt: skip
    bench.control(
        r"B5: $\sqrt{c}$ lowered by 2 %",
        jacobians.frobenius(J) / (0.98 * np.sqrt(n)),
        1.0,
        "rows that see one token exceed it.",
        predicted=1 / 0.98,
    )
    causal = jacobians.dot_slopes(x, A, np.tril(np.ones((n, n), bool)))
    bench.control(
        r"B3 under a causal mask, where $e^{\theta_R}=1$ for $A=0$",
        jacobians.mean(jacobians.jacobian(x, causal), bench.rng),
        1.0,
        "the first token is seen by all rows: a masked layer is no function of the law.",
        predicted=(1 / np.arange(1, n + 1)).sum(),
    )
