"""Self-attention as a system of self-interacting particles, and its mean-field limit."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import measattn as ma
from measattn import plot
from paper_repro import oracles
from paper_repro.claim import Bench, claim
from paper_repro.particle_laws import laws


@claim(
    id="particles",
    group="A",
    title="Self-attention is a system of self-interacting particles",
    formulas=[
        r"X_i'=\sum_{j=1}^{n}\mathrm{softmax}_j\bigl(a(X_i,X_{\bullet})\bigr)\,VX_j"
        r"\quad\Longleftrightarrow\quad \mu'=\mu A_\mu",
        r"\Bigl(E\,|\Gamma_{\mu_n}(x)-\Gamma_\mu(x)|^2\Bigr)^{1/2}"
        r"\leq\frac{\Vert V\Vert\,e^{\omega}R}{\sqrt{n}}",
        r"E\,W_1(\mu_n^{(t)},\mu^{(t)})\sim n^{-\frac{1}{2}}\ (d=1),\qquad n^{-\frac{1}{d}}\ "
        r"(d\geq3)",
    ],
    statement=r"The tokens are particles that interact through their empirical measure alone: the "
    r"system is exchangeable, and one layer is the nonlinear Markov transport $\mu\mapsto\mu A_\mu$"
    r". As $n\to\infty$, tokens drawn from $\mu$, the output at a point tends to that of the "
    r"population at the rate $n^{-1/2}$. For $\mu=N(b,S)$ and the dot product the population "
    r"answer is $V(b+SAx/s)$ and the limit of $n\,E|\Gamma_{\mu_n}-\Gamma_\mu|^2$ is known too; "
    r"for bounded tokens the bound of E4 holds at every $n$. The law of the tokens nears its limit "
    r"in $W_1$ as samples near theirs: after three layers of normal tokens, where Q1 knows the "
    r"limit, the fitted rates are $n^{-1/2}$ on the line and $n^{-1/3}$ in space.",
    source="[VBT20], as reconstructed in docs/theory (F5 and E4 there for the rate); rates of "
    "samples: arXiv 1312.2128",
    hypotheses={
        "sampled": r"the tokens are independent draws from $\mu$ and $x$ is not one of them",
        "bounded": r"E4: $|y|\leq R$ on the support, $\omega$ the oscillation of $a(x,{\cdot})$",
        "light": r"Gaussian case: $G(x,{\cdot})^2$ is integrable, as it is for linear $a$",
    },
    cost=(16, 90),
)
def particles(bench: Bench) -> None:
    """Particles, exchangeability, the two rates at a point and those of laws."""
    system(bench)
    gaussian_rate(bench)
    bounded_rate(bench)
    laws(bench)


def system(bench: Bench) -> None:
    """Six layers of particles in NumPy against transport; permutations; linearity as control."""
    rng, n, d, depth = bench.rng, 40, 3, 6
    x, omega = rng.normal(size=(n, d)), rng.dirichlet(np.ones(n))
    A, V = rng.normal(size=(d, d)) / d, np.linalg.qr(rng.normal(size=(d, d)))[0]
    layer = ma.SelfAttention(ma.Bilinear(A, np.eye(d)), V)
    run = jax.jit(lambda mu: mu @ ma.WeightShared(layer, depth))
    moved = x
    for _ in range(depth):
        new = np.empty_like(moved)
        for i in range(n):  # particle by particle
            weights = omega * np.exp([(A @ moved[i]) @ y for y in moved])
            new[i] = V @ (weights @ moved) / weights.sum()
        moved = new
    after = run(ma.weighted(x, omega))
    bench.close(f"{depth} layers of {n} particles", after.points, moved)
    order = rng.permutation(n)
    permuted = run(ma.weighted(x[order], omega[order]))
    bench.close("exchangeable: permuted particles", permuted.points, moved[order])

    nu = ma.EmpiricalMeasure(rng.normal(size=(n, d)) + 1.0)
    mu = ma.weighted(x, omega)
    frozen = layer.at(nu)
    score, half = oracles.bilinear(A, np.eye(d)), ma.mixture([mu, nu])

    def second(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return points.T @ (weights[:, None] * points)

    def image(points, weights, keys, key_weights):
        return second(oracles.attention(points, keys, keys @ V.T, score, key_weights), weights)

    ny, u = np.asarray(nu.points), np.full(n, 1 / n)
    all_points, all_weights = np.vstack([x, ny]), np.concatenate([omega, u]) / 2
    separate = (image(x, omega, x, omega) + image(ny, u, ny, u)) / 2
    linear = (image(x, omega, ny, u) + image(ny, u, ny, u)) / 2
    jointly = image(all_points, all_weights, all_points, all_weights)

    @jax.jit
    def moments(half, frozen):
        def square(y):
            return jnp.outer(y, y)

        return ma.integrate(square, half @ frozen), ma.integrate(square, half @ layer)

    with_frozen, with_own = moments(half, frozen)
    bench.close(r"$\mu\mapsto\mu A_\eta$ is linear for a frozen $\eta$", with_frozen, linear)
    bench.control_close(
        r"$\mu\mapsto\mu A_\mu$ taken for linear in $\mu$",
        with_own,
        separate,
        jointly,
        "particles of a mixture interact with each other.",
    )


def gaussian_rate(bench: Bench) -> None:
    """N(b, S) in dimension 3: slope, constant, and a wrong limit as the control."""
    rng, d = bench.rng, 3
    repeats = 400 if bench.quick else 1000
    sizes = 2 ** np.arange(5, 12 if bench.quick else 13)
    root = rng.normal(size=(d, d)) / np.sqrt(d)
    S, b, V = root @ root.T + 0.1 * np.eye(d), rng.normal(size=d), rng.normal(size=(d, d))
    A = rng.normal(size=(d, d))
    x = rng.normal(size=d)
    A *= 0.7 / np.sqrt((A @ x) @ S @ (A @ x))  # the variance of a(x, ·) is 0.49
    theta = A @ x
    limit = V @ (b + S @ theta)
    variance = theta @ S @ theta
    bench.check("light", np.isfinite(np.exp(2 * variance)), f"Var a(x,·) = {variance:.2f}")

    factor = np.linalg.cholesky(S)
    outputs = sampled_outputs(
        bench, ma.Bilinear(A, np.eye(d)), V, x, sizes, repeats,
        lambda key, n: b + jax.random.normal(key, (n, d)) @ factor.T,
    )  # fmt: skip
    mse, spread, rmse, rmse_error = mean_squares(outputs - limit)
    tail = sizes >= 128  # below, terms of order 1/n are seen
    slope, error = oracles.fitted_slope(sizes[tail], rmse[tail], rmse_error[tail])
    bench.at_most(
        f"fitted slope {slope:.4f} ± {error:.4f}: distance to −1/2 in standard errors",
        abs(slope + 0.5) / error,
        4.0,
    )
    # Var of the ratio: e^{θᵀSθ} E|V(y − ȳ)|² under N(b + 2Sθ, S)
    shift = S @ theta
    constant = np.exp(variance) * np.trace(V @ (S + np.outer(shift, shift)) @ V.T)
    scaled, scaled_error = sizes[-1] * mse[-1], sizes[-1] * spread[-1]
    bench.at_most(
        f"n·MSE = {scaled:.4g} ± {scaled_error:.2g} at n = {sizes[-1]:,}, limit {constant:.4g}: "
        "distance in standard errors",
        abs(scaled - constant) / scaled_error,
        4.0,
    )
    *_, away, away_error = mean_squares(outputs - V @ b)
    far = oracles.fitted_slope(sizes[tail], away[tail], away_error[tail])
    bench.control(
        f"fitted slope {far[0]:.4f} ± {far[1]:.4f} of the distance to the mean $Vb$: distance to "
        "−1/2 in standard errors",
        abs(far[0] + 0.5) / far[1],
        4.0,
        r"the limit is $V(b+SAx/s)$; the distance to $Vb$ does not vanish.",
    )
    bench.figure(
        plot.curve(sizes, rmse, spread=rmse_error, names=("tokens n", "root mean square error")),
        rf"Gaussian tokens: error of $\Gamma_{{\mu_n}}(x)$ against the population answer, "
        f"{repeats} samples for each n",
        "Root mean square error against n on logarithmic axes, a line of slope −1/2",
    )
    rows = [[int(n), r, e, n * m] for n, r, e, m in zip(sizes, rmse, rmse_error, mse, strict=True)]
    bench.table("Gaussian tokens", ["n", "RMSE", "standard error", "n · MSE"], rows)


def bounded_rate(bench: Bench) -> None:
    """Tokens drawn from a population in the unit ball: the bound of E4 at every n."""
    rng, d, population = bench.rng, 2, 500
    repeats = 200 if bench.quick else 800
    sizes = 4 ** np.arange(1, 6)
    y = rng.normal(size=(population, d))
    y *= (rng.uniform(size=(population, 1)) ** (1 / d)) / np.linalg.norm(y, axis=1, keepdims=True)
    V, x = rng.normal(size=(d, d)), np.array([0.8, -0.5])
    scores = 1.5 * y @ x
    limit = oracles.softmax(scores) @ y @ V.T
    radius, omega = np.linalg.norm(y, axis=1).max(), np.ptp(scores)
    bench.check("bounded", radius <= 1, f"R = {radius:.3f}, ω = {omega:.2f}")
    table = jnp.asarray(y)
    outputs = sampled_outputs(
        bench, ma.DotProduct(1.5), V, x, sizes, repeats,
        lambda key, n: table[jax.random.randint(key, (n,), 0, population)],
    )  # fmt: skip
    rmse = mean_squares(outputs - limit)[2]
    bound = np.linalg.norm(V, 2) * np.exp(omega) * radius / np.sqrt(sizes)
    bench.at_most(f"bounded tokens: largest error / E4 over n = {sizes[0]}…{sizes[-1]}",
                  (rmse / bound).max(), 1.0)  # fmt: skip
    bench.figure(
        plot.curve(sizes, rmse, bound={"E4": bound}, names=("tokens n", "root mean square error")),
        "Tokens in the unit ball: the error and the bound of E4",
        "The error runs parallel to the bound, well below it",
    )


def mean_squares(differences: np.ndarray) -> tuple[np.ndarray, ...]:
    """E|·|² over repeats and its standard error; the square root of it and its standard error."""
    squares = (differences**2).sum(-1)
    mse, spread = squares.mean(1), squares.std(1) / np.sqrt(squares.shape[1])
    return mse, spread, np.sqrt(mse), spread / (2 * np.sqrt(mse))


def sampled_outputs(
    bench: Bench,
    potential: Any,
    V: np.ndarray,
    x: np.ndarray,
    sizes: np.ndarray,
    repeats: int,
    draw: Callable[[jax.Array, int], jax.Array],
) -> np.ndarray:
    """The outputs at x for each n and each of the repeated samples of n tokens."""
    value, query, largest = jnp.asarray(V), jnp.asarray(x)[None], int(max(sizes))

    @jax.jit
    def sample(keys: jax.Array, n: int) -> jax.Array:
        # the measure of the first n draws: the others have no mass, and one program serves all n
        log_weights = jnp.where(jnp.arange(largest) < n, 0.0, -jnp.inf)

        def one(key: jax.Array) -> jax.Array:
            y = draw(key, largest)
            tokens = ma.EmpiricalMeasure(y, log_weights)
            return ma.AttentionKernel(potential, tokens, y @ value.T).send(query)[0]

        return jax.lax.map(jax.vmap(one), keys.reshape(-1, 50)).reshape(-1, value.shape[0])

    out = []
    for n, key in zip(sizes, jax.random.split(bench.key, len(sizes)), strict=True):
        bench.progress(f"n = {n}")
        out.append(np.asarray(sample(jax.random.split(key, repeats), int(n))))
    return np.asarray(out)
