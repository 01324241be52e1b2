"""The programs of the README and of the guides run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(name, folder):
    """All Python blocks of a page, one after the other; how many there are, and what they print."""
    text = (ROOT / name).read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks)],
        capture_output=True, text=True, cwd=folder, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return len(blocks), done.stdout


@pytest.mark.slow
@pytest.mark.models
def test_the_programs_of_the_readme_run_one_after_the_other(tmp_path):
    count, printed = run("README.md", tmp_path)
    assert count >= 3
    assert printed.count("certified in [") == 2


@pytest.mark.slow
def test_the_programs_about_lipschitz_constants_run_and_bound_from_both_sides(tmp_path):
    count, printed = run("docs/lipschitz.md", tmp_path)
    assert count >= 2
    assert printed.count("(attained), <=") == 5
    assert "vacuous" not in printed


@pytest.mark.slow
@pytest.mark.models
def test_the_programs_about_depth_run_one_after_the_other(tmp_path):
    count, printed = run("docs/dynamics.md", tmp_path)
    assert count >= 6
    assert "the end was reached" in printed
