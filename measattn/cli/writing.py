"""Files that a command is to write, looked at before the work begins."""

import os
from collections.abc import Sequence
from pathlib import Path


def check_target(option: str, file: Path, suffixes: Sequence[str]) -> None:
    """Refuse before minutes of work what could not be written after them.

    Raises:
        ValueError: another suffix than one of ``suffixes``, or a place that cannot be written to.
    """
    if file.suffix.lower() not in suffixes:
        kinds = " or ".join(suffixes)
        article = "an" if kinds.startswith(".n") else "a"
        raise ValueError(f"{option} must name {article} {kinds} file, got {file}")
    if not os.access(file if file.exists() else file.resolve().parent, os.W_OK) or file.is_dir():
        raise ValueError(f"{option} {file} cannot be written: name a file in a folder of your own")
