"""The moment projection is 1-Lipschitz in W1, and what that says of kernels."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import measattn as ma
from measattn import plot
from measattn.wasserstein import distance, solve, transport_problem, w1
from paper_repro import attack, oracles
from paper_repro.claim import TOLERANCE, Bench, claim
from paper_repro.proposition9 import TEXT, windows_of

project = jax.jit(ma.moment.project)


@claim(
    id="projection-lipschitz",
    group="A",
    title="The moment projection is 1-Lipschitz",
    formulas=[
        r"W_1(\Pi\mu,\Pi\nu)=\Bigl|\int x\,d\mu-\int x\,d\nu\Bigr|\leq W_1(\mu,\nu)",
        r"W_1(\Pi_F\mu,\Pi_F\nu)\leq\mathrm{Lip}(F^{-1})\,\mathrm{Lip}(F)\,W_1(\mu,\nu)",
        r"W_1(\mu\,\Pi K,\,\nu\,\Pi L)\leq"
        r"\inf_{\pi}\int\pi(dx,dy)\,W_1\bigl(K(x,{\cdot}),L(y,{\cdot})\bigr)",
    ],
    statement=r"For the identity encoding $\Pi$ is 1-Lipschitz in $W_1$; equality holds exactly if "
    r"some optimal plan moves all mass in one direction, as for translations. For another "
    r"encoding the constant is $\mathrm{Lip}(F^{-1})\,\mathrm{Lip}(F)$, and it is attained in the "
    r"limit on the line. For kernels: projecting each row does not enlarge the distance between "
    r"rows, nor the transport distance of the laws of rows. It may enlarge the distance of the "
    r"mixtures $\mu K$ and $\nu L$, which know less. Checked on random measures, on kernels, and "
    r"on the tokens of a text after each layer of all-MiniLM-L6-v2.",
    source="[VBT20], as reconstructed in docs/theory; P3 there",
    hypotheses={
        "convex": r"$E$ is convex and closed (here $\mathbb{R}^d$ or a box): means stay in it",
        "finite": r"both measures have a mean; $F$ and $F^{-1}$ are Lipschitz on $E$ and $F(E)$",
    },
    cost=(12, 20),
)
def projection(bench: Bench) -> None:
    """Random pairs, equality, an attack, other encodings, kernels, MiniLM; four controls."""
    random_pairs(bench)
    one_direction(bench)
    under_attack(bench)
    encodings(bench)
    kernels(bench)
    tokens_of_a_text(bench)
    other_summaries(bench)


def share(mu: ma.EmpiricalMeasure, nu: ma.EmpiricalMeasure) -> float:
    """W1(Πμ, Πν) / W1(μ, ν), the largest value that the certificates allow."""
    return w1(project(mu), project(nu)).upper / w1(mu, nu).lower


def random_law(rng: np.random.Generator, n: int, d: int) -> ma.EmpiricalMeasure:
    """Uneven weights, some of them zero, atoms that coincide, any place and scale."""
    points = rng.normal(size=(n, d)) * 10 ** rng.uniform(-1, 1) + rng.normal(size=d)
    points[: n // 4] = points[n // 4 : 2 * (n // 4)]
    weights = rng.dirichlet(np.full(n, rng.choice([0.1, 1.0, 10.0])))
    return ma.weighted(points, np.where(rng.random(n) < 0.1, 1e-300, weights))


def random_pairs(bench: Bench) -> None:
    """Measures in dimensions 1 to 32: the means, and the share of the distance they account for."""
    rng, rows = bench.rng, []
    for d in (1, 2, 32):
        shares, errors = [], []
        for _ in range(40 if bench.quick else 200):
            mu, nu = random_law(rng, 15, d), random_law(rng, 10, d)
            gap = np.asarray(mu.weights) @ np.asarray(mu.points)
            gap = np.linalg.norm(gap - np.asarray(nu.weights) @ np.asarray(nu.points))
            got = w1(project(mu), project(nu)).value
            size = max(float(jnp.abs(mu.points).max()), float(jnp.abs(nu.points).max()))
            errors.append(abs(got - gap) / size)
            shares.append(share(mu, nu))
        rows.append([d, max(shares), float(np.median(shares)), max(errors)])
    bench.check("finite", np.isfinite([row[1] for row in rows]).all())
    bench.at_most(r"$W_1(\Pi\mu,\Pi\nu)$ against the distance of the means",
                  max(row[3] for row in rows), 1e-13)  # fmt: skip
    bench.at_most(r"largest $W_1(\Pi\mu,\Pi\nu)/W_1(\mu,\nu)$, random measures",
                  max(row[1] for row in rows), 1 + TOLERANCE)  # fmt: skip
    bench.table(
        r"Random measures: $|\mu(x)-\nu(x)|/W_1(\mu,\nu)$",
        ["dimension", "largest", "median", "error of the means"],
        rows,
        "The quotient is the largest that the certified brackets allow; on the line it is one "
        "whenever all mass moves one way.",
    )


def one_direction(bench: Bench) -> None:
    """Equality: a translation, and atoms that move by different amounts in one direction."""
    rng = bench.rng
    mu, along = random_law(rng, 15, 3), np.array([2.0, -1.0, 2.0]) / 3
    for name, steps in (("a translation", 0.7), ("moves in one direction", rng.random((15, 1)))):
        nu = ma.EmpiricalMeasure(mu.points + steps * along, mu.log_weights)
        quotient = w1(project(mu), project(nu)).value / w1(mu, nu).value
        bench.close(f"the quotient for {name}", quotient, 1.0)
    nu = ma.EmpiricalMeasure(mu.points + 0.7 * along, mu.log_weights)
    scaled = [ma.pushforward(lambda x: 1.02 * x, project(law)) for law in (mu, nu)]
    bench.control(
        r"$1.02\,\Pi$ in place of $\Pi$, for the translation",
        w1(*scaled).lower / w1(mu, nu).upper,
        1.0,
        "a translation leaves no room.",
        predicted=1.02,
    )


def log_share(place: attack.Place) -> jax.Array:
    """Log of the quotient, for two measures on common atoms."""
    mu, nu = (ma.EmpiricalMeasure(place.points, logs) for logs in (place.first, place.second))
    gap = ma.mean(mu) - ma.mean(nu)
    return jnp.log(jnp.sqrt(gap @ gap)) - jnp.log(distance(mu, nu))


def under_attack(bench: Bench) -> None:
    """Gradient ascent on the quotient, in atoms and weights."""
    starts, steps = (2, 40) if bench.quick else (5, 200)
    reached = []
    for number in range(starts):
        bench.progress(f"attack, start {number + 1} of {starts}")
        best = attack.ascend(log_share, attack.start(bench.rng, 6, 2), steps)
        laws = [ma.EmpiricalMeasure(best.points, logs) for logs in (best.first, best.second)]
        reached.append(share(*laws))
    bench.at_most(f"largest quotient that an ascent reaches, {starts} starts", max(reached),
                  1 + TOLERANCE)  # fmt: skip


STEEPNESS = 1.5


def exponential() -> ma.MomentEncoding:
    """F(x) = exp(1.5 x) by coordinates, on the box [0, 1]^d; its constant is exp(1.5)."""
    return ma.MomentEncoding(lambda x: jnp.exp(STEEPNESS * x), lambda m: jnp.log(m) / STEEPNESS)


def encodings(bench: Bench) -> None:
    """F by coordinates: the constant on random measures, and the pair that attains it."""
    rng, F, constant, shares = bench.rng, exponential(), np.exp(STEEPNESS), []
    encoded = jax.jit(lambda mu: ma.moment.project(mu, F))
    for _ in range(40 if bench.quick else 200):
        mu, nu = (
            ma.weighted(rng.random((10, 2)), rng.dirichlet(np.full(10, rng.choice([0.1, 1.0]))))
            for _ in "ab"
        )
        images = encoded(mu), encoded(nu)
        inside = [bool(((law.points >= 0) & (law.points <= 1)).all()) for law in images]
        bench.check("convex", all(inside), "all projections lie in the box")
        shares.append(w1(*images).upper / (constant * w1(mu, nu).lower))
    bench.at_most(r"$F=e^{3x/2}$: quotient over $\mathrm{Lip}(F^{-1})\,\mathrm{Lip}(F)$",
                  max(shares), 1.0)  # fmt: skip
    mass = step = 1e-5
    mu, nu = (ma.weighted([[0.0], [top]], [1 - mass, mass]) for top in (1.0, 1.0 - step))
    quotient = w1(encoded(mu), encoded(nu)).lower / w1(mu, nu).upper
    bench.at_least("the share of that constant which is reached", quotient / constant, 0.9999)
    low, high = mass * np.expm1(STEEPNESS * (1 - step)), mass * np.expm1(STEEPNESS)
    bench.control(
        "that constant, 2 % smaller",
        quotient / (0.98 * constant),
        1.0,
        "a little mass that moves where F is steep exceeds it.",
        predicted=(np.log1p(high) - np.log1p(low)) / (STEEPNESS * mass * step * 0.98 * constant),
    )


@jax.jit
def sent(mu: ma.EmpiricalMeasure, K: ma.AbstractMarkovKernel) -> tuple:
    """μK and μ ΠK."""
    return mu @ K, mu @ ma.moment_projection(K)


@jax.jit
def rows_at(mu: ma.EmpiricalMeasure, K: ma.AbstractMarkovKernel) -> ma.EmpiricalMeasure:
    """The rows of K at the atoms of μ, a batch."""
    return jax.vmap(K)(mu.points)


def kernels(bench: Bench) -> None:
    """Rows, and laws of rows; the mixtures, which are no bound, as the control."""
    rng, n = bench.rng, 8
    mu, nu = random_law(rng, n, 2), random_law(rng, n, 2)
    K, L = (
        ma.SoftmatchKernel(ma.Gaussian(sigma), rng.normal(size=(20, 2))) for sigma in (0.5, 0.8)
    )
    batches = rows_at(mu, K), rows_at(nu, L)
    rows = [[jax.tree.map(lambda a, i=i: a[i], batch) for i in range(n)] for batch in batches]
    costs = np.array([[w1(row, other).lower for other in rows[1]] for row in rows[0]])
    images = sent(mu, K)[1], sent(nu, L)[1]
    moved = oracles.distances(*(np.asarray(law.points) for law in images))
    bench.at_most(r"rows: largest $|\Pi K(x)-\Pi L(y)|/W_1(K(x),L(y))$",
                  (moved / costs).max(), 1.0)  # fmt: skip
    laws = solve(transport_problem(costs, np.asarray(mu.weights), np.asarray(nu.weights)))
    bench.at_most(r"$W_1(\mu\,\Pi K,\nu\,\Pi L)$ over the transport distance of the laws of rows",
                  w1(*images).upper / laws.lower, 1.0)  # fmt: skip

    # key 0 has the values 0 and 1, keys 1 and 2 have one of them each: the mixtures are equal
    pick = ma.LookupKernel(np.array([[0.0], [0.0], [1.0], [2.0]]), [[0.0], [1.0], [0.0], [1.0]])
    (one, at_one), (two, at_two) = (
        sent(ma.EmpiricalMeasure(keys), pick) for keys in ([[0.0], [0.0]], [[1.0], [2.0]])
    )
    bench.at_most(r"two keys that give one mixture: $W_1(\mu K,\nu K)$", w1(one, two).upper, 1e-15)
    bench.control(
        r"$W_1(\mu\,\Pi K,\nu\,\Pi K)\leq W_1(\mu K,\nu K)$",
        w1(at_one, at_two).lower,
        w1(one, two).upper,
        r"$\Pi$ acts on rows; a row with mean ½ is not two rows at 0 and 1.",
        predicted=0.5,
    )


def tokens_of_a_text(bench: Bench) -> None:
    """Windows of the excerpt after each layer of MiniLM: all pairs of laws."""
    model = ma.pretrained.minilm()
    laws = windows_of(model, Path(TEXT).read_text(), 24, 5 if bench.quick else 10)
    step = jax.jit(lambda mu, layer: mu @ layer)
    shares = []
    for number in range(len(model.layers) + 1):
        bench.progress(f"MiniLM, layer {number}")
        if number:
            laws = [step(law, model.layers[number - 1]) for law in laws]
        clouds = [ma.states(law) for law in laws]
        shares.append([share(a, b) for i, a in enumerate(clouds) for b in clouds[:i]])
    bench.at_most(
        f"MiniLM: largest quotient, {len(shares[0])} pairs after each layer", np.max(shares), 1.0
    )
    bench.figure(
        plot.errors_by_layer(
            shares, 1.0, name="|difference of means| / W1", labels=("largest", "bound")
        ),
        "Two pieces of text, 24 tokens each: what the means keep of the distance, after each layer "
        "of MiniLM; layer 0 is the embedding",
        "Dots for all pairs of windows after each layer, all of them below the bound at one",
    )


def median(mu: ma.EmpiricalMeasure) -> ma.EmpiricalMeasure:
    """The Dirac mass at the median of each coordinate."""
    x, weights = np.asarray(mu.points), np.asarray(mu.weights)
    order = np.argsort(x, axis=0)
    first = (np.cumsum(weights[order], axis=0) >= 0.5).argmax(axis=0)
    return ma.dirac([x[order[i, j], j] for j, i in enumerate(first)])


def other_summaries(bench: Bench) -> None:
    """The median and the heaviest atom are summaries too, and not Lipschitz."""
    mass, ends = 0.01, np.array([[0.0, 0.0], [3.0, 4.0]])
    mu, nu = (ma.weighted(ends, [0.5 + sign * mass, 0.5 - sign * mass]) for sign in (1, -1))
    for name, summary in (
        ("the median of each coordinate", median),
        ("the heaviest atom", lambda law: ma.dirac(law.points[jnp.argmax(law.weights)])),
    ):
        bench.control(
            f"{name} in place of the mean",
            w1(summary(mu), summary(nu)).lower / w1(mu, nu).upper,
            1.0,
            "it jumps when a little mass crosses one half.",
            predicted=1 / (2 * mass),
        )
    rng = np.random.default_rng(5)
    mu = ma.EmpiricalMeasure(rng.normal([-1.5, 0.0], 0.6, (40, 2)))
    nu = ma.EmpiricalMeasure(rng.normal([1.0, 0.5], [0.4, 1.2], (40, 2)))
    solution = w1(mu, nu)
    figure = plot.transport(solution, mu, nu, labels=(r"$\mu$", r"$\nu$"))
    ends = np.concatenate([project(law).points for law in (mu, nu)])
    figure.axes[0].plot(*ends.T, "-", color=plot.ACCENTS[2], linewidth=3, zorder=4)
    gap = float(np.linalg.norm(ends[1] - ends[0]))
    bench.figure(
        figure,
        f"The plan of $W_1={solution.value:.3f}$ and, thick, the way from mean to mean, "
        f"{gap:.3f}: arcs that cross its direction are what the means do not see",
        "Two clouds in the plane joined by forty arcs, and one thick line between their centres",
    )
