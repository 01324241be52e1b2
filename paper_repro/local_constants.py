"""Local Lipschitz constants: what may move near a measure, attained and certified."""

from itertools import pairwise
from math import gamma, inf, pi, sqrt

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import wasserstein_distance

import measattn as ma
from measattn import plot
from measattn.lipschitz import Anywhere, Ball, Split, Whole, local, search
from measattn.wasserstein import w1
from paper_repro.claim import TOLERANCE, Bench, claim

LINE = np.array([1.0, 0.5, -0.2])
"""Three atoms, of equal weight, on which the classes differ."""


@claim(
    id="local-constants",
    group="A",
    title="Near one measure there are three Lipschitz constants, each with its certificate",
    formulas=[
        r"\max_i\max_{u}\sum_j\frac{\omega_j}{\omega_i}|J_{ji}u|\;\leq\;\max_i\max_{u}\Bigl["
        r"|D(x_i)u|+\sum_j\omega_j|M_{x_j}(x_i)u|\Bigr]\;\leq\;\max_{x\in E}\max_{u}\Bigl["
        r"|D(x)u|+\int|M_z(x)u|\,\mu(dz)\Bigr]",
        r"\mathrm{Lip}_{W_1}(P(E))=\sup_\mu L(\mu)",
        r"\sum_j|M_ju|\leq\sqrt{\sum_jw_j\cdot\lambda_{\max}\Bigl(\sum_jM_j^{\top}M_j/w_j\Bigr)},"
        r"\qquad\rho_d=\sqrt{\frac{\pi}{d}}\,\frac{\Gamma((d+1)/2)}{\Gamma(d/2)}",
    ],
    statement=r"Whether atoms move whole, in parts, or a little mass may sit anywhere, makes three "
    r"constants (G1), in this order, and far apart for strong scores. A finite pair of measures "
    r"exceeds the first of them. The last is the local constant among all measures, and its "
    r"supremum $L(\mu)$ over μ is the Lipschitz constant on the domain $E$ (G2). All are found "
    r"from both sides: a direction attains one end, an eigenvalue certifies the other, with a "
    r"loss of at most $\rho_d<\sqrt{\pi/2}$ for the best weights (G3).",
    source="G1, G2, G3 and G4, proved in docs/theory-lipschitz",
    hypotheses={
        "ball": r"all atoms lie in the domain, a ball",
        "single": r"one head, so that all three constants have closed forms",
    },
    cost=(7, 50),
)
def constants(bench: Bench) -> None:
    """The three classes on the line and in the plane, orders 1, 2 and infinity, G3 by itself."""
    bench.check("single", True, "by construction")
    line(bench)
    parts_move(bench)
    if not bench.quick:
        plane(bench)
    supremum(bench)
    orders(bench)
    certificate(bench)


def terms(A: np.ndarray, x: np.ndarray, weights: np.ndarray, at: np.ndarray) -> tuple:
    r"""D(at) (d, d) and all $M_{x_j}$(at) (n, d, d) of the score ⟨Ax, y⟩ with V = I, by NumPy."""

    def means(queries: np.ndarray) -> tuple:
        scores = queries @ A.T @ x.T
        parts = weights * np.exp(scores - scores.max(axis=1, keepdims=True))
        law = parts / parts.sum(axis=1, keepdims=True)
        return law, law @ x, scores.max(axis=1) + np.log(parts.sum(axis=1))

    law, mean, _ = means(at[None])
    spread = x - mean[0]
    _, centres, logs = means(x)
    density = np.exp(x @ A.T @ at - logs)
    levers = np.einsum("jk,jl->jkl", at - centres, x @ A.T)
    return (spread.T * law[0]) @ spread @ A, density[:, None, None] * (np.eye(len(at)) + levers)


def classes(A: np.ndarray, x: np.ndarray, weights: np.ndarray, places: np.ndarray) -> tuple:
    """Whole, Split and Anywhere on a grid of places and, in the plane, of directions."""
    angle = np.linspace(0, pi, 721)
    u = np.ones((1, 1)) if x.shape[1] == 1 else np.stack([np.cos(angle), np.sin(angle)])
    whole, split, anywhere = 0.0, 0.0, 0.0
    for i, at in enumerate([*x, *places]):
        D, M = terms(A, x, weights, at)
        moved = weights @ np.linalg.norm(M @ u, axis=1)
        free = float((np.linalg.norm(D @ u, axis=0) + moved).max())
        anywhere = max(anywhere, free)
        if i < len(x):
            own = weights[i] * M[i]
            tied = np.linalg.norm((D + own) @ u, axis=0) - np.linalg.norm(own @ u, axis=0)
            whole, split = max(whole, float((tied + moved).max())), max(split, free)
    return whole, split, anywhere


def head(A: np.ndarray) -> ma.SelfAttention:
    """The head with that score, V = I."""
    return ma.SelfAttention(ma.Bilinear(A, np.eye(len(A))))


def line(bench: Bench) -> None:
    """Three atoms, from weak to strong scores; and many copies of each atom."""
    x, places = LINE[:, None], np.linspace(-1, 1, 401)[:, None]
    mu, ball = ma.EmpiricalMeasure(x), Ball(1.0)
    ball.check(mu)
    bench.check("ball", True, "checked for each measure")
    strengths = np.array([0.25, 0.5, 1.0, 2.0, 3.0])
    sought = () if bench.quick else strengths
    rows, ends = [], {"Whole": [], "Split": [], "Anywhere": []}
    for t in strengths:
        A = np.array([[-t]])
        want = classes(A, x, np.full(3, 1 / 3), places)
        got = [local(head(A), mu, 1, moves) for moves in (Whole(), Split())]
        if t in sought:
            got.append(local(head(A), mu, 1, Anywhere(ball), starts=4, steps=60))
        values = [each.value for each in got]
        bench.close(f"a = −{t:g}xy: {', '.join(list(ends)[: len(got)])} against a grid",
                    values, want[: len(got)], tolerance=1e-5)  # fmt: skip
        for name, each, exact in zip(ends, got, want, strict=False):
            bench.at_most(f"a = −{t:g}xy, {name}: the grid over the upper end",
                          exact / each.upper, 1 + TOLERANCE)  # fmt: skip
        values = [*values, want[2]][:3]
        for name, value, each in zip(ends, values, [*got, None], strict=False):
            ends[name].append((value, value if each is None else each.upper))
        rows.append([t, *values, values[1] / values[0], values[2] / values[1],
                     got[2].upper if len(got) == 3 else "not asked"])  # fmt: skip
    bench.at_most("Whole over Split, on the line", max(row[1] / row[2] for row in rows), 1.0)
    bench.at_most("Split over Anywhere, on the line", max(row[2] / row[3] for row in rows), 1.0)
    bench.table(
        r"Equal atoms at 1, 0.5 and −0.2, $a=-\kappa xy$ on the interval $[-1,1]$",
        ["κ", "Whole", "Split", "Anywhere", "Split/Whole", "Anywhere/Split", "upper end"],
        rows,
        "Attained values and the factors between them; the upper end is that of Anywhere.",
    )
    if not bench.quick:
        copies(bench, mu)
    bench.figure(
        plot.growth(
            strengths,
            {
                name: (
                    [low for low, _ in pairs],
                    None if bench.quick and name == "Anywhere" else [high for _, high in pairs],
                )
                for name, pairs in ends.items()
            },
            names=("strength of the score, κ", "local constant"),
        ),
        "Three constants near one measure, from weak to strong scores; dashed, what is certified",
        "Three rising curves, Whole lowest and Anywhere highest, which part for strong scores",
    )


def copies(bench: Bench, mu: ma.EmpiricalMeasure) -> None:
    """Whole, with each atom as many equal ones, grows towards Split."""
    layer, x = head(-np.eye(1)), np.asarray(mu.points)
    split = local(layer, mu, 1, Split())
    whole = [
        local(layer, ma.EmpiricalMeasure(np.repeat(x, m, axis=0)), 1).value for m in (1, 2, 4, 16)
    ]
    bench.at_most("Whole grows with copies of the atoms: one over the next, the worst",
                  max(a / b for a, b in pairwise(whole)), 1.0)  # fmt: skip
    bench.at_most("Whole with sixteen copies of each atom over Split", whole[-1] / split.upper, 1.0)
    bench.at_least("Whole with sixteen copies of each atom, as a share of Split",
                   whole[-1] / split.value, 0.95)  # fmt: skip


def parts_move(bench: Bench) -> None:
    """A finite pair that moves a part of an atom exceeds Whole."""
    t, share, step = 1.0, 0.02, 1e-4
    x = np.append(LINE, LINE[0])
    weights = np.array([1 - share, 1, 1, share]) / 3
    layer = head(np.array([[-t]]))
    whole = local(layer, ma.EmpiricalMeasure(LINE[:, None]), 1)
    split = local(layer, ma.EmpiricalMeasure(LINE[:, None]), 1, Split())
    at = int(split.witness.atom or 0)
    x[3], weights = LINE[at], np.full(4, 1 / 3)
    weights[[at, 3]] = (1 - share) / 3, share / 3
    y = x + np.array([0, 0, 0, -step])
    mu, nu = (ma.weighted(points[:, None], weights) for points in (x, y))
    above, below = w1(mu @ layer, nu @ layer).lower, w1(mu, nu).upper

    def outputs(points: np.ndarray) -> np.ndarray:
        parts = weights * np.exp(-t * np.outer(points, points))
        return parts @ points / parts.sum(axis=1)

    by_sorting = wasserstein_distance(outputs(x), outputs(y), weights, weights)
    quotient = by_sorting / (weights[3] * step)
    bench.close("the quotient of the pair, by sorting", above / below, quotient, tolerance=1e-6)
    bench.at_least("a part of an atom moves: the quotient as a share of Split",
                   above / below / split.value, 0.95)  # fmt: skip
    bench.control(
        "the constant Whole as a bound of all pairs near the measure",
        above / below,
        whole.upper,
        f"{share:.0%} of the atom at {LINE[at]:g} moves by {step:g}: a pair outside of the class.",
        predicted=quotient,
    )


def plane(bench: Bench) -> None:
    """Random heads in the plane, against grids."""
    angle = np.linspace(0, 2 * pi, 120, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    grid = np.concatenate([r * circle for r in (0.3, 0.6, 0.8, 1.0)])
    low, high, order, lost = [], [], [], []
    for trial in range(9):
        A = (0.3, 1.0, 2.5)[trial % 3] * bench.rng.normal(size=(2, 2))
        x = bench.rng.normal(size=(5, 2))
        x *= bench.rng.random((5, 1)) ** 0.5 / np.linalg.norm(x, axis=1, keepdims=True)
        weights = bench.rng.dirichlet(np.ones(5)) + 0.02
        mu = ma.weighted(x, weights)
        Ball(1.0).check(mu)
        want = classes(A, x, weights / weights.sum(), grid)
        whole, split = (local(head(A), mu, 1, moves) for moves in (Whole(), Split()))
        low.append(min(whole.value / want[0], split.value / want[1]))
        high.append(max(want[0] / whole.upper, want[1] / split.upper))
        order.append(max(whole.value / split.upper, split.value / want[2]))
        lost.append(max(whole.ratio, split.ratio))
        if trial == 0:
            anywhere = local(head(A), mu, 1, Anywhere(Ball(1.0)), starts=8)
            high.append(want[2] / anywhere.upper)
            order.append(split.value / anywhere.value)
    bench.at_least("plane: attained over the grid, least", min(low), 1 - 1e-3)
    bench.at_most("plane: the grid over the certified end, largest", max(high), 1 + TOLERANCE)
    bench.at_most("plane: Whole over Split and Split over Anywhere", max(order), 1.0)
    bench.at_most("plane: certified over attained, Whole and Split", max(lost), loss(2))


def supremum(bench: Bench) -> None:
    """G2: the constant on the interval is the largest local one."""
    A = np.array([[-1.0]])
    places = np.linspace(-1, 1, 101)[:, None]
    if not bench.quick:
        found = search(head(A), Ball(1.0), key=bench.key, dimension=1, starts=32, steps=100)
        mu = found.witness.mu
        L = classes(A, np.asarray(mu.points), np.asarray(mu.weights), places)[2]
        bench.close("the worst pair on the interval against Anywhere at its measure",
                    found.value, L, tolerance=1e-3)  # fmt: skip
    worst = []
    for _ in range(3 if bench.quick else 30):
        x, y = np.sort(bench.rng.uniform(-1, 1, (2, 4)))
        path = [(1 - s) * x + s * y for s in np.linspace(0, 1, 11)]
        equal = np.full(4, 0.25)
        largest = max(classes(A, z[:, None], equal, places)[2] for z in path)
        pair = [ma.EmpiricalMeasure(z[:, None]) for z in (x, y)]
        got = w1(pair[0] @ head(A), pair[1] @ head(A)).upper / w1(*pair).lower
        worst.append(got / largest)
    bench.at_most("random pairs: quotient over the largest L(μ) on the way", max(worst), 1.0)


def orders(bench: Bench) -> None:
    """Attained against certified for p = 1, 2 and infinity, in more dimensions."""
    n, d = (8, 4) if bench.quick else (24, 8)
    x = bench.rng.normal(size=(n, d)) / sqrt(d)
    weights = bench.rng.dirichlet(np.ones(n)) + 0.2 / n
    weights /= weights.sum()
    A, V = bench.rng.normal(size=(2, d, d))
    mu, rows, inside = ma.weighted(x, weights), [], []
    push = jax.jit(jax.jacfwd(lambda layer, x: (ma.weighted(x, weights) @ layer).points, argnums=1))
    for scale in (0.1, 1.0, 10.0):
        layer = ma.SelfAttention(ma.Bilinear(scale * A, np.eye(d)), V)
        found = [local(layer, mu, p) for p in (1, 2, inf)]
        J = np.asarray(push(layer, jnp.asarray(x)))
        root = np.sqrt(weights)
        exact = np.linalg.norm(
            (root[:, None, None, None] * J / root[:, None]).reshape(n * d, n * d), 2
        )
        inside += [found[1].value / exact, exact / found[1].upper]
        for k, each in ((0, found[0]), (2, found[2])):
            name = ("W1", "W2", "W_inf")[k]
            at, u = each.witness.atom, each.witness.direction
            column = np.einsum("jakb,b->jka", J, u) if k == 0 else np.einsum("jakb,a->jkb", J, u)
            norms = np.linalg.norm(column, axis=2)
            sums = (weights @ norms) / weights if k == 0 else norms.sum(axis=1)
            bench.close(f"{name}, scores × {scale:g}: the witness attains it", each.value, sums[at],
                        tolerance=1e-6)  # fmt: skip
        rows.append([scale, *(value for each in found for value in (each.value, each.ratio))])
    bench.at_most("W2: attained over the largest singular value, and this over the certified end",
                  max(inside), 1 + TOLERANCE)  # fmt: skip
    bench.at_most(f"certified over attained, all orders, at most ρ in dimension {d}",
                  max(max(row[2], row[4], row[6]) for row in rows), loss(d))  # fmt: skip
    bench.table(
        f"Whole at {n} atoms in dimension {d}: attained, and certified over attained",
        ["scores ×", "W1", "ratio", "W2", "ratio", "W∞", "ratio"],
        rows,
    )


def loss(d: int) -> float:
    """ρ_d."""
    return sqrt(pi / d) * gamma((d + 1) / 2) / gamma(d / 2)


def certificate(bench: Bench) -> None:
    """G3 by itself: random matrices, and rows on a circle, on which ρ is attained."""
    angle = np.linspace(0, pi, 4001)
    u = np.stack([np.cos(angle), np.sin(angle)])
    over = []
    for _ in range(50 if bench.quick else 400):
        M, w = bench.rng.normal(size=(5, 3, 2)), bench.rng.random(5) + 0.05
        top = np.linalg.eigvalsh((np.swapaxes(M, 1, 2) @ M / w[:, None, None]).sum(axis=0))[-1]
        over.append(np.linalg.norm(M @ u, axis=1).sum(axis=0).max() / sqrt(w.sum() * top))
    bench.at_most("G3: sum of norms over the certificate, random weights", max(over), 1.0)
    n = 256
    rows = np.stack([np.cos(pi * np.arange(n) / n), np.sin(pi * np.arange(n) / n)], axis=1)
    attained = np.abs(rows @ u).sum(axis=0).max()
    lost = sqrt(n * np.linalg.eigvalsh(rows.T @ rows)[-1]) / attained
    bench.close("G3: rows on a circle lose ρ in the plane", lost, loss(2), tolerance=1e-4)
    bench.control(
        "G3 without loss on the circle", lost, 1.0, "no weights are better there.", predicted=lost
    )
