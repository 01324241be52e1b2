"""What an infinitely deep contraction remembers of its input: nothing."""

from typing import Any

import jax
import numpy as np

import measattn as ma
from measattn import dynamics as dyn
from measattn.plot import ACCENTS, INK
from measattn.plot.style import house_style
from measattn.wasserstein import w1, w_inf, wp
from paper_repro import oracles, stacks
from paper_repro.claim import Bench, claim
from paper_repro.jacobians import in_ball

TOKENS = 12


@claim(
    id="infinite-depth-trivial",
    group="A",
    title="The limit of a contraction is one point, and with V = I there is no contraction",
    formulas=[
        r"\tau<1,\ T\delta_x=\delta_{F(x)}:\qquad\mu^*=\delta_{x^*},\qquad x^*=F(x^*)"
        r"=(I-V)^{-1}b",
        r"V=I:\qquad T\delta_x=\delta_x,\qquad W_p(T\delta_x,T\delta_y)=W_p(\delta_x,\delta_y)",
        r"\Vert V\Vert<1:\qquad W_\infty(T^t\mu,\delta_0)\leq\Vert V\Vert^t R_0",
    ],
    statement=r"Attention and token-wise maps send Dirac masses to Dirac masses; so if they "
    r"contract, their invariant measure is one (C2), the same for all inputs: for values $Vy+b$ "
    r"the point $(I-V)^{-1}b$. With $V=I$ every Dirac mass stays, so no constant in any $W_p$ is "
    r"below one (C3); a sequence still ends in a point, which then depends on the sequence. For "
    r"$\Vert V\Vert<1$ and $b=0$ the radius falls at that rate whatever the scores, also where "
    r"$\tau>1$. Without the moment projection supports do not move and there are many invariant "
    r"measures.",
    source="[VBT20], as reconstructed in docs/theory; C2 and C3 are proved in docs/theory-dynamics",
    hypotheses={
        "plain": r"no inputs are injected, and no layer knows positions",
        "tau": r"where a limit is claimed, $\tau<1$ is proved",
    },
    cost=(3, 5),
)
def trivial(bench: Bench) -> None:
    """Limits of contractions, V = I, scores of any size, the kernel without projection."""
    bench.check("plain", True, "by construction")
    forgotten(bench)
    identity(bench)
    shrinking(bench)
    mixtures(bench)


def start(bench: Bench) -> ma.EmpiricalMeasure:
    """Random tokens in the unit disc."""
    return ma.EmpiricalMeasure(in_ball(bench.rng, TOKENS, 2))


def forgotten(bench: Bench) -> None:
    """C2: the limits of random starts against the linear system; injected inputs as the control."""
    shares, sizes, errors = [], [], []
    for _ in range(3 if bench.quick else 20):
        starts = [start(bench) for _ in "abc"]
        block = stacks.contracting(bench.rng, 2, ma.mixture(starts, np.full(3, 1 / 3)))
        for mu in starts:
            found = dyn.fixed_point(block.layer, mu)
            bench.check("tau", found.verdict == "certified")
            away = np.asarray(found.measure.points) - block.limit
            shares.append(stacks.row_norms(away).max() / max(found.error, 1e-15))
            sizes.append(stacks.diameter(np.asarray(found.measure.points)))
            errors.append(found.error)
    bench.at_most(r"three starts: distance to $(I-V)^{-1}b$ over the certified one",
                  max(shares), 1.0)  # fmt: skip
    bench.at_most("the certified distances themselves", max(errors), 1e-8)
    bench.at_most("diameter of the limit", max(sizes), 1e-8)
    inputs = 0.1 * in_ball(bench.rng, TOKENS, 2)
    kept = dyn.equilibrium(block.layer, inputs)
    bench.control(
        "a limit of diameter zero, where inputs are injected",
        stacks.diameter(np.asarray(kept.measure.points)),
        1e-8,
        "each token is given its own input again in every layer.",
    )


image = jax.jit(lambda mu, layer: mu @ layer)


def identity(bench: Bench) -> None:
    """C3: Dirac masses stay; sequences end in points of their own."""
    block = stacks.Block(np.eye(2), np.eye(2), np.zeros(2))
    pair = [ma.EmpiricalMeasure(np.tile(x, (TOKENS, 1))) for x in ([0.3, 0.1], [-0.5, 0.4])]
    after = [image(mu, block.layer) for mu in pair]
    for name, cost in (("1", w1), ("2", lambda a, b: wp(a, b, 2)), (r"\infty", w_inf)):
        bench.close(rf"V = I: quotient of $W_{{{name}}}$ for two Dirac masses",
                    cost(*after).value / cost(*pair).value, 1.0)  # fmt: skip
    starts = [start(bench) for _ in "abc"]
    starts = [
        ma.EmpiricalMeasure(0.5 * np.asarray(mu.points) + shift)
        for mu, shift in zip(starts, ([-0.6, 0.0], [0.5, 0.5], [0.5, -0.5]), strict=True)
    ]
    ends = [np.asarray(dyn.fixed_point(block.layer, mu).measure.points) for mu in starts]
    bench.at_most("V = I: diameter of a sequence in the end", max(map(stacks.diameter, ends)), 1e-8)
    points = np.array([x.mean(axis=0) for x in ends])
    apart = oracles.distances(points, points)[np.triu_indices(3, 1)].min()
    bench.at_least("V = I: distance between the ends of three sequences", apart, 0.1)
    bench.control(
        "V = I: a rate below one is claimed",
        stacks.claimed(block.layer, starts[0]),
        1.0,
        "every Dirac mass stays; the library must refuse to prove a rate.",
    )
    halved = stacks.Block(0.02 * np.eye(2), 0.8 * np.eye(2), np.array([0.02, 0.04]))
    together = ma.mixture(starts, np.full(3, 1 / 3))
    bench.check("tau", stacks.claimed(halved.layer, together) < 1)
    bench.figure(
        paths([(halved, starts), (block, starts)]),
        "Three sequences of twelve tokens. Left, a contraction: all end in one point (black), "
        "whatever the input. Right, V = I: each ends in a point of its own",
        "On the left all paths meet in one point, on the right in three points",
    )


@house_style
def paths(cases: Any) -> Any:
    """Where tokens go, for the contraction and for V = I."""
    figure, axes = stacks.panels("τ < 1", "V = I")
    for ax, (block, starts) in zip(axes, cases, strict=True):
        for colour, mu in zip(ACCENTS, starts, strict=False):
            x = [np.asarray(mu.points)]
            for _ in range(60):
                x.append(block(x[-1]))
            path = np.array(x)
            ax.plot(path[..., 0], path[..., 1], color=colour, linewidth=0.7, alpha=0.7)
            ax.plot(*path[0].T, "o", color=colour, markersize=3)
            ax.plot(*path[-1].T, "o", color=INK, markersize=5, zorder=4)
        ax.set_aspect("equal")
    return figure


def shrinking(bench: Bench) -> None:
    """‖V‖ < 1 and strong scores: radii fall, though no constant is below one."""
    worst, steps = [], 16
    for score in (1.0, 10.0, 100.0):
        block = stacks.random_block(bench.rng, 2, score=score, value=0.8)
        mu = start(bench)
        seen = dyn.iterate(block.layer, mu, steps, distances=False).radius
        worst.append((seen[1:] / (0.8 ** np.arange(1, steps + 1) * seen[0])).max())
    bench.at_most(r"‖V‖ = 0.8, scores up to 100: radius over $0.8^tR_0$", max(worst), 1 + 1e-12)
    # the constant between sequences: one token of three turns its attention
    strong = ma.SelfAttention(ma.DotProduct(100.0), 0.8 * np.eye(2))
    x = np.array([[-1.0, 0], [0, 0], [1, 0]])
    y = x + np.array([[0, 0], [1e-4, 0], [0, 0]])
    before, after = ([ma.EmpiricalMeasure(z) for z in (x, y)], [])
    after = [image(mu, strong) for mu in before]
    bench.at_least("scores of 100 and ‖V‖ = 0.8: a quotient of W1",
                   w1(*after).lower / w1(*before).upper, 2.0)  # fmt: skip
    stretching = stacks.Block(np.eye(2), 1.1 * np.eye(2), np.zeros(2))
    point = ma.EmpiricalMeasure(np.tile([0.1, 0.2], (TOKENS, 1)))
    far = dyn.iterate(stretching.layer, point, steps, distances=False).radius
    bench.control(
        "‖V‖ = 1.1: the radius of a Dirac mass after sixteen layers over the first",
        far[-1] / far[0],
        1.0,
        "V stretches it in every layer.",
        predicted=1.1**steps,
    )


def mixtures(bench: Bench) -> None:
    """The softmatch kernel alone: a regular polygon is invariant, and so is every Dirac mass."""
    angle = 2 * np.pi * np.arange(7) / 7
    polygon = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    potential = ma.DotProduct(1.5)

    def weights(mu: ma.EmpiricalMeasure) -> np.ndarray:
        return np.asarray((mu @ ma.SoftmatchKernel(potential, mu)).weights)

    even = np.full(7, 1 / 7)
    bench.close("without projection: weights of a regular heptagon after a layer",
                weights(ma.EmpiricalMeasure(polygon)), even)  # fmt: skip
    skewed = bench.rng.dirichlet(np.ones(7))
    got = weights(ma.weighted(polygon, skewed))
    P = oracles.softmax(1.5 * polygon @ polygon.T, skewed)
    bench.close("without projection: random weights against NumPy", got, skewed @ P)
    bench.control_close(
        "without projection: random weights on the heptagon stay",
        got,
        skewed,
        skewed @ P,
        "only some measures are invariant.",
    )
