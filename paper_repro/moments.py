"""Definitions 6 and 7 of [VBT20]: moment encodings, and the measures that they determine."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import gmean, hmean, pmean

import measattn as ma
from paper_repro.claim import Bench, claim
from paper_repro.evidence import Role

KOLMOGOROV = [
    ("identity", lambda x: x, lambda m: m, lambda x, w: w @ x),
    ("log", jnp.log, jnp.exp, lambda x, w: gmean(x, weights=w[:, None], axis=0)),
    ("1/x", lambda x: 1 / x, lambda m: 1 / m, lambda x, w: hmean(x, weights=w[:, None], axis=0)),
    ("x³", lambda x: x**3, jnp.cbrt, lambda x, w: pmean(x, 3, weights=w[:, None], axis=0)),
]
"""Encodings on the positive numbers with their inverses, and SciPy's name for the mean."""


@claim(
    id="def6-moment-encoding",
    group="A",
    title="Moment encodings",
    formulas=[
        r"F:E\to\mathbb{R}^m,\qquad \nu\mapsto\nu(F)=\int F\,d\nu",
        r"\Pi(\nu)=\delta_{F^{-1}(\nu(F))}",
    ],
    statement=r"A map $F$ encodes a measure by its moment $\nu(F)$. With $F$ the identity, "
    r"$\log$, $1/x$ and $x^3$ on the positive numbers, $\Pi$ sends a measure to its arithmetic, "
    r"geometric, harmonic and cubic mean; a point is its own mean for every encoding.",
    source="Definition 6 of [VBT20], as reconstructed in docs/theory",
    hypotheses={
        "injective": r"$F$ is injective: $F^{-1}(F(x))=x$ on the atoms",
        "integrable": r"$F$ is $\nu$-integrable",
    },
    cost=(2, 2),
)
def encoding(bench: Bench) -> None:
    """Four encodings against SciPy's means; another mean as the control."""
    rng, n, d = bench.rng, 50, 3
    x, omega = rng.uniform(0.2, 3.0, size=(n, d)), rng.dirichlet(np.ones(n))
    nu = ma.weighted(x, omega)
    rows, means = [], {}
    for name, encode, decode, mean in KOLMOGOROV:
        F = ma.MomentEncoding(encode, decode)
        moment = np.asarray(ma.moment.moment(F, nu))
        point = np.asarray(ma.moment.project(nu, F).points[0])
        means[name] = mean(x, omega)
        again = np.asarray(decode(encode(jnp.asarray(x))))
        bench.check("injective", np.abs(again - x).max() < 1e-13)
        bench.check("integrable", np.isfinite(moment).all())
        bench.close(rf"moment of $F$ = {name}", moment, omega @ np.asarray(encode(x)))
        bench.close(f"Π for F = {name}", point, means[name])
        own = ma.moment.project(ma.dirac(x[0]), F).points[0]
        bench.close(f"Π of a point for F = {name}", own, x[0])
        rows.append([name, *point])
    bench.table("One measure, four means", ["F", *(f"coordinate {i}" for i in range(d))], rows)
    bench.control_close(
        "geometric mean against the arithmetic one",
        ma.moment.project(nu, ma.MomentEncoding(jnp.log, jnp.exp)).points[0],
        means["identity"],
        means["log"],
        "the encoding decides which mean is kept (Jensen).",
    )


def assignment_w1(x: np.ndarray, y: np.ndarray) -> float:
    """W1 of two uniform measures of equal size, by SciPy's assignment."""
    cost = np.linalg.norm(x[:, None] - y[None], axis=-1)
    return float(cost[linear_sum_assignment(cost)].mean())


@claim(
    id="def7-moment-subspace",
    group="A",
    title="The moment subspace, and the projection onto Dirac masses",
    formulas=[
        r"\Pi(\nu)=\delta_{F^{-1}(\nu(F))}\quad\text{where }\nu(F)\in F(E)",
        r"F=\mathrm{id}:\qquad \Pi\circ\Pi=\Pi,\qquad W_1(\Pi\mu,\Pi\nu)\leq W_1(\mu,\nu)",
    ],
    statement=r"$\Pi$ is defined on the measures whose moment is that of one point. For the "
    r"identity on a convex set these are all measures of finite mean, and $\Pi$ is a retraction "
    r"onto the Dirac masses that is 1-Lipschitz in $W_1$, with equality for translates. For "
    r"$F(x)=(x,|x|^2)$ only the Dirac masses themselves are left.",
    source="Definition 7 of [VBT20], as reconstructed in docs/theory",
    hypotheses={
        "convex": r"$E$ is convex and closed (here a box), so that means stay in it",
    },
    cost=(3, 3),
)
def subspace(bench: Bench) -> None:
    """Retraction and Lipschitz constant against exact W1; another encoding as the control."""
    rng, n, d = bench.rng, 40, 2
    pairs = 50 if bench.quick else 200
    xs, ys = rng.uniform(-1, 1, size=(2, pairs, n, d)) * rng.uniform(0.1, 1, size=(2, pairs, 1, 1))
    mean = jax.jit(jax.vmap(lambda p: ma.moment.project(ma.EmpiricalMeasure(p)).points[0]))
    px, py = np.asarray(mean(xs)), np.asarray(mean(ys))
    bench.check("convex", max(np.abs(px).max(), np.abs(py).max()) <= 1, "all means lie in the box")
    bench.close(r"$\Pi\nu$ is the mean", px, xs.mean(axis=1))
    bench.close(r"$\Pi\Pi\nu=\Pi\nu$", mean(px[:, None, :]), xs.mean(axis=1))
    moved = np.linalg.norm(px - py, axis=1)
    w1 = np.array([assignment_w1(x, y) for x, y in zip(xs, ys, strict=True)])
    bench.at_most(rf"largest $W_1(\Pi\mu,\Pi\nu)/W_1(\mu,\nu)$ of {pairs} pairs",
                  (moved / w1).max(), 1.0)  # fmt: skip
    shift = np.array([0.3, -0.2])
    ratio = np.linalg.norm(mean(xs[:1] + shift)[0] - px[0]) / assignment_w1(xs[0] + shift, xs[0])
    bench.close("the ratio for a translate is one", ratio, 1.0)

    square = ma.MomentEncoding(lambda x: (x, x @ x), lambda m: m[0])
    nu = ma.EmpiricalMeasure(xs[0])
    bench.refuses("outside the moment subspace Π is refused",
                  lambda: ma.moment.project(nu, square), "moment subspace")  # fmt: skip
    own = ma.moment.project(ma.dirac(xs[0, 0]), square).points[0]
    bench.close("a Dirac mass is inside", own, xs[0, 0], role=Role.STATEMENT)

    # F = exp(3x) on [0, 2]: moving a little mass at the top moves log of the moment a lot
    eps, h = 0.01, 0.5
    steep = ma.MomentEncoding(lambda x: jnp.exp(3 * x), lambda m: jnp.log(m) / 3)
    ends = [ma.weighted([[0.0], [top]], [1 - eps, eps]) for top in (2.0, 2.0 - h)]
    points = [float(ma.moment.project(end, steep).points[0, 0]) for end in ends]
    exact = [np.log(1 - eps + eps * np.exp(3 * top)) / 3 for top in (2.0, 2.0 - h)]
    bench.control(
        r"the ratio for $F(x)=e^{3x}$ on $[0,2]$",
        (points[0] - points[1]) / (eps * h),
        1.0,
        r"its constant is that of $F^{-1}$ times that of $F$, not 1.",
        predicted=(exact[0] - exact[1]) / (eps * h),
    )
