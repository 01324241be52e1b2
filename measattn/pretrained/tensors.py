"""Named tensors of a checkpoint: shapes known at once, numbers read one tensor at a time.

Every shape is compared with what the configuration calls for before the first number is read; the
numbers are checked to be finite as they are read. No pickle is ever opened.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (gives NumPy the name bfloat16, which safetensors asks for)
import numpy as np

from measattn.pretrained.config import need, read_json

FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Tensors:
    """Tensors by name.

    Attributes:
        origin: the file or folder that they come from, for messages.
        shapes: the shape of each.
        read: name to numbers, float32 or float64 (half precision is widened, which is exact).
    """

    origin: str
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]

    def renamed(self, new_name: Callable[[str], str]) -> "Tensors":
        """The same tensors under new names.

        Raises:
            ValueError: two tensors would have one name.
        """
        old = {new_name(name): name for name in self.shapes}
        if len(old) < len(self.shapes):
            twice = next(name for name in self.shapes if old[new_name(name)] != name)
            raise ValueError(
                f"{self.origin} has two tensors {new_name(twice)!r} (with and without a prefix); "
                "remove the one that is not meant"
            )
        shapes = {new: self.shapes[name] for new, name in old.items()}
        return Tensors(self.origin, shapes, lambda name: self.read(old[name]))

    def without_prefix(self, prefixes: tuple[str, ...], marker: str) -> "Tensors":
        """Strip the first of some prefixes under which a tensor that must be there is found.

        The same layers are saved as ``encoder…`` by a bare model and as ``bert.encoder…`` by a
        model with a head.

        Raises:
            ValueError: the tensor is under none of them.
        """
        found = next((prefix for prefix in prefixes if prefix + marker in self.shapes), None)
        if found is None:
            some = ", ".join(sorted(self.shapes)[:3]) or "nothing"
            wanted = " or ".join(repr(prefix + marker) for prefix in prefixes)
            raise ValueError(
                f"{self.origin} has no tensor {wanted} (it holds {some}, …); is the architecture "
                "in its configuration the right one?"
            )
        return self.renamed(lambda name: name.removeprefix(found))

    def take(
        self,
        expected: dict[str, tuple[int, ...]],
        closed: tuple[str, ...],
        ignored: tuple[str, ...] = (),
    ) -> "Weights":
        """Check the shapes of all expected tensors.

        Args:
            expected: name to shape.
            closed: prefixes under which no other tensor may be: a bias that the architecture does
                not use means that the file is of another architecture.
            ignored: endings of names that may be there all the same (stored constants).

        Raises:
            ValueError: a tensor is missing, has another shape, or is one too many.
        """
        missing = [name for name in expected if name not in self.shapes]
        if missing:
            raise ValueError(
                f"{self.origin} lacks {len(missing)} of {len(expected)} tensors, the first is "
                f"{missing[0]!r}; get a whole copy of the checkpoint"
            )
        for name, shape in expected.items():
            if self.shapes[name] != shape:
                raise ValueError(
                    f"{self.origin}: tensor {name!r} must have shape {shape} by the configuration, "
                    f"got {self.shapes[name]}; do weights and configuration belong together?"
                )
        extra = [
            name
            for name in self.shapes
            if name not in expected and name.startswith(closed) and not name.endswith(ignored)
        ]
        if extra:
            raise ValueError(
                f"{self.origin} has {len(extra)} tensors that this architecture does not use, the "
                f"first is {extra[0]!r}: it is of another architecture, or has more layers than "
                "its configuration says"
            )
        return Weights(self)


@dataclass(frozen=True)
class Weights:
    """Tensors whose shapes were checked; each is read, and checked to be finite, when asked for."""

    tensors: Tensors

    def get(self, name: str) -> np.ndarray | None:
        """The tensor of that name, or None where there is none."""
        return self[name] if name in self.tensors.shapes else None

    def __getitem__(self, name: str) -> np.ndarray:
        value = self.tensors.read(name)
        if not np.isfinite(value).all():
            bad = int((~np.isfinite(value)).sum())
            raise ValueError(
                f"{self.tensors.origin}: tensor {name!r} has {bad} entries that are NaN or "
                "infinite; get a whole copy of the checkpoint"
            )
        return value


def safetensors_file(path: Path) -> Tensors:
    """The tensors of one safetensors file; its header is checked against its length here.

    Raises:
        ValueError: the file is truncated or no safetensors file.
    """
    library: Any = need("safetensors")

    def read(name: str) -> np.ndarray:
        with library.safe_open(path, framework="numpy") as file:
            dtype = file.get_slice(name).get_dtype()
            if dtype not in FLOATS:
                raise ValueError(
                    f"{path}: tensor {name!r} has the type {dtype}; supported: {', '.join(FLOATS)}"
                )
            value = file.get_tensor(name)
        return value if dtype == "F64" else value.astype(np.float32)

    try:
        with library.safe_open(path, framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except library.SafetensorError as error:
        raise ValueError(
            f"{path} cannot be read as safetensors ({error}); it is truncated or another kind of "
            "file: get a whole copy"
        ) from error
    return Tensors(str(path), shapes, read)


def safetensors_shards(index: Path) -> Tensors:
    """The tensors of a checkpoint cut into several files, by its ``model.safetensors.index.json``.

    Raises:
        ValueError: the index is no index, names a file outside the folder or one that is missing,
            or a file lacks a tensor that the index puts there.
    """
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise ValueError(f"{index} has no 'weight_map' (tensor name to file); get a whole copy")
    files: dict[str, Tensors] = {}
    for file in sorted(set(map(str, where.values()))):
        if Path(file).name != file or not (index.parent / file).is_file():
            raise ValueError(
                f"{index} names the file {file!r}, which is not in its folder; get all "
                f"{len(set(where.values()))} files of the checkpoint"
            )
        files[file] = safetensors_file(index.parent / file)
    for name, file in where.items():
        if name not in files[file].shapes:
            raise ValueError(f"{index} puts tensor {name!r} into {file}, which does not hold it")
    shapes = {name: files[file].shapes[name] for name, file in where.items()}
    return Tensors(str(index.parent), shapes, lambda name: files[where[name]].read(name))
