"""The point clouds that the transport benchmark compares."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import measattn as ma

TEXT = Path(__file__).resolve().parent.parent / "paper_repro" / "data" / "topics.txt"

Clouds = tuple[np.ndarray, np.ndarray]


def random(n: int, m: int, d: int) -> Clouds:
    """Independent standard normal points: the hard case, where no matching is obvious."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d))


def matched(n: int, d: int) -> Clouds:
    """Points and, in another order, the same points with one per cent of noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d))
    return x, x[rng.permutation(n)] + 0.01 * rng.normal(size=(n, d))


def tokens(count: int, layer: int = 3) -> Clouds:
    """Real tokens before and after a layer of MiniLM, from texts that fill its positions."""
    model = ma.pretrained.minilm()
    ids = model.tokenizer(TEXT.read_text())
    width = 500  # positions stop at 512
    batches = [jnp.asarray(ids[i : i + width]) for i in range(0, count, width)]
    if sum(map(len, batches)) != count:
        raise ValueError(f"{TEXT} has {len(ids)} tokens, fewer than {count}")

    @jax.jit
    def both(batch: jax.Array) -> tuple[jax.Array, jax.Array]:
        mu = model.embed(batch) @ ma.Stack(model.layers[:layer])
        return mu.points, (mu @ model.layers[layer]).points

    before, after = zip(*map(both, batches), strict=True)
    return np.concatenate(before), np.concatenate(after)


def trajectory(n: int, steps: int) -> list[ma.EmpiricalMeasure]:
    """A normal cloud on its way through ``steps`` equal attention layers with residual and norm.

    The values are the attended states turned by a right angle in each of four planes: tokens
    neither collapse nor run away, and over the trajectory they mix.
    """
    turn = jnp.kron(jnp.eye(4), jnp.array([[0.0, -1.0], [1.0, 0.0]]))
    attention = ma.SelfAttention(ma.DotProduct(0.25), turn)
    layer = ma.post_norm([attention], [ma.LayerNorm()])
    mu = ma.EmpiricalMeasure(np.random.default_rng(0).normal(size=(n, 8))) @ layer
    laws = [mu]
    for _ in range(steps):
        laws.append(laws[-1] @ layer)
    return laws


def batch(count: int, n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Many small pairs of clouds, (count, n, d) each."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, n, d)), rng.normal(size=(count, n, d))
