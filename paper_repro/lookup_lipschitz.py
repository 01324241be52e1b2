"""The look-up kernel is Lipschitz in W1 only where equal keys have equal values."""

import jax
import numpy as np

import measattn as ma
from measattn import plot
from measattn.wasserstein import w1
from paper_repro import oracles
from paper_repro.claim import TOLERANCE, Bench, claim
from paper_repro.evidence import Role, Verdict
from paper_repro.jacobians import in_ball


@claim(
    id="lookup-lipschitz",
    group="A",
    title="The look-up kernel is Lipschitz with a constant of the data, which may be infinite",
    formulas=[
        r"W_1(\alpha L,\beta L)\leq\tau(L)\,W_1(\alpha,\beta),\qquad"
        r"\tau(L)=\max_{i\neq j}\frac{|v_i-v_j|}{|k_i-k_j|}",
    ],
    statement=r"For laws $\alpha,\beta$ on keys that are distinct the best constant is "
    r"$\tau(L)$ (B8). It belongs to the data: where two keys approach each other and their values "
    r"do not it grows without bound, and keys $W_Kx$ of tokens that differ within the kernel of "
    r"$W_K$ are such a case. Attention as a map of laws of tokens has a constant on the ball "
    r"all the same.",
    source="Definition 5 of [VBT20], as reconstructed in docs/theory; B8 is proved there, B3 in "
    "docs/theory-lipschitz",
    hypotheses={
        "distinct": r"the keys are distinct: $\tau(L)<\infty$",
        "carried": r"$\alpha$ and $\beta$ are laws on the keys",
    },
    expected=Verdict.NEEDS_HYPOTHESES,
    cost=(2, 5),
)
def lookup(bench: Bench) -> None:
    """Random laws of keys, the pair that attains the constant, keys that approach each other."""
    bench.check("carried", True, "by construction")
    at_random(bench)
    approaching(bench)
    through_a_kernel(bench)


@jax.jit
def looked_up(law: ma.EmpiricalMeasure, keys: jax.Array, values: jax.Array) -> ma.EmpiricalMeasure:
    """αL."""
    return law @ ma.LookupKernel(keys, values)


def constant(keys: np.ndarray, values: np.ndarray) -> tuple[float, int, int]:
    """τ(L), and the pair that attains it."""
    i, j = np.triu_indices(len(keys), 1)
    far = oracles.distances(keys, keys)[i, j]
    quotients = oracles.distances(values, values)[i, j] / far
    k = int(np.argmax(quotients))
    return float(quotients[k]), int(i[k]), int(j[k])


def quotient(alpha: np.ndarray, beta: np.ndarray, keys: np.ndarray, values: np.ndarray) -> float:
    """W1 of the laws of the values over W1 of those of the keys, certified from above."""
    laws = [ma.weighted(keys, weights) for weights in (alpha, beta)]
    before = w1(*laws)
    return w1(*(looked_up(law, keys, values) for law in laws)).upper / before.lower


def at_random(bench: Bench) -> None:
    """The constant bounds all quotients, and the worst pair of keys attains it."""
    worst, attained = [], []
    for _ in range(8 if bench.quick else 100):
        keys, values = bench.rng.normal(size=(10, 3)), bench.rng.normal(size=(10, 2))
        tau, i, j = constant(keys, values)
        bench.check("distinct", np.isfinite(tau), f"τ(L) up to {tau:.3g}")
        alpha, beta = bench.rng.dirichlet(np.full(10, 0.3), size=2) + 1e-9
        worst.append(quotient(alpha / alpha.sum(), beta / beta.sum(), keys, values) / tau)
        one, other = np.eye(10)[[i, j]]
        attained.append(quotient(one, other, keys, values) / tau)
    bench.at_most("random laws of keys: quotient over τ(L)", max(worst), 1 + TOLERANCE)
    bench.close("two keys attain τ(L)", attained, np.ones(len(attained)), tolerance=1e-9)
    bench.control(
        "τ(L) lowered by 2 %",
        max(attained) / 0.98,
        1.0,
        "the pair of keys that defines it exceeds it.",
        predicted=1 / 0.98,
    )


def approaching(bench: Bench) -> None:
    """Two keys at distance h with values at distance one."""
    steps = np.geomspace(1e-6, 1e-1, 6)
    keys, values = bench.rng.normal(size=(6, 2)), bench.rng.normal(size=(6, 2))
    apart, quotients = float(np.linalg.norm(values[0] - values[1])), []
    for h in steps:
        near = keys.copy()
        near[1] = keys[0] + np.array([h, 0])
        quotients.append(quotient(np.eye(6)[0], np.eye(6)[1], near, values))
    bench.close("keys at a distance h: quotient", quotients, apart / steps, tolerance=1e-6)
    bench.counterexample(
        "keys at a distance of 10⁻⁶: quotient against τ(L) of the keys as they were",
        quotients[0],
        constant(keys, values)[0],
        "no constant serves all keys; for equal keys τ(L) is infinite.",
        predicted=apart / steps[0],
    )
    bench.figure(
        plot.curve(steps, quotients, names=("distance h of two keys", r"quotient of W1")),
        "The quotient of the two Dirac masses at keys that approach each other",
        "On logarithmic axes the quotient falls along a line of slope minus one",
    )


def through_a_kernel(bench: Bench) -> None:
    """Keys of fewer dimensions than tokens: the look-up kernel has no constant, attention has."""
    # tokens that differ along the last axis, which the key map does not see
    key_map = np.array([[1.0, 0, 0], [0, 1, 0]])
    worst, taus = [], []
    for _ in range(6 if bench.quick else 60):
        x = 0.5 * in_ball(bench.rng, 8, 3)
        x[1] = x[0] + np.array([0, 0, 0.3])
        y = x.copy()
        y[1] -= np.array([1e-4, 0, 0])
        taus.append(constant(y @ key_map.T, y)[0])
        query = bench.rng.normal(size=(2, 3))
        layer = ma.SelfAttention(ma.Bilinear(query, key_map))
        mu, nu = ma.EmpiricalMeasure(x), ma.EmpiricalMeasure(y)
        moved = w1(mu @ layer, nu @ layer).upper / w1(mu, nu).lower
        worst.append(moved / ma.lipschitz.bound(layer, ma.lipschitz.Ball(1.0)).value)
    bench.close(r"keys $W_Kx$ that nearly coincide: least τ(L)", min(taus),
                np.hypot(1e-4, 0.3) / 1e-4, tolerance=1e-6)  # fmt: skip
    bench.at_most(
        "the same tokens, as a law of tokens: quotient of attention over its constant (B3)",
        max(worst),
        1.0,
        role=Role.CORRECTION,
    )
