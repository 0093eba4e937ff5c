"""Arrays of an npz archive that nobody vouches for: sizes are checked before memory is taken, and nothing is unpickled.

A few kilobytes can say that they unpack to gigabytes, and a header that its array has 10^12 numbers. What is read here
fits its own header and a limit, or is refused.

References:
    NumPy enhancement proposal 1, "A Simple File Format for NumPy Arrays".
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from decision.errors import FieldError, Words

MAX_ARRAYS = 100_000
_HEADER = 10_000
"""Bytes that a member has at most beside its numbers."""
_READ = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_ENDING = ".npy"


def read_archive(file: IO[bytes], *, most_bytes: int, names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
    """Return arrays of an archive by name.

    Args:
        file: the archive, which can be sought in.
        most_bytes: that the arrays read may have together.
        names: those to read where they are there; None for all.

    Raises:
        FieldError: an array is larger than the limit, holds Python objects, or is not what its header says; names the
            array.
        ValueError: it is no archive, or its bytes are damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename.removesuffix(_ENDING): info for info in archive.infolist()}
            wanted = [name for name in (members if names is None else names) if name in members]
            if len(wanted) > MAX_ARRAYS:
                raise FieldError("arrays", wanted=f"at most {MAX_ARRAYS}", got=len(wanted))
            left, found = most_bytes, dict[str, NDArray[Any]]()
            for name in wanted:
                found[name] = _array(archive, members[name], name, left)
                left -= found[name].nbytes
            return found
    except FieldError:
        raise
    except Exception as error:  # zipfile, zlib and numpy's parser of headers have a dozen kinds for damaged bytes
        raise ValueError(f"no archive of arrays: {error}") from error


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, left: int) -> NDArray[Any]:
    with archive.open(info) as member:
        version = npy.read_magic(member)
        if version not in _READ:
            raise FieldError(name, wanted="an array in version 1 or 2 of numpy's format", got=version)
        shape, by_column, dtype = _READ[version](member, max_header_size=_HEADER)
        if dtype.hasobject:
            raise FieldError(name, wanted="an array of numbers, not of Python objects", got=Words("a pickled object"))
        count = math.prod(shape) * dtype.itemsize
        if not 0 <= count <= left:
            raise FieldError(name, wanted=f"at most {left:,} bytes", got=Words(f"{count:,}"))
        if info.file_size > count + _HEADER:
            raise FieldError(name, wanted=f"{count:,} bytes of numbers", got=Words(f"{info.file_size:,}"))
        data = member.read(count)
        if len(data) != count or member.read(1):
            raise FieldError(name, wanted=f"{count:,} bytes of numbers", got=Words("another number"))
    if not dtype.itemsize:
        raise FieldError(name, wanted="an array of numbers", got=Words(str(dtype)))
    return np.frombuffer(data, dtype).reshape(shape, order="F" if by_column else "C").copy()
