"""Measures in files: what is saved comes back, and nothing else is read."""

import io
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

import measattn as ma
from tests.core.closeness import DTYPES, assert_close, float64, normal, uniform


def assert_same(mu, nu):
    assert type(mu.points) is type(nu.points)
    assert mu.dtype == nu.dtype
    assert_close(nu.log_weights, float64(mu.log_weights))
    assert repr(mu) == repr(nu)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_weighted_measure_survives_saving(tmp_path, dtype):
    mu = ma.weighted(normal(0, 5, 3).astype(dtype), [1, 2, 0, 1e-30, 4])
    mu.save(tmp_path / "mu.npz")
    nu = ma.load_measure(tmp_path / "mu.npz")
    np.testing.assert_array_equal(nu.points, mu.points)
    np.testing.assert_array_equal(np.isneginf(nu.log_weights), [0, 0, 1, 0, 0])
    keep = [0, 1, 3, 4]
    assert_close(nu.log_weights[jnp.array(keep)], float64(mu.log_weights)[keep])
    assert nu.points.dtype == nu.log_weights.dtype == dtype


def test_tokens_survive_saving(tmp_path):
    mu = ma.EmpiricalMeasure(ma.Token(jnp.arange(4.0), normal(0, 4, 3)), uniform(1, 4))
    mu.save(tmp_path / "mu.npz")
    nu = ma.load_measure(tmp_path / "mu.npz")
    assert_same(mu, nu)
    np.testing.assert_array_equal(nu.points.position, mu.points.position)
    np.testing.assert_array_equal(nu.points.state, mu.points.state)


def test_pairs_of_tokens_and_pairs_survive_saving(tmp_path):
    token = ma.Token(jnp.arange(4.0), normal(0, 4, 3))
    mu = ma.EmpiricalMeasure(ma.Pair(token, ma.Pair(normal(1, 4, 2), normal(2, 4, 1))))
    mu.save(tmp_path / "mu.npz")
    nu = ma.load_measure(tmp_path / "mu.npz")
    assert_same(mu, nu)
    np.testing.assert_array_equal(nu.points.key.state, token.state)
    np.testing.assert_array_equal(nu.points.value.value, mu.points.value.value)


def test_a_dtype_that_files_do_not_know_is_refused_and_no_file_is_left(tmp_path):
    mu = ma.EmpiricalMeasure(normal(0, 4, 3).astype(jnp.bfloat16))
    with pytest.raises(ValueError, match="bfloat16.*convert it to float32"):
        mu.save(tmp_path / "mu.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["mu", "mu.npz", "mu.measure"])
def test_a_file_is_read_under_the_name_it_was_saved_under(tmp_path, name):
    ma.dirac([1.0, 2.0]).save(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert_close(ma.load_measure(tmp_path / name).points, [[1.0, 2.0]])


def test_a_name_may_be_a_string_and_a_file_may_be_open(tmp_path):
    ma.dirac([1.0]).save(str(tmp_path / "mu.npz"))
    assert ma.load_measure(str(tmp_path / "mu.npz")).size == 1
    buffer = io.BytesIO()
    ma.dirac([1.0]).save(buffer)
    buffer.seek(0)
    assert ma.load_measure(buffer).size == 1


def saved(tmp_path):
    file = tmp_path / "mu.npz"
    ma.EmpiricalMeasure(normal(0, 40, 3)).save(file)
    return file


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(tmp_path, share):
    file = saved(tmp_path)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"mu\.npz"):
        ma.load_measure(file)


def test_a_file_with_a_flipped_byte_is_refused(tmp_path):
    file = saved(tmp_path)
    content = bytearray(file.read_bytes())
    content[200] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"mu\.npz"):
        ma.load_measure(file)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"\0" * 99]
)
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    file = tmp_path / "mu.npz"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"mu\.npz"):
        ma.load_measure(file)


def test_a_single_array_is_refused(tmp_path):
    np.save(tmp_path / "mu.npy", np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"mu\.npy"):
        ma.load_measure(tmp_path / "mu.npy")


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"points": np.zeros((3, 2))},
        {"log_weights": np.zeros(3)},
        {"points.position": np.zeros(3), "log_weights": np.zeros(3)},
        {"points.key": np.zeros((3, 1)), "log_weights": np.zeros(3)},
        {"points": np.zeros((3, 2)), "log_weights": np.zeros(4)},
        {"points": np.zeros((0, 2)), "log_weights": np.zeros(0)},
        {"points": np.full((3, 2), np.nan), "log_weights": np.zeros(3)},
        {"points": np.zeros((3, 2)), "log_weights": np.full(3, -np.inf)},
        {"points": np.array(["a", "b"]), "log_weights": np.zeros(2)},
    ],
    ids=lambda arrays: "+".join(arrays) or "nothing",
)
def test_arrays_that_make_no_measure_are_refused(tmp_path, arrays):
    np.savez(tmp_path / "mu.npz", **arrays)
    with pytest.raises(ValueError):  # noqa: PT011 - any words, but never another type
        ma.load_measure(tmp_path / "mu.npz")


class Bomb:
    """An object whose unpickling leaves a trace."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path(self.file),)


def test_pickled_objects_are_refused_and_never_executed(tmp_path):
    trace = tmp_path / "trace"
    bomb = np.array([Bomb(trace)], dtype=object)
    np.savez(tmp_path / "mu.npz", points=bomb, log_weights=np.zeros(1))
    with pytest.raises(ValueError, match=r"mu\.npz"):
        ma.load_measure(tmp_path / "mu.npz")
    assert not trace.exists()
    # the control: the file does carry the trace
    with np.load(tmp_path / "mu.npz", allow_pickle=True) as archive:
        archive["points"]
    assert trace.exists()


def test_a_file_that_does_not_exist_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        ma.load_measure(tmp_path / "none.npz")
