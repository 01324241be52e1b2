r"""The Boltzmann-Gibbs transformation and the softmatch kernel.

$$ \Psi_g(\mu)(dx) = \frac{g(x)\,\mu(dx)}{\mu(g)}, \qquad
   x \mapsto \Psi_{G(x, \cdot)}(\mu) \quad\text{(softmatch)} $$

With $\mu$ the empirical measure of the keys, the weights of the softmatch kernel at a query are its
softmax row. $\Psi_g(\mu)$ is also the unique minimiser of $p \mapsto KL(p|\mu) - p(\log g)$, the
maximum-entropy reading of attention.

Source: Definitions 3 and 4 of [VBT20].
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from measattn.checks import ensure
from measattn.kernel import AbstractMarkovKernel
from measattn.maps import Identity, as_map
from measattn.measure import EmpiricalMeasure, integrate, measure, normalise
from measattn.points import count, one_row, state
from measattn.potential import AbstractPotential, as_potential, refuse_indicator, stream

NO_MASS = (
    "the potential leaves no mass: log g is -inf on the whole support. Allow at least one atom "
    "(a causal token sees itself), or give that query weight zero"
)


def boltzmann_gibbs(log_g: Callable[[PyTree], Any], mu: EmpiricalMeasure) -> EmpiricalMeasure:
    r"""The measure $\Psi_g(\mu) = g\mu/\mu(g)$, on the atoms of $\mu$.

    Args:
        log_g: $\log g$, a function of one point; -inf where $g = 0$.
        mu: the measure to be re-weighted.

    Raises:
        ValueError: ``log_g`` is -inf on the whole support, NaN, or not scalar.

    Source: Definition 3 of [VBT20].
    """
    change = jnp.asarray(jax.vmap(log_g)(mu.points))
    refuse_indicator("log_g", change)
    change = change.astype(mu.dtype)
    if change.shape != (mu.size,):
        raise ValueError(f"log_g must return one number for a point, got shape {change.shape[1:]}")
    massless = jnp.isneginf(mu.log_weights)
    log_weights = jnp.where(massless, -jnp.inf, mu.log_weights + change)
    out = measure(mu.points, normalise(log_weights))
    bad = jnp.isnan(log_weights) | jnp.isposinf(log_weights)
    out = ensure(~bad, out, "log_g must be finite or -inf, got a NaN or +inf on the support")
    return ensure(jnp.any(log_weights > -jnp.inf), out, NO_MASS)


class SoftmatchKernel(AbstractMarkovKernel):
    r"""The Markov kernel $x \mapsto \Psi_{G(x,\cdot)}(\mu)$: attention weights, as measures.

    Args:
        potential: $\log G(x, y)$, a potential or any function of two points.
        mu: the measure of the keys, an `EmpiricalMeasure` or an array of points.

    Source: Definition 4 of [VBT20].
    """

    potential: AbstractPotential
    mu: EmpiricalMeasure

    def __init__(self, potential: Any, mu: Any):
        self.potential = as_potential(potential)
        self.mu = mu if isinstance(mu, EmpiricalMeasure) else EmpiricalMeasure(mu)

    def __call__(self, x: PyTree) -> EmpiricalMeasure:
        row = one_row(x)
        if not self.potential.masks:
            row = self.potential.block(row, self.mu.points)[0]
            return measure(self.mu.points, normalise(self.mu.log_weights + row))
        x = jax.tree.map(lambda a: a[0], row)
        return boltzmann_gibbs(lambda y: self.potential(x, y), self.mu)

    def average(self, f: Callable[[PyTree], PyTree], block: PyTree) -> PyTree:
        return stream_average(self.potential, block, self.mu, f(self.mu.points))

    def act(self, mu: EmpiricalMeasure) -> EmpiricalMeasure:
        r"""$\mu K$ on the atoms of the keys, re-weighted by the column mass: no n·m atoms.

        The weight of atom j is $\omega_j\sum_i\mu_i G(x_i, y_j)/Z_i$: the row normalisers first,
        then one more pass with the roles of queries and keys exchanged.
        """
        return measure(self.mu.points, log_column_mass(self.potential, mu, self.mu))


def log_normaliser(potential: Any, mu: EmpiricalMeasure, x: PyTree) -> Float[Array, ""]:
    r"""The log-normaliser $\log\mu(G(x, \cdot))$ at one query point; differentiable."""
    return log_normalisers(potential, mu, one_row(x))[0]


def log_normalisers(potential: Any, mu: EmpiricalMeasure, queries: PyTree) -> Float[Array, " n"]:
    r"""The log-normalisers $\log\mu(G(x_i, \cdot))$ at a block of query points (n, ...).

    A query that a mask leaves without mass has $-\infty$, which is the right value.
    """
    potential = as_potential(potential)
    log_weights = normalise(mu.log_weights)
    nothing = jnp.zeros((mu.size, 0), mu.dtype)
    return stream(potential, queries, mu.points, log_weights, nothing)[1]


def stream_average(
    potential: AbstractPotential, queries: PyTree, mu: EmpiricalMeasure, values: PyTree
) -> PyTree:
    r"""The means $\Psi_{G(x_i,\cdot)}(\mu)(f)$ at a block of queries, given $f$ on the atoms.

    Raises:
        ValueError: a mask leaves no mass at a query.
    """
    if count(values) != mu.size:
        raise ValueError(
            f"there must be one value for each of {mu.size} keys, got {count(values)}; a function "
            "that is averaged maps a block of points to a block of values"
        )
    flat, restore = _flat_rows(jax.tree.map(lambda v: v.astype(mu.dtype), values))
    out, log_z = stream(potential, queries, mu.points, normalise(mu.log_weights), flat)
    if potential.masks:
        out = kept_mass(log_z, jnp.zeros_like(log_z), out)
    return restore(out)


def _flat_rows(values: PyTree) -> tuple[Float[Array, "m v"], Callable[[Array], PyTree]]:
    """Rows of a pytree as one matrix, and the way back for matrices with other rows."""
    one = jax.tree.map(lambda a: a[0], values)
    _, restore = jax.flatten_util.ravel_pytree(one)
    return jax.vmap(lambda v: jax.flatten_util.ravel_pytree(v)[0])(values), jax.vmap(restore)


def log_column_mass(
    potential: Any, queries: EmpiricalMeasure, keys: EmpiricalMeasure
) -> Float[Array, " m"]:
    r"""The logarithms of $\omega_j\sum_i\mu_i G(x_i,y_j)/Z_i$, the total attention of each key.

    Divided by $\omega_j$ this is the column mass $C_\mu(y_j)$; the sum over j is 1.
    """
    potential = as_potential(potential)
    rows = log_normalisers(potential, keys, queries.points)
    log_queries = normalise(queries.log_weights)
    if potential.masks:
        rows = kept_mass(rows, log_queries, rows)
    # a query without mass of its own contributes nothing, also where its row is empty
    log_queries = jnp.where(jnp.isneginf(log_queries), -jnp.inf, log_queries - rows)
    nothing = jnp.zeros((queries.size, 0), queries.dtype)
    flipped = _Flipped(potential)
    columns = stream(flipped, keys.points, queries.points, log_queries, nothing)[1]
    return normalise(normalise(keys.log_weights) + columns)


def kept_mass(
    log_normaliser: Float[Array, " n"],
    log_weights: Float[Array, " n"],
    value: Any,
    message: str = NO_MASS,
) -> Any:
    """Return ``value`` if each query of positive weight keeps some mass, else raise ``message``.

    Raises:
        ValueError: a mask leaves no mass at a query of positive weight.
    """
    massless = log_weights == -jnp.inf
    broken = jnp.isnan(log_normaliser) | jnp.isposinf(log_normaliser)
    value = ensure(
        ~broken | massless, value, "the potential has a NaN or +inf value on the support"
    )
    return ensure((log_normaliser > -jnp.inf) | massless | broken, value, message)


class _Flipped(AbstractPotential):
    r"""The potential $(y, x) \mapsto a(x, y)$."""

    potential: AbstractPotential

    def __call__(self, x: PyTree, y: PyTree) -> Float[Array, ""]:
        return self.potential(y, x)

    def block(self, x: PyTree, y: PyTree) -> Float[Array, "n m"]:
        return self.potential.block(y, x).T

    def factor(self) -> tuple[AbstractPotential, Callable, Callable]:
        core, query_map, key_map = self.potential.factor()
        return _Flipped(core), key_map, query_map


def relative_entropy(p: EmpiricalMeasure, mu: EmpiricalMeasure) -> Float[Array, ""]:
    r"""$KL(p|\mu) = \sum_i p_i \log(p_i/\mu_i)$ for two measures on the same atoms, in order.

    The atoms are not compared: pass measures that came from one another by re-weighting. It is
    $+\infty$ where p has mass at an atom without mass in $\mu$.
    """
    if p.size != mu.size:
        raise ValueError(
            f"both measures must have the same atoms, got {p.size} and {mu.size} of them"
        )
    log_p, log_mu = normalise(p.log_weights), normalise(mu.log_weights)
    has = log_p > -jnp.inf
    difference = jnp.where(has, log_p, 0) - jnp.where(has, log_mu, 0)
    return jnp.sum(jnp.where(has, jnp.exp(log_p) * difference, 0))


def free_energy(
    log_g: Callable[[PyTree], Any], mu: EmpiricalMeasure, p: EmpiricalMeasure
) -> Float[Array, ""]:
    r"""The functional $KL(p|\mu) - p(\log g)$, whose unique minimiser is $\Psi_g(\mu)$.

    Its minimum is $-\log\mu(g)$. Source: derived in docs/theory.md, D1.
    """
    return relative_entropy(p, mu) - integrate(lambda x: jnp.asarray(log_g(x)), p)


def influence(
    potential: Any, mu: EmpiricalMeasure, x: PyTree, y: PyTree, value: Any = None
) -> Array:
    r"""The flat derivative of $\mu \mapsto \Gamma_\mu(x)$ in the direction of a new atom y.

    $$ \frac{\delta\Gamma_\mu(x)}{\delta\mu}(y)
       = \frac{G(x, y)}{\mu(G(x, \cdot))}\bigl(v(y) - \Gamma_\mu(x)\bigr) , $$

    which integrates to 0 over $\mu$: what growing a little mass at y does to the attention output.

    Args:
        potential: $\log G$.
        mu: the measure of the keys.
        x: the query point.
        y: the point where mass is added; it need not be an atom of mu.
        value: the value map $v$ of states (a matrix or a map), the identity by default.

    Source: derived in docs/theory.md, B7.
    """
    potential = as_potential(potential)
    value = Identity() if value is None else as_map(value)
    log_z = log_normaliser(potential, mu, x)
    mean = integrate(lambda z: value(state(z)), SoftmatchKernel(potential, mu)(x))
    return jnp.exp(potential(x, y) - log_z) * (value(state(y)) - mean)
