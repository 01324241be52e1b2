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
# # How far attention moves its tokens
#
# A layer turns one law of tokens into another. Optimal transport says how far apart the two are:
# $W_1(\mu,\nu)$ is the least mean distance over all ways to carry the mass of $\mu$ to $\nu$. This
# notebook looks at the plans that attain it, at the potentials that prove it, at the brackets that
# certify it, and at its derivatives: first on clouds in the plane, then on the tokens of MiniLM.

# %%
import time
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

import measattn as ma
from measattn.wasserstein import ColumnGeneration, distance, w1

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## A layer and the best plan
#
# A cloud of 80 tokens before and after a layer of self-attention. The layer itself is one way to
# carry the mass: every token goes where it is sent. Arrows show it.

# %%
rng = np.random.default_rng(1)
before = ma.EmpiricalMeasure(
    np.concatenate([rng.normal([2, 0], 0.5, (40, 2)), rng.normal([-1, 1.5], 0.7, (40, 2))])
)
V = 0.9 * jnp.array([[0.6, -0.8], [0.8, 0.6]])
layer = ma.SelfAttention(ma.DotProduct(0.3), V)
after = before @ layer
ma.plot.law(before, after)

# %% [markdown]
# It is not the cheapest way. $W_1$ forgets which token is which, and finds a plan that costs less.
# Arcs join the atoms that exchange mass; their width is the mass.

# %%
solution = w1(before, after)
by_the_layer = jnp.linalg.norm(after.points - before.points, axis=1).mean()
print(solution)
print(f"the layer moves a token by {by_the_layer:.3f} on average, the best plan by "
      f"{solution.value:.3f}")  # fmt: skip
ma.plot.transport(solution, before, after)

# %% [markdown]
# ## Why one can believe the number
#
# A plan shows that $W_1$ is not larger than what it costs. That $W_1$ is not smaller is shown by a
# *potential*: a function $f$ that never rises faster than distance, $f(x) - f(y) \le |x - y|$, for
# then every plan costs at least $\mu(f) - \nu(f)$. The solver returns both, and they meet. Mass
# goes down the slope of $f$, here from light to dark.

# %%
u, v = solution.potentials
print("from the potential:", before.weights @ u + after.weights @ v)
print("from the plan:     ", solution.value)
ma.plot.potential(solution, before, after)

# %% [markdown]
# On the line nothing has to be solved: sorting is optimal. The area between the two quantile
# functions is the distance.

# %%
first = lambda mu: ma.pushforward(lambda x: x[:1], mu)
ma.plot.transport(w1(first(before), first(after)), first(before), first(after))

# %% [markdown]
# ## Thousands of tokens
#
# For 3,000 tokens in 16 dimensions the matrix of costs would have nine million entries.
# `ColumnGeneration` never makes it: it solves the problem on few pairs (arcs), uses the potentials
# to find pairs that would lower the cost, adds those and solves again. After every round both
# bounds are certified, so a run can be stopped at any accuracy; `watch` is called with them.

# %%
n, d = 3000, 16
scores = ma.Bilinear(rng.normal(size=(d, d)) / 4, jnp.eye(d), 0.25)
many = ma.EmpiricalMeasure(rng.normal(size=(n, d)))
moved = many @ ma.SelfAttention(scores, jnp.eye(d))
solution = w1(many, moved, solver=ColumnGeneration(), watch=print)
solution

# %% [markdown]
# The same on a logarithmic axis. Plans come close first; the potentials, which have to hold for all
# pairs at once, take the longest. Of every round the best bounds so far are drawn.

# %%
ma.plot.bracket(solution, tol=1e-9)

# %% [markdown]
# ## A problem much like the last one
#
# Along a training run, or from layer to layer, problems change little. `start` takes the solution
# of a nearby problem with the same numbers of atoms: its potentials and its arcs are where the
# search begins. The answer and its certificate are the same, only the time differs.

# %%
nudged = ma.EmpiricalMeasure(moved.points + 0.001 * rng.normal(size=(n, d)))
for name, start in (("cold", None), ("warm", solution)):
    began = time.perf_counter()
    answer = w1(many, nudged, solver=ColumnGeneration(), start=start)
    seconds = time.perf_counter() - began
    print(f"{name}: {seconds:.2f} s, {answer.iterations} rounds, W1 = {answer.value:.9f}")

# %% [markdown]
# ## Gradients
#
# `wasserstein.distance` is the same number inside JAX: under `jit`, `vmap` and `grad`. Its
# derivative in the points comes from the plan, its derivative in the weights is the potential.
# Particles that follow the negative gradient of $W_2^2/2$ flow to the target: each step takes every
# particle 5 % of the way to the atom that the plan gives it.

# %%
angles = jnp.linspace(0, 2 * jnp.pi, 60, endpoint=False)
ring = ma.EmpiricalMeasure(jnp.stack([2 * jnp.cos(angles), jnp.sin(angles)], axis=1))


@jax.jit
def step(points):
    energy = lambda points: distance(ma.EmpiricalMeasure(points), ring, 2) ** 2 / 2
    value, slope = jax.value_and_grad(energy)(points)
    return points - 0.05 * len(points) * slope, value


path = [rng.normal([0.5, 2.5], 0.25, (60, 2))]
energies = []
for _ in range(80):
    points, energy = step(path[-1])
    path.append(points)
    energies.append(float(energy))
print("energy at steps 0, 20, 40, 60:", *(f"{energies[k]:.4f}" for k in (0, 20, 40, 60)))

figure = ma.plot.measure(ma.EmpiricalMeasure(path[0]), label="start")
axes, tracks = figure.axes[0], np.stack(path)
axes.plot(tracks[..., 0], tracks[..., 1], color=ma.plot.INK, linewidth=0.5, alpha=0.5, zorder=1)
ma.plot.measure(ring, axes, colour=ma.plot.ACCENTS[2], label="target")
end = ma.EmpiricalMeasure(path[-1])
ma.plot.measure(end, axes, colour=ma.plot.ACCENTS[1], label="after 80 steps")

# %% [markdown]
# ## Points that coincide
#
# Real laws have repeated points, and layers that change little leave points where they are. Three
# rules settle it. An atom that is split in two is the same measure. For $p = 1$ the mass that both
# laws have at the same point stays there, and costs exactly nothing: tiny differences keep all
# their digits. A repeated point is moved as a whole or in parts, as is best.

# %%
x = jnp.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [2.0, 1.0]])
mu = ma.EmpiricalMeasure(x)
merged = ma.weighted(x[jnp.array([0, 1, 3])], [1.0, 2.0, 1.0])
print("the same law, written twice:", w1(mu, merged))
nudge = ma.EmpiricalMeasure(x.at[3, 0].add(1e-10))
print("one atom moved by 1e-10:    ", w1(mu, nudge))

# %% [markdown]
# Where an atom has nowhere to go, the distance has a kink, like $|x|$ at 0. There the gradient is
# one of the subgradients, never NaN; at atoms that do move it has the length of the atom's weight.

# %%
print(jax.grad(lambda points: distance(ma.EmpiricalMeasure(points), mu))(x))
print(jax.grad(lambda points: distance(ma.EmpiricalMeasure(points), mu))(nudge.points))

# %% [markdown]
# ## The tokens of MiniLM
#
# The same questions about a trained model, in 384 dimensions. How far does each layer move the law
# of a sentence, how far does it move its tokens, and does the best plan keep every token with
# itself?

# %%
model = ma.pretrained.minilm()
text = "The cat sat on the mat while the dog slept by the door."
words = model.words(text)
laws = [model.tokens(text)]
for block in model.layers:
    laws.append(laws[-1] @ block)
for i, (law, image) in enumerate(pairwise(laws), 1):
    plan = w1(law, image).plan
    kept = plan.mass[plan.rows == plan.cols].sum()
    moved_by = jnp.linalg.norm(image.points - law.points, axis=1).mean()
    print(f"layer {i}: W1 = {w1(law, image).value:.3f}, tokens move by {moved_by:.3f}, "
          f"{kept:.0%} of the mass stays with its token")  # fmt: skip

# %% [markdown]
# It does, in every layer: tokens are so far from each other that no exchange pays, and $W_1$ is the
# mean length of the steps. Layer 3 in the plane of the two leading principal axes; lengths in the
# picture are shorter than those that are paid for, since most of the 384 dimensions are not seen.

# %%
solution = w1(laws[2], laws[3])
ma.plot.transport(solution, laws[2], laws[3], labels=("after layer 2", "after layer 3"))

# %% [markdown]
# Two sentences that say nearly the same, in another order: the plan between their laws aligns their
# words, although no one has told it which belongs to which. Each row shows where the mass of a
# token goes.

# %%
other = "By the door a puppy dozed, and a kitten rested on the rug."
paraphrase = model.tokens(other) @ ma.Stack(model.layers)
solution = w1(laws[-1], paraphrase)
rows = solution.plan.dense((laws[-1].size, paraphrase.size)) * laws[-1].size
print(solution)
figure = ma.plot.weights(rows, rows=words, columns=model.words(other))
figure.axes[0].set(xlabel="tokens of the other sentence", ylabel="tokens of the sentence")
figure

# %% [markdown]
# And the potential between the two: a function of the 384-dimensional state that never rises faster
# than distance, and whose means over the two sentences differ by as much as is possible.

# %%
ma.plot.potential(solution, laws[-1], paraphrase, labels=("the cat", "the kitten"))
