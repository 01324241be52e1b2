"""Draws overview.png, the figure of the README: ``python docs/figures/overview.py``."""

from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import measattn as ma

rng = np.random.default_rng(3)
tokens = ma.EmpiricalMeasure(
    np.concatenate(
        [
            rng.normal([2.2, 0.4], 0.35, (12, 2)),
            rng.normal([-1.2, 1.6], 0.4, (12, 2)),
            rng.normal([-0.6, -1.8], 0.45, (12, 2)),
        ]
    )
)
kernel = ma.SoftmatchKernel(ma.DotProduct(1.2), tokens)
layer = ma.SelfAttention(ma.DotProduct(1.2), 0.8 * jnp.eye(2))
query = jnp.array([1.6, 1.2])

figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
ma.plot.measure(tokens, axes[0])
axes[0].set_title(r"the law of the tokens, $\mu$")
ma.plot.measure(kernel(query), axes[1], colour=ma.plot.ACCENTS[1])
axes[1].plot(*query, "k+", markersize=11, markeredgewidth=1.8)
axes[1].annotate("query $x$", query, (-30, -16), textcoords="offset points")
axes[1].set_title(r"a row of attention, $\Psi_{G(x,\cdot)}(\mu)$")
ma.plot.law(tokens, tokens @ layer, axes[2], labels=(r"$\mu$", r"$\mu A_\mu$"))
axes[2].set_title("the law one layer on")
for ax in axes:
    ax.set(xlim=(-2.6, 3.4), ylim=(-3, 3), xlabel="", ylabel="")
figure.savefig(Path(__file__).with_suffix(".png"), dpi=130)
