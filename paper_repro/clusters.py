"""Clusters on the sphere: rising energy, a rate of clustering, the orthogonal start."""

import jax.numpy as jnp
import numpy as np
from scipy.integrate import quad

import measattn as ma
from measattn import dynamics, plot
from paper_repro.claim import Bench, claim

N = 16
SAVED = 9


@claim(
    id="geshkovski-clusters",
    group="B",
    title="Tokens on the sphere gather in one point",
    formulas=[
        r"\dot{x}_i=P_{x_i}\sum_jP_{ij}x_j,\qquad P_{ij}\propto e^{\beta\langle x_i,x_j\rangle}",
        r"E(\mu)=\frac{1}{2}\iint e^{\beta\langle x,y\rangle}\,d\mu\,d\mu,\qquad "
        r"\frac{dE}{dt}=\beta\int Z_\mu\,|\dot{x}|^2\,d\mu\geq 0",
        r"\dot{c}\geq e^{-\beta(1-c)}(1-c)\left(2c+\frac{2}{n}(1-c)\right),\qquad "
        r"c(0)\geq 0",
        r"\dot{\gamma}=\frac{2e^{\beta\gamma}(1-\gamma)((n-1)\gamma+1)}"
        r"{e^{\beta}+(n-1)e^{\beta\gamma}},\qquad\gamma(0)=0",
    ],
    statement=r"Softmax attention with $V=I$ as a flow on the sphere raises the energy $E$. If no "
    r"two tokens are more than 90° apart, the least cosine $c$ of two tokens tends to one "
    r"exponentially, at a rate that depends on $c(0)$ and $\beta$ alone, with a bonus for finite "
    r"$n$. Orthonormal tokens keep one common inner product $\gamma$, which obeys a scalar "
    r"equation.",
    source="arXiv 2312.10794, Theorem 6.8 and Section 3; N1, N3 and O1 in docs/theory-dynamics, "
    "where the rate for angles up to 90° is proved",
    hypotheses={
        "sphere": r"tokens lie on the unit sphere, $V=I$, $\beta\geq0$",
        "angles": r"for the rate: no two tokens are more than 90° apart",
    },
    cost=(4, 15),
)
def clusters(bench: Bench) -> None:
    """One compiled flow for all starts and all β."""
    orthogonal(bench)
    cone(bench)


def flow(x: np.ndarray, beta: float, time: float) -> dynamics.Flow:
    """The path of equal tokens on the sphere."""
    layer = dynamics.Tangential(ma.SelfAttention(ma.DotProduct(beta)))
    return dynamics.flow(layer, ma.EmpiricalMeasure(x), time, save=SAVED)


def duration(n: int, beta: float, gamma: float) -> float:
    """When γ is reached: one over the speed, integrated over log(1 - γ)."""

    def slowness(u: float) -> float:
        g = -np.expm1(u)
        return (np.exp(beta * (1 - g)) + n - 1) / (2 * ((n - 1) * g + 1))

    return quad(slowness, np.log1p(-gamma), 0, epsabs=0, epsrel=1e-13, limit=500)[0]


def orthogonal(bench: Bench) -> None:
    """The full flow against quadrature of the scalar equation."""
    off, rows, worst = ~np.eye(N, dtype=bool), [], 0.0
    start = np.linalg.qr(bench.rng.normal(size=(N, N)))[0]
    for beta in (1.0, 4.0, 9.0):
        for gamma in (0.5, 0.999):
            path = flow(start, beta, duration(N, beta, gamma))
            inner = np.asarray(path.points[-1] @ path.points[-1].T)[off]
            error = np.abs(inner - gamma).max()
            rows.append([beta, float(path.times[-1]), gamma, error])
            worst = max(worst, error)
    bench.at_most("orthogonal start: inner products against the scalar equation", worst, 1e-8)
    bench.table(f"{N} orthonormal tokens", ["β", "time", "γ there", "error"], rows)
    time = duration(N, 4.0, 0.5)
    inner = np.asarray(flow(start, 4.0, time).points[-1])
    forgotten = dynamics.orthogonal_start(N, 4.0, time, normalised=False)
    bench.control(
        "the scalar equation without the normaliser",
        abs(inner[0] @ inner[1] - forgotten),
        1e-8,
        "that is the equation of another flow, which is faster here.",
        predicted=abs(0.5 - forgotten),
    )


def cone(bench: Bench) -> None:
    """Energy and least cosine along flows that start in a cone."""
    least, excess, fastest = np.inf, -np.inf, 0.0
    t = gap = bound = np.ones(1)
    for trial in range(3 if bench.quick else 20):
        beta = (0.5, 2.0, 5.0)[trial % 3]
        x = bench.rng.normal(size=(N, N))
        x[:, 0] += 8
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        path = flow(x, beta, 4.0)
        bench.check("sphere", path.drift < 1e-9, f"norms moved by {path.drift:.1e} at most")
        gram = np.asarray(jnp.einsum("kid,kjd->kij", path.points, path.points))
        energy = np.exp(beta * gram).mean(axis=(1, 2)) / 2
        least = min(least, np.diff(energy).min())
        c, t = gram.min(axis=(1, 2)), np.asarray(path.times)
        gap = 1 - c
        bench.check("angles", c[0] >= 0, f"the least cosine is {c[0]:.3f}")
        bound = 1 - dynamics.cosine_bound(c[0], beta, t, least_weight=1 / N)
        excess = max(excess, (np.log1p(-c) - np.log(bound)).max())
        fastest = max(fastest, -np.log((1 - c[-1]) / (1 - c[-2])) / (t[-1] - t[-2]))
    bench.at_least("least increase of the energy between saved times", least, 0.0)
    bench.at_most("log of 1 - c over its bound", excess, 1e-9)
    bench.control(
        "a rate of 2.1 near consensus",
        -fastest,
        -2.1,
        "the rate of the linearised flow is 2.",
    )
    bench.figure(
        plot.curve(
            t[1:], gap[1:], bound={"D3": bound[1:]}, fit=False, names=("time", "1 − least cosine")
        ),
        "Tokens in a cone: how far the two farthest are from one another; dashed, the proved bound",
        "The distance falls exponentially and stays below the dashed line",
    )
