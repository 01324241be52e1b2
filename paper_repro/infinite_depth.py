"""Infinitely deep weight-shared attention: one invariant measure, at the rate of the constant."""

from typing import Any

import numpy as np

import measattn as ma
from measattn import dynamics as dyn
from measattn.plot import ACCENTS
from measattn.plot.style import house_style, logarithmic
from measattn.wasserstein import w1
from paper_repro import stacks
from paper_repro.claim import TOLERANCE, Bench, claim
from paper_repro.jacobians import in_ball

TOKENS, LAYERS = 12, 16
SEEN = 1e-12
"""Below it distances are rounding."""


@claim(
    id="infinite-depth",
    group="A",
    title="An infinitely deep contraction has one invariant measure, reached at its rate",
    formulas=[
        r"\tau<1:\qquad\exists!\,\mu^*=T\mu^*,\qquad W_1(T^t\mu,\mu^*)\leq\tau^t\,W_1(\mu,\mu^*)"
        r"\leq\frac{\tau^t}{1-\tau}\,W_1(\mu,T\mu)",
        r"W_1(\mu,\mu^*)\leq\frac{W_1(\mu,T\mu)}{1-\tau}",
    ],
    statement=r"The same attention layer $T$ again and again, on measures on a ball that it maps "
    r"into itself. If it has a constant $\tau<1$ there (C1), all starts go to one measure, by "
    r"the factor $\tau$ in each step at least, and one step says how far it still is. The "
    r"constants are proved ones of B1 to B3 and H4; the limits are those of linear algebra.",
    source="[VBT20], as reconstructed in docs/theory; C1 is proved in docs/theory-dynamics",
    hypotheses={
        "ball": r"a ball holds $\mu$ and all its images",
        "tau": r"$\tau<1$ is a constant of $T$ in $W_1$ on that ball",
    },
    cost=(3, 6),
)
def infinite(bench: Bench) -> None:
    """Random contractions from random starts; then layers and runs that must claim nothing."""
    at_random(bench)
    sharp(bench)
    stopped(bench)
    expanding(bench)


def start(bench: Bench, d: int = 2) -> ma.EmpiricalMeasure:
    """A random measure on the unit ball."""
    weights = bench.rng.dirichlet(np.ones(TOKENS))
    return ma.weighted(in_ball(bench.rng, TOKENS, d), weights)


def at_point(*x: float) -> ma.EmpiricalMeasure:
    """A Dirac mass, as twelve atoms at one place."""
    return ma.weighted(np.tile(x, (TOKENS, 1)), np.full(TOKENS, 1 / TOKENS))


def distance(mu: ma.EmpiricalMeasure, point: np.ndarray) -> float:
    """W1 to the Dirac mass at a point: the only plan there is."""
    return float(np.asarray(mu.weights) @ stacks.row_norms(np.asarray(mu.points) - point))


def at_random(bench: Bench) -> None:
    """C1 term by term; distances are certified from above where small, from below where large."""
    worst: dict[str, float] = {}
    rows, pictures, errors = [], [], []
    for trial in range(4 if bench.quick else 30):
        starts = [start(bench) for _ in "mn"]
        both = ma.mixture(starts, [0.5, 0.5])
        block = stacks.contracting(bench.rng, 2, both)
        known = dyn.contraction(block.layer, both, 1)
        tau, steps = known.value, LAYERS
        bench.check("tau", tau < 1, "proved by the catalogue for each layer")
        paths = [dyn.iterate(block.layer, mu, steps, keep="all") for mu in starts]
        x = np.asarray(starts[0].points)
        for t in range(steps):
            x = block(x, np.asarray(starts[0].weights))
            errors.append(np.abs(x - np.asarray(paths[0][t + 1].points)).max())
        powers = tau ** np.arange(steps + 1)
        for path in paths:
            reach = max(stacks.row_norms(np.asarray(mu.points)).max() for mu in path)
            bench.check("ball", reach <= known.domain.radius * (1 + TOLERANCE))
            far = np.array([distance(mu, block.limit) for mu in path])
            shown = far > SEEN
            _keep(worst, "distance to the limit over the first and the power of τ",
                  (far / (powers * far[0]))[1:][shown[1:]])  # fmt: skip
            first = powers / (1 - tau) * path.lower[0]
            _keep(worst, "distance to the limit over what the first step foretells",
                  (far / first)[shown])  # fmt: skip
            after = far[:-1] * (1 - tau) / path.lower
            _keep(worst, "distance to the limit over what the next step tells", after[shown[:-1]])
            steps_used = path.upper / (powers[:-1] * path.lower[0])
            _keep(worst, "step over the first and the power of τ",
                  steps_used[1:][path.upper[1:] > SEEN])  # fmt: skip
            pictures.append((tau, far, first, path.upper / (1 - tau)))
        between = [w1(*pair) for pair in zip(*paths, strict=True)]
        _keep(worst, "distance of two starts over the first and the power of τ",
              [each.upper / (tau**t * between[0].lower) for t, each in enumerate(between)
               if t and each.upper > SEEN])  # fmt: skip
        if trial < 5:
            rows.append([np.linalg.norm(block.A, 2), np.linalg.norm(block.V, 2), tau,
                         known.bound.theorem, paths[0].rate().value,
                         float(np.abs(np.linalg.eigvals(block.V)).max())])  # fmt: skip
    bench.at_most("every layer against NumPy", max(errors), 1e-12)
    for name, share in worst.items():
        bench.at_most(name, share, 1 + TOLERANCE)
    bench.at_most("fitted factor of the steps over τ", max(r[4] / r[2] for r in rows), 1.0)
    bench.table(
        "Random layers on the disc that they map into itself",
        ["‖A‖", "‖V‖", "τ, proved", "by", "fitted factor of a step", "spectral radius of V"],
        rows,
        "In the end all tokens are nearly one point and the factor is that of V alone.",
    )
    bench.figure(
        funnel(*pictures[0]),
        "One layer again and again: the distance to the invariant measure, and what is proved",
        "The distance falls along a line, below two dashed lines that fall less steeply",
    )


def _keep(worst: dict[str, float], name: str, shares: Any) -> None:
    worst[name] = max([worst.get(name, 0.0), *map(float, shares)])


@house_style
def funnel(tau: float, far: Any, first: Any, after: Any) -> Any:
    """Distances to the limit, foretold by the first step and told by the next one."""
    figure, (axes,) = stacks.panels(f"τ = {tau:.3f}, proved")
    t = np.arange(len(far))
    axes.plot(t, first, "--", color=ACCENTS[1], label="foretold by the first step")
    axes.plot(t[:-1], after, "--", color=ACCENTS[2], label="told by the next step")
    axes.plot(t, far, "o-", color=ACCENTS[0], label="distance to the limit")
    logarithmic(axes.yaxis)
    axes.set(xlabel="layer", ylabel="W1", xticks=range(0, len(far), 4))
    axes.legend(fontsize=8)
    return figure


def sharp(bench: Bench) -> None:
    """No scores and V = qI: Dirac masses go at the rate q, and q is the constant that is proved."""
    q, steps = 0.7, LAYERS
    block = stacks.Block(np.zeros((2, 2)), q * np.eye(2), np.zeros(2))
    mu = at_point(0.6, 0.3)
    tau = dyn.contraction(block.layer, mu, 1).value
    path = dyn.iterate(block.layer, mu, steps, keep="all")
    far = [distance(each, block.limit) for each in path]
    bench.close("no scores, V = qI: the constant that is proved", tau, q, tolerance=1e-9)
    bench.close("and the rate of a Dirac mass", far[-1] / far[0], q**steps)
    bench.control(
        "a constant lowered by 2 %, sixteen layers",
        far[-1] / (far[0] * (0.98 * tau) ** steps),
        1.0,
        "the Dirac mass falls behind.",
        predicted=0.98**-steps,
    )


def stopped(bench: Bench) -> None:
    """A run that is cut short says how far the limit is, and not that it has arrived."""
    block = stacks.random_block(bench.rng, 2, score=0.1, value=0.7, shift=0.15)
    mu = start(bench)
    full, cut = (dyn.fixed_point(block.layer, mu, 1e-10, steps=k) for k in (512, LAYERS))
    bench.at_least("run to the end: it says that it has converged", stacks.concluded(full), 1.0)
    for name, found in (("run to the end", full), ("sixteen layers", cut)):
        apart = distance(found.measure, block.limit)
        bench.at_most(f"{name}: distance to the limit over the certified one",
                      apart / found.error, 1.0)  # fmt: skip
    bench.control(
        "sixteen layers: the run says that it has converged",
        stacks.concluded(cut),
        1.0,
        "its steps are far above its tolerance.",
        relation="≥",
        predicted=0.0,
    )
    bench.control(
        "sixteen layers: distance to the limit within the tolerance of the run",
        distance(cut.measure, block.limit),
        1e-10,
        "sixteen layers are not infinitely many.",
    )


def expanding(bench: Bench) -> None:
    """Where the constant exceeds one no rate is claimed, and none holds."""
    growth, steps = 1.05, LAYERS
    block = stacks.Block(0.1 * np.eye(2), growth * np.eye(2), np.zeros(2))
    bench.control(
        "a layer with τ > 1: a rate below one is claimed",
        stacks.claimed(block.layer, start(bench)),
        1.0,
        "V doubles distances in fifteen layers; the library must refuse to prove a rate.",
    )
    pair = [at_point(0.2, 0.1), at_point(-0.1, 0.2)]
    last = [dyn.iterate(block.layer, mu, steps, keep="all")[-1] for mu in pair]
    bench.control(
        "the same layer: two Dirac masses after sixteen layers over those for τ = 0.8",
        w1(*last).value / (w1(*pair).value * 0.8**steps),
        1.0,
        "they part by V in every layer.",
        predicted=(growth / 0.8) ** steps,
    )
