"""The lecture note on attention: self-attention, several heads, masks."""

import jax
import numpy as np

import measattn as ma
from measattn import plot
from paper_repro import oracles
from paper_repro.claim import Bench, claim
from paper_repro.note_attention import NOTE


@claim(
    id="note-self",
    group="D",
    title="Self-attention reads queries, keys and values off one sequence",
    formulas=[
        r"Q=XW^Q,\quad K=XW^K,\quad V=XW^V",
        r"X\mapsto\mathrm{softmax}\left(\frac{QK'}{\sqrt{d_k}}\right)V",
    ],
    statement=r"The layer is the nonlinear kernel $\mu\mapsto\mu A_\mu$ with bilinear potential; "
    r"with weights on the tokens it is the same formula for $\mu=\sum_i\omega_i\delta_{x_i}$. The "
    r"note's matrices act on rows from the right, those of the library on points from the left: "
    r"$W^{Q\prime}$, and so on.",
    source=f"{NOTE}, Definitions 3 and 4",
    hypotheses={"dims": r"$d_q=d_k$, so that the scalar product makes sense"},
    cost=(2, 2),
)
def self_attention(bench: Bench) -> None:
    """The matrix form in NumPy; queries and keys exchanged as the control."""
    rng, n, d, dk, dv = bench.rng, 30, 8, 4, 5
    X = rng.normal(size=(n, d))
    WQ, WK = rng.normal(size=(2, d, dk)) / 2
    WV, omega = rng.normal(size=(d, dv)), rng.dirichlet(np.ones(n))
    bench.check("dims", WQ.shape[1] == WK.shape[1], f"both are {dk}")
    layer = ma.SelfAttention(ma.Bilinear(WQ.T, WK.T, dk**-0.5), WV.T)
    transport = jax.jit(lambda mu: mu @ layer)
    scores = (X @ WQ) @ (X @ WK).T / np.sqrt(dk)
    want = oracles.softmax(scores) @ (X @ WV)
    after = transport(ma.EmpiricalMeasure(X))
    bench.close("uniform tokens", after.points, want)
    weighted = transport(ma.weighted(X, omega))
    bench.close("weighted tokens", weighted.points, oracles.softmax(scores, omega) @ (X @ WV))
    bench.close("the weights of the tokens stay", weighted.weights, omega)
    bench.refuses(
        "unlike dimensions of query and key",
        lambda: ma.EmpiricalMeasure(X) @ ma.SelfAttention(ma.Bilinear(WQ.T[:2], WK.T), WV.T),
        "dimension",
    )
    bench.control_close(
        r"$W^Q$ and $W^K$ exchanged",
        after.points,
        oracles.softmax(scores.T) @ (X @ WV),
        want,
        "the score is not symmetric.",
    )
    plane = ma.EmpiricalMeasure(rng.normal(size=(50, 2)))
    T = ma.SelfAttention(ma.DotProduct(1.0))
    bench.figure(
        plot.law(plane, plane @ T),
        r"The law of fifty tokens before and after self-attention with $Q=K=V=X$: every token goes "
        "to a mean of all, the outer ones to the outer",
        "Arrows from fifty tokens in the plane into their convex hull",
    )


@claim(
    id="note-multihead",
    group="D",
    title="Several heads, concatenated and projected",
    formulas=[
        r"\mathrm{MultiHead}(X)=\mathrm{Concat}(\mathrm{head}_1,\dots,\mathrm{head}_h)\,W^O",
        r"\mathrm{head}_i=\mathrm{Attention}(XW_i^Q,XW_i^K,XW_i^V)",
    ],
    statement=r"Concatenation followed by $W^O$ is the sum over heads of each head's output times "
    r"its block of rows of $W^O$; with one head and $W^O=I$ it is self-attention.",
    source=f"{NOTE}, Section 3.2",
    hypotheses={"fit": r"$W^O$ has $h\,d_v$ rows"},
    cost=(2, 2),
)
def multihead(bench: Bench) -> None:
    """Concatenation in NumPy and the sum over heads; permuted heads as the control."""
    rng, n, d, h = bench.rng, 20, 12, 3
    dk = d // h
    X = rng.normal(size=(n, d))
    WQ, WK, WV = rng.normal(size=(3, h, d, dk)) / np.sqrt(d)
    WO = rng.normal(size=(h * dk, d)) / np.sqrt(d)
    heads = [ma.SelfAttention(ma.Bilinear(WQ[i].T, WK[i].T, dk**-0.5), WV[i].T) for i in range(h)]
    bench.check("fit", WO.shape[0] == h * dk)
    mu = ma.EmpiricalMeasure(X)
    out = [oracles.attention(X @ WQ[i], X @ WK[i], X @ WV[i], oracles.dot(dk**-0.5))
           for i in range(h)]  # fmt: skip
    want = np.concatenate(out, axis=1) @ WO
    got = jax.jit(lambda mu: mu @ ma.MultiHead(heads, WO.T))(mu).points
    bench.close("heads concatenated, then projected", got, want)
    blocks = WO.reshape(h, dk, d)
    summed = sum(
        np.asarray((mu @ ma.SelfAttention(head.potential, (WV[i] @ blocks[i]).T)).points)
        for i, head in enumerate(heads)
    )
    bench.close(r"sum over heads with values $XW_i^VW_i^O$", summed, want)
    single = jax.jit(lambda mu: mu @ ma.MultiHead(heads[:1]))(mu).points
    bench.close("one head without projection", single, out[0])
    bench.control_close(
        "heads concatenated in the reverse order",
        got,
        np.concatenate(out[::-1], axis=1) @ WO,
        want,
        r"each head has its own rows of $W^O$.",
    )


@claim(
    id="note-masked",
    group="D",
    title="Masked attention: no look into the future",
    formulas=[
        r"\mathrm{softmax}\left(\frac{QK'}{\sqrt{d_k}}+M\right)V,\qquad "
        r"M_{ij}=-\infty\;\;\mathrm{where\ attention\ is\ not\ allowed}",
        r"G((s,x),(t,y))=e^{a(x,y)}\,\mathbf{1}\{t\leq s\}",
    ],
    statement=r"The mask is part of the potential: $-\infty$ is its logarithm. Tokens carry their "
    r"position, so that the causal layer is a map of measures of (position, state). The weight of "
    r"a later token is exactly zero, and what is changed in the future changes nothing in the "
    r"past, to the last bit. A query that may look at no key is refused.",
    source=f"{NOTE}, Section 3.5",
    hypotheses={"sees": "every query is allowed at least one key"},
    cost=(3, 3),
)
def masked(bench: Bench) -> None:
    """Causal and general masks against NumPy; the transposed mask as the control."""
    rng, n, d = bench.rng, 16, 6
    X = rng.normal(size=(n, d))
    WQ, WK, WV = rng.normal(size=(3, d, d)) / np.sqrt(d)
    scores = (X @ WQ) @ (X @ WK).T / np.sqrt(d)
    bench.check("sees", np.all(np.isfinite(oracles.causal(n)).any(axis=1)), "itself, when causal")
    potential = ma.Causal(ma.Bilinear(WQ.T, WK.T, d**-0.5))
    layer = ma.SelfAttention(potential, WV.T)
    positions = np.arange(n, dtype=float)
    tokens = ma.EmpiricalMeasure(ma.Token(positions, X))
    transport = jax.jit(lambda mu: mu @ layer)
    got = np.asarray(transport(tokens).points.state)
    want = oracles.softmax(scores + oracles.causal(n)) @ (X @ WV)
    bench.close("causal layer on tokens", got, want)

    order = rng.permutation(n)
    shuffled = transport(ma.EmpiricalMeasure(ma.Token(positions[order], X[order])))
    bench.close("the same tokens listed in another order", shuffled.points.state, want[order])
    changed = X.copy()
    changed[n // 2 :] += rng.normal(size=(n - n // 2, d))
    again = transport(ma.EmpiricalMeasure(ma.Token(positions, changed))).points.state
    past = slice(0, n // 2)
    bench.at_most("change in the past after a change in the future",
                  np.abs(np.asarray(again)[past] - got[past]).max(), 0.0)  # fmt: skip
    kernel = ma.SoftmatchKernel(potential, tokens)
    rows = np.asarray(jax.jit(jax.vmap(lambda x: kernel(x).weights))(tokens.points))
    bench.at_most("largest weight of a later token", np.triu(rows, 1).max(), 0.0)

    allowed = rng.random((n, n)) < 0.4
    allowed[np.arange(n), rng.integers(0, n, n)] = True
    bench.check("sees", allowed.any(axis=1).all(), "checked for the random mask too")
    M = np.where(allowed, 0.0, -np.inf)
    got2 = ma.attention(X @ WQ, X @ WK, X @ WV, mask=allowed)
    bench.close("a random mask on arrays", got2, oracles.softmax(scores + M) @ (X @ WV))
    allowed[3] = False
    bench.refuses("a row without any key", lambda: ma.attention(X, X, X, mask=allowed), "no mass")
    bench.control_close(
        "the mask transposed: a look into the future",
        got,
        oracles.softmax(scores + oracles.causal(n).T) @ (X @ WV),
        want,
        "then a token sees itself and what comes after it.",
    )
    lenient = oracles.softmax(scores + np.where(np.isinf(oracles.causal(n)), -5.0, 0.0))
    bench.control_close(
        r"$M_{ij}=-5$ in place of $-\infty$",
        rows,
        lenient,
        oracles.softmax(scores + oracles.causal(n)),
        "a finite penalty leaves weight on the future.",
    )
    bench.figure(
        plot.kernel(kernel, tokens),
        "Causal weights: the row of a token has mass on itself and on earlier tokens alone",
        "Lower triangular heat map of sixteen by sixteen weights",
    )
