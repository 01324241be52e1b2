r"""The look-up kernel: the conditional law of a value given its key.

The paper moves mass from keys to values by $L(k, dv) = \sum_i 1\{k = k_i\}\,\delta_{v_i}(dv)$,
which is a Markov kernel only where no key occurs twice: a repeated key has mass two. The object
that survives is the joint law $\pi = \sum_i\omega_i\delta_{(k_i, v_i)}$ and its disintegration

$$ L(k, \cdot) = \pi(dv \mid k) = \Psi_{1\{k = \cdot\}}(\pi)(dv), $$

which agrees with the paper's where keys are distinct and composes with the softmatch kernel to
attention always, because equal keys receive equal attention.

Source: Definition 5 of [VBT20]; the hypothesis it needs is derived in docs/theory.md, B8.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

from measattn.checks import traced
from measattn.gibbs import (
    SoftmatchKernel,
    kept_mass,
    log_normalisers,
)
from measattn.kernel import AbstractMarkovKernel, Composed
from measattn.masks import OnKey
from measattn.measure import EmpiricalMeasure, compact, measure, normalise, pairs
from measattn.points import count, one_row
from measattn.potential import AbstractPotential

ABSENT = (
    "the key that is looked up is no key of this kernel (keys are compared bit for bit; two "
    "computations of one key may differ in the last place): compose by `softmatch @ look-up` on "
    "the same keys, which goes by index"
)


class SoftmatchLookup(AbstractMarkovKernel):
    r"""The composition $x \mapsto \Psi_{G(x,\cdot)}(\mu)L = \sum_j p_j(x)\,\delta_{v_j}$.

    Args:
        potential: $\log G(x, k)$ of a query and a key.
        joint: the law of the pairs (key, value), as made by `pairs`.
    """

    potential: AbstractPotential
    joint: EmpiricalMeasure

    @property
    def softmatch(self) -> SoftmatchKernel:
        """The softmatch kernel on the pairs, which looks at their keys alone."""
        return SoftmatchKernel(OnKey(self.potential), self.joint)

    def __call__(self, x: PyTree) -> EmpiricalMeasure:
        return _values(self.softmatch(x))

    def average(self, f: Callable[[PyTree], PyTree], block: PyTree) -> PyTree:
        return self.softmatch.average(lambda pairs: f(pairs.value), block)

    def act(self, mu: EmpiricalMeasure) -> EmpiricalMeasure:
        return _values(mu @ self.softmatch)


class LookupKernel(AbstractMarkovKernel):
    r"""The Markov kernel $L(k, \cdot)$, the conditional law of the value given the key $k$.

    Keys may repeat; `indicator_lookup` is the paper's formula, which refuses that.

    Args:
        keys: an `EmpiricalMeasure` or an array (m, e).
        values: an array (m, v), one value for each key.

    Raises:
        ValueError: when called at, or transporting mass from, a key that is absent.
    """

    joint: EmpiricalMeasure

    def __init__(self, keys: Any, values: Any):
        self.joint = pairs(keys, values)

    def __call__(self, k: PyTree) -> EmpiricalMeasure:
        row = one_row(k)
        k = jax.tree.map(lambda a: a[0], row)
        match = jax.vmap(lambda pair: _Equal()(k, pair.key))(self.joint.points)
        law = measure(self.joint.points.value, normalise(self.joint.log_weights + match))
        return self._present(row, jnp.zeros(1, self.joint.dtype), law)

    def average(self, f: Callable[[PyTree], PyTree], block: PyTree) -> PyTree:
        everywhere = jnp.zeros(count(block), self.joint.dtype)
        return self._matched.average(f, self._present(block, everywhere, block))

    def act(self, mu: EmpiricalMeasure) -> EmpiricalMeasure:
        r"""$\mu L$ on the values: the mass of a key is shared by the values that it has."""
        return self._present(mu.points, mu.log_weights, mu) @ self._matched

    @property
    def _matched(self) -> SoftmatchLookup:
        """The look-up as a softmatch by equality of keys."""
        return SoftmatchLookup(_Equal(), self.joint)

    def _present(self, keys: PyTree, log_weights: Array, value: Any) -> Any:
        """Return ``value`` if all keys of positive weight are there."""
        found = log_normalisers(OnKey(_Equal()), self.joint, keys)
        return kept_mass(found, log_weights, value, ABSENT)

    def after(self, first: AbstractMarkovKernel) -> AbstractMarkovKernel:
        """Softmatch, then look-up on the same keys: by index, no key is searched for.

        Under `jit` sameness shows only where both were built on one `EmpiricalMeasure`; elsewhere
        the composition goes through the equality of keys, which is slower and as right.
        """
        if isinstance(first, SoftmatchKernel) and _same(first.mu, self):
            return SoftmatchLookup(first.potential, self.joint)
        return Composed(first, self)


def indicator_lookup(keys: Any, values: Any) -> LookupKernel:
    r"""The paper's $L(k, dv) = \sum_i 1\{k = k_i\}\delta_{v_i}(dv)$, where that is a Markov kernel.

    Raises:
        ValueError: a key occurs twice. Then $L(k, \cdot)$ has mass two or more, composing it with
            the softmatch kernel counts each of these values that many times, and attention does
            not come out. `LookupKernel`, the conditional law, is right for all keys.
    """
    kernel = LookupKernel(keys, values)
    keys = measure(kernel.joint.points.key, kernel.joint.log_weights)
    distinct = compact(EmpiricalMeasure(keys.points)).size
    if distinct < keys.size:
        raise ValueError(
            f"{keys.size} keys hold only {distinct} different ones, so the sum of indicators over "
            "equal keys has a mass above one and is no Markov kernel: use LookupKernel(keys, "
            "values), the conditional law of the value given the key"
        )
    return kernel


class _Equal(AbstractPotential):
    r"""$\log 1\{x = y\}$, bit for bit."""

    @property
    def masks(self) -> bool:
        return True

    def __call__(self, x: PyTree, y: PyTree) -> Array:
        if jax.tree.map(jnp.shape, x) != jax.tree.map(jnp.shape, y):
            raise ValueError(
                f"a key of shape {jax.tree.map(jnp.shape, x)} is looked up among keys of shape "
                f"{jax.tree.map(jnp.shape, y)}: they must have the same dimension"
            )
        return jnp.where(_all_equal(x, y), 0.0, -jnp.inf).astype(jax.tree.leaves(y)[0].dtype)


def _all_equal(x: PyTree, y: PyTree) -> Bool[Array, ""]:
    equal = [jnp.all(a == b) for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)]
    return jnp.stack(equal).all()


def _values(joint: EmpiricalMeasure) -> EmpiricalMeasure:
    return measure(joint.points.value, joint.log_weights)


def _same(mu: EmpiricalMeasure, lookup: LookupKernel) -> bool:
    """Whether both hold the same keys with the same weights, as far as can be seen now."""
    ours = jax.tree.leaves((mu.points, mu.log_weights))
    theirs = jax.tree.leaves((lookup.joint.points.key, lookup.joint.log_weights))
    return len(ours) == len(theirs) and all(
        a is b or (not traced(a, b) and np.array_equal(a, b))
        for a, b in zip(ours, theirs, strict=True)
    )
