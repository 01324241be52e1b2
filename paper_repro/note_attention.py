"""The lecture note on attention: its three theorems, and general attention."""

import jax
import jax.numpy as jnp
import numpy as np

import measattn as ma
from paper_repro import oracles
from paper_repro.claim import Bench, claim, relative_error
from paper_repro.definitions import similarities
from paper_repro.evidence import Verdict

NOTE = "Lecture note on attention"


@claim(
    id="note-theorem1",
    group="D",
    title="Row vectors times matrices",
    formulas=[
        r"aB'=[a\bullet b_1,\dots,a\bullet b_m]\in\mathbb{R}^{1\times m}",
        r"aC=a_1c_1+\dots+a_nc_n\in\mathbb{R}^{1\times p}",
    ],
    statement=r"The scores of a query are its scalar products with the rows of the key matrix; a "
    r"row of weights times the value matrix is the combination of its rows: the integral of the "
    r"identity against a signed measure, $a=a^+-a^-$. The note prints "
    r"$aB'=[a\bullet b_1,\dots,a\bullet b_n]\in\mathbb{R}^{1\times n}$ for an $m\times n$ matrix "
    r"$B$, which is right for $m=n$ only: there are $m$ rows.",
    source=f"{NOTE}, Theorem 1; its index corrected",
    hypotheses={"index": r"$aB'$ has one entry for each of the $m$ rows of $B$"},
    expected=Verdict.NEEDS_HYPOTHESES,
    cost=(1, 1),
)
def theorem1(bench: Bench) -> None:
    """Both products against loops; the printed shape as the counterexample."""
    rng, n, m, p = bench.rng, 5, 8, 3
    a, B, C = rng.normal(size=n), rng.normal(size=(m, n)), rng.normal(size=(n, p))
    scores = np.asarray(ma.DotProduct().block(jnp.asarray(a[None]), jnp.asarray(B)))[0]
    want = [sum(a[i] * B[j, i] for i in range(n)) for j in range(m)]
    bench.check("index", scores.shape == (m,), f"{m} rows, {scores.shape[0]} entries")
    bench.close(r"$aB'$", scores, want)

    def integral(part: np.ndarray) -> np.ndarray:
        mass = part.sum()
        return mass * np.asarray(ma.mean(ma.weighted(C, part)))

    got = integral(np.maximum(a, 0)) - integral(np.maximum(-a, 0))
    want = [sum(a[i] * C[i, j] for i in range(n)) for j in range(p)]
    bench.close(r"$aC$, as an integral against $a^+-a^-$", got, want)
    bench.counterexample(
        r"entries of $aB'$ beyond the printed $n$",
        len(scores),
        n,
        f"$B$ has $m={m}$ rows, and $n={n}$ is the length of each.",
        predicted=m,
    )
    bench.control_close(
        r"$aB$ in place of $aB'$",
        np.asarray(ma.DotProduct().block(jnp.asarray(a[None]), jnp.asarray(B[:n])))[0],
        a @ B[:n],
        B[:n] @ a,
        "the transpose matters.",
    )


@claim(
    id="note-theorem2",
    group="D",
    title="Attention weights are a probability distribution",
    formulas=[r"0\leq\alpha_j\leq 1,\qquad\sum_{j=1}^{n}\alpha_j=1"],
    statement=r"For any scoring function the attention weights are a probability on the keys. "
    r"Checked for seven scores, logits of $\pm 10^4$, one key, and 4,096 keys; values that "
    r"coincide add their weights. If every score is $-\infty$ there is no distribution, which is "
    r"refused.",
    source=f"{NOTE}, Theorem 2",
    hypotheses={"finite": r"no score is $+\infty$ or NaN, and at least one is not $-\infty$"},
    cost=(5, 5),
)
def theorem2(bench: Bench) -> None:
    """Signs and sums of rows; weights without the normaliser as the control."""
    rng, d = bench.rng, 5
    least, excess, off, finite = 1.0, 0.0, 0.0, True
    for _, potential, score in similarities(rng, d):
        q, k = rng.normal(size=(20, d)), rng.normal(size=(50, d))
        kernel = ma.SoftmatchKernel(potential, k)
        rows = np.asarray(jax.jit(jax.vmap(lambda x, K=kernel: K(x).weights))(q))
        least, excess = min(least, rows.min()), max(excess, rows.max())
        off, finite = max(off, np.abs(rows.sum(1) - 1).max()), np.isfinite(score(q, k)).all()
        bench.check("finite", finite)
    bench.at_least("least weight over seven scores", least, 0.0)
    bench.at_most("largest excess of a weight over one", excess - 1, 0.0)
    bench.at_most(r"largest $|\sum_j\alpha_j-1|$", off, 1e-12)
    k = rng.normal(size=(4096, 1))
    for name, scale, keys in (
        (r"logits of $\pm 10^4$", 1e4, k[:50]),
        ("one key", 1.0, k[:1]),
        ("4,096 keys", 1.0, k),
    ):
        row = np.asarray(ma.SoftmatchKernel(ma.DotProduct(scale), keys)(jnp.ones(1)).weights)
        bench.close(f"weights for {name}", row, oracles.softmax(scale * keys.T)[0])
        bench.at_most(rf"$|\sum_j\alpha_j-1|$ for {name}", abs(row.sum() - 1), 1e-12)
    bench.refuses(
        r"all scores $-\infty$",
        lambda: ma.SoftmatchKernel(lambda x, y: -jnp.inf * jnp.ones(()), k[:4])(jnp.ones(1)),
        "no mass",
    )
    unnormalised = np.exp(k[:50, 0])
    log_mass = float(ma.log_normaliser(ma.DotProduct(), ma.EmpiricalMeasure(k[:50]), jnp.ones(1)))
    bench.control(
        r"$|\sum_je^{f(q,k_j)}-1|$, not normalised",
        abs(50 * np.exp(log_mass) - 1),
        1e-12,
        "exponentials of scores are positive but have any sum.",
        predicted=abs(unnormalised.sum() - 1),
    )


@claim(
    id="note-theorem3",
    group="D",
    title="The matrix form of scaled dot-product attention",
    formulas=[
        r"\mathrm{Attention}(Q,K,V)=\mathrm{softmax}\left(\frac{QK'}{\sqrt{d_k}}\right)V",
        r"\mathrm{row}\;j:\quad\mathrm{softmax}\left(\frac{q_jK'}{\sqrt{d_k}}\right)V",
    ],
    statement=r"Row $j$ of the matrix form is the attention of query $j$ (items 4 and 5 of the "
    r"theorem). Items 1 to 3 as printed leave the factor $1/\sqrt{d_k}$ of the note's own "
    r"Definition 4 out, and so contradict items 4 and 5 unless $d_k=1$; with the factor they hold.",
    source=f"{NOTE}, Theorem 3",
    hypotheses={"scaled": r"items 1 to 3 carry the factor $1/\sqrt{d_k}$, or $d_k=1$"},
    expected=Verdict.NEEDS_HYPOTHESES,
    cost=(2, 2),
)
def theorem3(bench: Bench) -> None:
    """Rows against the matrix form; items 1 to 3 as printed as the counterexample."""
    rng, m, n, dk, dv = bench.rng, 6, 20, 16, 3
    Q, K, V = rng.normal(size=(m, dk)), rng.normal(size=(n, dk)), rng.normal(size=(n, dv))
    scale = dk**-0.5
    bench.check("scaled", scale**2 * dk == 1, f"factor {scale:g}, d_k = {dk}")
    scores = np.asarray(ma.DotProduct(scale).block(jnp.asarray(Q), jnp.asarray(K)))
    loop = np.array([[sum(a * b for a, b in zip(q, k, strict=True)) for k in K] for q in Q]) * scale
    bench.close("1. scores, with the factor", scores, loop)
    kernel = ma.SoftmatchKernel(ma.DotProduct(scale), K)
    weights = np.asarray(jax.jit(jax.vmap(lambda q: kernel(q).weights))(Q))
    matrix = oracles.softmax(Q @ K.T / np.sqrt(dk))
    bench.close("2. and 4. weights, with the factor", weights, matrix)
    rows = np.stack([np.asarray(ma.attention(q[None], K, V))[0] for q in Q])
    want = np.stack([sum(w[j] * V[j] for j in range(n)) for w in matrix])
    bench.close("3. output of one query, with the factor", rows, want)
    bench.close("5. output of the matrix form", ma.attention(Q, K, V), want)
    one = ma.attention(Q[:, :1], K[:, :1], V)
    bench.close(r"items as printed for $d_k=1$", one, oracles.softmax(Q[:, :1] @ K[:, :1].T) @ V)
    printed = oracles.softmax(Q @ K.T)
    bench.counterexample(
        rf"items 2 and 3 as printed against items 4 and 5, $d_k={dk}$",
        relative_error(weights, printed),
        1e-12,
        r"$\mathrm{softmax}(q_jK')$ is another distribution than row $j$ of "
        r"$\mathrm{softmax}(QK'/\sqrt{d_k})$.",
        predicted=relative_error(matrix, printed),
    )
    bench.control_close(
        r"the factor $1/d_k$ instead",
        ma.attention(Q, K, V),
        oracles.softmax(Q @ K.T / dk) @ V,
        want,
        "the softmax is at another temperature.",
    )


@claim(
    id="note-general",
    group="D",
    title="A general attention mechanism: any score, any value map",
    formulas=[
        r"o(q)=\sum_{j=1}^{n}\alpha_j\,g(v_j),\qquad "
        r"\alpha_j=\frac{e^{f(q,k_j)}}{\sum_{i=1}^{n}e^{f(q,k_i)}}"
    ],
    statement=r"The definition allows any scoring function $f$ and any value map $g$. Each of "
    r"seven scores (dot, scaled, bilinear, Gaussian, additive, relation, a user's function) is "
    r"run with four value maps, as the action of the softmatch and look-up kernels on the "
    r"function $g$, and as cross-attention with value map $g$.",
    source=f"{NOTE}, Definition 2",
    hypotheses={"finite": r"scores and $g(v_j)$ are finite"},
    cost=(7, 7),
)
def general(bench: Bench) -> None:
    """Seven scores times four value maps; transforming after averaging as the control."""
    rng, n, m, d = bench.rng, 6, 25, 4
    q, v, W = rng.normal(size=(n, d)), rng.normal(size=(m, d)), rng.normal(size=(2, d))
    maps = {
        "identity": (lambda y: y, lambda y: y),
        "affine": (ma.Affine(W, [1.0, 2.0]), lambda y: y @ W.T + [1.0, 2.0]),
        "tanh": (jnp.tanh, np.tanh),
        "squared norm": (lambda y: jnp.sum(y**2)[None], lambda y: (y**2).sum(-1, keepdims=True)),
    }
    queries, memory = ma.EmpiricalMeasure(q), ma.EmpiricalMeasure(v)

    def stacked(y: jax.Array) -> jax.Array:
        return jnp.concatenate([f(y) for f, _ in maps.values()])

    @jax.jit
    def observe(queries, attend, cross):
        return jax.vmap(ma.expect(attend, stacked))(queries.points), (queries @ cross).points

    finite, rows = True, []
    for name, potential, score in similarities(rng, d):
        weights = oracles.softmax(score(q, v))
        attend = ma.SoftmatchKernel(potential, memory) @ ma.LookupKernel(memory, v)
        got = observe(queries, attend, ma.CrossAttention(potential, stacked, memory))
        errors, start = [], 0
        for _, numpy_map in maps.values():
            want = weights @ numpy_map(v)
            columns = slice(start, start := start + want.shape[1])
            finite = finite and bool(np.isfinite(want).all())
            errors.append(max(relative_error(np.asarray(x)[:, columns], want) for x in got))
        rows.append([name, *errors])
    bench.check("finite", finite)
    worst = max(max(row[1:]) for row in rows)
    bench.at_most("worst relative error of 28 mechanisms", worst, 1e-12)
    bench.table("Relative errors", ["score", *maps], rows)
    T = ma.CrossAttention(ma.DotProduct(), jnp.tanh, memory)
    weights = oracles.softmax(oracles.dot()(q, v))
    bench.control_close(
        r"$g(\sum_j\alpha_jv_j)$ in place of $\sum_j\alpha_jg(v_j)$",
        (queries @ T).points,
        np.tanh(weights @ v),
        weights @ np.tanh(v),
        r"$g=\tanh$ is not affine.",
    )
