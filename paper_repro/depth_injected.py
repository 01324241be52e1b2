"""Infinitely deep layers that remember their input: injection, a fixed memory, perturbed layers."""

from typing import Any

import numpy as np
import optimistix as optx
from scipy.optimize import root

import measattn as ma
from measattn import dynamics as dyn
from measattn.lipschitz import Ball, parameters
from measattn.plot import ACCENTS, INK
from measattn.plot.style import house_style, logarithmic
from paper_repro import oracles, stacks
from paper_repro.claim import TOLERANCE, Bench, claim
from paper_repro.jacobians import in_ball

TOKENS = 10


@claim(
    id="depth-injected",
    group="A",
    title="With its input injected, an infinitely deep layer has an equilibrium that remembers it",
    formulas=[
        r"x_i=u_i+\Gamma_{m(X)}(x_i),\qquad R=\frac{\max|u|}{1-\Vert V\Vert},\qquad "
        r"q=\Vert V\Vert(1+2\kappa R^2)<1",
        r"|X_t-X^*|_\infty\leq q^t\,|X_0-X^*|_\infty,\qquad"
        r"|X^*-\tilde{X}^*|_\infty\leq\frac{|u-\tilde{u}|_\infty}{1-q}",
        r"\mathrm{diam}\,X^*\geq\frac{\mathrm{diam}\,u}{1+\Vert V\Vert\kappa R^2}",
        r"|T-\tilde{T}|_\infty\leq\varepsilon\ \Rightarrow\ |X^*-\tilde{X}^*|_\infty\leq"
        r"\frac{\varepsilon}{1-q}",
    ],
    statement=r"With inputs $u$ the equilibrium is unique, reached at the rate $q$ whatever the "
    r"number of tokens and the mask, and moves little with its input (C5). It is no point: from "
    r"$|x_i-x_j|\geq|u_i-u_j|-|\Gamma(x_i)-\Gamma(x_j)|$ and B0 its diameter is bounded below "
    r"(no mask). With a fixed memory $\nu$ all tokens go to one point of the memory's making (C6). "
    r"Equilibria of nearby layers are near (C7).",
    source="C5, C6 and C7 are proved in docs/theory-dynamics, B0 in docs/theory-lipschitz",
    hypotheses={
        "small": r"$\Vert V\Vert<1$ and $q<1$; for the memory $\Vert V\Vert\kappa D_\nu^2/4<1$",
        "inside": r"equilibria lie in the ball of radius $R$",
    },
    cost=(3, 5),
)
def injected(bench: Bench) -> None:
    """Random equilibria against a root finder; memories; perturbed layers; what must fail."""
    equilibria(bench)
    memory(bench)
    too_strong(bench)


def random_inputs(bench: Bench) -> np.ndarray:
    """Inputs of norm at most 1/2, one of which has it."""
    u = in_ball(bench.rng, TOKENS, 2)
    return 0.5 * u / stacks.row_norms(u).max()


def random_layer(bench: Bench, q: float) -> stacks.Block:
    """With ‖V‖ = 1/2, so R = 1, and the scores that make q."""
    return stacks.random_block(bench.rng, 2, score=q - 0.5, value=0.5)


def solved(block: stacks.Block, u: np.ndarray, mask: Any = 0.0) -> np.ndarray:
    """The equilibrium by SciPy's hybrid Newton method."""
    found = root(lambda x: x - u.ravel() - block(x.reshape(u.shape), mask=mask).ravel(), u.ravel(),
                 tol=1e-14)  # fmt: skip
    return found.x.reshape(u.shape)


def picard(tolerance: float) -> Any:
    """The stack itself."""
    return optx.FixedPointIteration(rtol=0.0, atol=tolerance)


def equilibria(bench: Bench) -> None:
    """C5 and C7 at random; the same layer without inputs as the control."""
    worst: dict[str, float] = {}

    def keep(name: str, *shares: float) -> None:
        worst[name] = max(worst.get(name, 0.0), *map(float, shares))

    drawn = None
    for trial in range(4 if bench.quick else 40):
        q = bench.rng.uniform(0.6, 0.9)
        block, u = random_layer(bench, q), random_inputs(bench)
        kappa, value = (float(np.linalg.norm(M, 2)) for M in (block.A, block.V))
        mask = oracles.causal(TOKENS) if trial % 2 else 0.0
        exact = solved(block, u, mask)
        bench.check("small", q < 1)
        bench.check("inside", stacks.row_norms(exact).max() <= 1 + TOLERANCE)
        if trial % 2 == 0:
            mu = ma.EmpiricalMeasure(u)
            proof = dyn.contraction(dyn.Injected(block.layer, u), mu, np.inf)
            keep("q as the library proves it over its formula", proof.value / q)
            runs = [dyn.equilibrium(block.layer, u, 1e-10, solver=s) for s in (None, picard(1e-10))]
            for found in runs:
                away = stacks.row_norms(np.asarray(found.measure.points) - exact).max()
                keep("equilibrium: distance to SciPy's over the certified one",
                     away / (found.error + 1e-13))  # fmt: skip
            if drawn is None:
                drawn = block, u, exact, runs, q
        x = u
        for t in range(1, 12):
            x = u + block(x, mask=mask)
            first = stacks.row_norms(u - exact).max()
            keep("distance after t layers over the first and the power of q",
                 stacks.row_norms(x - exact).max() / (q**t * first))  # fmt: skip
        other = u + 0.01 * in_ball(bench.rng, TOKENS, 2)
        other *= np.minimum(1, 0.5 / stacks.row_norms(other))[:, None]
        moved = stacks.row_norms(solved(block, other, mask) - exact).max()
        keep("other inputs: distance of equilibria over its bound",
             moved * (1 - q) / stacks.row_norms(u - other).max())  # fmt: skip
        noise = 0.02 * bench.rng.normal(size=(2, 2, 2))
        near = stacks.Block(block.A + noise[0], block.V + noise[1], block.b)
        there = solved(near, u, mask)
        wide = max(1.0, stacks.row_norms(there).max())
        factor = value * (1 + 2 * kappa * wide**2)
        bench.check("small", factor < 1)
        away = stacks.row_norms(there - exact).max()
        change = parameters(block.layer, near.layer, Ball(wide)).output
        keep("another layer (C7): distance of equilibria over its bound",
             away * (1 - factor) / change)  # fmt: skip
        if trial % 2 == 0:  # B0 compares rows that see the same keys
            least = stacks.diameter(u) / (1 + value * kappa)
            keep("lower bound of the diameter over the diameter", least / stacks.diameter(exact))
    for name, share in worst.items():
        bench.at_most(name, share, 1 + 1e-7)
    assert drawn is not None
    block, u, exact, runs, q = drawn
    forgetful = dyn.fixed_point(block.layer, ma.EmpiricalMeasure(u))
    least = stacks.diameter(u) / (1 + 0.5 * float(np.linalg.norm(block.A, 2)))
    bench.control(
        "the same layer without inputs: diameter of the limit over the lower bound",
        stacks.diameter(np.asarray(forgetful.measure.points)) / least,
        1.0,
        "it forgets what it started from.",
        relation="≥",
        predicted=0.0,
    )
    cut = dyn.equilibrium(block.layer, u, 1e-10, solver=picard(1e-10), steps=16)
    bench.control(
        "sixteen layers: the run says that it has converged",
        stacks.concluded(cut),
        1.0,
        "it was cut short.",
        relation="≥",
        predicted=0.0,
    )
    bench.at_most("sixteen layers: distance to the equilibrium over the certified one",
                  stacks.row_norms(np.asarray(cut.measure.points) - exact).max() / cut.error,
                  1.0)  # fmt: skip
    bench.figure(
        picture(block, u, exact, runs, q),
        "Left: inputs (circles) and their equilibrium (discs); the cross is where all tokens end "
        "without inputs. Right: the move of a layer, for the stack and for Anderson's method",
        "Each input is joined to its equilibrium nearby; the moves fall below the dashed line",
    )


@house_style
def picture(block: Any, u: Any, exact: Any, runs: Any, q: float) -> Any:
    """The equilibrium, and how it is reached."""
    figure, (left, right) = stacks.panels("Equilibrium", f"q = {q:.3f}")
    for start, end in zip(u, exact, strict=True):
        left.plot(*zip(start, end, strict=True), color=INK, linewidth=0.7, alpha=0.6)
    left.plot(*u.T, "o", color=ACCENTS[0], markerfacecolor="none", markersize=5, label="input")
    left.plot(*exact.T, "o", color=ACCENTS[0], markersize=5, label="equilibrium")
    left.plot(*block.limit, "x", color=ACCENTS[1], markersize=7, markeredgewidth=2,
              label="without inputs")  # fmt: skip
    left.set_aspect("equal", adjustable="datalim")
    left.legend(fontsize=7)
    for found, name, colour in zip(runs, ("Anderson", "stack"), (2, 0), strict=True):
        steps = np.arange(1, len(found.residuals) + 1)
        right.plot(steps, found.residuals, "o-", color=ACCENTS[colour], markersize=3, label=name)
    first = runs[1].residuals
    right.plot(steps, first[0] * q ** (steps - 1), "--", color=ACCENTS[1], label=r"$q^t$")
    logarithmic(right.yaxis)
    right.set(xlabel="layer", ylabel="largest move", ylim=(1e-11, 2))
    right.legend(fontsize=8)
    return figure


def memory(bench: Bench) -> None:
    """C6: the factor of one step, the common point; a memory that is too wide as the control."""
    shares, ends = [], []
    for _ in range(3 if bench.quick else 20):
        keys = in_ball(bench.rng, 8, 2)
        block = stacks.random_block(bench.rng, 2, score=1.0, value=bench.rng.uniform(0.5, 1.5))
        value, spread = float(np.linalg.norm(block.V, 2)), stacks.diameter(keys)
        factor = bench.rng.uniform(0.3, 0.9)
        block = block._replace(A=block.A * 4 * factor / (value * spread**2))
        bench.check("small", factor < 1)
        layer = ma.CrossAttention(ma.Bilinear(block.A, np.eye(2)), block.V, keys)
        x = in_ball(bench.rng, TOKENS, 2)
        found = dyn.fixed_point(layer, ma.EmpiricalMeasure(x))
        ends.append(stacks.diameter(np.asarray(found.measure.points)))
        for _ in range(6):
            new = oracles.softmax(x @ block.A.T @ keys.T) @ keys @ block.V.T
            if stacks.diameter(x) > 1e-8:
                shares.append(stacks.diameter(new) / (factor * stacks.diameter(x)))
            x = new
        last = np.asarray(found.measure.points)
        again = oracles.softmax(last @ block.A.T @ keys.T) @ keys @ block.V.T
        ends.append(np.abs(again - last).max())
    bench.at_most("fixed memory (C6): diameter of the tokens over its bound, each layer",
                  max(shares), 1.0)  # fmt: skip
    bench.at_most("fixed memory: diameter of the limit, and its move in NumPy", max(ends), 1e-9)
    keys = np.array([[-1.0, 0], [1.0, 0]])
    layer = ma.CrossAttention(ma.DotProduct(4.0), np.eye(2), keys)
    found = dyn.fixed_point(layer, ma.EmpiricalMeasure(0.1 * in_ball(bench.rng, TOKENS, 2)))
    bench.control(
        r"a memory with $\kappa D_\nu^2/4=4$: the tokens go to one point",
        stacks.diameter(np.asarray(found.measure.points)),
        1e-9,
        "each goes to the key that is nearer: the memory recalls patterns.",
    )


def too_strong(bench: Bench) -> None:
    """No rate below one is claimed, and a layer that flips the tokens goes round for ever."""
    block = stacks.Block(np.zeros((2, 2)), -np.eye(2), np.zeros(2))
    x = ma.EmpiricalMeasure(np.tile([0.3, 0.4], (TOKENS, 1)))
    inputs = np.tile([0.1, 0.0], (TOKENS, 1))
    layer = dyn.Injected(block.layer, inputs)
    found = dyn.fixed_point(layer, x)
    bench.control(
        "V = -I with inputs: a rate below one is claimed",
        stacks.claimed(layer, x, np.inf),
        1.0,
        "its tokens flip about the equilibrium; the library must refuse to prove a rate.",
    )
    bench.control(
        "V = -I with inputs: the run says that it has converged",
        stacks.concluded(found),
        1.0,
        f"it reports a {found.verdict} of period {found.period}.",
        relation="≥",
        predicted=0.0,
    )
