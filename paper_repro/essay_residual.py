"""The claim that a residual keeps the spectral radius near one, and the spectrum there is."""

from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

import measattn as ma
from measattn.plot import ACCENTS, INK
from measattn.plot.style import house_style, logarithmic
from paper_repro import jacobians, stacks
from paper_repro.claim import TOLERANCE, Bench, claim
from paper_repro.evidence import Role, Verdict
from paper_repro.jacobians import in_ball

TOKENS = 6


@claim(
    id="essay-residual",
    group="C",
    title="A residual keeps the spectral radius near one: no",
    formulas=[
        r"|\rho(I+J)-1|\ll1\quad\mathrm{?}",
        r"x_1=\dots=x_n:\qquad\mathrm{spec}(I+J)=\{1\}\cup\{1+\lambda_i(V)\}",
        r"|\rho(I+J)-1|\leq\Vert J\Vert\leq\Vert V\Vert(1+2\kappa R^2)",
        r"P_L=\prod_{l\leq L}(I+L^{-1}J_l):\qquad\Vert P_L\Vert\leq e^{\max\Vert J_l\Vert}",
    ],
    statement=r"Where all tokens agree the Jacobian of attention is $\frac{1}{n}11^{\top}\otimes "
    r"V$, so with a residual the spectral radius is 2 for $V=I$, 3 for $V=2I$, and the layer "
    r"loses a direction for $V=-I$; where they do not the scores add to it. A stack with "
    r"$V=\frac{1}{2}I$ is stable as it is and grows like $1.5^L$ once it has residuals. What is "
    r"true: the radius is within $\Vert J\Vert$ of one, and residual branches scaled by the depth "
    r"keep products bounded.",
    source="an essay on functional analysis and attention; the Jacobian is B7 of docs/theory, its "
    "norm B5 of docs/theory-lipschitz",
    hypotheses={"plain": r"attention with a residual, without layer norm"},
    expected=Verdict.REFUTED,
    cost=(1, 2),
)
def residual(bench: Bench) -> None:
    """Spectra at consensus and off it, growth in depth, and what a scaled branch does."""
    bench.check("plain", True, "by construction")
    consensus(bench)
    spread(bench)
    depth(bench)


def consensus(bench: Bench) -> None:
    """All tokens equal: eigenvalues against the closed form; three values of V as witnesses."""
    worst, errors, size = [], [], TOKENS * 3
    for _ in range(5 if bench.quick else 50):
        block = stacks.random_block(bench.rng, 3, score=2.0, value=bench.rng.uniform(0.3, 2))
        x = np.tile(in_ball(bench.rng, 1, 3), (TOKENS, 1))
        layer = ma.Residual(block.layer)
        J = np.asarray(stacks.differentiated(x, layer)).reshape(size, size)
        errors.append(np.abs(J - np.eye(size) - stacks.jacobian_of(x, block)).max())
        found = np.linalg.eigvals(J)
        wanted = np.append(1 + np.linalg.eigvals(block.V), np.ones(size - 3))
        worst.append(_apart(found, wanted))
        # the control: as if each token saw itself alone
        alone = np.repeat(1 + np.linalg.eigvals(block.V), TOKENS)
    bench.at_most("Jacobians of the library at consensus against NumPy", max(errors), 1e-12,
                  role=Role.CORRECTION)  # fmt: skip
    bench.at_most(r"consensus: eigenvalues of $I+J$ against $\{1\}\cup\{1+\lambda_i(V)\}$",
                  max(worst), 1e-6, role=Role.CORRECTION)  # fmt: skip
    bench.control(
        r"consensus: eigenvalues against $\{1+\lambda_i(V)\}$ alone, n times each",
        _apart(found, alone),
        1e-6,
        "directions in which tokens part are left as they are: eigenvalue one.",
    )
    same = np.tile([0.3, -0.2, 0.1], (TOKENS, 1))
    for name, value, predicted in (("V = I", 1.0, 1.0), ("V = 2 I", 2.0, 2.0)):
        block = stacks.Block(np.eye(3), value * np.eye(3), np.zeros(3))
        J = np.asarray(stacks.differentiated(same, ma.Residual(block.layer))).reshape(size, size)
        bench.counterexample(
            f"{name}: distance of the spectral radius from one",
            stacks.spectral_radius(J) - 1,
            0.1,
            r"at consensus it is $1+\lambda(V)$.",
            predicted=predicted,
        )
    block = stacks.Block(np.eye(3), -np.eye(3), np.zeros(3))
    J = np.asarray(stacks.differentiated(same, ma.Residual(block.layer))).reshape(size, size)
    bench.counterexample(
        "V = -I: the least singular value of the layer",
        np.linalg.svd(J, compute_uv=False)[-1],
        0.1,
        "the mean of the tokens is lost: the spectrum is not bounded away from zero.",
        relation="≥",
        predicted=0.0,
    )


def _apart(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest distance of eigenvalues after the best matching."""
    cost = np.abs(found[:, None] - wanted[None])
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].max())


def spread(bench: Bench) -> None:
    """Off consensus: the scores add to the radius, by no more than the norm of J."""
    rows, share, cap = [], [], []
    x = np.array([[-1.0], [0.0], [1.0]])
    for score in (0.0, 1.0, 2.0, 4.0, 8.0):
        block = stacks.Block(score * np.eye(1), 0.5 * np.eye(1), np.zeros(1))
        J = stacks.jacobian_of(x, block)
        rows.append([score, stacks.spectral_radius(J), stacks.spectral_radius(np.eye(3) + J)])
    bench.counterexample(
        "V = 1/2, tokens -1, 0, 1 and scores of 8: the spectral radius less one, against λ(V)",
        rows[-1][2] - 1,
        0.5,
        "the query in the middle turns from one end to the other.",
    )
    for _ in range(30 if bench.quick else 300):
        size = 10 ** bench.rng.uniform(-1, 1)
        block = stacks.random_block(bench.rng, 2, score=size, value=bench.rng.uniform(0.1, 2))
        x = in_ball(bench.rng, TOKENS, 2)
        J = stacks.jacobian_of(x, block)
        by_token = jacobians.largest(J.reshape(TOKENS, 2, TOKENS, 2), bench.rng)
        away = abs(stacks.spectral_radius(np.eye(len(J)) + J) - 1)
        value, kappa = (float(np.linalg.norm(M, 2)) for M in (block.V, block.A))
        reach = float(stacks.row_norms(x).max())
        share.append(away / min(np.linalg.norm(J, 2), value * (1 + 2 * kappa * reach**2)))
        cap.append(by_token / (value * (1 + 2 * kappa * reach**2)))
    bench.at_most(r"random tokens: $|\rho(I+J)-1|$ over both its bounds", max(share), 1 + TOLERANCE,
                  role=Role.CORRECTION)  # fmt: skip
    bench.at_most(r"random tokens: norm of J for the largest move over $\Vert V\Vert(1+2\kappa "
                  r"R^2)$", max(cap), 1 + TOLERANCE, role=Role.CORRECTION)  # fmt: skip
    bench.table("Tokens -1, 0, 1 and V = 1/2: spectral radii",
                ["score", "J, without a residual", "I + J, with one"], rows)  # fmt: skip


def depth(bench: Bench) -> None:
    """V = I/2: stable without residuals, growing with them, bounded where branches are scaled."""
    layers = 32
    block = stacks.Block(np.eye(2), 0.5 * np.eye(2), np.zeros(2))
    plain, kept = np.tile([0.3, 0.4], (TOKENS, 1)), np.tile([0.3, 0.4], (TOKENS, 1))
    for _ in range(layers):
        plain, kept = block(plain), kept + block(kept)
    bench.counterexample(
        "V = I/2, 32 layers with residuals: length of the tokens over the first",
        stacks.row_norms(kept).max() / 0.5,
        1.0,
        "without residuals they shrink to 2⁻³²: it is the residual that makes them grow.",
        predicted=1.5**layers,
    )
    curves: dict[str, list[float]] = {"residual": [], "residual, branch over L": [], "plain": []}
    worst, counts = [], [1, 2, 4, 8, 16, 32]
    for count in counts:
        Js = [
            stacks.jacobian_of(
                in_ball(bench.rng, TOKENS, 2),
                stacks.random_block(bench.rng, 2, score=1.0, value=1.0),
            )
            for _ in range(count)
        ]
        eye, cap = np.eye(2 * TOKENS), max(float(np.linalg.norm(J, 2)) for J in Js)
        scaled = _product([eye + J / count for J in Js])
        worst.append(scaled / np.exp(cap))
        curves["residual"].append(_product([eye + J for J in Js]))
        curves["residual, branch over L"].append(scaled)
        curves["plain"].append(_product(Js))
    bench.at_most(r"random layers, branches over L: norm of the product over $e^{\max\Vert J_l"
                  r"\Vert}$", max(worst), 1 + TOLERANCE, role=Role.CORRECTION)  # fmt: skip
    bench.control(
        "the same bound for 32 layers at consensus, V = I/2, branches not scaled",
        _product(
            [np.eye(2 * TOKENS) + stacks.jacobian_of(np.tile([0.3, 0.4], (TOKENS, 1)), block)]
            * layers
        )
        / np.exp(0.5),
        1.0,
        "norms of residual layers multiply.",
        predicted=1.5**layers / np.exp(0.5),
    )
    spectra = []
    for value, label in ((1.0, "‖V‖ = 1"), (0.2, "‖V‖ = 0.2")):
        random = stacks.random_block(bench.rng, 2, score=4.0, value=value)
        same = np.tile(in_ball(bench.rng, 1, 2), (12, 1))
        for tokens, where in ((same, "consensus"), (in_ball(bench.rng, 12, 2), "random tokens")):
            spectra.append((f"{label}, {where}", np.linalg.eigvals(np.eye(24)
                            + stacks.jacobian_of(tokens, random))))  # fmt: skip
    bench.figure(
        picture(spectra, counts, curves),
        "Left: eigenvalues of I + J and the unit circle. Right: the norm of the product of the "
        "Jacobians of L random layers",
        "Eigenvalues leave the unit circle on the right; products with residuals grow "
        "with depth unless their branches are divided by it",
    )


def _product(matrices: list[np.ndarray]) -> float:
    """The norm of the product."""
    out = matrices[0]
    for matrix in matrices[1:]:
        out = matrix @ out
    return float(np.linalg.norm(out, 2))


@house_style
def picture(spectra: Any, counts: Any, curves: Any) -> Any:
    """Spectra, and products."""
    figure, (left, right) = stacks.panels("Eigenvalues of I + J", "Depth")
    angle = np.linspace(0, 2 * np.pi, 200)
    left.plot(np.cos(angle), np.sin(angle), color=INK, linewidth=0.8, alpha=0.6)
    for k, (name, values) in enumerate(spectra):
        left.plot(values.real, values.imag, "os^v"[k], color=ACCENTS[k], markersize=5, label=name)
    left.set_aspect("equal", adjustable="datalim")
    left.legend(fontsize=6.5)
    for colour, (name, norms) in zip(ACCENTS, curves.items(), strict=False):
        right.plot(counts, norms, "o-", color=colour, markersize=4, label=name)
    logarithmic(right.yaxis)
    right.set(xlabel="layers L", ylabel="norm of the product")
    right.legend(fontsize=8)
    return figure
