"""The configuration of a checkpoint: read once, every value checked where it is used.

A wrong configuration gives a model that runs and is wrong, so what a family does not implement is
refused by name instead of ignored.
"""

import importlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any


def need(module: str) -> ModuleType:
    """Import an optional dependency of this package.

    Raises:
        ImportError: it is not installed; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"reading pretrained models needs the package {module!r}: "
            "pip install 'measattn[models]'"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ValueError: the file is not UTF-8, not JSON, or holds something else than an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}); get a whole copy of the checkpoint"
        ) from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


@dataclass(frozen=True)
class Config:
    """A checkpoint's settings, in the names of Hugging Face's ``config.json``.

    Attributes:
        values: the settings.
        origin: where they were read, for messages.
    """

    values: dict[str, Any]
    origin: str

    def _get(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        value = default if value is None else value
        if value is None:
            raise ValueError(
                f"{self.origin} has no {name!r}, which this family needs; get a whole copy of the "
                "checkpoint"
            )
        return value

    def size(self, name: str, default: int | None = None) -> int:
        """A positive whole number."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(
                f"{self.origin}: {name!r} must be a positive whole number, got {value!r}"
            )
        return value

    def depth(self, name: str, tensors: int) -> int:
        """The number of layers: each has a tensor of its own, so it is at most that of tensors."""
        depth = self.size(name)
        if depth > tensors:
            raise ValueError(
                f"{self.origin}: {name!r} is {depth}, more layers than the {tensors} tensors of "
                "the checkpoint can make; do weights and configuration belong together?"
            )
        return depth

    def number(self, name: str, default: float | None = None) -> float:
        """A positive finite number."""
        value = self._get(name, default)
        real = isinstance(value, int | float) and not isinstance(value, bool)
        if not real or not math.isfinite(value) or value <= 0:
            raise ValueError(
                f"{self.origin}: {name!r} must be a positive finite number, got {value!r}"
            )
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise ValueError(f"{self.origin}: {name!r} must be true or false, got {value!r}")
        return value

    def group(self, name: str) -> dict[str, Any]:
        """Settings inside a setting; none where there is none."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, dict):
            raise ValueError(f"{self.origin}: {name!r} must be an object or null, got {value!r}")
        return value or {}

    def among(self, name: str, supported: tuple[Any, ...], default: Any) -> Any:
        """One of the values that this library implements."""
        value = self._get(name, default)
        if value not in supported:
            raise ValueError(
                f"{self.origin}: {name!r} is {value!r}, which is not implemented; supported: "
                + ", ".join(map(repr, supported))
            )
        return value

    def heads(self, width: int, name: str) -> int:
        """The number of heads, which must divide the width of the model."""
        heads = self.size(name)
        if width % heads:
            raise ValueError(
                f"{self.origin}: {name!r} must divide the width {width} of the model, got {heads}"
            )
        return heads
