"""The lecture note on attention: permutations, and what positions do to them."""

import jax
import jax.numpy as jnp
import numpy as np

import measattn as ma
from measattn import plot
from paper_repro import oracles
from paper_repro.claim import Bench, claim, relative_error
from paper_repro.note_attention import NOTE


@claim(
    id="note-permutation",
    group="D",
    title="Permutation equivariance and invariance, with weights",
    formulas=[
        r"\mathrm{Attention}(P_mQ,P_nK,P_nV)=P_m\,\mathrm{Attention}(Q,K,V)",
        r"\omega_j\delta_{x_j}=\lambda\omega_j\delta_{x_j}+(1-\lambda)\omega_j\delta_{x_j}",
    ],
    statement=r"Permuting queries permutes outputs; permuting keys together with their values "
    r"changes nothing. On measures this is no property but a matter of type: a measure has no "
    r"order, and neither has it a way to tell an atom from two halves of it. Both are checked for "
    r"attention and for a whole encoder block. What positions break: permuting states under fixed "
    r"positions is another law.",
    source=f"{NOTE}, Section 4.3",
    hypotheses={"unmasked": "the score depends on the two points alone"},
    cost=(4, 4),
)
def permutation(bench: Bench) -> None:
    """Permutations and splits; values left behind, and positions, as the controls."""
    rng, m, n, d = bench.rng, 7, 20, 5
    Q, K, V = rng.normal(size=(m, d)), rng.normal(size=(n, d)), rng.normal(size=(n, 3))
    p, r = rng.permutation(m), rng.permutation(n)
    score, omega = oracles.dot(d**-0.5), rng.dirichlet(np.ones(n))
    want = oracles.attention(Q, K, V, score)
    bench.close("queries and keys permuted", ma.attention(Q[p], K[r], V[r]), want[p])
    got = ma.attention(Q, K[r], V[r], weights=omega[r])
    bench.close("weighted keys permuted", got, oracles.attention(Q, K, V, score, omega))
    bench.control_close(
        "keys permuted without their values",
        ma.attention(Q, K[r], V),
        want,
        oracles.attention(Q, K[r], V, score),
        "a value belongs to its key.",
    )

    X, half = rng.normal(size=(n, d)), rng.uniform(size=n)
    layer = ma.post_norm(
        [
            ma.SelfAttention(ma.DotProduct(d**-0.5), rng.normal(size=(d, d))),
            ma.FeedForward(rng.normal(size=(9, d)), rng.normal(size=(d, 9)), ma.layer.relu),
        ],
        [ma.LayerNorm(), ma.LayerNorm()],
    )
    transport = jax.jit(lambda mu: mu @ layer)
    after = np.asarray(transport(ma.weighted(X, omega)).points)
    permuted = transport(ma.weighted(X[r], omega[r]))
    bench.close("a block, tokens permuted", permuted.points, after[r])
    split = transport(ma.weighted(np.vstack([X, X]), np.concatenate([half, 1 - half])
                                  * np.tile(omega, 2)))  # fmt: skip
    bench.close("a block, every atom split in two", split.points, np.vstack([after, after]))
    heavier = omega + 0.5 * (np.arange(n) == 0)
    once = np.asarray(transport(ma.weighted(X, heavier)).points)
    twice = transport(ma.weighted(np.vstack([X, X[:1]]), np.append(omega, 0.5)))
    bench.close("a block, one atom listed twice", twice.points, np.vstack([once, once[:1]]))

    positions = np.arange(n, dtype=float)
    T = ma.SelfAttention(ma.DotProduct(d**-0.5))

    @jax.jit
    def with_positions(states):
        return (ma.EmpiricalMeasure(ma.Token(positions, states)) @ ma.Sinusoidal() @ T).points.state

    def numpy_positions(states: np.ndarray) -> np.ndarray:
        z = states + oracles.sinusoids(positions, d)
        return oracles.attention(z, z, z, score)

    bench.control_close(
        "states permuted under fixed sinusoidal positions",
        with_positions(X[r]),
        numpy_positions(X)[r],
        numpy_positions(X[r]),
        "positions tell the tokens apart: equivariance is lost, which is their purpose.",
    )


@claim(
    id="note-positional",
    group="D",
    title="Positional encodings",
    formulas=[
        r"e(s)_{2i}=\sin\frac{s}{b^{2i/d}},\qquad e(s)_{2i+1}=\cos\frac{s}{b^{2i/d}}",
        r"\langle R_sq,R_tk\rangle=\langle q,R_{t-s}k\rangle",
    ],
    statement=r"Sinusoidal and learnt encodings add a vector that depends on the position alone; "
    r"$e(s+u)$ is a rotation of $e(s)$ that depends on $u$ alone. Rotary encodings turn queries "
    r"and keys, so that scores depend on the distance of positions only, and the output is "
    r"unchanged when all positions are shifted.",
    source=f"{NOTE}, Section 3.1 (sinusoids: arXiv 1706.03762; rotary: arXiv 2104.09864)",
    hypotheses={
        "even": "the dimension of the rotary head is even",
        "table": "learnt encodings: positions are whole numbers inside the table",
    },
    cost=(5, 5),
)
def positional(bench: Bench) -> None:
    """Sinusoids, a table and rotations against NumPy; absolute positions shifted as control."""
    rng, n, d = bench.rng, 12, 8
    x, positions, shift = rng.normal(size=(n, d)), np.arange(n, dtype=float), 37.0
    tokens = ma.EmpiricalMeasure(ma.Token(positions, x))
    later = ma.EmpiricalMeasure(ma.Token(positions + shift, x))
    waves = oracles.sinusoids(positions, d)
    bench.close("sinusoidal", (tokens @ ma.Sinusoidal()).points.state, x + waves)
    turned = oracles.sinusoids(positions + shift, d)
    angles = shift / 1e4 ** (np.arange(0, d, 2) / d)
    back = np.empty_like(turned)
    back[:, 0::2] = turned[:, 0::2] * np.cos(angles) - turned[:, 1::2] * np.sin(angles)
    back[:, 1::2] = turned[:, 1::2] * np.cos(angles) + turned[:, 0::2] * np.sin(angles)
    ours = np.asarray((later @ ma.Sinusoidal()).points.state) - x
    bench.close(r"$e(s)$ from the library, $e(s+37)$ turned back", waves, back)
    bench.close(r"$e(s+37)$", ours, turned)
    table = rng.normal(size=(n, d))
    bench.check("table", n <= len(table))
    bench.close("learnt table", (tokens @ ma.Learned(table)).points.state, x + table)

    query, key = rng.normal(size=(2, d, d)) / np.sqrt(d)
    potential = ma.Rotary(query, key, d**-0.5, base=100.0)
    bench.check("even", d % 2 == 0, f"d = {d}")
    rotary = jax.jit(lambda mu: (mu @ ma.SelfAttention(potential)).points.state)
    q, k = (
        oracles.rotate(x @ query.T, positions, 100.0),
        oracles.rotate(x @ key.T, positions, 100.0),
    )
    scores = q @ k.T / np.sqrt(d)
    want = oracles.softmax(scores) @ x
    block = jax.jit(lambda a, b: jax.vmap(lambda s: jax.vmap(lambda t: potential(s, t))(b))(a))
    bench.close("rotary scores", block(tokens.points, tokens.points), scores)
    bench.close("rotary attention", rotary(tokens), want)
    bench.close("rotary attention, all positions shifted by 37", rotary(later), want)

    absolute = jax.jit(lambda mu: (mu @ ma.Sinusoidal() @ ma.SelfAttention(ma.DotProduct(0.3)))
                       .points.state)  # fmt: skip

    def numpy_absolute(positions: np.ndarray) -> np.ndarray:
        z = x + oracles.sinusoids(positions, d)
        return oracles.attention(z, z, z, oracles.dot(0.3))

    bench.control_close(
        "sinusoidal attention, all positions shifted by 37",
        absolute(later),
        numpy_absolute(positions),
        numpy_absolute(positions + shift),
        "encodings that are added to the state make scores depend on where, not only on how far.",
    )
    swapped = oracles.rotate(x @ key.T, positions, 100.0) @ oracles.rotate(
        x @ query.T, -positions, 100.0).T  # fmt: skip
    bench.control(
        "rotation of queries by −s: scores off by",
        relative_error(np.asarray(block(tokens.points, tokens.points)), swapped.T / np.sqrt(d)),
        1e-12,
        "queries and keys must turn the same way.",
        predicted=relative_error(scores, swapped.T / np.sqrt(d)),
    )
    grid = jnp.arange(60.0)
    kernel = ma.SoftmatchKernel(
        ma.Rotary(np.eye(2 * d), np.eye(2 * d), 0.4, 100.0),
        ma.Token(grid, jnp.ones((60, 2 * d))),
    )
    bench.figure(
        plot.kernel(kernel, kernel.mu),
        "Rotary positions with equal states: the weights of sixty tokens depend on the distance "
        "alone, so that they are constant along diagonals",
        "Heat map with a bright diagonal and fainter side bands",
    )
