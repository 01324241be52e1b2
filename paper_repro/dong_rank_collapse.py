"""Attention alone collapses a sequence doubly exponentially; residuals stop it."""

from typing import Any

import numpy as np

import measattn as ma
from measattn import dynamics as dyn
from measattn.plot import ACCENTS
from measattn.plot.style import house_style, logarithmic
from paper_repro import oracles, stacks
from paper_repro.claim import TOLERANCE, Bench, claim
from paper_repro.jacobians import in_ball

SMALLEST = 1e-250
"""Diameters down to it are followed: float64 ends at 1e-308."""


@claim(
    id="dong-rank-collapse",
    group="B",
    title="Attention alone loses rank doubly exponentially with depth; a residual stops it",
    formulas=[
        r"D_{t+1}\leq\sum_h\Vert V_h\Vert\,D_t\tanh\frac{\kappa_hD_t^2}{4},\qquad "
        r"D_t\leq c^{\frac{3^t-1}{2}}D_0^{3^t},\quad c=\frac{\Vert V\Vert\kappa}{4}",
        r"\min_\pi\Vert P_t\cdots P_1-1\pi^{\top}\Vert_{\infty\to\infty}\leq"
        r"2\prod_l\tanh\frac{\kappa_lD_l^2}{4}",
        r"x\mapsto x+\Gamma(x):\qquad D_{t+1}\geq D_t\left(1-\Vert V\Vert\tanh"
        r"\frac{\kappa D_t^2}{4}\right)",
    ],
    statement=r"The collapse of Dong, Cordonnier and Loukas for the diameter $D_t$ of the tokens, "
    r"with its exact constant (C4) and for products of attention matrices (C8): no mask, no "
    r"residual, no condition on the sizes. The first bound is attained by two tokens, and the "
    r"exponents do triple. With a residual the last line follows from the same estimate and the "
    r"triangle inequality: the smaller the cloud is, the less of it is lost.",
    source="arXiv 2103.03404, known from secondary sources; C4 and C8 are proved in "
    "docs/theory-dynamics",
    hypotheses={
        "plain": r"bilinear scores, no mask, no residual, no token-wise map between",
        "shared": r"$c$ is that of one layer, again and again, for the second bound",
    },
    cost=(2, 3),
)
def collapse(bench: Bench) -> None:
    """Clouds followed down to 1e-250, two tokens, heads, products; residual and causal mask."""
    bench.check("plain", True, "by construction")
    bench.check("shared", True, "by construction")
    followed = clouds(bench)
    library(bench)
    two_tokens(bench)
    heads_and_products(bench)
    residual(bench, followed)
    causal(bench)


def deviations(block: stacks.Block, mean: Any, off: Any) -> tuple[Any, Any]:
    """One layer for tokens mean + off_i, about a point of its own: differences keep all digits."""
    base = oracles.softmax(off @ block.A @ mean)
    change = np.expm1(off @ block.A.T @ off.T)
    of_row = change @ base
    mixed = ((change - of_row[:, None]) * base / (1 + of_row)[:, None]) @ off
    return block.V @ (mean + base @ off) + block.b, mixed @ block.V.T


def recursion(block: stacks.Block, d: float) -> float:
    """C4."""
    value, kappa = (float(np.linalg.norm(M, 2)) for M in (block.V, block.A))
    return value * d * float(np.tanh(kappa * d * d / 4))


def clouds(bench: Bench) -> tuple[stacks.Block, Any, list[float], list[float]]:
    """Random layers and clouds; the last one is drawn."""
    one, closed, exponents, agree = [], [], [], []
    x, block, seen, proved = np.zeros((0, 0)), stacks.Block(*np.zeros((3, 0, 0))), [], []
    for _ in range(10 if bench.quick else 100):
        block = stacks.random_block(bench.rng, 3, score=1.0, value=1.0, shift=0.3)
        x = 0.8 * in_ball(bench.rng, 12, 3)
        mean, off = np.zeros(3), x
        seen, proved, plain = [stacks.diameter(x)], [stacks.diameter(x)], x
        while seen[-1] > SMALLEST ** (1 / 3):
            mean, off = deviations(block, mean, off)
            seen.append(stacks.diameter(off / np.abs(off).max()) * np.abs(off).max())
            one.append(seen[-1] / recursion(block, seen[-2]))
            proved.append(recursion(block, proved[-1]))
            power = 3.0 ** (len(seen) - 1)
            # c = 1/4: the logarithm of the closed form, for it underflows
            limit = (power - 1) / 2 * np.log(0.25) + power * np.log(seen[0])
            closed.append(np.log(seen[-1]) - limit)
            plain = block(plain)
            if seen[-1] > 1e-8:
                agree.append(stacks.diameter(plain) / seen[-1] - 1)
        logs = np.log(seen)
        exponents.append((logs[-1] - logs[-2]) / (logs[-2] - logs[-3]))
    bench.at_most("differences of tokens against plain NumPy, while both have digits",
                  np.abs(agree).max(), 1e-6)  # fmt: skip
    bench.at_most("C4: diameter over its bound from the layer before", max(one), 1.0)
    bench.at_most("closed form: log of the diameter less that of its bound", max(closed), 0.0)
    bench.at_least("factor by which the exponents grow in the last layer, least", min(exponents),
                   2.7)  # fmt: skip
    bench.at_most("and the largest", max(exponents), 3.3)
    bench.control(
        "a simple exponential: exponents grow by no more than 1.5 times a layer",
        max(exponents),
        1.5,
        "they triple.",
    )
    return block, x, seen, proved


def library(bench: Bench) -> None:
    """The library's path and its bound."""
    shares, errors = [], []
    for _ in range(3 if bench.quick else 20):
        block = stacks.random_block(bench.rng, 3, score=1.5, value=0.9, shift=0.2)
        x = 0.7 * in_ball(bench.rng, 12, 3)
        path = dyn.iterate(block.layer, ma.EmpiricalMeasure(x), 4, distances=False).diameter
        bound = dyn.diameter_bound(block.layer, path[0], 4, dimension=3)
        own = [path[0]]
        for _ in range(4):
            own.append(recursion(block, own[-1]))
        errors.append(np.abs(bound / own - 1).max())
        shown = path > 1e-12
        shares.append((path / bound)[1:][shown[1:]].max())
    bench.at_most("the library: diameters over its bound", max(shares), 1 + TOLERANCE)
    bench.at_most("its bound against the recursion in NumPy, relative", max(errors), 1e-7)


def two_tokens(bench: Bench) -> None:
    """Two opposite tokens and V = I attain C4 in every layer."""
    kappa, x = 3.0, np.array([[-0.5], [0.5]])
    block = stacks.Block(kappa * np.eye(1), np.eye(1), np.zeros(1))
    path = dyn.iterate(block.layer, ma.EmpiricalMeasure(x), 3, distances=False).diameter
    attained = [1.0]
    for _ in range(3):
        attained.append(attained[-1] * float(np.tanh(kappa * attained[-1] ** 2 / 4)))
    bench.close("two opposite tokens attain C4, three layers", path / attained, np.ones(4),
                tolerance=1e-9)  # fmt: skip
    bench.control(
        "C4 lowered by 2 %, first layer",
        path[1] / (0.98 * np.tanh(kappa / 4)),
        1.0,
        "two tokens exceed it.",
        predicted=1 / 0.98,
    )


def heads_and_products(bench: Bench) -> None:
    """C4 for the sum of heads, C8 for the product of attention matrices."""
    many, products = [], []
    for _ in range(20 if bench.quick else 200):
        blocks = [stacks.random_block(bench.rng, 3, score=bench.rng.uniform(0.3, 2), value=0.8)
                  for _ in "abc"]  # fmt: skip
        x = in_ball(bench.rng, 10, 3)
        before = stacks.diameter(x)
        after = stacks.diameter(sum((block(x) for block in blocks), np.zeros(())))
        many.append(after / sum(recursion(block, before) for block in blocks))
        product, sizes, x = np.eye(10), [], 0.8 * x
        for block in blocks:
            sizes.append(stacks.diameter(x))
            product = oracles.softmax(x @ block.A.T @ x.T) @ product
            x = block(x)
        middle = (product.max(axis=0) + product.min(axis=0)) / 2
        apart = np.abs(product - middle / middle.sum()).sum(axis=1).max()
        bound = dyn.rank_one_bound([block.layer for block in blocks], sizes, dimension=3)
        if bound > 1e-12:
            products.append(apart / bound)
    bench.at_most("three heads: diameter over its bound", max(many), 1.0)
    bench.at_most("C8: product of three matrices, distance to rank one over its bound",
                  max(products), 1.0)  # fmt: skip


def residual(bench: Bench, followed: Any) -> None:
    """The diameter with a residual, from both sides; C4 without it as the control."""
    below, above, depth = [], [], 24
    for _ in range(10 if bench.quick else 100):
        block = stacks.random_block(bench.rng, 3, score=1.0, value=0.4)
        x = 0.8 * in_ball(bench.rng, 12, 3)
        for _ in range(depth):
            d, lost = stacks.diameter(x), recursion(block, stacks.diameter(x))
            x = x + block(x)
            below.append((d - lost) / stacks.diameter(x))
            above.append(stacks.diameter(x) / (d + lost))
    bench.at_most("residual: lower bound of the diameter over the diameter", max(below),
                  1 + TOLERANCE)  # fmt: skip
    bench.at_most("residual: diameter over its upper bound", max(above), 1 + TOLERANCE)
    block, x, seen, proved = followed
    kept, y = [stacks.diameter(x)], x
    masked, z = [stacks.diameter(x)], x
    for _ in seen[1:]:
        y = y + 0.4 * block(y)
        z = block(z, mask=oracles.causal(len(z)))
        kept.append(stacks.diameter(y))
        masked.append(stacks.diameter(z))
    bench.control(
        "with a residual: diameter in the end over that of C4 for the layer without it",
        kept[-1] / max(proved[-1], 1e-300),
        1.0,
        "the residual carries the cloud along.",
    )
    bench.figure(
        picture(seen, proved, kept, masked),
        "The diameter of twelve tokens, one layer again and again; dashed, C4 from the first "
        "diameter on",
        "The curve without residual falls off ever faster below the dashed one; with a residual "
        "or a causal mask it does not",
    )
    bench.table(
        "The diameter of twelve tokens",
        ["layer", "attention", "C4", "with a residual", "causal mask"],
        [[t, *row] for t, row in enumerate(zip(seen, proved, kept, masked, strict=True))],
    )


@house_style
def picture(seen: Any, proved: Any, kept: Any, masked: Any) -> Any:
    """Diameters by layer."""
    figure, (axes,) = stacks.panels("")
    t = np.arange(len(seen))
    axes.plot(t, kept, "o-", color=ACCENTS[2], label="with a residual")
    axes.plot(t, masked, "o-", color=ACCENTS[3], label="causal mask")
    axes.plot(t, proved, "--", color=ACCENTS[1], label="C4")
    axes.plot(t, seen, "o-", color=ACCENTS[0], label="attention alone")
    logarithmic(axes.yaxis)
    axes.set(xlabel="layer", ylabel="diameter", xticks=t)
    axes.legend(fontsize=8)
    return figure


def causal(bench: Bench) -> None:
    """Under a causal mask C4 is false: the first token sees itself alone."""
    ends = np.array([[-0.5], [0.5]])
    block = stacks.Block(np.eye(1), np.eye(1), np.zeros(1))
    after = stacks.diameter(block(ends, mask=oracles.causal(2)))
    bench.control(
        "C4 under a causal mask",
        after / np.tanh(0.25),
        1.0,
        "rows see different keys.",
        predicted=1 / (1 + np.exp(-0.5)) / np.tanh(0.25),
    )
    bench.refuses(
        "the library on a masked layer",
        lambda: dyn.diameter_bound(ma.SelfAttention(ma.Causal(ma.DotProduct(1.0))), 1.0, 2,
                                   dimension=1),
        "mask",
    )  # fmt: skip
