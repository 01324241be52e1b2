# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Attention is a Markov kernel
#
# From three tokens in the plane to a head of MiniLM. Attention takes a measure (the law of the
# tokens) and a point (a query) and returns a measure (the attention weights), then a point (their
# mean). This notebook builds it from its three parts, as *A Mathematical Theory of Attention*
# (arXiv 2007.02876) does: the Boltzmann-Gibbs transformation, the look-up kernel and the moment
# projection.

# %%
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

import measattn as ma

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## Three tokens, as a measure
#
# $\mu = \sum_i \omega_i\delta_{x_i}$. Dots have an area proportional to their weight.

# %%
x = jnp.array([[1.0, 0.2], [-0.6, 0.9], [-0.4, -1.0]])
mu = ma.weighted(x, [1.0, 1.0, 2.0])
mu

# %%
ma.plot.measure(mu)

# %% [markdown]
# ## The Boltzmann-Gibbs transformation
#
# $\Psi_g(\mu) = g\mu/\mu(g)$ re-weights a measure by a positive function $g$, here
# $g(y) = e^{\langle q, y\rangle}$ for a query $q$. The atoms stay, the weights become the softmax
# of $\langle q, x_j\rangle + \log\omega_j$.

# %%
q = jnp.array([1.5, 1.0])
psi = ma.boltzmann_gibbs(lambda y: q @ y, mu)
print(psi.weights)
ma.plot.measure(psi, colour=ma.plot.ACCENTS[1])

# %% [markdown]
# Among all probability measures $p$ it is the one that minimises
# $KL(p|\mu) - p(\log g)$: of all ways to listen to $g$, the least committed. Any other loses.

# %%
energy = lambda p: ma.gibbs.free_energy(lambda y: q @ y, mu, p)
best = energy(psi)
others = [energy(ma.weighted(x, w)) for w in np.random.default_rng(0).dirichlet(np.ones(3), 200)]
print(f"Ψ: {best:.6f}   best of 200 others: {min(others):.6f}")

# %% [markdown]
# ## The softmatch kernel
#
# One such measure for every query: $K(x,\cdot) = \Psi_{G(x,\cdot)}(\mu)$ is a Markov kernel. Its
# rows at the tokens are the attention matrix.

# %%
potential = ma.DotProduct(1.5)
K = ma.SoftmatchKernel(potential, mu)
ma.plot.kernel(K, mu)

# %% [markdown]
# Kernels act on measures from the right and on functions from the left, and the two actions are
# dual: $(\mu K)(f) = \mu(Kf)$.

# %%
f = lambda y: jnp.sin(y).sum()
left = ma.integrate(f, mu @ K)
right = ma.integrate(ma.expect(K, f), mu)
print(left, right)

# %% [markdown]
# ## Look-up and moment projection
#
# The look-up kernel $L(k,\cdot)$ moves mass from a key to its value, the moment projection $\Pi$
# replaces a measure by the Dirac mass at its mean. Composed, they are attention: Proposition 9.

# %%
V = jnp.array([[0.0, -1.0], [1.0, 0.0]])
values = x @ V.T
L = ma.LookupKernel(mu, values)
A = ma.moment_projection(K @ L)

weights = jax.nn.softmax(1.5 * x @ x.T + jnp.log(mu.weights), axis=-1)
print(np.abs((mu @ A).points - weights @ values).max())

# %% [markdown]
# ## Self-attention: a nonlinear kernel
#
# When keys and values are read off the measure itself, the kernel depends on it: $A_\mu$. The law
# one layer on is $\mu A_\mu$, written `mu @ T`. Arrows show where each token goes.

# %%
rng = np.random.default_rng(1)
cloud = ma.EmpiricalMeasure(
    np.concatenate([rng.normal([2, 0], 0.5, (40, 2)), rng.normal([-1, 1.5], 0.7, (40, 2))])
)
T = ma.SelfAttention(ma.DotProduct(1.0), 0.8 * jnp.eye(2))
ma.plot.law(cloud, cloud @ T)

# %% [markdown]
# Everything is differentiable: in the points, in the weights and in the parameters. How does the
# mean of the law one layer on change when an atom gets a little more weight?

# %%
slope = jax.grad(lambda mu: ma.mean(mu @ T)[0])(cloud)
print("sum of the derivatives in the weights:", float(slope.log_weights.sum()))

# %% [markdown]
# How far did the layer move the law? $W_1$ is computed exactly, and certified from both sides.

# %%
ma.wasserstein.w1(cloud, cloud @ T)

# %% [markdown]
# ## A head of MiniLM
#
# The same objects, with weights from a trained sentence encoder. A text is a measure on $R^{384}$;
# a head is a `SelfAttention`.

# %%
model = ma.pretrained.minilm()
text = "The river bank was muddy, so the bank sent no one."
mu = model.tokens(text)
print(model)
mu

# %%
attention = model.layers[0].layers[0].layer  # the attention inside the first residual of layer 0
head = attention.head(7)
K = ma.SoftmatchKernel(head.potential, mu)
words = model.words(text)
rows = np.stack([np.asarray(K(x).weights) for x in mu.points])
ma.plot.weights(rows, rows=words, columns=words)

# %% [markdown]
# The law of the tokens through the six layers, two principal axes of each:

# %%
laws = [mu]
for layer in model.layers:
    laws.append(laws[-1] @ layer)
ma.plot.law(laws[2], laws[3], labels=("after layer 2", "after layer 3"))

# %% [markdown]
# And how far each layer moves it, exactly:

# %%
for i, (before, after) in enumerate(pairwise(laws), 1):
    print(f"layer {i}: W1 = {ma.wasserstein.w1(before, after).value:.4f}")
