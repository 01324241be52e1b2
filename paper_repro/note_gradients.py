"""The lecture note on attention: gradients, by formula and by the complex step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import measattn as ma
from paper_repro import oracles
from paper_repro.claim import Bench, claim, relative_error
from paper_repro.note_attention import NOTE

STEP = 1e-30
"""Of the complex step: f(x + ih) = f(x) + ih f'(x) + O(h²), exact to rounding, no cancellation."""


def complex_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float) -> np.ndarray:
    """Scaled dot-product attention for complex arrays: analytic, no conjugate, no maximum."""
    scores = scale * (q @ k.T)
    scores = scores - scores.real.max(axis=1, keepdims=True)
    weights = np.exp(scores)
    return weights @ v / weights.sum(axis=1, keepdims=True)


def complex_step(f: Callable[[np.ndarray], complex], x: np.ndarray) -> np.ndarray:
    """The gradient of a real-analytic function, entry by entry."""
    out = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        z = x.astype(complex)
        z[index] += 1j * STEP
        out[index] = f(z).imag / STEP
    return out


@claim(
    id="note-gradients",
    group="D",
    title="Gradients of attention",
    formulas=[
        r"O=AV,\quad A=\mathrm{softmax}(S),\quad S=\frac{QK'}{\sqrt{d_k}}",
        r"\frac{\partial L}{\partial V}=A'U,\quad \frac{\partial L}{\partial A}=UV',\quad "
        r"\frac{\partial L}{\partial S_{ij}}=A_{ij}\bigl(\langle u_i,v_j\rangle"
        r"-\langle u_i,o_i\rangle\bigr)",
        r"\frac{\partial L}{\partial Q}=\frac{1}{\sqrt{d_k}}\frac{\partial L}{\partial S}K,\quad "
        r"\frac{\partial L}{\partial K}=\frac{1}{\sqrt{d_k}}\left(\frac{\partial L}{\partial S}"
        r"\right)'Q",
    ],
    statement=r"With upstream gradient $U$ (rows $u_i$). The library's gradients, which stream "
    r"over tiles, are compared with these formulas and with the complex-step derivative of "
    r"attention in NumPy, for arrays and, in self-attention, for tokens and parameters; also for "
    r"weights, whose gradients sum to zero. In the tail, logits 40 and 0, the derivative "
    r"$\pm 4.248\cdot 10^{-18}$ keeps all its digits.",
    source=f"{NOTE}, Section 4.2; the formulas are derived in docs/theory",
    hypotheses={"smooth": "scores and values are smooth; masked pairs stay masked"},
    cost=(6, 6),
)
def gradients(bench: Bench) -> None:
    """Arrays, self-attention, and the tail."""
    arrays(bench)
    self_attention(bench)
    tail(bench)


def arrays(bench: Bench) -> None:
    """Gradients in Q, K, V and the weights of the keys, against formulas and complex steps."""
    rng, m, n, d, dv = bench.rng, 5, 9, 4, 3
    Q, K, V = rng.normal(size=(m, d)), rng.normal(size=(n, d)), rng.normal(size=(n, dv))
    U, scale = rng.normal(size=(m, dv)), d**-0.5
    A = oracles.softmax(Q @ K.T * scale)
    out = A @ V
    dS = A * (U @ V.T - (U * out).sum(axis=1, keepdims=True))
    formulas = (scale * dS @ K, scale * dS.T @ Q, A.T @ U)

    def loss(q, k, v):
        return jnp.sum(jnp.asarray(U) * ma.attention(q, k, v))

    got = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(Q, K, V)
    for i, name in enumerate("QKV"):

        def along(z: np.ndarray, i: int = i) -> complex:
            args = [z if j == i else a for j, a in enumerate((Q, K, V))]
            q, k, v = args
            return np.sum(U * complex_attention(q, k, v, scale))

        bench.close(rf"$\partial L/\partial {name}$, formula", got[i], formulas[i])
        bench.close(rf"$\partial L/\partial {name}$, complex step",
                    got[i], complex_step(along, (Q, K, V)[i]))  # fmt: skip
    bench.check("smooth", all(np.isfinite(np.asarray(g)).all() for g in got))
    bench.at_most(r"row sums of $\partial L/\partial S$", np.abs(dS.sum(axis=1)).max(), 1e-12)

    def by_weights(log_weights):
        law = ma.EmpiricalMeasure(K, log_weights)
        out = ma.AttentionKernel(ma.DotProduct(scale), law, V).send(jnp.asarray(Q))
        return jnp.sum(jnp.asarray(U) * out)

    weight_gradient = jax.jit(jax.grad(by_weights))(jnp.zeros(n))
    bench.close("gradient in the log weights of the keys", weight_gradient, dS.sum(axis=0))
    bench.at_most("their sum", abs(float(weight_gradient.sum())), 1e-12)

    allowed = np.tril(np.ones((m, n), bool), k=2)
    masked = jax.jit(jax.grad(
        lambda v: jnp.sum(jnp.asarray(U) * ma.attention(Q, K, v, mask=allowed))
    ))(V)  # fmt: skip
    B = oracles.softmax(np.where(allowed, Q @ K.T * scale, -np.inf))
    bench.close("values under a mask", masked, B.T @ U)
    bench.at_most("gradient of a value that nobody sees", np.abs(masked[m + 2 :]).max(), 0.0)
    bench.control_close(
        r"$\partial L/\partial Q$ without the term $\langle u_i,o_i\rangle$",
        got[0],
        scale * (A * (U @ V.T)) @ K,
        formulas[0],
        "the normaliser of the softmax depends on the query too.",
    )


def self_attention(bench: Bench) -> None:
    """Tokens enter three times; parameters; a tangent against the complex step."""
    rng, n, d, dk = bench.rng, 7, 4, 3
    X, U = rng.normal(size=(n, d)), rng.normal(size=(n, d))
    WQ, WK = rng.normal(size=(2, dk, d)) / 2
    WV, scale = rng.normal(size=(d, d)) / 2, dk**-0.5

    def loss(x, query, key, value):
        mu = ma.EmpiricalMeasure(x) @ ma.SelfAttention(ma.Bilinear(query, key, scale), value)
        return jnp.sum(jnp.asarray(U) * mu.points)

    def plain(x, query, key, value):
        return np.sum(U * complex_attention(x @ query.T, x @ key.T, x @ value.T, scale))

    inputs = (X, WQ, WK, WV)
    got = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(*inputs)
    for i, name in enumerate(("tokens $X$", "$W^Q$", "$W^K$", "$W^V$")):

        def along(z: np.ndarray, i: int = i) -> complex:
            return plain(*(z if j == i else a for j, a in enumerate(inputs)))

        bench.close(f"self-attention: gradient in {name}", got[i], complex_step(along, inputs[i]))
    direction = rng.normal(size=X.shape)
    tangent = jax.jit(lambda x, u: jax.jvp(lambda z: loss(z, WQ, WK, WV), (x,), (u,))[1])
    exact = plain(X + 1j * STEP * direction, WQ, WK, WV).imag / STEP
    bench.close("self-attention: a forward-mode tangent", tangent(X, direction), exact)
    frozen = complex_step(
        lambda z: np.sum(U * complex_attention(z @ WQ.T, X @ WK.T, X @ WV.T, scale)), X
    )
    bench.control_close(
        "self-attention: gradient through the queries alone",
        got[0],
        frozen,
        complex_step(lambda z: plain(z, WQ, WK, WV), X),
        "a token is query, key and value at once.",
    )


def tail(bench: Bench) -> None:
    """Two keys with logits 40 and 0: the derivative of the output in a logit is ±p(1 − p)."""
    exact = np.exp(-40.0) / (1 + np.exp(-40.0)) ** 2
    logits = jnp.asarray([40.0, 0.0])

    keys, values = jnp.arange(2.0)[:, None], jnp.asarray([[1.0], [0.0]])

    def output(scores):
        kernel = ma.AttentionKernel(lambda q, k: scores[k[0].astype(int)], keys, values)
        return kernel.send(jnp.zeros((1, 1)))[0, 0]

    ours = np.asarray(jax.jit(jax.grad(output))(logits))
    bench.close("the tail: logits (40, 0)", ours, np.array([exact, -exact]))
    naive = np.asarray(jax.grad(lambda s: jax.nn.softmax(s) @ values[:, 0])(logits))
    bench.control(
        "the same derivative by a textbook softmax",
        relative_error(naive, np.array([exact, -exact])),
        1e-12,
        r"$1-p$ is rounded to zero where $p$ is next to one.",
        predicted=1.0,
    )
