"""Gaussian laws stay Gaussian: a layer and a flow with exact answers."""

import itertools

import numpy as np

import measattn as ma
from measattn import dynamics, plot
from paper_repro.claim import Bench, claim


@claim(
    id="castin-gaussian",
    group="B",
    title="Attention keeps Gaussian laws Gaussian",
    formulas=[
        r"N(m,S)\mapsto N\left(V(m+SAm),\,V\,SAS\,A^{\top}S\,V^{\top}\right)",
        r"\dot{m}=Bm+b,\qquad\dot{S}=BS+SB^{\top},\qquad B=VSA",
        r"V=vI:\qquad S_t=\left(S_0^{-1}-vt(A+A^{\top})\right)^{-1}",
        r"a=-\frac{|x-y|^2}{2\sigma^2}:\qquad B=VS(S+\sigma^2I)^{-1}",
    ],
    statement=r"Under a Gaussian law the attention weights are Gaussian, attention is an affine "
    r"map, and its image and its flow stay Gaussian, for dot-product and for Gaussian scores. "
    r"Nothing is sampled here: particles at the nodes of a Gauss-Hermite rule, moved by attention "
    r"itself, have the moments of the closed form. A flow that grows becomes infinite in finite "
    r"time, at the time that the closed form says.",
    source="arXiv 2501.18322; Q1 and Q2, proved in docs/theory-dynamics",
    hypotheses={
        "strength": r"the nodes resolve the tilted laws: $\|S^{1/2}AS^{1/2}\|<\frac{1}{2}$ and "
        r"$|S^{1/2}Am|<2$",
        "shape": "no mask, and keys have the law of the queries",
    },
    cost=(4, 12),
)
def gaussians(bench: Bench) -> None:
    """Layers at random, then a flow with its closed form."""
    bench.check("shape", True, "by construction")
    layers(bench)
    flows(bench)


def nodes(law: dynamics.GaussianLaw, size: int = 20) -> ma.EmpiricalMeasure:
    """The law on the nodes of a product rule."""
    points, weights = np.polynomial.hermite_e.hermegauss(size)
    z = np.array(list(itertools.product(points, repeat=2)))
    w = np.prod(list(itertools.product(weights, repeat=2)), axis=1)
    return ma.weighted(law.mean + z @ np.linalg.cholesky(law.covariance).T, w)


def moments(mu: ma.EmpiricalMeasure) -> np.ndarray:
    """Mean and covariance in one list."""
    return np.concatenate([np.asarray(ma.mean(mu)), np.asarray(ma.covariance(mu)).ravel()])


def of_law(law: dynamics.GaussianLaw) -> np.ndarray:
    """The same of a Gaussian law."""
    return np.concatenate([law.mean, law.covariance.ravel()])


def random_law(bench: Bench, strength: float) -> tuple[dynamics.GaussianLaw, np.ndarray]:
    """A law in the plane and a score of this strength for it."""
    root = np.eye(2) + 0.4 * bench.rng.normal(size=(2, 2))
    A = bench.rng.normal(size=(2, 2))
    A *= strength / np.linalg.norm(root.T @ A @ root, 2)
    law = dynamics.GaussianLaw(root @ bench.rng.normal(size=2) / 2, root @ root.T)
    check_strength(bench, law, A)
    return law, A


def check_strength(bench: Bench, law: dynamics.GaussianLaw, A: np.ndarray) -> None:
    """Whether the nodes resolve the law as every point sees it."""
    root = np.linalg.cholesky(law.covariance)
    strength = np.linalg.norm(root.T @ A @ root, 2)
    shift = np.linalg.norm(root.T @ A @ law.mean)
    bench.check("strength", strength < 0.5 and shift < 2, f"{strength:.2f} and {shift:.2f}")


def layers(bench: Bench) -> None:
    """The image of a law by both kinds of scores."""
    dot, l2 = [], []
    right = wrong = got = np.zeros(0)
    for _ in range(4 if bench.quick else 20):
        law, A = random_law(bench, 0.4)
        V = bench.rng.normal(size=(2, 2))
        layer = ma.SelfAttention(ma.Bilinear(A, np.eye(2)), V)
        S = law.covariance
        want = dynamics.GaussianLaw(
            V @ (law.mean + S @ A @ law.mean), V @ S @ A @ S @ A.T @ S @ V.T
        )
        right, wrong = want.covariance, V @ S @ A @ S @ A.T @ V.T
        got = moments(nodes(law) @ layer)
        dot.append(np.abs(got - of_law(want)).max())
        sigma = 1.4 + bench.rng.random()
        B = V @ S @ np.linalg.inv(S + sigma**2 * np.eye(2))
        want = dynamics.GaussianLaw(V @ law.mean, B @ S @ B.T)
        l2.append(
            np.abs(moments(nodes(law, 28) @ ma.SelfAttention(ma.Gaussian(sigma), V)) - of_law(want))
        )
    bench.at_most("dot-product layers: moments against the closed form", max(dot), 1e-9)
    bench.at_most("Gaussian scores: moments against the closed form", np.max(l2), 1e-6)
    bench.control(
        "a covariance with one factor S forgotten",
        np.abs(got[2:] - wrong.ravel()).max(),
        1e-9,
        "the law's own covariance stands on both sides.",
        predicted=np.abs(right - wrong).max(),
    )


def flows(bench: Bench) -> None:
    """Particles, the covariance equation and its closed form; the time of blow-up."""
    law, A = random_law(bench, 0.25)  # it grows along the flow
    A = A if np.linalg.eigvals(law.covariance @ (A + A.T)).real.max() > 0.05 else -A
    layer = ma.SelfAttention(ma.Bilinear(A, np.eye(2)))
    infinite = 1 / np.linalg.eigvals(law.covariance @ (A + A.T)).real.max()
    time = min(0.3 * infinite, 1)  # later the mean is where there are no nodes
    exact = dynamics.gaussian_flow(layer, law, time, save=12)
    closed = [np.linalg.inv(np.linalg.inv(law.covariance) - t * (A + A.T)) for t in exact.times]
    bench.at_most(
        "the covariance equation against the closed form, V = I",
        max(np.abs(a.covariance - b).max() for a, b in zip(exact.laws, closed, strict=True)),
        1e-9,
    )
    check_strength(bench, exact.laws[-1], A)
    path = dynamics.flow(layer, nodes(law), time, rtol=1e-9)
    error = np.abs(moments(path.measure(-1)) - of_law(exact.laws[-1])).max()
    bench.at_most("particles, moved by attention, against the covariance equation", error, 1e-8)
    try:
        dynamics.gaussian_flow(layer, law, 2 * infinite, save=12)
        stopped = 2 * infinite
    except dynamics.FlowError as stop:
        stopped = float(stop.flow.times[-1])
    bench.close("when the covariance becomes infinite, against the closed form",
                stopped, infinite, tolerance=1e-7)  # fmt: skip
    traces = [np.trace(law.covariance) for law in exact.laws]
    bench.figure(
        plot.curve(
            exact.times[1:], traces[1:], fit=False, names=("time", "trace of the covariance")
        ),
        "The spread of a Gaussian law along the flow of attention, V = I",
        "A smooth curve of the trace of the covariance over time",
    )
