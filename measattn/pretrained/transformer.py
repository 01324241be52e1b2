r"""A trained transformer as what the rest of the library works with: kernels and a first measure.

A text becomes the uniform measure on its tokens' embeddings, $\mu_0$; layer $l$ is a nonlinear
Markov kernel, $\mu_{l+1} = \mu_l K^{(l)}_{\mu_l}$, written ``mu @ model.layers[l]``.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from measattn.checks import ensure
from measattn.kernel import AbstractDiracKernel, AbstractNonlinearKernel
from measattn.measure import EmpiricalMeasure
from measattn.points import Token, state
from measattn.pretrained.tokenizer import Tokenizer


class Embedding(eqx.Module):
    r"""Ids to states: the i-th state is norm(words[ids[i]] + positions[i] + offset).

    What a model has none of is ``None`` and left out.
    """

    words: Float[Array, "V d"]
    positions: Float[Array, "p d"] | None
    offset: Float[Array, " d"] | None
    norm: AbstractDiracKernel | None

    def __init__(
        self,
        words: Any,
        positions: Any = None,
        offset: Any = None,
        norm: AbstractDiracKernel | None = None,
    ):
        self.words = jnp.asarray(words)
        self.positions = None if positions is None else jnp.asarray(positions)
        self.offset = None if offset is None else jnp.asarray(offset)
        self.norm = norm


class Transformer(eqx.Module):
    r"""A trained transformer whose layers are nonlinear Markov kernels.

    ``mu = model.tokens(text)`` is the measure that enters layer 0, and ``mu @ model.layers[0]`` the
    one that leaves it. All layers have the same structure, so a function compiled for one of them
    serves all. Parameters are float32 (float64 where the checkpoint and JAX have it) and are cast
    to the dtype of the points: ``model.tokens(text, dtype=jnp.float64)`` computes in float64.

    Attributes:
        layers: the layers, each a nonlinear kernel of measures on R^d (BERT) or on `Token` (causal
            families).
        final: the norm after the last layer (``None`` for BERT): ``mu @ model.final``.
        head: the output matrix (V, d) of a causal model; ``None`` where it is the embedding's.
        name: the name of the checkpoint, with the quantisation that its weights went through.
        family: ``"bert"``, ``"gpt2"`` or ``"llama"``.
    """

    embedding: Embedding
    layers: tuple[AbstractNonlinearKernel, ...]
    final: AbstractDiracKernel | None
    head: Float[Array, "V d"] | None
    tokenizer: Tokenizer = eqx.field(static=True)
    name: str = eqx.field(static=True)
    family: str = eqx.field(static=True)

    def __init__(
        self,
        *,
        name: str,
        family: str,
        embedding: Embedding,
        layers: tuple[AbstractNonlinearKernel, ...],
        tokenizer: Tokenizer,
        final: AbstractDiracKernel | None = None,
        head: Any = None,
    ):
        self.name, self.family, self.tokenizer = name, family, tokenizer
        self.embedding, self.layers, self.final = embedding, layers, final
        self.head = None if head is None else jnp.asarray(head)

    @property
    def dimension(self) -> int:
        """The dimension d of the states."""
        return self.embedding.words.shape[1]

    @property
    def causal(self) -> bool:
        """Whether a token sees only itself and what came before it."""
        return self.family != "bert"

    def ids(self, text: str) -> Int[Array, " n"]:
        """The token ids of a text, with the special tokens that the checkpoint's tokenizer adds.

        Raises:
            ValueError: the checkpoint came without a tokenizer.
        """
        return jnp.asarray(self.tokenizer(text))

    def words(self, text: str) -> list[str]:
        """What each token of a text stands for, in order: labels for figures.

        Raises:
            ValueError: the checkpoint came without a tokenizer.
        """
        return self.tokenizer.words(text)

    def decode(self, ids: Any) -> str:
        """The text that one or several token ids stand for, such as the argmax of `logits`.

        Raises:
            ValueError: the checkpoint came without a tokenizer.
        """
        return self.tokenizer.decode(ids)

    def tokens(self, text: str, dtype: Any = None) -> EmpiricalMeasure:
        """The uniform measure on the embedded tokens of a text: what enters layer 0.

        Args:
            text: any text; it is never truncated or padded.
            dtype: of the points; by default that of the parameters.

        Raises:
            ValueError: the checkpoint came without a tokenizer, the text has no tokens or more
                than the model has positions, or float64 is asked for while JAX has it off.
        """
        return self.embed(self.ids(text), dtype)

    def embed(self, ids: Any, dtype: Any = None) -> EmpiricalMeasure:
        """The uniform measure on the embeddings of token ids, (n,) whole numbers.

        Raises:
            ValueError: no ids, ids that the vocabulary does not have, more than the model has
                positions, or float64 is asked for while JAX has it off.
        """
        table = self.embedding
        dtype = table.words.dtype if dtype is None else _available(dtype)
        ids = self._checked(ids)
        n = ids.shape[0]
        points = table.words[ids].astype(dtype)
        if table.positions is not None:
            points = points + table.positions[:n].astype(dtype)
        if table.offset is not None:
            points = points + table.offset.astype(dtype)[None, :]
        if self.causal:
            points = Token(jnp.arange(n, dtype=dtype), points)
        mu = EmpiricalMeasure(points)
        return mu if table.norm is None else mu @ table.norm

    def logits(self, mu: EmpiricalMeasure) -> Float[Array, "n V"]:
        """The scores of the next token after each token, from the law that leaves the last layer.

        Applies the final norm and the output matrix: ``mu`` comes straight from
        ``model.layers[-1]``.

        Raises:
            ValueError: the model has no output head.
        """
        if not self.causal or self.final is None:
            raise ValueError(
                f"{self.name} is an encoder without an output head; logits are for the causal "
                "families gpt2 and llama"
            )
        points = state((mu @ self.final).points)
        head = self.embedding.words if self.head is None else self.head
        return jnp.matmul(points, head.T.astype(points.dtype), precision=jax.lax.Precision.HIGHEST)

    def _checked(self, ids: Any) -> Int[Array, " n"]:
        ids = jnp.asarray(ids)
        if ids.ndim != 1 or ids.size == 0 or not jnp.issubdtype(ids.dtype, jnp.integer):
            raise ValueError(
                f"ids must be at least one whole number in a row, got shape {ids.shape} and dtype "
                f"{ids.dtype}; a measure needs at least one token"
            )
        positions = self.embedding.positions
        if positions is not None and ids.shape[0] > positions.shape[0]:
            raise ValueError(
                f"{self.name} has {positions.shape[0]} positions and cannot take {ids.shape[0]} "
                "tokens; cut the text"
            )
        size = self.embedding.words.shape[0]
        return ensure(
            (ids >= 0) & (ids < size), ids, f"ids must lie between 0 and {size - 1}, the vocabulary"
        )

    def __repr__(self) -> str:
        size, width = self.embedding.words.shape
        positions = self.embedding.positions
        limit = "" if positions is None else f", up to {positions.shape[0]} tokens"
        return (
            f"Transformer({self.name}: {self.family}, {len(self.layers)} layers, width {width}, "
            f"vocabulary {size}{limit}, {self.embedding.words.dtype})"
        )


def _available(dtype: Any) -> Any:
    wanted = jnp.dtype(dtype)
    if not jnp.issubdtype(wanted, jnp.floating):
        raise ValueError(f"dtype must be a floating type, got {wanted}")
    if jax.dtypes.canonicalize_dtype(wanted) != wanted:
        raise ValueError(
            f"{wanted} is switched off in JAX; switch it on at the program's start with "
            "jax.config.update('jax_enable_x64', True)"
        )
    return wanted
