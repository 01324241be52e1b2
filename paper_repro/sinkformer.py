"""Sinkhorn attention: both marginals prescribed, and a gradient flow."""

import jax
import numpy as np

import measattn as ma
from measattn import dynamics, plot
from paper_repro.claim import Bench, claim

PLAIN = (np.eye(2), np.eye(2))
"""Query and key of the score <x, y>: written like all others here, to be compiled once."""


@claim(
    id="sinkformer",
    group="B",
    title="Doubly stochastic attention is a gradient flow",
    formulas=[
        r"E_S(\mu)=\max_{\pi\in\Pi(\mu,\mu)}\int a\,d\pi-KL(\pi|\mu\otimes\mu)",
        r"\pi_{ij}=\omega_i\omega_j\,e^{a(x_i,x_j)+f_i+g_j},\qquad "
        r"\dot{x}_i=\frac{1}{\omega_i}\sum_j\pi_{ij}\,Vx_j",
        r"a=\langle Ax,y\rangle,\ V=A=A^{\top}:\qquad "
        r"\frac{dE_S}{dt}=2\sum_i\omega_i|\dot{x}_i|^2\geq 0",
    ],
    statement=r"Attention weights with both marginals prescribed solve the entropic problem "
    r"of which softmax attention solves the half with one marginal. For a symmetric score and "
    r"$V=A$ the velocities are half the Wasserstein gradient of $E_S$. Softmax attention is no "
    r"gradient: with equal weights the Jacobian of its velocities is not symmetric.",
    source="arXiv 2110.11773; N2 in docs/theory-dynamics and D3 in docs/theory",
    hypotheses={
        "symmetric": r"$a(x,y)=\langle Ax,y\rangle$, $A$ symmetric, $V=A$",
        "finite": "scores are finite: no mask",
    },
    cost=(4, 12),
)
def sinkformer(bench: Bench) -> None:
    """Random clouds, then a flow."""
    worst: dict[str, float] = {}
    bench.check("finite", True, "by construction")
    for _ in range(3 if bench.quick else 20):
        A = bench.rng.normal(size=(2, 2))
        A = (A + A.T) / 2
        bench.check("symmetric", True, "by construction")
        mu = ma.weighted(bench.rng.normal(size=(8, 2)), bench.rng.dirichlet(np.ones(8)))
        cloud(bench, mu, A, worst)
    for name, text, bound in (
        ("rows", "row sums of the coupling against the weights", 1e-12),
        ("columns", "column sums", 1e-12),
        ("attention", "attention against means under the coupling", 1e-11),
        ("value", r"$E_S$ against its definition at the coupling", 1e-11),
        ("optimal", "what other couplings have more, at most zero", 1e-12),
        ("rate", r"$dE_S/dt$ against $2\sum\omega_i|\dot{x}_i|^2$", 1e-10),
        ("gradient", "the gradient by differentiation against the velocities", 1e-10),
    ):
        bench.at_most(text, worst[name], bound)
    jacobians(bench)
    along(bench)


def velocity(layer: dynamics.SinkhornAttention | ma.SelfAttention, mu: ma.EmpiricalMeasure):
    """Velocities of the atoms in NumPy."""
    return np.asarray(layer.push(mu))


@jax.jit
def energy(x: jax.Array, w: jax.Array, A: jax.Array) -> jax.Array:
    """The energy of weighted atoms for the score <x, Ay>."""
    return dynamics.sinkhorn_energy(ma.Bilinear(np.eye(2), A), ma.weighted(x, w))


energy_and_gradient = jax.jit(jax.value_and_grad(energy))


def cloud(bench: Bench, mu: ma.EmpiricalMeasure, A: np.ndarray, worst: dict) -> None:
    """Marginals, optimality, gradient and rate on one cloud."""
    potential = ma.Bilinear(np.eye(2), A)
    x, w = np.asarray(mu.points), np.asarray(mu.weights)
    f, g = (np.asarray(part) for part in dynamics.scalings(potential, mu))
    product, scores = np.outer(w, w), x @ A @ x.T
    plan = product * np.exp(scores + f[:, None] + g)
    v = velocity(dynamics.SinkhornAttention(potential, A), mu)
    value, gradient = (np.asarray(part) for part in energy_and_gradient(mu.points, mu.weights, A))

    def objective(p: np.ndarray) -> float:
        return float(np.sum(p * (scores - np.log(p / product))))

    bends = []
    for _ in range(20):
        bend = bench.rng.normal(size=(8, 8))
        bend -= bend.mean(axis=0)
        bend -= bend.mean(axis=1, keepdims=True)
        other = plan + 0.5 * bench.rng.random() * bend * (plan / np.abs(bend)).min()
        bends.append(objective(other) - value)
    want = 2 * np.sum(w * np.sum(v * v, axis=1))
    found = {
        "rows": np.abs(plan.sum(axis=1) - w).max(),
        "columns": np.abs(plan.sum(axis=0) - w).max(),
        "attention": np.abs(plan @ x @ A / w[:, None] - v).max(),
        "value": abs(objective(plan) - value),
        "optimal": max(bends),
        "rate": abs(np.sum(gradient * v) - want) / want,
        "gradient": np.abs(gradient - 2 * w[:, None] * v).max(),
    }
    for name, error in found.items():
        worst[name] = max(worst.get(name, 0.0), float(error))


def jacobians(bench: Bench) -> None:
    """How far the Jacobian of the velocities is from a symmetric one, by differences."""
    x, h = bench.rng.normal(size=(8, 2)), 1e-5

    def asymmetry(layer: dynamics.SinkhornAttention | ma.SelfAttention) -> float:
        columns = []
        for k in range(16):
            step = np.zeros(16)
            step[k] = h
            step = step.reshape(8, 2)
            ends = [velocity(layer, ma.EmpiricalMeasure(x + s * step)) for s in (1, -1)]
            columns.append((ends[0] - ends[1]).ravel() / (2 * h))
        return float(np.abs(np.array(columns) - np.array(columns).T).max())

    sinkhorn = asymmetry(dynamics.SinkhornAttention(ma.Bilinear(*PLAIN), np.eye(2)))
    bench.at_most("asymmetry of the Jacobian, Sinkhorn attention", sinkhorn, 1e-7)
    bench.control(
        "asymmetry of the Jacobian, softmax attention",
        asymmetry(ma.SelfAttention(ma.Bilinear(*PLAIN))),
        1e-7,
        "softmax velocities are no gradient in this geometry.",
    )


def along(bench: Bench) -> None:
    """The energy along a flow."""
    x = 0.6 * bench.rng.normal(size=(8, 2))
    path = dynamics.flow(
        dynamics.SinkhornAttention(ma.Bilinear(*PLAIN), np.eye(2)),
        ma.EmpiricalMeasure(x),
        0.5,
        save=11,
        rtol=1e-9,
    )
    values = [float(energy(y, path.start.weights, np.eye(2))) for y in path.points]
    bench.at_least("least increase of the energy along the flow", np.diff(values).min(), 0.0)
    bench.figure(
        plot.curve(path.times[1:], values[1:], fit=False, names=("time", "energy")),
        "The energy that Sinkhorn attention climbs, along its flow",
        "The energy rises with time",
    )
