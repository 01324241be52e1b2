"""The lecture note on attention: feed-forward maps, residuals, norms, encoder and decoder."""

from typing import NamedTuple

import jax
import numpy as np

import measattn as ma
from measattn import plot
from paper_repro import oracles
from paper_repro.claim import Bench, claim
from paper_repro.note_attention import NOTE

EPS = 1e-5


class Weights(NamedTuple):
    """The matrices of one block, acting on rows from the right; h heads of width d / h."""

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    output: np.ndarray
    up: np.ndarray
    down: np.ndarray
    scale: np.ndarray
    shift: np.ndarray


def draw(rng: np.random.Generator, d: int, h: int) -> Weights:
    """Random weights of one block."""
    q, k, v = rng.normal(size=(3, h, d, d // h)) / np.sqrt(d)
    return Weights(
        q, k, v, rng.normal(size=(d, d)) / np.sqrt(d), rng.normal(size=(d, 4 * d)) / np.sqrt(d),
        rng.normal(size=(4 * d, d)) / np.sqrt(4 * d), rng.uniform(0.5, 1.5, size=d),
        rng.normal(size=d) / 4,
    )  # fmt: skip


def attend(w: Weights, x: np.ndarray, memory: np.ndarray, mask: float | np.ndarray = 0.0):
    """Multi-head attention of rows x to rows of the memory, in NumPy."""
    heads = []
    for q, k, v in zip(w.query, w.key, w.value, strict=True):
        scores = (x @ q) @ (memory @ k).T / np.sqrt(q.shape[1]) + mask
        heads.append(oracles.softmax(scores) @ (memory @ v))
    return np.concatenate(heads, axis=1) @ w.output


def norm(w: Weights, x: np.ndarray) -> np.ndarray:
    """Layer norm in NumPy."""
    return oracles.layer_norm(x, w.scale, w.shift, EPS)


def feed(w: Weights, x: np.ndarray) -> np.ndarray:
    """Feed-forward map with ReLU, in NumPy."""
    return oracles.relu(x @ w.up) @ w.down


def heads_of(w: Weights, *, causal: bool = False, memory: ma.EmpiricalMeasure | None = None):
    """The same multi-head attention in measattn."""
    heads = []
    for q, k, v in zip(w.query, w.key, w.value, strict=True):
        potential = ma.Bilinear(q.T, k.T, q.shape[1] ** -0.5)
        potential = ma.Causal(potential) if causal else potential
        heads.append(
            ma.SelfAttention(potential, v.T)
            if memory is None
            else ma.CrossAttention(potential, v.T, memory)
        )
    return ma.MultiHead(heads, w.output.T)


def norm_of(w: Weights) -> ma.LayerNorm:
    """Layer norm in measattn."""
    return ma.LayerNorm(w.scale, w.shift, EPS)


def feed_of(w: Weights) -> ma.FeedForward:
    """Feed-forward map in measattn."""
    return ma.FeedForward(w.up.T, w.down.T, ma.layer.relu)


@claim(
    id="note-ffn-residual-norm",
    group="D",
    title="Feed-forward maps, residuals and norms are push-forwards",
    formulas=[
        r"\mathrm{FFN}(x)=\max(0,xW_1+b_1)W_2+b_2,\qquad \mu\mapsto\mathrm{FFN}_{\#}\mu",
        r"x\mapsto\mathrm{LayerNorm}(x+f(x))\;\;\mathrm{(post)},\qquad "
        r"x\mapsto x+f(\mathrm{LayerNorm}(x))\;\;\mathrm{(pre)}",
    ],
    statement=r"They act on each point by itself: Dirac-valued Markov kernels, which move atoms "
    r"and leave weights alone. Checked: ReLU, GELU and SwiGLU maps, layer norm and RMS norm, "
    r"post- and pre-norm blocks around attention and around a feed-forward map.",
    source=f"{NOTE}, Sections 3.3 and 3.4",
    hypotheses={"eps": r"the norms have $\varepsilon>0$, so that constant vectors are allowed"},
    cost=(2, 2),
)
def pointwise(bench: Bench) -> None:
    """Every map against NumPy; pre-norm for post-norm and the n − 1 variance as controls."""
    rng, n, d = bench.rng, 15, 8
    x, omega, w = rng.normal(size=(n, d)), rng.dirichlet(np.ones(n)), draw(rng, d, 2)
    x[0] = 1.0
    b1, b2 = rng.normal(size=4 * d), rng.normal(size=d)
    gate = rng.normal(size=(d, 4 * d)) / np.sqrt(d)
    bench.check("eps", EPS > 0, f"ε = {EPS:g}; a constant vector is among the points")
    mu = ma.weighted(x, omega)
    up, down = ma.Affine(w.up.T, b1), ma.Affine(w.down.T, b2)
    att, ffn = heads_of(w), feed_of(w)
    cases = {
        "feed-forward, ReLU, with biases": (
            ma.FeedForward(up, down, ma.layer.relu),
            oracles.relu(x @ w.up + b1) @ w.down + b2,
        ),
        "feed-forward, GELU": (
            ma.FeedForward(w.up.T, w.down.T, ma.layer.gelu),
            oracles.gelu(x @ w.up) @ w.down,
        ),
        "feed-forward, SwiGLU": (
            ma.FeedForward(w.up.T, w.down.T, ma.layer.silu, gate=gate.T),
            (oracles.silu(x @ gate) * (x @ w.up)) @ w.down,
        ),
        "layer norm": (norm_of(w), norm(w, x)),
        "RMS norm": (ma.RMSNorm(w.scale, EPS), oracles.rms_norm(x, w.scale, EPS)),
        "residual": (ma.Residual(ffn), x + feed(w, x)),
        "post-norm, feed-forward": (ma.post_norm([ffn], [norm_of(w)]), norm(w, x + feed(w, x))),
        "pre-norm, feed-forward": (ma.pre_norm([ffn], [norm_of(w)]), x + feed(w, norm(w, x))),
    }
    got = jax.jit(lambda mu: {name: mu @ kernel for name, (kernel, _) in cases.items()})(mu)
    for name, (_, want) in cases.items():
        bench.close(name, got[name].points, want)
    stay = max(np.abs(np.asarray(nu.weights) - omega).max() for nu in got.values())
    bench.at_most("largest change of a weight", stay, 1e-12)

    uniform = ma.EmpiricalMeasure(x)
    inner = norm(w, x)
    pre, post = jax.jit(
        lambda mu: (mu @ ma.pre_norm([att], [norm_of(w)]), mu @ ma.post_norm([att], [norm_of(w)]))
    )(uniform)
    want_post = norm(w, x + attend(w, x, x))
    bench.close("pre-norm, attention", pre.points, x + attend(w, inner, inner))
    bench.close("post-norm, attention", post.points, want_post)
    bench.control_close(
        "pre-norm taken for post-norm",
        post.points,
        x + attend(w, inner, inner),
        want_post,
        "the two blocks are different maps.",
    )
    rest = x[1:]  # the variance with n − 1, as some libraries' std has it
    sample = w.scale * (rest - rest.mean(1, keepdims=True)) / np.sqrt(
        rest.var(1, ddof=1, keepdims=True) + EPS) + w.shift  # fmt: skip
    bench.control_close(
        r"layer norm with the variance over $d-1$",
        np.asarray(got["layer norm"].points)[1:],
        sample,
        norm(w, rest),
        r"layer norm divides by $d$.",
    )


@claim(
    id="note-encoder-decoder",
    group="D",
    title="Encoder and decoder stacks are maps of measures",
    formulas=[
        r"\nu=\mu\,E_1E_2,\qquad \mathrm{decoder}_{\nu}=D_1(\nu)\,D_2(\nu)",
    ],
    statement=r"Two encoder blocks (self-attention, feed-forward, post-norm) carry the law of the "
    r"input to a memory $\nu$; two decoder blocks (causal self-attention, cross-attention to "
    r"$\nu$, feed-forward) carry the law of the output tokens. The decoder sees the memory as a "
    r"measure: splitting its atoms changes nothing.",
    source=f"{NOTE}, Section 3.5 (the architecture of arXiv 1706.03762)",
    hypotheses={"dims": "all blocks keep the dimension"},
    cost=(5, 5),
)
def encoder_decoder(bench: Bench) -> None:
    """Both stacks against NumPy; the memory replaced by the encoder's input as the control."""
    rng, n, m, d, h = bench.rng, 18, 12, 8, 2
    x, y = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    encoder = [draw(rng, d, h) for _ in range(2)]
    decoder = [(draw(rng, d, h), draw(rng, d, h)) for _ in range(2)]
    blocks = [ma.post_norm([heads_of(w), feed_of(w)], [norm_of(w)] * 2) for w in encoder]
    tokens = ma.EmpiricalMeasure(ma.Token(np.arange(m, dtype=float), y))

    def decode(memory: ma.EmpiricalMeasure) -> ma.Stack:
        return ma.Stack(
            ma.post_norm(
                [heads_of(w, causal=True), heads_of(c, memory=memory), feed_of(w)],
                [norm_of(w), norm_of(c), norm_of(w)],
            )
            for w, c in decoder
        )

    @jax.jit
    def forward(mu, tokens):
        nu = mu @ ma.Stack(blocks)
        halves = ma.mixture([nu, nu], [0.3, 0.7])
        return nu.points, (tokens @ decode(nu)).points, (tokens @ decode(halves)).points

    nu, out, out_split = forward(ma.EmpiricalMeasure(x), tokens)

    memory = x
    for w in encoder:
        memory = norm(w, memory + attend(w, memory, memory))
        memory = norm(w, memory + feed(w, memory))

    def numpy_decoder(memory: np.ndarray) -> np.ndarray:
        z = y
        for w, c in decoder:
            z = norm(w, z + attend(w, z, z, oracles.causal(m)))
            z = norm(c, z + attend(c, z, memory))
            z = norm(w, z + feed(w, z))
        return z

    want = numpy_decoder(memory)
    bench.check("dims", nu.shape == x.shape and out.state.shape == y.shape, f"dimension {d}")
    bench.close("encoder", nu, memory)
    bench.close("decoder", out.state, want)
    bench.close("the memory with each atom split in two", out_split.state, want)
    bench.close("positions stay", out.position, np.arange(m, dtype=float))
    bench.control_close(
        "the decoder attends to the encoder's input",
        out.state,
        numpy_decoder(x),
        want,
        "the memory is what leaves the last encoder block.",
    )
    mu = ma.EmpiricalMeasure(x)
    bench.figure(
        plot.law(mu, ma.EmpiricalMeasure(nu), labels=("input", "memory")),
        "The law of the tokens before and after the encoder",
        "Eighteen arrows in the plane of the first two principal axes",
    )
