"""A certificate as it lies on the disk: a JSON file, and an npz file of arrays beside it.

Both are data. Nothing in them is executed, their sizes are looked at before memory is taken, and
every entry is one that a certificate has.
"""

import hashlib
import io
import json
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from .report import Rejected

FORMAT = "measattn lipschitz certificate"
VERSION = 1
LARGEST_TEXT = 2**24
"""Bytes of the JSON file."""
LONGEST_NAME = 255
"""Of the file of arrays, in characters: file systems refuse names that are too long."""

LARGEST_ARRAYS = 2**28
"""Bytes of all arrays together, unpacked."""

Arrays = dict[str, NDArray]

KEYS = {
    "": {"format", "version", "program", "question", "layer", "domain", "lower", "upper", "arrays"},
    "question": {"p", "atoms", "metric", "dimension"},
    "layer": {"residual", "heads"},
    "lower": {"value", "before", "after", "found"},
    "upper": {"value", "theorem", "statement", "source", "heads", "hypotheses"},
    "arrays": {"file", "sha256"},
}
DOMAINS = {
    "Ball": {"kind", "radius", "centre"},
    "Sphere": {"kind", "radius", "centre"},
    "Box": {"kind", "low", "high"},
    "Simplex": {"kind", "dimension"},
    "Everywhere": {"kind", "second_moment"},
}


SMALLEST = 1e-50
"""Layers and domains of a smaller size, or beyond its inverse, are refused: rescale them."""

WORDS = ("program", "found", "statement", "source", "hypotheses")
"""Entries for people."""


def read(path: Path) -> tuple[dict[str, Any], Arrays]:
    """The entries of a certificate and its arrays.

    Raises:
        OSError: there is no such file, or it is a folder or a pipe.
        Rejected: a file that is no certificate, a hash that differs, an array that is none.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"
        raise OSError(f"{path} is {what}: name the JSON file of a certificate")
    if path.stat().st_size > LARGEST_TEXT:
        raise Rejected(f"the file has more than {LARGEST_TEXT:,} bytes, which no certificate has")
    try:
        text = path.read_text("utf-8")
        entries = json.loads(text, parse_constant=_refuse, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:  # also what is not UTF-8
        raise Rejected(f"it is not readable as JSON: {error}") from None
    _check_keys(entries)
    name, sha256 = entries["arrays"]["file"], entries["arrays"]["sha256"]
    plain = isinstance(name, str) and Path(name).name == name and name not in {"", ".", ".."}
    if not plain or len(name) > LONGEST_NAME:
        raise Rejected(
            f"the arrays must lie beside the file, under a plain name, got {str(name)[:80]!r}"
        )
    beside = path.parent / name
    if not beside.is_file():
        raise Rejected(f"the arrays {name} are not beside it")
    if beside.stat().st_size > LARGEST_ARRAYS:
        raise Rejected(f"the arrays take more than {LARGEST_ARRAYS:,} bytes")
    content = beside.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise Rejected(f"the arrays {name} have the sha256 {found}, the certificate says {sha256}")
    arrays = _arrays(content)
    _check_names(entries, arrays)
    return entries, arrays


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; where a name occurs twice, programs would disagree on what it says."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice[:80]!r} occurs twice in one object")
    return found


def _check_keys(entries: Any) -> None:
    _same("the file", entries, KEYS[""])
    version = entries["version"]
    if entries["format"] != FORMAT or type(version) is not int or version != VERSION:
        raise Rejected(
            f"it must be a {FORMAT!r} of version {VERSION}, got {entries['format']!r} of version "
            f"{entries['version']!r}"
        )
    for part in ("question", "layer", "lower", "upper", "arrays"):
        _same(part, entries[part], KEYS[part])
    kind = entries["domain"].get("kind") if isinstance(entries["domain"], dict) else None
    if not isinstance(kind, str) or kind not in DOMAINS:
        raise Rejected(f"the domain must be one of {sorted(DOMAINS)}, got {kind!r}")
    _same("domain", entries["domain"], DOMAINS[kind])
    heads, claims = entries["layer"]["heads"], entries["upper"]["heads"]
    if not isinstance(heads, list) or not isinstance(claims, list) or len(heads) != len(claims):
        raise Rejected("there must be a list of heads, and one claim for each")
    for head, claim in zip(heads, claims, strict=True):
        _same("a head", head, {"score", "sigma", "memory"})
        _same("a claim", claim, {"theorem", "value"})
        if not isinstance(head["memory"], bool) or not isinstance(claim["theorem"], str):
            raise Rejected("memory must be true or false, and a theorem have a name")
    _check_words(entries)


def _check_words(entries: dict[str, Any]) -> None:
    upper = entries["upper"]
    words = [entries["program"], entries["lower"]["found"], upper["theorem"], upper["statement"],
             upper["source"]]  # fmt: skip
    pairs = upper["hypotheses"]
    if not isinstance(pairs, list) or not all(isinstance(pair, list) for pair in pairs):
        raise Rejected("the hypotheses must be a list of pairs of texts")
    words += [word for pair in pairs for word in pair]
    if any(len(pair) != 2 for pair in pairs) or not all(isinstance(word, str) for word in words):
        raise Rejected(f"the theorem, {', '.join(WORDS)} must be texts, hypotheses pairs of them")


def _check_names(entries: dict[str, Any], arrays: Arrays) -> None:
    """The arrays that a certificate has, and no more: what nothing reads may be misread later."""
    parts: list[tuple[str, tuple[str, ...]]] = [
        ("before", ("rows", "cols", "mass")),
        ("witness", ("x", "y", "weights")),
    ]
    dual = ("blocking",) if entries["question"]["p"] == "inf" else ("unit", "u", "v")
    parts.append(("after", ("rows", "cols", "mass", *dual)))
    for k, head in enumerate(entries["layer"]["heads"]):
        score = ("matrix", "shift") if head["score"] == "dot" else ()
        memory = ("points", "weights") if head["memory"] else ()
        parts.append((f"head.{k}", ("value", "constant", *score, *memory)))
    wanted = {f"{part}.{name}" for part, names in parts for name in names}
    if set(arrays) != wanted:
        surplus, lacking = sorted(set(arrays) - wanted), sorted(wanted - set(arrays))
        raise Rejected(f"the arrays lack {lacking} and have {str(surplus)[:200]} besides")


def _same(name: str, part: Any, keys: set[str]) -> None:
    if not isinstance(part, dict) or set(part) != keys:
        found = sorted(part) if isinstance(part, dict) else part
        raise Rejected(f"{name} must have the entries {sorted(keys)}, got {found}")


def _arrays(content: bytes) -> Arrays:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            # NumPy reads 'a' and 'a.npy' under one name
            if len({member.filename.removesuffix(".npy") for member in members}) < len(members):
                raise Rejected("two of the arrays have one name")
            if sum(member.file_size for member in members) > LARGEST_ARRAYS:
                raise Rejected(f"the arrays unpack to more than {LARGEST_ARRAYS:,} bytes")
            for member in members:
                with archive.open(member) as handle:
                    _check_header(member.filename, handle, member.file_size)
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, TypeError, OverflowError, OSError, EOFError, KeyError, RuntimeError,
            struct.error, zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
        raise Rejected(f"the arrays are not readable as npz: {error}") from None


def _check_header(name: str, handle: Any, size: int) -> None:
    """Refuse an array of objects, and one whose header claims more than its file holds."""
    version = npy.read_magic(handle)
    if version not in {(1, 0), (2, 0)}:
        raise Rejected(f"{name} has the format {version}, arrays of numbers have 1.0 or 2.0")
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = header(handle)
    if dtype.hasobject:
        raise Rejected(f"{name} holds Python objects, which are never opened")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > size - handle.tell():
        raise Rejected(f"the header of {name} claims the shape {shape}, more than it holds")


def number(name: str, value: Any, *, least: float = -math.inf) -> float:
    """A finite number of the JSON file."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Rejected(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value) or value < least:
        raise Rejected(f"{name} must be finite and at least {least}, got {value!r}")
    return float(value)


def vector(name: str, value: Any, length: int) -> NDArray:
    """A list of finite numbers of the JSON file."""
    if not isinstance(value, list) or len(value) != length:
        raise Rejected(f"{name} must be a list of {length} numbers, got {value!r}")
    return np.array([number(name, entry) for entry in value])


def sized(name: str, numbers: NDArray) -> NDArray:
    """Numbers of which the largest is 0, or so large and so small that no power leaves float64."""
    size = float(np.max(np.abs(numbers), initial=0.0))
    if size and not SMALLEST <= size <= 1 / SMALLEST:
        raise Rejected(f"{name} must have a size of {SMALLEST} to {1 / SMALLEST}, got {size:.3g}")
    return numbers


def array(arrays: Arrays, name: str, *shape: int | None, kind: str = "f") -> NDArray:
    """A finite array of a shape (None: any length) and kind, floats or whole numbers."""
    if name not in arrays:
        raise Rejected(f"the arrays lack {name}")
    found = arrays[name]
    wanted = {"f": np.float64, "i": np.int64}[kind]
    fits = found.ndim == len(shape) and all(
        length is None or length == have for length, have in zip(shape, found.shape, strict=True)
    )
    if not fits or found.dtype != wanted:
        raise Rejected(f"{name} must be {wanted.__name__} of shape {shape}, got {found.dtype} of "
                       f"shape {found.shape}")  # fmt: skip
    if not np.all(np.isfinite(found)):
        raise Rejected(f"{name} has entries that are NaN or infinite")
    return found
