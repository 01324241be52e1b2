"""The √n bound of 2312.14820 for lists of tokens, next to B5, and lists on which √n is reached."""

import numpy as np

import measattn as ma
from measattn import plot
from measattn.lipschitz import Ball, Bound, bounds
from paper_repro import jacobians
from paper_repro.claim import TOLERANCE, Bench, claim


@claim(
    id="castin-root-n",
    group="B",
    title="The constant of attention on lists of n tokens grows like the root of n",
    formulas=[
        r"X\in B_R^n:\qquad\Vert J(X)\Vert_F\leq\sqrt{3}\,\Vert V\Vert\left(\kappa^2R^4(4n+1)+n"
        r"\right)^{1/2}",
        r"\Vert J(X)\Vert_F\leq\Vert V\Vert\left[\kappa R^2+\sqrt{n}\,(1+\kappa R^2)\right]",
    ],
    statement=r"For dot-product attention without mask, in the Frobenius norm, which is $W_2$ of "
    r"$n$ equal atoms. The first bound follows from the second (B5), which is smaller by a factor "
    r"of 1.29 at least. The growth is real: on lists where one token at $Rx$ takes the attention "
    r"of all others, at $\frac{R}{2}x$ or at $-Rx$, the norm grows like $\sqrt{n}$ until $n$ "
    r"exceeds $e^{\theta_R}$; on random lists it does not grow.",
    source="Theorem 3.3 of arXiv 2312.14820, quoted from memory; follows from B5 (L3 of "
    "docs/theory-lipschitz). The lists are those of its authors' code",
    hypotheses={"ball": r"all tokens lie in the ball of radius $R$", "plain": r"no mask, no shift"},
    cost=(2, 20),
)
def root_n(bench: Bench) -> None:
    """Random and adversarial lists of growing length, for three kinds of scores."""
    bench.check("plain", True, "by construction")
    sizes = (2 ** np.arange(1, 8 if bench.quick else 10)).tolist()
    at_random(bench)
    rows, over = [], {"the √n bound": 0.0, "B5": 0.0}
    kinds = {"A = κI, κR² = 40": (1.0, 0.5, 40.0), "A = -κI, κR² = 6": (-1.0, -1.0, 6.0)}
    for name, (sign, place, t) in kinds.items():
        norms = [norm_of(sign * np.eye(2), np.sqrt(t) * one_far(n, place)) for n in sizes]
        old, new = ([value(n, t) for n in sizes] for value in (castin, own))
        rows.append((name, norms))
        for bound, limits in zip(over, (old, new), strict=True):
            over[bound] = max(over[bound], np.divide(norms, limits).max())
        # in the middle: attention has turned to one token, and n is still below e^θ
        slope = np.polyfit(np.log(sizes[2:]), np.log(norms[2:]), 1)[0]
        bench.at_most(f"{name}: slope {slope:.3f} of the norm in n, distance to 1/2",
                      abs(slope - 0.5), 0.05)  # fmt: skip
    scattered = [
        np.median([norm_of(np.eye(2), jacobians.in_ball(bench.rng, n, 2)) for _ in range(5)])
        for n in sizes
    ]
    slope = np.polyfit(np.log(sizes[2:]), np.log(scattered[2:]), 1)[0]
    bench.at_most(f"random lists, κR² = 1: slope {slope:.3f} of the median norm", slope, 0.25)
    for name, share in over.items():
        bench.at_most(f"adversarial lists: norm over {name}", share, 1.0)
    adverse = rows[1][1]
    bench.control(
        r"$n^{1/4}$: a slope of at most 1/4 on adversarial lists",
        np.polyfit(np.log(sizes), np.log(adverse), 1)[0],
        0.25,
        "one token takes the attention of all others.",
    )
    bench.control(
        "the bound for n = 1, taken for all n, where A = 0 and all rows see one token",
        sizes[-1] ** 0.5 / castin(1, 0.0),
        1.0,
        "a token that all others look at moves them all.",
        predicted=(sizes[-1] / 3) ** 0.5,
    )
    proved = {"Castin √n": old, "B5": new}
    figure = plot.curve(sizes, adverse, bound=proved, names=("tokens n", "Frobenius norm"))
    axes = figure.axes[0]
    axes.plot(sizes, scattered, "o-", color=plot.ACCENTS[3], label="random lists, κR² = 1")
    axes.legend(frameon=False, fontsize=7)
    bench.figure(
        figure,
        r"One token against all others, $A=-\kappa I$, $\kappa R^2=6$: the norm of the Jacobian; "
        "dashed, the √n bound and B5",
        "The norm grows with slope one half below two parallel dashed lines; random lists are flat",
    )
    bench.table(
        "Norms on adversarial and on random lists; bounds for κR² = 6",
        ["n", rows[0][0], rows[1][0], "√n bound", "B5", "random lists, κR² = 1"],
        list(zip(sizes, rows[0][1], rows[1][1], old, new, scattered, strict=True)),
    )


def castin(n: float, t: float) -> float:
    """The bound, V = I."""
    return float(np.sqrt(3 * (t * t * (4 * n + 1) + n)))


def own(n: float, t: float) -> float:
    """B5, V = I."""
    return float(t + np.sqrt(n) * (1 + t))


def one_far(n: int, place: float) -> np.ndarray:
    """One token at the end of the first axis, the others at that multiple of it."""
    return np.array([[1.0, 0]] + [[place, 0]] * (n - 1))


def norm_of(A: np.ndarray, x: np.ndarray, V: np.ndarray | None = None) -> float:
    """The Frobenius norm of the Jacobian."""
    return jacobians.frobenius(jacobians.jacobian(x, jacobians.dot_slopes(x, A), V))


def at_random(bench: Bench) -> None:
    """Random scores, values and lists against both bounds, as the library evaluates them."""
    shares: dict[str, float] = {}
    errors = []
    for trial in range(12 if bench.quick else 200):
        A, V = bench.rng.normal(size=(2, 2, 2))
        n, radius = (2, 5, 20)[trial % 3], 10 ** bench.rng.uniform(-0.5, 0.5)
        x = jacobians.in_ball(bench.rng, n, 2, radius)
        if trial % 2:
            x = radius * one_far(n, bench.rng.choice([0.5, -1.0])) + 0
        bench.check("ball", np.linalg.norm(x, axis=1).max() <= radius * (1 + TOLERANCE))
        layer, got = ma.SelfAttention(ma.Bilinear(A, np.eye(2)), V), norm_of(A, x, V)
        found = {
            row.theorem: row.value
            for row in bounds(layer, Ball(radius), 2, atoms=n)
            if isinstance(row, Bound)
        }
        t, value = float(np.linalg.norm(A, 2)) * radius**2, float(np.linalg.norm(V, 2))
        errors.append(abs(found["Castin √n"] / (value * castin(n, t)) - 1))
        for name, limit in found.items():
            shares[name] = max(shares.get(name, 0.0), got / limit)
        shares["B5 over √n"] = max(shares.get("B5 over √n", 0.0), own(n, t) / castin(n, t))
    bench.at_most("the library's √n bound against its formula", max(errors), 1e-8)
    bench.at_most("random lists: Jacobian over each bound for n tokens", max(
        share for name, share in shares.items() if name != "B5 over √n"), 1.0)  # fmt: skip
    bench.at_most("B5 over the √n bound, times 1.29", 1.29 * shares["B5 over √n"], 1.0)
    bench.table("Random lists: the largest share of a bound",
                ["theorem", "share"], [list(pair) for pair in shares.items()])  # fmt: skip
