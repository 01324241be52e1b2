"""Points and log-weights in files: npz archives that hold arrays and nothing else."""

import struct
import zlib
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from zipfile import BadZipFile

import jax
import numpy as np
from jaxtyping import Array, PyTree

from measattn.points import Pair, Token

UNREADABLE = (
    ValueError,
    OSError,
    EOFError,
    TypeError,
    KeyError,
    RuntimeError,  # an encrypted or unknown compression
    struct.error,
    BadZipFile,
    zlib.error,
)
"""What NumPy and zipfile raise where a file is damaged or of another kind."""


def write(file: Any, points: PyTree, log_weights: Array) -> None:
    """Write points and log-weights to an npz file (a path or an open file), for `read`."""
    if np.ndim(log_weights) != 1:
        raise ValueError("this is a batch of measures: save one at a time")
    arrays = {"log_weights": log_weights, **dict(_named(points, "points"))}
    for name, a in arrays.items():
        if np.asarray(a).dtype.kind != "f":
            raise ValueError(
                f"{name} has dtype {a.dtype}, which npz files do not know: convert it to float32"
            )
    # opened here because np.savez would add a suffix to the name
    with _opened(file, "wb") as handle:
        np.savez(handle, allow_pickle=False, **arrays)


def _opened(file: Any, mode: str) -> AbstractContextManager:
    return nullcontext(file) if hasattr(file, "seek") else open(file, mode)


def _named(points: PyTree, name: str) -> list[tuple[str, Array]]:
    match points:
        case Token():
            return [(f"{name}.position", points.position), (f"{name}.state", points.state)]
        case Pair():
            return _named(points.key, f"{name}.key") + _named(points.value, f"{name}.value")
        case jax.Array():
            return [(name, points)]
        case _:
            raise ValueError(
                f"only points that are arrays, tokens or pairs can be saved, got {type(points)}"
            )


def read(file: Any) -> tuple[PyTree, np.ndarray]:
    """Read what `write` wrote; nothing in the file is executed.

    Raises:
        ValueError: the file is no such npz file.
    """
    try:
        # opened here because np.load does not close a broken file
        with _opened(file, "rb") as handle:
            archive = np.load(handle, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            with archive:
                arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise ValueError(f"{file} is no measure saved by measattn: {error}") from None

    def rebuild(name: str) -> PyTree:
        if name in arrays:
            return arrays[name]
        if {f"{name}.position", f"{name}.state"} <= arrays.keys():
            return Token(arrays[f"{name}.position"], arrays[f"{name}.state"])
        if any(key.startswith(f"{name}.key") for key in arrays):
            return Pair(rebuild(f"{name}.key"), rebuild(f"{name}.value"))
        raise ValueError(f"{file} holds no {name}; it has {sorted(arrays)}")

    return rebuild("points"), rebuild("log_weights")
