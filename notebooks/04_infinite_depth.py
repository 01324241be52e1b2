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
# # Towards infinite depth
#
# A layer that is applied again and again, $\mu_{t+1} = \mu_tK_{\mu_t}$, is a dynamical system on
# measures. Where does it go? This notebook watches clusters form, maps where a limit is proved and
# where there is none, draws a funnel that is certain to hold the limit, and then asks what any of
# it says about a trained model: one layer of MiniLM, repeated, against its true stack.

# %%
import math
import re

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML
from matplotlib.animation import FuncAnimation

import measattn as ma
from measattn import dynamics
from measattn.plot.style import RC, logarithmic

jax.config.update("jax_enable_x64", True)
plt.rcParams.update(RC)
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY = ma.plot.ACCENTS

# %% [markdown]
# ## Clusters form
#
# 48 tokens on a circle, through one post-norm block with shared weights:
# $x \mapsto \mathrm{norm}(x + \tfrac1{10}\,\mathrm{attention}(x))$. `iterate` runs the steps,
# measures how far each of them moves the law, and records what the law looks like.

# %%
rng = np.random.default_rng(4)
angles = rng.uniform(0, 2 * np.pi, 48)
circle = ma.EmpiricalMeasure(math.sqrt(2) * np.stack([np.cos(angles), np.sin(angles)], axis=1))
attention = ma.SelfAttention(ma.DotProduct(3.0), 0.1 * np.eye(2))
block = ma.post_norm([attention], [ma.layer.RMSNorm()])
frames = sorted({0, *np.unique(np.geomspace(3, 1500, 19).astype(int)).tolist()})
path = dynamics.iterate(block, circle, 1500, keep=frames, distances=False)
print(path)


# %%
def stage(points, count, line):
    """Two panels: the tokens on their circle, and a curve over depth with a moving dot."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(7.2, 3.1), dpi=80, width_ratios=[1, 1.35], layout="constrained"
    )
    left.add_patch(plt.Circle((0, 0), math.sqrt(2), fill=False, color=ma.plot.INK, alpha=0.25))
    left.set(xlim=(-1.75, 1.75), ylim=(-1.75, 1.75), aspect="equal", xticks=[], yticks=[])
    left.spines[:].set_visible(False)
    dots = left.scatter(*points.T, s=42, color=BLUE, alpha=0.45, linewidths=0, zorder=3)
    right.plot(1 + np.arange(len(count)), count, color=BLUE)
    now = right.plot([1], [count[0]], "o", color=ORANGE)[0]
    logarithmic(right.xaxis)
    right.set(xlabel="1 + layer", ylabel=line, ylim=(0, None))
    return figure, left, dots, now


figure, left, dots, now = stage(circle.points, path.clusters, "effective number of clusters")


def show(step):
    dots.set_offsets(np.asarray(path[step].points))
    now.set_data([1 + step], [path.clusters[step]])
    left.set_title(f"layer {step}")


film = FuncAnimation(figure, show, frames=frames)
player = film.to_jshtml(fps=3, default_mode="once")
plt.close(figure)
# the buttons' icons would come from the net: letters do as well
player = re.sub(r"<link[^>]*>", "", player)
icons = {
    "minus": "–", "fast-backward": "⏮", "step-backward": "◀|", "play fa-flip-horizontal": "◀",
    "pause": "❚❚", "play": "▶", "step-forward": "|▶", "fast-forward": "⏭", "plus": "+",
}  # fmt: skip
for name, sign in icons.items():
    player = player.replace(f'<i class="fa fa-{name}"></i>', sign)
HTML(player)

# %% [markdown]
# Tokens find the nearest crowd within a hundred layers; then almost nothing happens for hundreds
# more, until two of three crowds merge. A plateau like this one is a metastable state: seen for a
# while it looks like a limit, and it is none. The last two crowds are nearly opposite to each other
# and still there at the end.

# %%
shots = [0, frames[8], frames[14], frames[-1]]
figure, row = plt.subplots(1, 4, figsize=(8.4, 2.3), layout="constrained")
for axes, step in zip(row, shots, strict=True):
    axes.add_patch(plt.Circle((0, 0), math.sqrt(2), fill=False, color=ma.plot.INK, alpha=0.25))
    axes.scatter(*np.asarray(path[step].points).T, s=42, color=BLUE, alpha=0.45, linewidths=0)
    axes.set(xlim=(-1.75, 1.75), ylim=(-1.75, 1.75), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(f"layer {step}: {path.clusters[step]:.1f} clusters", fontsize=9)

# %% [markdown]
# ## A map of what happens
#
# Attention has two knobs: the temperature $\tau$ of the score $\langle x, y\rangle/\tau$ and the
# size $\|V\|$ of the value map. `fixed_point` iterates at each setting and says what it found.
# *Certified* is a theorem, the other verdicts are observations: on the left for bare attention,
# $V = \|V\|I$, on the right for $x_i = u_i + f(\mu, x_i)$ with $V = -\|V\|I$, where every token is
# given its input again in each layer. The figure in a cell is the effective number of clusters.

# %%
inputs = rng.normal(size=(24, 2))
inputs /= np.maximum(1, np.linalg.norm(inputs, axis=1))[:, None]
tokens = ma.EmpiricalMeasure(jnp.asarray(inputs))
width = dynamics.diameter(tokens)
temperatures = (4.0, 2.0, 1.0, 0.5, 0.25)


def survey(layer_of, sizes):
    """The verdict and the number of clusters, for each temperature and each size."""
    found = {}
    for i, temperature in enumerate(temperatures):
        for j, size in enumerate(sizes):
            end = dynamics.fixed_point(layer_of(temperature, size), tokens, 1e-6, steps=100)
            bandwidth = 0.05 * jnp.maximum(width, dynamics.diameter(end.measure))
            found[i, j] = end.verdict, float(dynamics.clusters(end.measure, bandwidth))
    return found


def bare(temperature, size):
    return ma.SelfAttention(ma.DotProduct(1 / temperature), size * jnp.eye(2))


def injected(temperature, size):
    return dynamics.Injected(bare(temperature, -size), tokens.points)


many, few = (0.5, 0.8, 1.1, 1.5, 2.0), (0.1, 0.2, 0.3, 0.5, 0.7)
maps = {"bare attention": (survey(bare, many), many),
        "with its input in every layer": (survey(injected, few), few)}  # fmt: skip

# %%
COLOURS = {"certified": GREEN, "converged": SKY, "cycle": PINK, "drift": YELLOW,
           "collapse": ORANGE, "undecided": "#c8ccd0", "diverged": ma.plot.INK}  # fmt: skip
figure, row = plt.subplots(1, 2, figsize=(8.4, 3.9), layout="constrained", sharey=True)
for axes, (title, (found, sizes)) in zip(row, maps.items(), strict=True):
    for (i, j), (verdict, number) in found.items():
        axes.add_patch(plt.Rectangle((j - 0.48, i - 0.48), 0.96, 0.96, color=COLOURS[verdict]))
        axes.text(j, i, f"{number:.1f}", ha="center", va="center", fontsize=8)
    axes.set(xlim=(-0.5, len(sizes) - 0.5), ylim=(len(temperatures) - 0.5, -0.5), title=title)
    axes.set_xticks(range(len(sizes)), [f"{size:g}" for size in sizes])
    axes.set_yticks(range(len(temperatures)), [f"{t:g}" for t in temperatures])
    axes.set(xlabel="‖V‖")
    axes.grid(False)
row[0].set_ylabel("temperature")
seen = {verdict for found, _ in maps.values() for verdict, _ in found.values()}
patches = [plt.Rectangle((0, 0), 1, 1, color=c) for v, c in COLOURS.items() if v in seen]
figure.legend(patches, [v for v in COLOURS if v in seen], loc="outside lower center", ncols=6)
plt.show()

# %% [markdown]
# On the left temperature does not matter below $\|V\| = 1$: attention averages, so the cloud
# shrinks to the origin, and that is proved. Above it hot attention collapses to a point that runs
# away; cold attention breaks up into clusters that fly apart, and nothing ends the
# iteration (*undecided*). On the right the limit remembers its input: no cloud collapses. The proof
# needs a high temperature and a small $V$; the iteration converges well beyond that. What of the
# last cell, where it does not within 100 steps? Seen for longer, its tokens come to swing between
# two clouds: a step is long, two steps lead back.

# %%
swing = dynamics.iterate(injected(0.25, 0.7), tokens, 400, keep=[398, 399], distances=False)
to, back = (np.abs(swing[400].points - swing[step].points).max() for step in (399, 398))
print(f"the last step moves coordinates by up to {to:.2f}, the last two together by {back:.4f}")

# %% [markdown]
# ## A funnel that holds the limit
#
# In the green part of the map a constant q < 1 is proved for the largest move of a token. So each
# token's limit is within $r_t = \max_i|x_i(t+1) - x_i(t)|/(1-q)$ of where it is at step t: a
# funnel that is known as one goes, without knowing the limit. It is also known in advance, since
# $r_t \le q^tr_0$.

# %%
layer = dynamics.Injected(bare(4.0, -0.25), tokens.points)
end = dynamics.fixed_point(layer, tokens, 1e-13)
proof = dynamics.contraction(layer, tokens, math.inf)
print(end)
print(proof)
start = ma.EmpiricalMeasure(-inputs[::-1])  # any other start in the ball
path = dynamics.iterate(layer, start, 16, keep="all")
clouds = np.stack([np.asarray(mu.points) for mu in path])
moves = np.linalg.norm(np.diff(clouds, axis=0), axis=2).max(axis=1)
funnel = moves / (1 - proof.value)
far = np.linalg.norm(clouds - np.asarray(end.measure.points), axis=2).max(axis=1)
law = [ma.wasserstein.w1(mu, end.measure).upper for mu in path]
print("the limit is inside at every step:", bool(np.all(far[:-1] <= funnel + end.error)))

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.3), layout="constrained")
steps = np.arange(len(funnel))
order = np.argsort(end.measure.points[:, 0])
chosen = order[[0, 12, -1]]
for token, colour in zip(chosen, (BLUE, ORANGE, GREEN), strict=True):
    x = clouds[:-1, token, 0]
    left.fill_between(steps[:7], (x - funnel)[:7], (x + funnel)[:7], color=colour, alpha=0.15, lw=0)
    left.plot(steps[:7], x[:7], "o-", color=colour, markersize=3.5)
    left.axhline(end.measure.points[token, 0], color=colour, linewidth=0.8, linestyle=":")
left.set(xlabel="step", ylabel="first coordinate", ylim=(-1.9, 1.9))
left.set_title("three tokens, their funnels and limits")
right.plot(steps, funnel[0] * proof.value**steps, "--", color=ORANGE, label="$q^t r_0$, proved")
right.plot(steps, funnel, color=GREEN, label="$r_t$, proved as one goes")
right.plot(steps, far[:-1], "o", color=BLUE, markersize=3.5, label="farthest token from its limit")
right.plot(steps, law[:-1], color=SKY, label="$W_1$ to the limit")
logarithmic(right.yaxis)
right.set(xlabel="step", ylabel="distance", title=f"q = {proof.value:.3f}")
right.legend(fontsize=8)
plt.show()

# %% [markdown]
# These radii take the layer as evaluated without rounding, which shows only at 1e-16;
# `end.error`, printed above, counts rounding in as well.

# %% [markdown]
# ## MiniLM: one layer for ever, or six different ones
#
# The theory of infinite depth shares weights. Trained models do not. `through` follows a law
# through different layers with the same records, so that the two can be laid side by side: the
# true stack of six layers, and the first, the third and the last of them repeated 24 times.

# %%
model = ma.pretrained.minilm()
text = (
    "The river rose in the night. By morning the lower bridge was under water, and the people of "
    "the village carried what they could to the church on the hill. Nobody had slept. The baker "
    "had brought bread, the teacher counted the children twice, and an old man told everyone who "
    "would listen that it had been worse in his youth."
)
sentence = model.tokens(text, dtype=jnp.float64)
paths = {"the true stack": dynamics.through(model.layers, sentence, keep="all")}
for k in (0, 2, 5):
    paths[f"layer {k + 1} repeated"] = dynamics.iterate(model.layers[k], sentence, 24, keep=[6])
for name, path in paths.items():
    print(f"{name:17} {path}")

# %%
STROKES = (ma.plot.INK, BLUE, GREEN, ORANGE)
TITLES = {"w1": "$W_1$ of a step", "cosine": "mean cosine between tokens",
          "rank": "effective rank", "diameter": "diameter"}  # fmt: skip


def compare(paths, *names, logs=()):
    """One panel for each thing recorded, one line for each path; the true stack is bold."""
    width = 3.2 * len(names)
    figure, row = plt.subplots(1, len(names), figsize=(width, 3.2), layout="constrained")
    for axes, what in zip(row, names, strict=True):
        for (name, path), colour in zip(paths.items(), STROKES, strict=True):
            line = getattr(path, what)
            wide = 2.4 if "true" in name else 1.4
            layers = np.arange(path.steps + 1 - len(line), path.steps + 1)
            axes.plot(layers, line, color=colour, linewidth=wide, label=name)
        axes.set(title=TITLES[what], xlabel="layer")
        if what in logs:
            logarithmic(axes.yaxis)
        else:
            axes.set(ylim=(0, None))
    figure.legend(*row[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return row


compare(paths, "w1", "cosine", "rank")
plt.show()

# %% [markdown]
# Repeated, each of the three layers goes the way that shared weights go: the mean cosine rises to
# nearly 1 and the cloud loses its dimensions, though each loses them at its own pace, and a small
# cloud goes on moving. The true stack is different from the start: its mean cosine stays near 0.3
# and its steps grow with depth instead of dying out, so it is no run towards a limit that was
# stopped early. Its rank does fall, and after six steps it is even below those of the repeated
# layers: dimensions get lost without the tokens turning the same way. The laws after six steps,
# each in its own two leading axes about its mean:

# %%
figure, row = plt.subplots(
    1, 4, figsize=(10.4, 2.9), layout="constrained", sharex=True, sharey=True
)
for axes, (name, path), colour in zip(row, paths.items(), STROKES, strict=True):
    x = np.asarray(path[6].points)
    x = x - x.mean(axis=0)
    plane = x @ np.linalg.svd(x, full_matrices=False)[2][:2].T
    axes.scatter(*plane.T, s=16, color=colour, alpha=0.6, linewidths=0)
    axes.set(aspect="equal", xlabel="first axis")
    axes.set_title(f"{name}\nrank {path.rank[6]:.1f}, cosine {path.cosine[6]:.2f}", fontsize=9)
row[0].set_ylabel("second axis")
plt.show()

# %% [markdown]
# ## SmolLM2: thirty layers
#
# A deep stack of the other kind: a language model of 30 layers, causal, that normalises what enters
# a block and adds what comes out. Nothing normalises the sum until after the last layer. The same
# text, through the true stack and through its first, its fifteenth and its last layer repeated.

# %%
model = ma.pretrained.smollm2()
sentence = model.tokens(text)
paths = {"the true stack": dynamics.through(model.layers, sentence, keep="all")}
for k in (0, 14, 29):
    paths[f"layer {k + 1} repeated"] = dynamics.iterate(model.layers[k], sentence, 30)
for name, path in paths.items():
    print(f"{name:17} {path}")
states = [np.asarray(ma.states(mu).points) for mu in paths["the true stack"]]
far = int(np.argmax(np.linalg.norm(states[15], axis=1)))
rest = [ma.EmpiricalMeasure(np.delete(x, far, axis=0)) for x in states]
print(f"after layer 15 token {far} has the norm {np.linalg.norm(states[15][far]):.0f},",
      f"no other one has more than {dynamics.radius(rest[15]):.0f}")  # fmt: skip

# %%
row = compare(paths, "w1", "cosine", "rank", "diameter", logs=("w1", "diameter"))
ranks = [dynamics.effective_rank(mu) for mu in rest]
row[2].plot(ranks, "--", color=ma.plot.INK, linewidth=1.2, label="without its longest token")
row[2].legend(handles=row[2].lines[-1:], loc="center right", fontsize=7)
plt.show()

# %% [markdown]
# Repeated, a layer that adds to what it is given has no limit: steps do not die out but settle at
# one size, and the diameter grows in proportion to depth. What converges, if anything, is a
# direction: under the first and the last layer the mean cosine rises as it does in MiniLM, under
# the fifteenth it stays near 0.6. The true stack goes nowhere along these lines. In layer 12 a
# single token jumps away, and the law with it: the peak of $W_1$ there is mostly that jump, divided
# by the number of tokens. From there to layer 28 the effective rank is 1, since one token holds
# nearly all of the variance; without it (dashed) the cloud has kept its dimensions. The token comes
# back in the last layers. Such tokens, on which others rest their attention, are known from many
# language models; a law sees them as an atom far away.
