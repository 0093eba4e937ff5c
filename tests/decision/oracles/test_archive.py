"""An archive of arrays takes no more memory than it may, and runs nothing."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from decision.errors import FieldError
from decision.oracles.archive import read_archive

MEGABYTE = 1 << 20


def saved(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def zipped(header: bytes, content: bytes) -> io.BytesIO:
    """Return an archive whose only array has a header of one's own."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        head = header.ljust(117) + b"\n"
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + content)
    stream.seek(0)
    return stream


@given(
    st.dictionaries(
        st.text("abc/.", min_size=1, max_size=5).filter(lambda name: not name.endswith(".npy")),
        hnp.arrays(st.sampled_from(["<f8", "<f4", "<i4", "u1", "<U3", "?"]), hnp.array_shapes(min_dims=0, min_side=0)),
        max_size=3,
    )
)
def test_what_numpy_saved_comes_back(arrays: dict[str, Any]) -> None:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    found = read_archive(stream, most_bytes=MEGABYTE)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


def test_columns_first_and_compressed_arrays_come_back_and_others_are_left_alone() -> None:
    stream, array = io.BytesIO(), np.asfortranarray(np.arange(12.0).reshape(3, 4))
    np.savez_compressed(stream, wanted=array, large=np.zeros(MEGABYTE))
    found = read_archive(stream, most_bytes=array.nbytes, names=["wanted", "absent"])
    assert found.keys() == {"wanted"}
    assert np.array_equal(found["wanted"], array)


def test_a_few_kilobytes_that_unpack_to_gigabytes_take_no_memory() -> None:
    bomb = zipped(b"{'descr': '|u1', 'fortran_order': False, 'shape': (300000000,)}", bytes(300_000_000))
    assert len(bomb.getvalue()) < MEGABYTE
    tracemalloc.start()
    try:
        with pytest.raises(FieldError, match=r"x: must be at most 1,048,576 bytes, is 300,000,000"):
            read_archive(bomb, most_bytes=MEGABYTE)
        assert tracemalloc.get_traced_memory()[1] < 10 * MEGABYTE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("header", "content"),
    [
        (b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}", b"12345678"),
        (b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000, 1000000, 1000000)}", b""),
        (b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1)}", b"12345678"),
        (b"{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}", b"12345678"),
        (b"{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}", bytes(20_000_000)),
        (b"{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}", b"123456789"),
        (b"{'descr': '|V0', 'fortran_order': False, 'shape': (1,)}", b""),
        (b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"cos\nsystem\n(S'true'\ntR."),
        (b"{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,)}", b"cos\nsystem\n(S'true'\ntR."),
        (b"(" * 115, b""),
        (b"__import__('os').abort()", b""),
    ],
)
def test_an_array_that_is_not_what_its_header_says_is_refused(header: bytes, content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - a FieldError is one
        read_archive(zipped(header, content), most_bytes=MEGABYTE)


def test_many_arrays_share_one_limit() -> None:
    archive = io.BytesIO(saved(a=np.zeros(100), b=np.zeros(100)))
    assert len(read_archive(archive, most_bytes=1_600)) == 2
    with pytest.raises(FieldError, match="b: must be at most 799 bytes"):
        read_archive(archive, most_bytes=1_599)


@given(st.data())
def test_a_damaged_archive_is_refused_or_whole(data: st.DataObject) -> None:
    good = bytearray(saved(a=np.arange(20.0), b=np.ones((3, 2), np.int32)))
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.sampled_from([len(good), at]))
    try:
        found = read_archive(io.BytesIO(bytes(good[:cut])), most_bytes=MEGABYTE)
    except ValueError:
        return
    assert sum(array.nbytes for array in found.values()) <= MEGABYTE
