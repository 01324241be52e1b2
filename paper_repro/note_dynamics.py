"""The lecture note on depth: residual layers as the Euler steps of a flow, energy ascent."""

import numpy as np
from scipy.integrate import solve_ivp

import measattn as ma
from measattn import dynamics, plot
from paper_repro import oracles
from paper_repro.claim import Bench, claim

N = 12


@claim(
    id="note-dynamics",
    group="D",
    title="Layers as the Euler steps of a flow",
    formulas=[
        r"x\leftarrow x+\frac{1}{L}\,\Gamma_\mu(x)\quad\text{($L$ times)}\qquad\longrightarrow"
        r"\qquad\dot{x}=\Gamma_{\mu_t}(x)",
        r"E(\mu)=\frac{1}{2}\iint e^{\langle Ax,y\rangle}\,d\mu\,d\mu,\quad V=A=A^{\top}:\qquad "
        r"\frac{dE}{dt}=\int Z_\mu\,|\dot{x}|^2\,d\mu\geq 0",
    ],
    statement=r"A stack of $L$ residual attention layers with shared weights, each scaled by "
    r"$1/L$, is the Euler method for the flow of attention: its distance to the flow falls like "
    r"$1/L$. For a symmetric score $A$ with the value map $V=A$ the flow climbs the interaction "
    r"energy, and with $V=-A$ it descends.",
    source="a lecture note on attention (continuous depth); N1, proved in docs/theory-dynamics",
    hypotheses={"symmetric": r"for the energy: $A$ is symmetric and $V=A$"},
    cost=(4, 8),
)
def note(bench: Bench) -> None:
    """The flow against SciPy, stacks against the flow, the energy along it."""
    A = bench.rng.normal(size=(2, 2))
    A = (A + A.T) / 4
    bench.check("symmetric", bool((A == A.T).all()))
    x = bench.rng.normal(size=(N, 2))
    potential = ma.Bilinear(np.eye(2), A)
    layer = ma.SelfAttention(potential, A)
    path = dynamics.flow(layer, ma.EmpiricalMeasure(x), 1.0, save=11)
    done = solve_ivp(
        lambda t, y: velocity(y.reshape(N, 2), A).ravel(), (0, 1), x.ravel(),
        method="DOP853", rtol=1e-12, atol=1e-13,
    )  # fmt: skip
    end = done.y[:, -1].reshape(N, 2)
    bench.close("the flow against SciPy's method of order 8", path.points[-1], end, tolerance=1e-9)
    steps(bench, potential, A, x, end)
    energies(bench, path, potential, A)


def velocity(x: np.ndarray, A: np.ndarray) -> np.ndarray:
    """Attention with the score <Ax, y> and the values Ax, in NumPy."""
    return oracles.softmax(x @ A @ x.T) @ x @ A


def steps(bench: Bench, potential: ma.Bilinear, A: np.ndarray, x: np.ndarray, end: np.ndarray):
    """The error of a stack over its depth."""
    depths = np.array([16, 32, 64, 128])
    errors = []
    for depth in depths:
        block = ma.Residual(ma.SelfAttention(potential, A / depth))
        out = ma.EmpiricalMeasure(x) @ ma.WeightShared(block, int(depth))
        errors.append(float(np.abs(np.asarray(out.points) - end).max()))
    rate = np.polyfit(np.log(depths), np.log(errors), 1)[0]
    bench.at_most("distance of the fitted order of a stack from 1", abs(rate + 1), 0.05)
    bench.control(
        "order 2 for the same stack", -rate, 1.95, "Euler's method is of order 1.",
        relation="≥",
    )  # fmt: skip
    bench.figure(
        plot.curve(depths, errors, names=("layers", "distance to the flow")),
        "A stack of residual layers approaches the flow",
        "The distance falls with slope minus one on logarithmic axes",
    )


def energies(bench: Bench, path: dynamics.Flow, potential: ma.Bilinear, A: np.ndarray) -> None:
    """The energy along the flow, and its derivative."""
    x = np.asarray(path.points)
    values = np.array([np.exp(y @ A @ y.T).mean() / 2 for y in x])
    bench.at_least("least increase of the energy along the flow", np.diff(values).min(), 0.0)
    mu, v = path.measure(0), velocity(x[0], A)
    want = np.mean(np.exp(x[0] @ A @ x[0].T).mean(axis=1) * np.sum(v * v, axis=1))

    def energy(mu: ma.EmpiricalMeasure):
        return dynamics.interaction_energy(potential, mu)

    rate = dynamics.energy_rate(energy, ma.SelfAttention(potential, A), mu)
    bench.close("its derivative against the formula", rate, want, tolerance=1e-10)
    down = dynamics.energy_rate(energy, ma.SelfAttention(potential, -A), mu)
    bench.control(
        "an increase with V = -A", down, 0.0, "the sign of the value map matters.",
        relation="≥", predicted=-want,
    )  # fmt: skip
