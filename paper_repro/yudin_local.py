"""The Jacobian of attention at one input: the bound of Yudin and others (2507.07814)."""

import numpy as np

import measattn as ma
from measattn import plot
from paper_repro import jacobians
from paper_repro.claim import TOLERANCE, Bench, claim
from paper_repro.nair_half import jacobian as softmax_jacobian


@claim(
    id="yudin-local",
    group="B",
    title="A bound of the Jacobian of attention at one input",
    formulas=[
        r"\Vert\mathrm{diag}\,p-pp^{\top}\Vert_2\leq g_1(p)=p_{(1)}\left(1-p_{(1)}+p_{(2)}\right)"
        r"\leq\frac{1}{2}",
        r"\Vert J(X)\Vert_2\leq\Vert V\Vert\left(\Vert P\Vert_2+2\Vert X\Vert_2^2\,\Vert A\Vert\,"
        r"\max_i\,g_1(P_i)\right)",
    ],
    statement=r"For softmax rows $p$ with the two largest entries $p_{(1)}\geq p_{(2)}$, and for "
    r"the Jacobian of dot-product attention at the list $X$ of tokens, in the Frobenius norm. With "
    r"the points taken about their mean, which changes neither attention nor the statement, "
    r"$\Vert X\Vert$ is small. The bound is local: it says nothing about inputs at a distance.",
    source="arXiv 2507.07814, known from a secondary source; proved in docs/theory-lipschitz, L2",
    hypotheses={
        "order": r"$p_{(1)}\geq p_{(2)}$ are the two largest entries of a distribution",
        "equal": "tokens have equal weights, and there is no mask",
    },
    cost=(1, 4),
)
def local(bench: Bench) -> None:
    """Softmax Jacobians, then Jacobians of attention."""
    bench.check("equal", True, "by construction")
    rows_of_softmax(bench)
    attention(bench)


def peak(p: np.ndarray) -> float:
    """g_1."""
    *others, first = np.sort(p)
    return float(first * (sum(others) + others[-1]))  # 1 - p_(1) would lose its digits


def rows_of_softmax(bench: Bench) -> None:
    """Random distributions from even to peaked; where g_1 is attained."""
    shares, half = [], []
    for n in (2, 3, 8, 40):
        for _ in range(100 if bench.quick else 2000):
            p = bench.rng.dirichlet(np.full(n, 10 ** bench.rng.uniform(-1.5, 1.5)))
            bench.check("order", p.min() >= 0 and abs(p.sum() - 1) < 1e-12)
            if peak(p) > 1e-3:  # below, the matrix is a difference of roundings
                shares.append(np.linalg.norm(softmax_jacobian(p), 2) / peak(p))
            half.append(peak(p))
    bench.at_most(r"random distributions: norm over $g_1$", max(shares), 1 + TOLERANCE)
    bench.at_most(r"random distributions: $g_1$", max(half), 0.5)
    known = softmax_jacobian(np.array([0.7, 0.2, 0.1]))
    bench.close("the norm at (.7, .2, .1) from its cubic equation",
                np.linalg.norm(known, 2), largest_root(0.7, 0.2, 0.1))  # fmt: skip
    even = np.array([0.5, 0.5, 0, 0])
    bench.close(
        r"two equal entries attain $g_1$", np.linalg.norm(softmax_jacobian(even), 2), peak(even)
    )
    bench.control(
        r"$g_1$ lowered by 2 %",
        np.linalg.norm(softmax_jacobian(even), 2) / (0.98 * peak(even)),
        1.0,
        "two equal entries exceed it.",
        predicted=1 / 0.98,
    )
    bench.control(
        r"$p_{(1)}(1-p_{(1)})$ in place of $g_1$",
        np.linalg.norm(softmax_jacobian(even), 2) / 0.25,
        1.0,
        "the second largest entry counts.",
        predicted=2.0,
    )


def largest_root(*p: float) -> float:
    """The largest root of the characteristic polynomial of diag p - pp^T, size three."""
    a, b, c = p
    minors = a * b * (1 - a - b) + a * c * (1 - a - c) + b * c * (1 - b - c)
    return float(np.roots([1, -(1 - a * a - b * b - c * c), minors, 0]).real.max())


def attention(bench: Bench) -> None:
    """Jacobians at random lists, of growing size, about their mean and about the origin."""
    sizes, shares, rows = (0.3, 1.0, 3.0, 10.0), [], []
    for size in sizes:
        line = []
        for _ in range(10 if bench.quick else 100):
            A, V = bench.rng.normal(size=(2, 3, 3))
            x = size * bench.rng.normal(size=(8, 3)) + bench.rng.normal(size=3)
            layer = ma.SelfAttention(ma.Bilinear(A, np.eye(3)), V)
            got = jacobians.frobenius(jacobians.jacobian(x, jacobians.dot_slopes(x, A), V))
            line.append([got, ma.lipschitz.yudin(layer, ma.EmpiricalMeasure(x)), plain(x, A, V)])
        line = np.array(line)
        shares.append((line[:, :1] / line[:, 1:]).max(axis=0))
        rows.append([size, *np.median(line, axis=0), *shares[-1]])
    bench.at_most(
        "Jacobian over the bound, points about their mean", max(s[0] for s in shares), 1 + TOLERANCE
    )
    bench.at_most("Jacobian over the bound as stated", max(s[1] for s in shares), 1 + TOLERANCE)
    bench.control(
        r"the bound without its second term, $\Vert V\Vert\,\Vert P\Vert_2$",
        jump(),
        1.0,
        "scores change with the tokens, too.",
    )
    bench.table(
        "Random lists of eight tokens",
        [
            "size",
            "Jacobian",
            "bound, about the mean",
            "bound as stated",
            "share of the first",
            "of the second",
        ],
        rows,
        "Medians; shares are the largest of all trials.",
    )
    bench.figure(
        plot.curve(sizes, [row[1] for row in rows], bound={"L2": [row[2] for row in rows]},
                   fit=False, names=("size of the tokens", "norm of the Jacobian")),
        "Median norm of the Jacobian for random lists; dashed, the bound about the mean",
        "Both curves rise with the tokens, and fall again where softmax rows become peaked",
    )  # fmt: skip


def plain(x: np.ndarray, A: np.ndarray, V: np.ndarray) -> float:
    """The bound as stated, without centring."""
    P = np.exp(x @ A.T @ x.T - (x @ A.T @ x.T).max(axis=1, keepdims=True))
    P /= P.sum(axis=1, keepdims=True)
    size = np.linalg.norm(x, 2) ** 2 * np.linalg.norm(A, 2) * max(peak(p) for p in P)
    return float(np.linalg.norm(V, 2) * (np.linalg.norm(P, 2) + 2 * size))


def jump() -> float:
    """Tokens ±1 and the score xy: the norm of the Jacobian over that of P."""
    x, P = np.array([[-1.0], [1.0]]), 1 / (1 + np.exp(-2))
    J = jacobians.jacobian(x, jacobians.dot_slopes(x, np.eye(1)))
    return jacobians.frobenius(J) / float(np.linalg.norm([[P, 1 - P], [1 - P, P]], 2))
