"""The JSON-lines file of results: one line a claim, on disk before the next claim starts.

A line counts for a run only if its *stamp* is that run's: mode, seed, source fingerprint and
versions. A line torn by a kill, a stale one and one whose claim did not come out as expected
are dropped when the file is opened, so that those claims run again.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paper_repro.evidence import Evidence, Verdict, decode, encode

PACKAGES = ("jax", "jaxlib", "equinox", "numpy", "scipy", "pot", "matplotlib", "ziamath")


@dataclass(frozen=True)
class Result:
    """One line of the ledger."""

    id: str
    verdict: Verdict
    expected: Verdict
    seconds: float
    finished: str
    stamp: dict[str, Any]
    evidence: Evidence
    traceback: str = ""

    @property
    def as_expected(self) -> bool:
        """Whether the verdict is the one the mathematics says."""
        return self.verdict == self.expected

    def line(self) -> str:
        """The result as one line of JSON."""
        data = vars(self) | {"evidence": encode(self.evidence)}
        return json.dumps(data, allow_nan=False, ensure_ascii=False) + "\n"


def read_line(line: str) -> Result:
    """The inverse of `Result.line`; a ValueError, KeyError or TypeError if it is no result."""
    data = json.loads(line)
    verdicts = {name: Verdict(data[name]) for name in ("verdict", "expected")}
    return Result(**(data | verdicts | {"evidence": decode(data["evidence"])}))


class Ledger:
    """The results file of one output folder, opened for one stamp by one process at a time."""

    def __init__(self, path: Path, stamp: dict[str, Any], *, fresh: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = _lock(path.with_suffix(".lock"))
        kept = {} if fresh else _usable(path, stamp)
        swap = path.with_suffix(".tmp")
        with swap.open("w", encoding="utf-8") as file:
            file.writelines(result.line() for result in kept.values())
            _flush(file)
        swap.replace(path)
        self.results = kept
        self._file = path.open("a", encoding="utf-8")

    def append(self, result: Result) -> None:
        """Write the result and wait until it is on disk."""
        self._file.write(result.line())
        _flush(self._file)
        self.results[result.id] = result

    def close(self) -> None:
        """Let the next process in."""
        self._file.close()
        os.close(self._lock)


def _usable(path: Path, stamp: dict[str, Any]) -> dict[str, Result]:
    kept: dict[str, Result] = {}
    if not path.exists():
        return kept
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            result = read_line(line)
        except (ValueError, KeyError, TypeError):
            continue
        if result.stamp == stamp and result.as_expected:
            kept[result.id] = result
    return kept


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _lock(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        import fcntl
    except ImportError:  # Windows: no advisory locks, and nothing else depends on them
        return handle
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise BlockingIOError(
            f"another run is writing to {path.parent}; wait for it or choose another --out"
        ) from None
    return handle


def stamp(*, quick: bool, seed: int, sources: tuple[Path, ...]) -> dict[str, Any]:
    """What a result depends on: mode, seed, the sources' hash, versions, platform and dtype."""
    return {
        "mode": "quick" if quick else "full",
        "seed": seed,
        "sources": fingerprint(sources),
        "versions": {"python": platform.python_version(), "measattn": version("measattn")}
        | {name: version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "dtype": _dtype(),
    }


def version(package: str) -> str:
    """The installed version of ``package``, or what stands for it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "from the checkout" if package == "measattn" else "not installed"


def fingerprint(folders: tuple[Path, ...]) -> str:
    """SHA-256 (first 16 digits) of all source, template and text files below ``folders``."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix in {".py", ".jinja", ".css", ".txt"} and path.is_file():
                digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _dtype() -> str:
    try:
        import jax
    except ImportError:
        return "none"
    return str(jax.dtypes.canonicalize_dtype(float))
