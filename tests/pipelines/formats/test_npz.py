"""npz files as other libraries write them: None is no array, nothing is unpickled, and what does not fit is named."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decision.errors import FieldError
from pipelines.formats import npz
from pipelines.formats.npz import read_npz
from pipelines.formats.obp import read_obp

# numpy.savez("f.npz", a=None) by numpy 1.26.4: protocol 3, and the module's name of that time.
OLDER = (
    b"\x80\x03cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02C\x01bq\x03\x87q\x04Rq\x05"
    b"(K\x01)cnumpy\ndtype\nq\x06X\x02\x00\x00\x00O8q\x07\x89\x88\x87q\x08Rq\t(K\x03X\x01\x00\x00\x00|q\nNNNJ\xff\xff\xff"
    b"\xffJ\xff\xff\xff\xffK?tq\x0bb\x89]q\x0cNatq\rb."
)

# What OBP 0.5.7's SyntheticBanditDataset(n_actions=3, dim_context=2) returns for 4 rounds: its keys, in its order.
SYNTHETIC: dict[str, Any] = {
    "n_rounds": 4,
    "n_actions": 3,
    "context": np.array([[0.1, -1.0], [0.2, 0.0], [0.3, 1.5], [0.4, 2.0]]),
    "action_context": np.eye(3, dtype=np.int64),
    "action": np.array([2, 0, 1, 2]),
    "position": None,
    "reward": np.array([1, 0, 0, 1]),
    "expected_reward": np.full((4, 3), 0.5),
    "pi_b": np.tile([0.2, 0.3, 0.5], (4, 1))[:, :, None],
    "pscore": np.array([0.5, 0.2, 0.3, 0.5]),
}


class Called(Exception):
    pass


def call() -> None:
    raise Called


class Trap:
    def __reduce__(self) -> Any:
        return call, ()


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "f.npz", **arrays)
    return folder / "f.npz"


def object_file(folder: Path, pickled: bytes, shape: tuple[int, ...] = ()) -> Path:
    """Write an npz whose array ``a`` of objects is followed by the bytes `pickled`."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|O", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(folder / "f.npz", "w") as file:
        file.writestr("a.npy", head.getvalue() + pickled)
    return folder / "f.npz"


def test_feedback_of_obp_whose_position_is_none_is_read(tmp_path: Path) -> None:
    (rows,) = read_obp(saved(tmp_path, **SYNTHETIC), name="s")
    assert rows["action_index"].to_pylist() == [2, 0, 1, 2]
    assert rows["propensity"].to_pylist() == [0.5, 0.2, 0.3, 0.5]
    assert rows["pmf"].to_pylist() == [[0.2, 0.3, 0.5]] * 4
    assert rows["reward"].to_pylist() == [1.0, 0.0, 0.0, 1.0]
    assert rows["context"][1].as_py() == '{"x0":0.2,"x1":0.0}'


@pytest.mark.parametrize("field", ["context", "action_context", "pi_b"])
def test_each_field_that_may_be_missing_may_be_none(tmp_path: Path, field: str) -> None:
    (none,) = read_obp(saved(tmp_path, **SYNTHETIC | {field: None}), name="s")
    (missing,) = read_obp(saved(tmp_path, **{k: v for k, v in SYNTHETIC.items() if k != field}), name="s")
    assert none.equals(missing)


def test_a_field_that_is_needed_and_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match=r"^pscore: must be an array of the file, and not None"):
        list(read_obp(saved(tmp_path, **SYNTHETIC | {"pscore": None}), name="s"))
    with pytest.raises(FieldError, match=r"^a: must be an array of f\.npz, is None"):
        read_npz(saved(tmp_path, a=None), ("a",))


@pytest.mark.parametrize("value", [None, [None], [None] * 2_500, [[None, None], [None, None]]])
def test_arrays_of_nothing_but_none_are_not_there(tmp_path: Path, value: Any) -> None:
    assert read_npz(saved(tmp_path, a=np.array(value, dtype=object), b=np.ones(2)), (), ("a", "b")).keys() == {"b"}


def test_none_as_older_numpy_wrote_it_is_not_there(tmp_path: Path) -> None:
    assert read_npz(object_file(tmp_path, OLDER), (), ("a",)) == {}


@pytest.mark.parametrize("value", [1, "x", [None, 2.0], [None, [None]], {"click": None}, Trap(), [None, Trap()]])
def test_objects_that_are_not_none_are_refused_and_never_unpickled(tmp_path: Path, value: Any) -> None:
    array = np.empty((), dtype=object)
    array[()] = value
    for given in (array, np.array([array[()], None], dtype=object)):
        with pytest.raises(FieldError, match=r"^a: .*write numpy\.asarray\(a, dtype=float\).*Python objects"):
            read_npz(saved(tmp_path, a=given), (), ("a",))


@pytest.mark.parametrize("pickled", [b"", b"N.", b"no pickle", OLDER[:-1], OLDER.replace(b"O8", b"i8")])
def test_bytes_that_are_no_none_are_no_none(tmp_path: Path, pickled: bytes) -> None:
    with pytest.raises(FieldError, match="Python objects"):
        read_npz(object_file(tmp_path, pickled), (), ("a",))


def test_arrays_beyond_the_limit_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "f.npz", a=np.zeros(10_000))
    assert (tmp_path / "f.npz").stat().st_size < 1_000
    monkeypatch.setattr(npz, "MAX_ARRAY_BYTES", 80_000)
    with pytest.raises(FieldError, match=r"^a: must be at most 80000 bytes"):
        read_npz(tmp_path / "f.npz", ("a",))


def test_files_that_are_no_npz_are_told_so(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.ones(3))
    whole = saved(tmp_path, a=np.arange(10_000.0)).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    damaged = bytearray(whole)
    damaged[5_000] ^= 255
    (tmp_path / "damaged.npz").write_bytes(damaged)
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as other:
        other.writestr("a.npy", "no array")
    for name, match in (
        ("one.npy", "path: must be an npz"),
        ("cut.npz", "path: must be an npz"),
        ("damaged.npz", "path: must be a whole npz"),
        ("other.npz", "a: must be an array of numpy"),
    ):
        with pytest.raises(FieldError, match=match):
            read_npz(tmp_path / name, ("a",))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"n_actions": 2.5}, "n_actions: must be a whole number"),
        ({"n_actions": float("nan")}, "n_actions: must be a whole number"),
        ({"n_actions": "three"}, "n_actions: must be a whole number"),
        ({"n_actions": np.array([])}, "n_actions: must be a whole number"),
        ({"action": np.array([2, 0, 3, 1])}, "row 2: action: must be whole numbers from 0 to 2, is 3"),
        ({"action": np.array([2, 0, -1, 1])}, "row 2: action: .* is -1"),
        ({"action": np.array([2, float("nan"), 0, 1])}, "row 1: action: .* is nan"),
        ({"action": np.array(["a", "b", "c", "a"])}, "action: must be whole numbers"),
        ({"pscore": np.array(["0.5"] * 4)}, "pscore: must be an array of numbers"),
        ({"reward": np.ones(4, dtype=complex)}, "reward: must be an array of numbers"),
        ({"context": np.array([["a", "b"]] * 4)}, "context: must be an array of numbers"),
        ({"slate_id": np.array([0, 0, 1, 1])}, "slate_id: a log of slates cannot be read"),
        ({"n_actions": None, "action": np.array([0.3, 1.7, 2.2, 0.1])}, "n_actions: .*continuous actions"),
    ],
)
def test_feedback_that_does_not_fit_names_field_and_row(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(FieldError, match=match):
        list(read_obp(saved(tmp_path, **SYNTHETIC | changes), name="s"))
