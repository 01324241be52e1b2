"""From text to token ids, with the checkpoint's own tokenizer.

Two sources: a ``tokenizer.json``, whose padding and truncation are switched off (MiniLM's cuts at
128 tokens and pads to 128), and the tables in the metadata of a GGUF file, from which byte-level
byte-pair encoding is rebuilt. Where neither is there, a model still loads, and says so when it is
asked for tokens.
"""

from pathlib import Path
from typing import Any

import numpy as np

from measattn.pretrained.config import need

PRE_TOKENIZERS = ("gpt-2", "smollm")
WHOLE = (3, 4)  # the types of control and user-defined tokens, which are never cut


class Tokenizer:
    """Text to ids, or the reason why not.

    Attributes:
        origin: where the tokenizer was read.
        lacking: what is missing, empty where nothing is.
    """

    def __init__(self, encoder: Any, origin: str, lacking: str = ""):
        self._encoder = encoder
        self.origin = origin
        self.lacking = lacking

    def __call__(self, text: Any) -> np.ndarray:
        """The ids of a text, (n,) int32.

        Raises:
            ValueError: there is no tokenizer, or ``text`` is no string.
        """
        return np.asarray(self._encode(text).ids, dtype=np.int32)

    def words(self, text: Any) -> list[str]:
        """What each token of a text stands for, to label figures with; raises like a call."""
        encoded = self._encode(text)
        decode = self._encoder.decode
        return [
            decode([i], skip_special_tokens=False) or token
            for i, token in zip(encoded.ids, encoded.tokens, strict=True)
        ]

    def decode(self, ids: Any) -> str:
        """The text that ids stand for, special tokens included.

        Raises:
            ValueError: there is no tokenizer.
        """
        self._need_encoder()
        ids = np.atleast_1d(np.asarray(ids)).tolist()
        return self._encoder.decode(ids, skip_special_tokens=False)

    def _encode(self, text: Any) -> Any:
        self._need_encoder()
        if not isinstance(text, str):
            raise ValueError(
                f"text must be a str, got {type(text).__name__}; for token ids use .embed(ids)"
            )
        return self._encoder.encode(text)

    def _need_encoder(self) -> None:
        if self._encoder is None:
            raise ValueError(
                f"{self.lacking}; add the file, or tokenize elsewhere and pass the ids to "
                ".embed(ids), which gives the same measure"
            )


def tokenizer_file(path: Path) -> Tokenizer:
    """The tokenizer in a ``tokenizer.json``, without padding or truncation.

    Raises:
        ValueError: the file is no tokenizer.
    """
    if not path.is_file():
        return Tokenizer(None, str(path), f"there is no {path.name} in {path.parent}")
    library: Any = need("tokenizers")
    try:
        encoder = library.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a bare Exception
        raise ValueError(
            f"{path} cannot be read as a tokenizer ({error}); get a whole copy, or remove the file "
            "and use .embed(ids)"
        ) from error
    encoder.no_padding()
    encoder.no_truncation()
    return Tokenizer(encoder, str(path))


def gguf_tokenizer(metadata: dict[str, Any], path: Path) -> Tokenizer:
    r"""Byte-level byte-pair encoding from the tables of a GGUF file.

    Control tokens are cut out of the text first; GPT-2's pattern then cuts the rest into pieces
    (``smollm``: after every digit was made a piece of its own), and pairs are merged in the order
    of the table. Other pre-tokenizers need a ``tokenizer.json`` beside the file.

    Raises:
        ValueError: the tables contradict each other.
    """
    beside = path.parent / "tokenizer.json"
    model = metadata.get("tokenizer.ggml.model")
    split = metadata.get("tokenizer.ggml.pre", "gpt-2")
    if model != "gpt2" or split not in PRE_TOKENIZERS:
        if beside.is_file():
            return tokenizer_file(beside)
        return Tokenizer(
            None,
            str(path),
            f"the tokenizer of {path} (model {model!r}, pre-tokenizer {split!r}) is none of "
            f"{', '.join(PRE_TOKENIZERS)}, and there is no tokenizer.json beside it",
        )
    library: Any = need("tokenizers")
    try:
        return Tokenizer(byte_pair_encoding(library, metadata, split), str(path))
    except Exception as error:  # the library raises a bare Exception
        raise ValueError(
            f"{path}: the tables of its tokenizer contradict each other "
            f"({type(error).__name__}: {error}); get a whole copy"
        ) from error


def byte_pair_encoding(library: Any, metadata: dict[str, Any], split: str) -> Any:
    """The encoder that the tables of a GGUF file describe."""
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    kinds = metadata["tokenizer.ggml.token_type"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    encoder = library.Tokenizer(library.models.BPE(vocab=vocabulary, merges=merges))
    pieces = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if split == "smollm":
        digits = library.pre_tokenizers.Digits(individual_digits=True)
        pieces = library.pre_tokenizers.Sequence([digits, pieces])
    encoder.pre_tokenizer = pieces
    encoder.decoder = library.decoders.ByteLevel()
    encoder.add_special_tokens(
        [token for token, kind in zip(tokens, kinds, strict=True) if kind in WHOLE]
    )
    if metadata.get("tokenizer.ggml.add_bos_token", False):
        first = metadata["tokenizer.ggml.bos_token_id"]
        encoder.post_processor = library.processors.TemplateProcessing(
            single=f"{tokens[first]} $A", special_tokens=[(tokens[first], first)]
        )
    return encoder
