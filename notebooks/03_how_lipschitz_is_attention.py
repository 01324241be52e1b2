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
# # How Lipschitz is attention?
#
# Two laws of tokens at a distance $W_p(\mu,\nu)$ go through a layer: how far apart can they come
# out? The largest quotient of the distances after and before is the Lipschitz constant of the
# layer. It is never known exactly, but it can be enclosed: every pair of measures is a *lower*
# bound, every theorem an *upper* one. This notebook lets the two meet on a ball, looks at the worst
# pair, at the constants near one text in MiniLM, and at how the worst case grows with the number of
# tokens and with the radius.

# %%
import jax
import jax.numpy as jnp
import numpy as np

import measattn as ma
from measattn import lipschitz as lip
from measattn.wasserstein import w1

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## A bracket that closes
#
# Self-attention with the score $a(x,y) = -\langle x,y\rangle$, values $V = I$, on all measures in
# the unit disc. Random pairs say little about the worst one: after many of them the best quotient
# is still far below what is possible. A search by gradients over points, weights and moves comes
# within five percent of the bound that theorem B3 proves.

# %%
ball = lip.Ball(1.0)
repelling = ma.SelfAttention(ma.DotProduct(-1.0))
bracket = lip.bracket(repelling, ball, dimension=2, key=jax.random.key(0), steps=100)
print(bracket)
print(bracket.estimate.found)

# %%
rng = np.random.default_rng(0)


def random_law(n=4):
    x = rng.normal(size=(n, 2))
    x *= rng.random((n, 1)) ** 0.5 / np.linalg.norm(x, axis=1, keepdims=True)
    return ma.weighted(x, rng.dirichlet(np.full(n, 0.3)) + 1e-3)


layer = jax.jit(lambda mu: mu @ repelling)
quotients = []
for _ in range(256):
    mu, nu = random_law(), random_law()
    quotients.append(w1(layer(mu), layer(nu)).lower / w1(mu, nu).upper)
best = np.maximum.accumulate(quotients)
pairs = 2 ** np.arange(9)
ma.plot.growth(
    pairs,
    {
        "random pairs, best so far": (best[pairs - 1], None),
        "search, and the bound of B3": (np.full(9, bracket.lower), np.full(9, bracket.upper)),
    },
    power=True,
    names=("pairs tried", "quotient in W1"),
)

# %% [markdown]
# For $a(x,y) = \langle x,y\rangle$ attention pulls together instead of pushing apart, and the
# constant is much smaller. Each theorem of the catalogue gives a bound, or the reason why it does
# not apply; the smallest that is proved is taken.

# %%
attracting = ma.SelfAttention(ma.DotProduct(1.0))
print(lip.bounds(attracting, ball, dimension=2))
bracket = lip.bracket(attracting, ball, dimension=2, key=jax.random.key(0), steps=100)
print(bracket)

# %% [markdown]
# ## The worst pair
#
# The pair that the search found: masses at two ends of a diameter, and the lighter one moves.
# Dots have an area proportional to their weight; the move is drawn much longer than it is. The
# circle is the boundary of the disc.

# %%
witness = bracket.estimate.witness
mu, nu = witness.mu, witness.nu
step = 0.35 / np.linalg.norm(nu.points - mu.points, axis=1).max()
moved = ma.EmpiricalMeasure(mu.points + step * (nu.points - mu.points), mu.log_weights)


def in_the_disc(before, after, title):
    figure = ma.plot.law(before, after, labels=("before", "moved"))
    axes = figure.axes[0]
    axes.plot(*np.array([np.cos(angles), np.sin(angles)]), color="0.6", linewidth=0.8)
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.set(xlim=(-1.2, 2.2), ylim=(-1.2, 1.2))
    axes.get_legend().set_loc("upper right")
    axes.set_aspect("equal", adjustable="box")
    return figure


angles = np.linspace(0, 2 * np.pi, 200)
in_the_disc(mu, moved, "what goes in")

# %% [markdown]
# What comes out, with displacements drawn on the same scale: the output of the token that moved
# has moved further than the token did, and those of the others, which look at it, have moved, too.

# %%
out, after = mu @ attracting, nu @ attracting
swept = ma.EmpiricalMeasure(out.points + step * (after.points - out.points), out.log_weights)
in_the_disc(out, swept, "what comes out")

# %% [markdown]
# ## Near one text
#
# The worst case on a ball may be nothing like the tokens one has. `lipschitz.local` is the constant
# near one measure: here these tokens of a sentence, each of which may be perturbed (the class
# *Whole*). Both ends are computed at all tokens, and mostly agree to four digits.

# %%
model = ma.pretrained.minilm()
text = "The river bank was muddy, so the bank sent no one."
mu = model.tokens(text, dtype=jnp.float64)
words = model.words(text)
attention = model.layers[0].layers[0].layer
chosen = range(6)
found = [lip.local(attention.head(k), mu) for k in chosen]
for k, constant in zip(chosen, found, strict=True):
    moves = words[constant.witness.atom]
    print(f"head {k}: {constant.value:.4f} to {constant.upper:.4f}, when {moves!r} moves")
ma.plot.two_sided(
    [constant.value for constant in found],
    [constant.upper for constant in found],
    names=("head of layer 0", "local constant in W1, Whole"),
)

# %% [markdown]
# ## Many tokens
#
# How does the worst case grow with the number n of equal tokens? On the line the constants near a
# list of tokens are the norms $\|J\|_1$, $\|J\|_2$, $\|J\|_\infty$ of its Jacobian. Take a strong
# score, $a(x,y) = -4xy$, and lists with one token at s, some at u and all others at -1, with the
# worst s and u. One token that all others look at moves n outputs at once: that costs n in $W_1$,
# $\sqrt n$ in $W_2$, and nearly nothing more in $W_\infty$. Dashed are the bounds for n equal
# atoms, dotted powers $n^{1/p}$.

# %%
strong = ma.SelfAttention(ma.DotProduct(-4.0))
norms = {1: "W1", 2: "W2", np.inf: "W∞"}
sizes = np.array([2, 4, 8, 16, 32])
grid = jnp.linspace(-1, 1, 25)
places = tuple(jnp.ravel(axis) for axis in jnp.meshgrid(grid, grid))


@jax.jit
def constants(group):
    """The largest norms of the Jacobian; group says which tokens are at s (0), u (1), -1 (2)."""

    def one(place):
        x = jnp.select([group == 0, group == 1], place, -1.0)
        push = lambda x: (ma.EmpiricalMeasure(x[:, None]) @ strong).points[:, 0]
        J = jax.jacfwd(push)(x)
        return jnp.array([jnp.linalg.norm(J, p) for p in norms])

    return jax.lax.map(one, places, batch_size=64).max(axis=0)


def lists(n):
    for count in sorted({0, 1, n // 2}):
        yield jnp.array([0] + [1] * min(count, n - 1) + [2] * (n - 1 - count))


worst = np.array([np.max([constants(group) for group in lists(n)], axis=0) for n in sizes])
ma.plot.growth(
    sizes,
    {
        name: (worst[:, k], [lip.bound(strong, ball, p, atoms=n, dimension=1).value for n in sizes])
        for k, (p, name) in enumerate(norms.items())
    },
    power=True,
    names=("tokens n", "constant among n equal tokens"),
    reference={"n and √n": sizes / 1.5, "": np.sqrt(sizes)},
)

# %% [markdown]
# Is anything worse than these lists? A search among four equal tokens, by gradients, comes to
# nearly the same:

# %%
for k, p in enumerate((1, 2)):
    found = lip.search(
        strong, ball, p=p, atoms=4, dimension=1, key=jax.random.key(1), starts=32, steps=80
    )
    print(f"W{p}: search {found.value:.3f}, these lists {worst[1, k]:.3f}")

# %% [markdown]
# ## The radius
#
# With as many tokens as one likes, the growth in n ends at $e^{\theta_R}$, the most attention that
# a point can receive: the constant in $W_p$ grows like $e^{\theta_R/p}$ up to factors that are
# polynomial in R. For $a = -\langle x,y\rangle$ one has $\theta_R = 2R^2$. Lower ends are those of
# theorem B4, which two atoms of very unlike masses attain, and 1, since Dirac masses are left as
# they are; in $W_\infty$ it is $1 + R^2$, by one token at the centre between two large groups at
# the ends. Dashed are the smallest proved bounds, dotted the exponentials alone.

# %%
radii = np.linspace(0.25, 2.5, 10)
theta = np.array([lip.theta(-np.eye(2), np.zeros(2), R) for R in radii])
w = 1 / (2 - np.exp(-theta))
half = w * (1 + (1 - w) * theta) * np.sqrt(-np.expm1(-theta)) * np.exp(theta / 2)
lower = {1: np.exp(theta) * (1 + theta), 2: np.maximum(1, half), np.inf: 1 + radii**2}
upper = {p: [lip.bound(repelling, lip.Ball(R), p, dimension=2).value for R in radii] for p in lower}
ma.plot.growth(
    radii,
    {name: (lower[p], upper[p]) for p, name in norms.items()},
    names=("radius R of the ball", "Lipschitz constant"),
    reference={"exp(θ) and exp(θ/2)": np.exp(theta), "": np.exp(theta / 2)},
)
