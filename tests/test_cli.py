"""The command line as a user meets it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import wasserstein_distance_nd

import measattn as ma
from measattn.cli import read_measure

ROOT = Path(__file__).resolve().parent.parent


def measattn(*arguments, cwd=ROOT, code="from measattn.cli import main; main()"):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@pytest.fixture
def clouds(tmp_path):
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(9, 2)), rng.normal(size=(7, 2)), rng.random(7)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "y.npz", points=y, weights=w)
    np.savetxt(tmp_path / "y.csv", y, delimiter=",", header="first,second", comments="")
    return tmp_path, x, y, w


def test_help_names_the_commands():
    done = measattn("--help")
    assert done.returncode == 0
    assert "reproduce" in done.stdout
    assert "w1" in done.stdout


def test_w1_of_weighted_clouds_is_scipys(clouds):
    folder, x, y, w = clouds
    done = measattn("w1", folder / "x.npy", folder / "y.npz", "--json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    want = wasserstein_distance_nd(x, y, v_weights=w)
    assert row["value"] == pytest.approx(want, rel=1e-9)
    assert row["lower"] <= row["value"] <= row["upper"]
    assert row["gap"] == pytest.approx(row["upper"] - row["lower"])
    assert row["sizes"] == [9, 7]
    assert {"solver", "status"} <= row.keys()


def test_w1_prints_a_table_and_reads_csv_with_a_header(clouds):
    folder, x, y, _ = clouds
    done = measattn("w1", folder / "x.npy", folder / "y.csv")
    assert done.returncode == 0, done.stderr
    values = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert float(values["W1"]) == pytest.approx(wasserstein_distance_nd(x, y), rel=1e-9)


def test_a_saved_measure_is_read_with_its_weights(clouds):
    folder, _, y, w = clouds
    ma.weighted(y, w).save(folder / "saved.npz")
    done = measattn("w1", folder / "saved.npz", folder / "y.npz", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["value"] < 1e-6  # float32 where tests run without x64


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"x,y\n1,2\n3\n", "equally long"),
        ("a.csv", b"x,y\n1,two\n", "number"),
        ("a.csv", b"", "points"),
        ("a.csv", b"1,nan\n", "NaN"),
        ("a.npy", b"not an array", "not readable"),
        ("a.txt", b"1 2\n", "npz and .csv"),
        ("missing.npy", None, "no file"),
    ],
)
def test_bad_files_get_a_clear_error(clouds, name, content, words):
    folder = clouds[0]
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        read_measure(folder / name)


def test_a_pickle_is_never_opened(clouds):
    folder = clouds[0]
    np.save(folder / "evil.npy", np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_measure(folder / "evil.npy")


def test_an_error_is_one_line_and_status_2(clouds):
    done = measattn("w1", clouds[0] / "missing.npy", clouds[0] / "x.npy")
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no file")
    assert "Traceback" not in done.stderr


def test_unlike_dimensions_are_refused(clouds):
    folder = clouds[0]
    np.save(folder / "line.npy", np.arange(3.0))
    done = measattn("w1", folder / "line.npy", folder / "x.npy")
    assert done.returncode == 2
    assert "dimension" in done.stderr


def test_without_typer_it_says_how_to_install_it():
    code = "import sys; sys.modules['typer'] = None; from measattn.cli import main; main()"
    done = measattn("--help", code=code)
    assert done.returncode == 2
    assert "pip install 'measattn[repro]'" in done.stderr


def test_reproduce_lists_the_statements_and_passes_the_exit_status_on():
    done = measattn("reproduce", "--list")
    assert done.returncode == 0, done.stderr
    assert "prop9-attention" in done.stdout
    done = measattn("reproduce", "def1-atention", "--quick")
    assert done.returncode == 2
    assert "did you mean def1-attention" in done.stdout


def test_reproduce_without_the_source_tree_says_where_it_is(tmp_path):
    code = (
        "import measattn.cli as cli; cli.__file__ = 'elsewhere/measattn/cli/__init__.py'; "
        "import sys; sys.path = [p for p in sys.path if 'measattn' not in p and p != '']; "
        f"sys.path = [p for p in sys.path if p != {str(ROOT)!r}]; "
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in str(f).lower()]; "
        "cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}",
         "reproduce"], cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert "make reproduce" in done.stderr
