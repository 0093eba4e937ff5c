"""Named arrays of an npz file, read without pickle, with their shapes checked.

`numpy.savez(path, **dictionary)` writes what is None as an array of Python objects, which is a pickle. Such a field is
recognised by its bytes, which are compared and not executed, and counts as one that was not written.
"""

from __future__ import annotations

import math
import pickletools
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from decision.errors import FieldError, Words
from pipelines.formats.store import check_file

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""Formats without times number decisions in seconds from here."""

ROWS_AT_ONCE = 20_000
MAX_ARRAY_BYTES = 16 << 30
"""Of an array as it is in memory; compressed, it may be a thousandth of that."""

_MAX_NONE_BYTES = 4 << 20
_BOOKKEEPING = frozenset({"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STACK_GLOBAL"})
"""What differs between pickles of one array by Python's protocols, and says nothing about it."""
_ONLY_NONE = frozenset({"NONE", "MARK", "APPEND", "APPENDS"})
_ARRAYS = [[f"{module}.multiarray", "_reconstruct", "numpy", "ndarray"] for module in ("numpy.core", "numpy._core")]
_REAL = "biuf"
"""Kinds of numpy's types that are numbers."""


def read_npz(path: Path, needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the arrays of an npz file by name; one that holds nothing but None is taken as not there.

    Args:
        path: of the file.
        needed: names that must be there.
        optional: names that are read where they are there; all others are left alone.

    Raises:
        FieldError: it is no npz file, an array is missing or too large, or it holds Python objects other than None,
            which only a pickle can.
    """
    check_file(path)
    if not zipfile.is_zipfile(path):
        raise FieldError("path", wanted="an npz file of numpy.savez", got=path.name)
    found: dict[str, Any] = {}
    try:
        with zipfile.ZipFile(path) as file:
            there = {info.filename.removesuffix(".npy"): info for info in file.infolist()}
            for name in (*needed, *optional):
                array = _read(file, there[name], name) if name in there else None
                if array is not None:
                    found[name] = array
                elif name in needed:
                    got = Words("None") if name in there else None
                    raise FieldError(name, wanted=f"an array of {path.name}", got=got)
    except FieldError:
        raise
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise FieldError("path", wanted="a whole npz file of numpy.savez", got=error) from error
    return found


def _read(file: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Any:
    if info.file_size > MAX_ARRAY_BYTES:
        raise FieldError(name, wanted=f"at most {MAX_ARRAY_BYTES} bytes", got=info.file_size)
    with file.open(info) as array:
        shape, kind = _header(array, name)
        if kind.hasobject:
            if info.file_size <= _MAX_NONE_BYTES and _pickles_none(array.read()):
                return None
            wanted = f"an array of numbers (write numpy.asarray({name}, dtype=float)), or left out"
            raise FieldError(name, wanted=wanted, got=Words("Python objects, which only a pickle can hold"))
    if math.prod(shape) * kind.itemsize > info.file_size:  # or memory would be taken for what is not there
        raise FieldError(name, wanted="an array of numpy.savez", got=Words("fewer numbers than its header says"))
    with file.open(info) as array:
        try:
            return np.lib.format.read_array(array, allow_pickle=False)
        except ValueError as error:
            raise FieldError(name, wanted="an array of numpy.savez", got=error) from error


def _header(array: Any, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read the head of an npy file and return its shape and its type."""
    try:
        version = np.lib.format.read_magic(array)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(array)
    except ValueError as error:
        raise FieldError(name, wanted="an array of numpy.savez", got=error) from error
    return shape, kind


def _pickles_none(data: bytes) -> bool:
    """Return whether `data` is the pickle of an array of objects that are all None. Nothing in it is executed."""
    said: list[tuple[str, Any]] = []
    try:
        for operation, value, _ in pickletools.genops(data):
            # What older protocols say in one word, later ones say in two.
            words = str(value).split(" ") if operation.name == "GLOBAL" else [value]
            said += [(operation.name, word) for word in words if operation.name not in _BOOKKEEPING]
    except (ValueError, IndexError, KeyError):
        return False
    names, values = [name for name, _ in said], [value for _, value in said]
    # numpy's array says what makes it, its shape, its type, and then the list of what it holds.
    if values[:4] not in _ARRAYS or "O8" not in values or names.count("EMPTY_LIST") != 1:
        return False
    return names[-3:] == ["TUPLE", "BUILD", "STOP"] and set(names[names.index("EMPTY_LIST") + 1 : -3]) <= _ONLY_NONE


def check_shape(name: str, array: Any, shape: tuple[int | None, ...]) -> None:
    """Refuse an array of another shape; None stands for any length.

    Raises:
        FieldError: the shape differs.
    """
    fits = array.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, array.shape, strict=False)
    )
    if not fits:
        wanted = f"shape ({', '.join('any' if size is None else str(size) for size in shape)})"
        raise FieldError(name, wanted=wanted, got=array.shape)


def numbers(name: str, array: Any) -> Any:
    """Return `array` as float64, in its shape; truth values are 0 and 1.

    Raises:
        FieldError: it holds something else.
    """
    values = np.asarray(array)
    if values.dtype.kind not in _REAL:
        raise FieldError(name, wanted="an array of numbers", got=Words(f"of {values.dtype}"))
    return values.astype(np.float64)


def one_number(name: str, array: Any, least: int, most: int) -> int:
    """Return the whole number that an array of one element holds.

    Raises:
        FieldError: it holds another number of elements, or no whole number in least..most.
    """
    values = np.asarray(array).reshape(-1)
    wanted = f"a whole number from {least} to {most}"
    if values.size != 1 or values.dtype.kind not in _REAL:
        raise FieldError(name, wanted=wanted, got=values[:3])
    value = values[0]
    if not (least <= value <= most and value == int(value)):
        raise FieldError(name, wanted=wanted, got=value.item())
    return int(value)


def whole_numbers(name: str, array: Any, limit: int) -> Any:
    """Return [n] `array` as whole numbers in 0..limit-1.

    Raises:
        FieldError: it is not one.
    """
    values = np.asarray(array).reshape(-1)
    wanted = f"whole numbers from 0 to {limit - 1}"
    if values.dtype.kind not in _REAL:
        raise FieldError(name, wanted=wanted, got=values[:3])
    rows = np.flatnonzero(~((values >= 0) & (values < limit) & (values == np.floor(values))))
    if len(rows):
        raise FieldError(f"row {rows[0]}: {name}", wanted=wanted, got=values[rows[0]].item())
    return values.astype(np.int64)


def times(start: int, rows: int) -> list[datetime]:
    """Return the times of decisions `start` to `start + rows - 1` of a format without times."""
    return [EPOCH + timedelta(seconds=start + row) for row in range(rows)]
