"""The lines of text files, one after another: of a file, a folder, a pattern or standard input, compressed or not."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa

from decision.errors import FieldError, Words
from decision.records import MAX_RECORD_BYTES
from pipelines.formats.store import MAX_BYTES, check_file

MAX_FILES = 1_000_000
_JOINED = b"VWFB"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_PATTERN = frozenset("*?[")


class Line(NamedTuple):
    """A line.

    Attributes:
        place: where it stands, for messages: ``line 7``, or ``08/03_07.json line 7`` of a folder.
        text: its bytes without their end.
        ended: a newline follows; without one, whoever wrote the last line of a file may have been stopped.
    """

    place: str
    text: bytes
    ended: bool


def files_of(path: Path, suffixes: tuple[str, ...]) -> list[tuple[str, Path]]:
    """Return the files that `path` means, each with its name for messages, in the order of their names.

    Args:
        path: a file, whatever its name; a folder, for the files below it whose names have one of the suffixes, also
            with ``.gz`` or ``.zst`` after it; or a pattern (``logs/2026/*/*.json``).
        suffixes: as ``.json``.

    Raises:
        FieldError: there is none, or there are more than 1,000,000.
    """
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if _is_ours(file, path, suffixes))
        wanted = f"a folder with files that end with {', '.join(suffixes)}, or these with .gz or .zst"
    elif not path.exists() and _PATTERN & set(str(path)):
        fixed = Path(*_fixed(path.parts))
        rest = path.parts[len(fixed.parts) :] if fixed.parts else path.parts
        found = sorted(file for file in fixed.glob("/".join(rest)) if file.is_file())
        wanted = "a pattern that some file fits"
        path = fixed
    else:
        check_file(path)
        return [("", path)]
    if not 1 <= len(found) <= MAX_FILES:
        raise FieldError("path", wanted=wanted, got=path.name if not found else f"{len(found)} files")
    return [(str(file.relative_to(path)), file) for file in found]


def lines_of(path: Path, suffixes: tuple[str, ...]) -> Iterator[Line]:
    """Yield the lines of the files that `path` means, see `files_of`; ``-`` is standard input.

    Raises:
        FieldError: there is no such file, it is a joined binary file, its compression is damaged, a line is longer than
            a record may be, or all together are larger than an import may be.
    """
    if str(path) == "-":
        yield from _lines("", sys.stdin.buffer)
        return
    for name, file in files_of(path, suffixes):
        with ExitStack() as opened:
            yield from _lines(name, _opened(file, opened))


def _lines(name: str, file: IO[bytes]) -> Iterator[Line]:
    number = size = 0
    try:
        while text := file.readline(MAX_RECORD_BYTES + 1):
            number += 1
            size += len(text)
            place = f"{name} line {number}".strip()
            if len(text) > MAX_RECORD_BYTES:
                raise FieldError(place, wanted=f"at most {MAX_RECORD_BYTES} bytes", got=Words("longer"))
            if size > MAX_BYTES:
                raise FieldError("path", wanted=f"at most {MAX_BYTES} bytes in a file", got=Words("more"))
            yield Line(place, text.rstrip(b"\r\n"), text.endswith(b"\n"))
    except (OSError, EOFError, zlib.error, pa.ArrowInvalid) as error:
        raise FieldError(name or "path", wanted=f"a whole file, is damaged after line {number}", got=error) from error


def _opened(path: Path, opened: ExitStack) -> Any:
    with path.open("rb") as probe:
        head = probe.read(4)
    if head == _JOINED:
        got = Words("a joined binary file of rlclientlib's (VWFB); turn it into JSON lines first")
        raise FieldError(path.name, wanted="lines of text", got=got)
    if head.startswith(_GZIP):
        return opened.enter_context(gzip.open(path, "rb"))
    if head == _ZSTD:
        return opened.enter_context(io.BufferedReader(pa.input_stream(str(path), compression="zstd")))  # pyright: ignore[reportArgumentType]
    return opened.enter_context(path.open("rb"))


def _is_ours(file: Path, folder: Path, suffixes: tuple[str, ...]) -> bool:
    name = file.name.lower().removesuffix(".gz").removesuffix(".zst")
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return name.endswith(suffixes) and not hidden and file.is_file()


def _fixed(parts: tuple[str, ...]) -> tuple[str, ...]:
    for at, part in enumerate(parts):
        if _PATTERN & set(part):
            return parts[:at]
    return parts
