"""Definitions 1 to 3 of [VBT20]: attention, Markov kernels, the Boltzmann-Gibbs transformation."""

import jax
import jax.numpy as jnp
import numpy as np

import measattn as ma
from measattn import plot
from paper_repro import oracles
from paper_repro.claim import Bench, claim, relative_error


@claim(
    id="def1-attention",
    group="A",
    title="Attention, for any similarity",
    formulas=[
        r"\mathrm{Attention}(q,K,V)=\sum_{i=1}^{N}\mathrm{softmax}_i\bigl(a(q,k_{\bullet})\bigr)\,v_i"
    ],
    statement=r"The output at a query $q$ is the average of the values $v_i$ with the softmax "
    r"weights of the similarities $a(q,k_i)$. Computed for seven similarities, for logits as "
    r"large as $10^4$, and for weighted keys, where weight three is the same as three copies.",
    source="Definition 1 of [VBT20] (after Bahdanau), as reconstructed in docs/theory",
    hypotheses={"finite": r"the similarities $a(q,k_i)$ are finite"},
    cost=(3, 3),
)
def attention(bench: Bench) -> None:
    """Seven similarities against NumPy, with keys that are normalised over as the control."""
    rng, n, m, d = bench.rng, 7, 40, 5
    q, k, v = rng.normal(size=(n, d)), rng.normal(size=(m, d)), rng.normal(size=(m, 3))
    rows, worst, finite = [], 0.0, True
    for name, potential, score in similarities(rng, d):
        scores = score(q, k)
        want = oracles.softmax(scores) @ v
        error = relative_error(ma.attention(q, k, v, potential=potential), want)
        rows.append([name, scores.min(), scores.max(), oracles.softmax(scores).max(), error])
        worst, finite = max(worst, error), finite and bool(np.isfinite(scores).all())
    bench.check("finite", finite)
    bench.at_most("worst relative error over seven similarities", worst, 1e-12)
    bench.table(
        "Seven similarities", ["similarity", "least", "largest", "largest weight", "error"], rows
    )

    big = 1e4 * k
    want = oracles.attention(q, big, v, oracles.dot())
    bench.close(r"logits of $\pm 10^4$", ma.attention(q, big, v, potential=ma.DotProduct()), want)
    counts = rng.integers(1, 4, size=m)
    copies = np.repeat(np.arange(m), counts)
    want = oracles.attention(q, k[copies], v[copies], oracles.dot(d**-0.5))
    bench.close("keys of weight c against c copies", ma.attention(q, k, v, weights=counts), want)

    scores = q @ k.T / np.sqrt(d)
    over_queries = np.exp(scores - scores.max(0)) / np.exp(scores - scores.max(0)).sum(0)
    bench.control_close(
        "softmax over the queries instead of the keys",
        ma.attention(q, k, v),
        over_queries @ v,
        oracles.softmax(scores) @ v,
        "then the weights at a query do not sum to one.",
    )


def similarities(rng: np.random.Generator, d: int) -> list:
    """Name, potential and NumPy score of the similarities that the claims go through."""
    query, key = rng.normal(size=(2, 4, d)) / np.sqrt(d)
    readout, tilt = rng.normal(size=4), rng.normal(size=(d, d)) / d
    return [
        ("dot product", ma.DotProduct(), oracles.dot()),
        ("scaled dot product", ma.DotProduct(d**-0.5), oracles.dot(d**-0.5)),
        ("bilinear", ma.Bilinear(query, key, 0.5), oracles.bilinear(query, key, 0.5)),
        ("Gaussian", ma.Gaussian(1.3), oracles.gaussian(1.3)),
        ("additive", ma.Additive(query, key, readout), oracles.additive(query, key, readout)),
        (
            "relation",
            ma.Relation(jnp.tanh, lambda y: jnp.cos(2 * y)),
            oracles.relation(np.tanh, lambda y: np.cos(2 * y)),
        ),
        (
            "a user's function",
            lambda x, y: x @ jnp.asarray(tilt) @ y - jnp.sum(jnp.abs(x - y)),
            lambda x, y: x @ tilt @ y.T - np.abs(x[:, None] - y[None]).sum(-1),
        ),
    ]


class Walk(ma.AbstractMarkovKernel):
    """The random walk x ↦ ½ δ_{x−1} + ½ δ_{x+1}, a kernel without a common support."""

    def __call__(self, x: jax.Array) -> ma.EmpiricalMeasure:
        """One step from x."""
        return ma.EmpiricalMeasure(jnp.stack([x - 1.0, x + 1.0]))


@claim(
    id="def2-markov-kernel",
    group="A",
    title="Markov kernels and their two actions",
    formulas=[
        r"\mu K=\int\mu(dx)\,K(x,{\cdot}),\qquad Kf(x)=\int K(x,dy)\,f(y)",
        r"(KL)(x,{\cdot})=\int K(x,dy)\,L(y,{\cdot}),\qquad (\mu K)(f)=\mu(Kf)",
    ],
    statement=r"$K(x,{\cdot})$ is a probability for every $x$; kernels act on measures from the "
    r"left, on functions from the right, compose, and the two actions are dual. Checked on a "
    r"softmatch kernel, on a random walk and on their compositions.",
    source="Definition 2 of [VBT20], as reconstructed in docs/theory",
    hypotheses={
        "probability": r"$\mu$ is a probability and $K(x,{\cdot})$ has no negative weight",
        "integrable": r"$f$ is integrable: here it is bounded on finitely many atoms",
    },
    cost=(7, 7),
)
def markov_kernel(bench: Bench) -> None:
    """Mass, both actions, composition, duality; unnormalised rows as the control."""
    rng, n, m, d = bench.rng, 9, 12, 2
    x, y, z = rng.normal(size=(n, d)), rng.normal(size=(m, d)), rng.normal(size=(5, d))
    omega = rng.dirichlet(np.ones(n))
    mu = ma.weighted(x, omega)
    K, L = ma.SoftmatchKernel(ma.Gaussian(0.8), y), ma.SoftmatchKernel(ma.DotProduct(), z)
    P = oracles.softmax(oracles.gaussian(0.8)(x, y))
    Q = oracles.softmax(oracles.dot()(y, z))

    def f(p: jax.Array) -> jax.Array:
        return jnp.sin(p[0]) + p[1] ** 2

    def values(points: np.ndarray) -> np.ndarray:
        return np.sin(points[:, 0]) + points[:, 1] ** 2

    @jax.jit
    def observe(mu, K, L, S):
        at = mu.points
        two = Walk() @ Walk()
        return {
            "rows": jax.vmap(lambda p: K(p).weights)(at),
            "mu K": (mu @ K).weights,
            "K f": jax.vmap(ma.expect(K, f))(at),
            "K L f": jax.vmap(ma.expect(K @ L, f))(at),
            "mu (K L)": ma.integrate(f, mu @ (K @ L)),
            "(mu K) L": ma.integrate(f, (mu @ K) @ L),
            "(mu K) f": ma.integrate(f, mu @ K),
            "mu (K f)": ma.integrate(ma.expect(K, f), mu),
            "two steps": jax.vmap(ma.expect(two, f))(at),
            "one step": ma.integrate(f, mu @ Walk()),
            "log masses": jax.vmap(lambda p: ma.log_normaliser(ma.Gaussian(0.8), K.mu, p))(at),
            "softmatch first": ma.integrate(f, (mu @ S) @ Walk()),
        }

    S = ma.SoftmatchKernel(ma.DotProduct(), y)
    got = observe(mu, K, L, S)
    rows = np.asarray(got["rows"])
    bench.check("probability", rows.min() >= 0 and abs(omega.sum() - 1) < 1e-12)
    bench.check("integrable", np.isfinite(values(y)).all())
    bench.at_most(r"$|K(x,E)-1|$ over all queries", np.abs(rows.sum(1) - 1).max(), 1e-12)
    bench.close(r"$\mu K$", got["mu K"], omega @ P)
    bench.close(r"$Kf$", got["K f"], P @ values(y))
    bench.close(r"$(KL)f$", got["K L f"], P @ Q @ values(z))
    bench.close(r"$\mu(KL)$", got["mu (K L)"], omega @ P @ Q @ values(z))
    bench.close(r"$(\mu K)L$", got["(mu K) L"], omega @ P @ Q @ values(z))
    bench.close(r"$(\mu K)(f)$", got["(mu K) f"], omega @ P @ values(y))
    bench.close(r"$\mu(Kf)$", got["mu (K f)"], omega @ P @ values(y))
    want = (values(x - 2) + 2 * values(x) + values(x + 2)) / 4
    bench.close("two steps of a random walk", got["two steps"], want)
    want = omega @ (values(x - 1) + values(x + 1)) / 2
    bench.close(r"$\mu$ after one step of the walk", got["one step"], want)

    masses = np.exp(oracles.gaussian(0.8)(x, y)).mean(axis=1)
    bench.control(
        r"mass of $G(x,{\cdot})\,m(K)$, not normalised",
        np.abs(np.exp(got["log masses"]) - 1).max(),
        1e-12,
        r"its mass depends on $x$, so it is no Markov kernel.",
        predicted=np.abs(masses - 1).max(),
    )
    walked_first = [oracles.softmax(oracles.dot()(x + step, y)) for step in (-1, 1)]
    bench.control_close(
        "softmatch then walk, against walk then softmatch",
        got["softmatch first"],
        omega @ (walked_first[0] + walked_first[1]) / 2 @ values(y),
        omega @ oracles.softmax(oracles.dot()(x, y)) @ (values(y - 1) + values(y + 1)) / 2,
        "kernels do not commute.",
    )
    bench.figure(
        plot.kernel(K, mu),
        r"The rows $K(x_i,{\cdot})$ of the softmatch kernel, a stochastic matrix",
        "Heat map of nine rows with twelve weights each; every row sums to one",
    )


@claim(
    id="def3-boltzmann-gibbs",
    group="A",
    title="The Boltzmann-Gibbs transformation",
    formulas=[
        r"\Psi_g(\nu)(dx)=\frac{g(x)\,\nu(dx)}{\nu(g)}",
        r"\Psi_h\circ\Psi_g=\Psi_{gh},\qquad \Psi_{cg}=\Psi_g\quad(c>0)",
    ],
    statement=r"Re-weighting by a positive function and normalising. The transformations compose "
    r"by multiplication and forget constant factors; both hold for $\log\,g$ as large as $10^4$, "
    r"because weights are kept as logarithms, and for atoms without mass.",
    source="Definition 3 of [VBT20] (Del Moral's notion), as reconstructed in docs/theory",
    hypotheses={
        "positive": r"$g>0$ is bounded on the support of $\nu$",
        "mass": r"$0<\nu(g)<\infty$",
    },
    cost=(2, 2),
)
def boltzmann_gibbs(bench: Bench) -> None:
    """Weights, composition and scale invariance; the sum instead of the product as control."""
    rng, n = bench.rng, 36
    x = np.sort(rng.normal(size=(n, 1)), axis=0)
    omega = rng.dirichlet(np.full(n, 8.0))
    omega[::7] = 0.0
    omega /= omega.sum()
    nu = ma.weighted(x, omega)

    def log_g(p: jax.Array) -> jax.Array:
        return 2 * jnp.sin(3 * p[0])

    def log_h(p: jax.Array) -> jax.Array:
        return p[0] - p[0] ** 2

    lg, lh = 2 * np.sin(3 * x[:, 0]), x[:, 0] - x[:, 0] ** 2
    bench.check("positive", np.isfinite(lg).all(), f"min g = {np.exp(lg).min():.3f}")
    bench.check("mass", 0 < omega @ np.exp(lg) < np.inf, f"ν(g) = {omega @ np.exp(lg):.3f}")
    psi = ma.boltzmann_gibbs(log_g, nu)
    want = np.exp(lg) * omega / (omega @ np.exp(lg))
    bench.close(r"$\Psi_g(\nu)$", psi.weights, want)
    both = np.exp(lg + lh) * omega / (omega @ np.exp(lg + lh))
    bench.close(r"$\Psi_h(\Psi_g(\nu))$ against $\Psi_{gh}(\nu)$",
                ma.boltzmann_gibbs(log_h, psi).weights, both)  # fmt: skip
    shifted = ma.boltzmann_gibbs(lambda p: log_g(p) + 9e3, nu)
    bench.close(
        r"$\Psi_{cg}$ with $\log\,c=9000$, a $c$ that no float holds",
        shifted.weights,
        want,
        tolerance=9000 * 8 * np.finfo(float).eps,
    )
    steep = ma.boltzmann_gibbs(lambda p: 1e4 * p[0], nu)
    bench.close(
        r"$\log$ weights for $\log\,g=10^4x$ (weights down to $e^{-40000}$)",
        steep.log_weights[omega > 0],
        oracles.log_softmax(1e4 * x[:, 0], omega)[omega > 0],
    )
    bench.refuses(
        r"$g=0$ on the whole support is refused",
        lambda: ma.boltzmann_gibbs(lambda p: jnp.where(p[0] > 99, 0.0, -jnp.inf), nu),
        "no mass",
    )
    summed = (np.exp(lg) + np.exp(lh)) * omega
    bench.control_close(
        r"$\Psi_{g+h}$ in place of $\Psi_{gh}$",
        ma.boltzmann_gibbs(log_h, psi).weights,
        summed / summed.sum(),
        both,
        "transformations compose by the product of the functions, not by their sum.",
    )
    figure = plot.measure(nu, label="ν")
    plot.measure(psi, figure.axes[0], colour=plot.ACCENTS[1], label="Ψ(ν)")
    bench.figure(
        figure,
        r"A measure $\nu$ on the line and $\Psi_g(\nu)$ for $g(x)=e^{2\sin 3x}$: the same atoms, "
        "other weights",
        "Stems at the atoms before and after re-weighting; mass gathers where sin 3x is large",
    )
