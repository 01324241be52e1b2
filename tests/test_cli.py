"""The command line as a user meets it."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance_nd

import measattn as ma
from measattn.cli import read_measure

ROOT = Path(__file__).resolve().parent.parent

# a solver that certifies one bracket and then takes its time, seen by an impatient user
SLOW = """
import signal, time
import measattn.cli.progress as progress
from measattn import wasserstein
def slow(*measures, watch, **options):
    watch(wasserstein.Bracket(1.0, 2.0, 3))
    time.sleep({seconds})
    return solve(*measures, watch=watch, **options)
solve, wasserstein.wp, progress.PATIENCE = wasserstein.wp, slow, 0.01
signal.signal(signal.SIGINT, signal.default_int_handler)
from measattn.cli import main
main()
"""


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


def test_json_is_one_object_with_everything_and_a_short_run_shows_no_progress(clouds):
    folder = clouds[0]
    done = measattn("w1", folder / "x.npy", folder / "y.npz", "--json")
    row = json.loads(done.stdout)
    assert set(row) == {
        "value", "lower", "upper", "gap", "p", "solver", "status", "iterations", "seconds",
        "sizes", "dimension", "trace",
    }  # fmt: skip
    assert row["p"] == 1
    assert row["dimension"] == 2
    assert row["trace"] == []  # few points need no rounds
    assert done.stderr == ""


def test_the_order_and_the_tolerance_are_options(clouds):
    folder, x, y, _ = clouds
    np.save(folder / "y.npy", y)
    np.save(folder / "x7.npy", x[:7])
    done = measattn("w1", folder / "x7.npy", folder / "y.npy", "--p", "2", "--tol", "1e-6")
    assert done.returncode == 0, done.stderr
    values = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    cost = cdist(x[:7], y) ** 2
    want = cost[linear_sum_assignment(cost)].mean() ** 0.5
    assert float(values["W2"]) == pytest.approx(want, rel=1e-9)


def test_an_order_is_named_with_all_its_digits(clouds):
    folder = clouds[0]
    done = measattn("w1", folder / "x.npy", folder / "y.npz", "--p", "1.0000000001")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("W1.0000000001 ")


def test_an_order_below_1_is_refused(clouds):
    done = measattn("w1", clouds[0] / "x.npy", clouds[0] / "y.npz", "--p", "0.5")
    assert done.returncode == 2
    assert done.stderr.startswith("error: p must be a number of at least 1, got 0.5")


def test_the_plan_has_the_weights_as_marginals_and_its_potentials_are_feasible(clouds):
    folder, x, y, w = clouds
    file = folder / "plan.npz"
    done = measattn("w1", folder / "x.npy", folder / "y.npz", "--plan", file, "--json")
    assert done.returncode == 0, done.stderr
    with np.load(file) as plan:
        rows, cols, mass, u, v = (plan[name] for name in ("rows", "cols", "mass", "u", "v"))
    np.testing.assert_allclose(np.bincount(rows, mass, 9), np.full(9, 1 / 9), rtol=1e-12)
    np.testing.assert_allclose(np.bincount(cols, mass, 7), w / w.sum(), rtol=1e-12)
    assert np.all(u[:, None] + v[None, :] <= cdist(x, y) + 1e-12)
    value = json.loads(done.stdout)["value"]
    assert mass @ cdist(x, y)[rows, cols] == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("name", ["plan.txt", "missing/plan.npz"])
def test_a_plan_that_cannot_be_written_is_refused_before_the_work(clouds, name):
    folder = clouds[0]
    done = measattn("w1", folder / "x.npy", folder / "y.npz", "--plan", folder / name)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "--plan" in done.stderr


def test_a_gap_that_stays_open_is_status_1_and_the_bracket_is_printed(clouds):
    folder = clouds[0]
    rng = np.random.default_rng(1)
    for name in ("a", "b"):
        np.save(folder / f"{name}.npy", rng.normal(size=(60, 2)))
    code = (
        "from measattn import wasserstein as w; solve = w.wp; "
        "one = w.ColumnGeneration(neighbours=1, rounds=1); "
        "w.wp = lambda *laws, **options: solve(*laws, solver=one, **options); "
        "from measattn.cli import main; main()"
    )
    done = measattn("w1", folder / "a.npy", folder / "b.npy", "--json", code=code)
    assert done.returncode == 1
    row = json.loads(done.stdout)
    assert row["lower"] < row["upper"] * (1 - 1e-9)
    assert len(row["trace"]) == 1
    assert done.stderr.startswith("error: ")
    assert str(row["upper"]) in done.stderr


def test_a_long_run_logs_one_plain_line_a_round(clouds):
    folder = clouds[0]
    code = SLOW.format(seconds=0.5)
    done = measattn("w1", folder / "x.npy", folder / "y.npz", "--json", code=code)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sizes"] == [9, 7]
    (line,) = done.stderr.splitlines()
    assert "round 1: 1 <= W1 <= 2, relative gap 5.0e-01" in line


def test_on_a_terminal_a_line_shows_the_bracket_and_is_gone_at_the_end(clouds):
    pty = pytest.importorskip("pty")
    folder = clouds[0]
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", SLOW.format(seconds=0.5)]
    arguments = ["w1", folder / "x.npy", folder / "y.npz", "--json"]
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm"}
    done = subprocess.run(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=theirs, env=environment, check=True
    )
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    os.close(theirs)
    assert "round 1: 1 <= W1 <= 2" in shown
    assert shown.endswith("\x1b[2K")  # erased
    assert json.loads(done.stdout)["sizes"] == [9, 7]


def test_an_interrupt_ends_at_once_with_what_is_known_and_status_130(clouds):
    folder = clouds[0]
    command = [sys.executable, "-c", SLOW.format(seconds=60)]
    arguments = ["w1", str(folder / "x.npy"), str(folder / "y.npz")]
    with subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert "round 1" in program.stderr.readline()
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=30)
    assert program.returncode == 130
    assert out == ""
    assert err.startswith("interrupted after ")
    assert "1 <= W1 <= 2" in err
    assert "Traceback" not in err


def test_the_version_is_printed():
    done = measattn("--version")
    assert done.returncode == 0
    assert done.stdout == f"measattn {ma.__version__}\n"


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
        ("a.csv", b"0,5;1\n", "both ; and ,"),
        ("a.csv", b"1,nan\n", "NaN"),
        ("a.csv", b"\xff\xfe\x00", "not readable as csv"),
        ("a.npy", b"not an array", "not readable"),
        ("a.npy", b"", "not readable"),
        ("a.npz", b"PK\x03\x04 not an archive", "not readable"),
        ("a.txt", b"1 2\n", "npz and .csv"),
        ("a.csv", b"1,5 2,5\n", "commas, semicolons or spaces"),
        ("missing.npy", None, "no file"),
        (".", None, "is a folder: name a file of points"),
    ],
)
def test_bad_files_get_a_clear_error(clouds, name, content, words):
    folder = clouds[0]
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        read_measure(folder / name)


def test_a_pipe_is_no_file_of_points(clouds):
    os.mkfifo(clouds[0] / "pipe.npy")
    with pytest.raises(ValueError, match="is no regular file: name a file of points"):
        read_measure(clouds[0] / "pipe.npy")


@pytest.mark.parametrize(
    "content",
    [
        "1 2\n3 4\n",
        "1\t2\n3\t4\n",
        " 1.0e0  2\n\n3 4",
        "x y\n1 2\n3 4\n",
        "# x, y\n1,2\n3,4\n",
        "# made by hand\n1;2 # the first\n3;4\n# end\n",
    ],
)
def test_csv_may_have_spaces_tabs_and_comments(clouds, content):
    file = clouds[0] / "a.csv"
    file.write_text(content)
    np.testing.assert_array_equal(read_measure(file).points, [[1, 2], [3, 4]])


def test_what_numpy_writes_by_default_is_read(clouds):
    folder, x, _, _ = clouds
    np.savetxt(folder / "x.csv", x, header="first second")
    np.testing.assert_allclose(read_measure(folder / "x.csv").points, x, rtol=1e-6)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"points": np.ones((3, 2)), "weights": np.ones(2)}, "weights must have shape"),
        ({"points": np.ones((3, 2)), "weights": -np.ones(3)}, "weights must be finite and not neg"),
        ({"points": np.ones((3, 2)), "weights": 1j * np.ones(3)}, "holds complex128"),
        ({"points": np.ones((3, 2)), "log_weights": np.ones(2)}, "log_weights must have shape"),
        ({"points": np.full((3, 2), np.nan)}, "points must be finite"),
        ({"weights": np.ones(3)}, "holds .'weights'.; name the array of points 'points'"),
    ],
)
def test_an_error_about_the_arrays_of_a_file_names_the_file(clouds, arrays, words):
    file = clouds[0] / "bad.npz"
    np.savez(file, **arrays)
    with pytest.raises(ValueError, match=rf"bad\.npz.*{words}"):
        read_measure(file)


def test_a_pickle_is_never_opened(clouds):
    folder = clouds[0]
    np.save(folder / "evil.npy", np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_measure(folder / "evil.npy")


def claiming(shape):
    """The file of one point whose header claims another shape."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(16)


@pytest.mark.parametrize("shape", [(10**12, 64), (2, 2), (-1, -2), (10**30, 10**30)])
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_a_header_that_claims_more_than_the_file_holds_is_refused_by_name(clouds, shape, suffix):
    file = clouds[0] / f"claim.{suffix}"
    if suffix == "npy":
        file.write_bytes(claiming(shape))
    else:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("points.npy", claiming(shape))
    with pytest.raises(ValueError, match=r"header claims the shape .* write it again"):
        read_measure(file)


def test_the_forged_header_is_read_where_it_is_true(clouds):
    file = clouds[0] / "true.npy"
    file.write_bytes(claiming((1, 2)))
    assert read_measure(file).points.shape == (1, 2)


def test_numbers_of_another_byte_order_are_read(clouds):
    folder, x, _, _ = clouds
    np.save(folder / "big.npy", x.astype(">f8"))
    np.testing.assert_allclose(read_measure(folder / "big.npy").points, x, rtol=1e-6)


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
    assert "line.npy holds points of dimension 1" in done.stderr
    assert "x.npy of dimension 2" in done.stderr


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
         "reproduce"], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert "make reproduce" in done.stderr
