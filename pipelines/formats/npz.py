"""Named arrays of an npz file, read without pickle, with their shapes checked."""

from __future__ import annotations

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


def read_npz(path: Path, needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the arrays of an npz file by name.

    Args:
        path: of the file.
        needed: names that must be there.
        optional: names that are read where they are there; all others are left alone.

    Raises:
        FieldError: it is no npz file, an array is missing, or it holds Python objects, which only a pickle can.
    """
    check_file(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in needed:
                if name not in file.files:
                    raise FieldError(name, wanted=f"an array of {path.name}", got=None)
            return {name: _array(file, name) for name in (*needed, *optional) if name in file.files}
    except FieldError:
        raise
    except (zipfile.BadZipFile, OSError, EOFError, AttributeError, ValueError) as error:
        raise FieldError("path", wanted="an npz file of numpy.savez", got=path.name) from error


def _array(file: Any, name: str) -> Any:
    try:
        return file[name]
    except ValueError as error:
        raise FieldError(
            name, wanted="an array of numbers, not of Python objects", got=Words("a pickled object")
        ) from error


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


def whole_numbers(name: str, array: Any, limit: int) -> Any:
    """Return [n] `array` as whole numbers in 0..limit-1.

    Raises:
        FieldError: it is not one.
    """
    values = np.asarray(array).reshape(-1)
    if values.size and not (
        np.issubdtype(values.dtype, np.number) and (values == np.floor(values)).all() and values.min() >= 0
    ):
        raise FieldError(name, wanted=f"whole numbers from 0 to {limit - 1}", got=values[:3])
    if values.size and values.max() >= limit:
        raise FieldError(name, wanted=f"whole numbers from 0 to {limit - 1}", got=values.max())
    return values.astype(np.int64)


def times(start: int, rows: int) -> list[datetime]:
    """Return the times of decisions `start` to `start + rows - 1` of a format without times."""
    return [EPOCH + timedelta(seconds=start + row) for row in range(rows)]
