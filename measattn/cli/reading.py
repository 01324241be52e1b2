"""Files of points become measures; a file is data, whoever made it.

Nothing in a file is executed, and what an array's header claims is compared with what the file
holds before memory is taken for it.
"""

import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from measattn.measure import EmpiricalMeasure

LARGEST_UNPACKED = 2**32
"""Bytes that a compressed archive may unpack to; a small file can claim any number."""


def read_measure(path: Path) -> "EmpiricalMeasure":
    """The measure in a file of points; nothing in the file is executed.

    Raises:
        ValueError: a folder or a pipe, an unknown suffix, or contents that are no points; it names
            the file.
        FileNotFoundError: no such file.
    """
    from measattn.measure import EmpiricalMeasure, weighted
    from measattn.storage import read

    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"
        raise ValueError(f"{path} is {what}: name a file of points, .npy, .npz or .csv")
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _made(path, EmpiricalMeasure, _rows(path, _csv(path)))
    if suffix == ".npy":
        return _made(path, EmpiricalMeasure, _rows(path, _npy(path)))
    if suffix != ".npz":
        raise ValueError(f"{path}: points are read from .npy, .npz and .csv files, not {suffix!r}")
    arrays = _npz(path)
    if {"weights", "log_weights"} <= arrays.keys():
        raise ValueError(f"{path} holds both weights and log_weights: keep one of them")
    if "log_weights" in arrays:
        return _made(path, EmpiricalMeasure, *read(path))
    if "points" in arrays:
        points = _rows(path, arrays["points"])
        if unknown := sorted(arrays.keys() - {"points", "weights"}):
            raise ValueError(
                f"{path} holds {unknown}, which mean nothing beside 'points': masses are read from "
                "'weights' or 'log_weights'"
            )
        if "weights" in arrays:
            return _made(path, weighted, points, _numbers(path, arrays["weights"]))
        return _made(path, EmpiricalMeasure, points)
    if len(arrays) == 1 and "weights" not in arrays:
        return _made(path, EmpiricalMeasure, _rows(path, *arrays.values()))
    raise ValueError(f"{path} holds {sorted(arrays)}; name the array of points 'points'")


def _made(path: Path, make: Callable, *arrays: Any) -> "EmpiricalMeasure":
    """The measure of some arrays; what is wrong with these is said of their file."""
    try:
        return make(*arrays)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _npy(path: Path) -> Any:
    import numpy as np

    from measattn.storage import UNREADABLE

    try:
        with path.open("rb") as handle:
            _check_header(handle, path.stat().st_size)
            handle.seek(0)
            return np.lib.format.read_array(handle, allow_pickle=False)
    except UNREADABLE as error:
        raise ValueError(f"{path} is not readable as npy: {error}") from None


def _npz(path: Path) -> dict[str, Any]:
    import numpy as np

    from measattn.storage import UNREADABLE

    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            size = sum(member.file_size for member in members)
            if size > max(LARGEST_UNPACKED, path.stat().st_size):
                raise ValueError(
                    f"it unpacks to {size:,} bytes, more than {LARGEST_UNPACKED:,}: save the "
                    "points as .npy, or fewer of them"
                )
            for member in members:
                with archive.open(member) as handle:
                    _check_header(handle, member.file_size)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except UNREADABLE as error:
        raise ValueError(f"{path} is not readable as npz: {error}") from None


def _check_header(handle: Any, size: int) -> None:
    """Refuse an array whose shape claims more than the ``size`` bytes of its open file."""
    from numpy.lib import format as npy

    version = npy.read_magic(handle)
    if version not in {(1, 0), (2, 0)}:
        raise ValueError(f"arrays of numbers have format 1.0 or 2.0, this one has {version}")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(handle)
    if dtype.hasobject:
        return  # refused by NumPy, which names the reason
    claimed, held = math.prod(shape) * dtype.itemsize, size - handle.tell()
    if min(shape, default=0) < 0 or claimed > held:
        raise ValueError(
            f"its header claims the shape {shape}, which takes {claimed:,} bytes, but it holds "
            f"{held:,}: it is cut short or damaged, write it again"
        )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _csv(path: Path) -> Any:
    import numpy as np

    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not readable as csv: {error}") from None
    lines = [line.split("#")[0] for line in text.splitlines()]  # without comments
    lines = [line for line in lines if line.strip()]

    # with semicolons between the cells a comma would be a decimal one
    separator = next((sign for sign in ";," if any(sign in line for line in lines)), None)
    if separator == ";" and any("," in line for line in lines):
        raise ValueError(
            f"{path} has both ; and , in it: separate the cells by one of them, and write decimals "
            "with a point"
        )

    def cells(line: str) -> list[str]:
        # no separator is any white space
        return [cell.strip().strip('"') for cell in line.split(separator)]

    def numbers(line: str) -> list[float]:
        return [float(cell) for cell in cells(line)]

    if lines and not any(_is_number(cell) for cell in cells(lines[0])):
        lines = lines[1:]  # a header
    try:
        rows = [numbers(line) for line in lines]
    except ValueError as error:
        raise ValueError(
            f"{path}: every cell must be a number, and commas, semicolons or spaces separate them: "
            f"{error}"
        ) from None
    if not rows:
        raise ValueError(f"{path} holds no points")
    lengths = sorted({len(row) for row in rows})
    if len(lengths) != 1:
        raise ValueError(f"{path}: rows must be equally long, got lengths {lengths}")
    return np.array(rows)


def _rows(path: Path, points: Any) -> Any:
    points = _numbers(path, points)
    if points.ndim == 1 and points.size:
        return points[:, None]
    if points.ndim != 2 or points.size == 0:
        raise ValueError(f"{path} must hold points (n, d), one a row, got shape {points.shape}")
    return points


def _numbers(path: Path, array: Any) -> Any:
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{path} holds {array.dtype}, which are no numbers")
    return array.astype("float64")  # from integers and from the byte orders of other machines
