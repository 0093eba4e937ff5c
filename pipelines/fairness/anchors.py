"""Published upheld pairs as the service reads them; without the database, which it does not need for that.

They are a file, ``anchors/LOOP/DIGEST.json`` of the installation's files, and State says which: ``loop/LOOP/anchors``.
"""

from __future__ import annotations

import hashlib

import msgspec

from decision.errors import FieldError
from decision.fairness.clamp import Anchor
from decision.validation import prepared
from pipelines.settings import Settings, check_loop_name
from pipelines.storage import Storage

MAX_BYTES = 64 << 20
_decoder = msgspec.json.Decoder(list[Anchor])


class Pointer(msgspec.Struct, frozen=True, kw_only=True):
    """Which file is published.

    Attributes:
        digest: SHA-256 of its bytes, hex; also its name.
        pairs: how many pairs it holds.
    """

    digest: str
    pairs: int


def anchors_key(loop: str) -> str:
    """Return the key of the pointer in State."""
    return f"loop/{check_loop_name(loop)}/anchors"


def anchors_folder(loop: str) -> str:
    """Return where the loop's files lie among the installation's."""
    return f"anchors/{check_loop_name(loop)}"


def former_stamp(settings: Settings, loop: str) -> bytes:
    """Return what changes with the file of an earlier release; nothing where there is none."""
    try:
        return str(settings.anchors_path(loop).stat().st_mtime_ns).encode()
    except FileNotFoundError:
        return b""


def published(settings: Settings, loop: str, pointer: bytes | None) -> list[Anchor]:
    """Return what is published.

    Args:
        settings: the installation.
        loop: the loop.
        pointer: what stands under `anchors_key`; None for the file of an earlier release.

    Raises:
        FieldError: it is too large, or not what was published.
        FileNotFoundError: there is none.
        StorageError: the files cannot be reached.
    """
    if pointer is None:
        path = settings.anchors_path(loop)
        _check_size(path.stat().st_size)
        return _decoded(path.read_bytes())
    try:
        digest = msgspec.json.decode(pointer, type=prepared(Pointer)).digest
    except msgspec.DecodeError as error:
        raise FieldError("anchors", wanted="which pairs are published", got=error) from error
    files, key = Storage.of(settings), f"{anchors_folder(loop)}/{digest}.json"
    _check_size(files.look(key).size)
    data = files.read(key)
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise FieldError("anchors", wanted=f"the file with the digest {digest}", got=found)
    return _decoded(data)


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise FieldError("anchors", wanted=f"at most {MAX_BYTES} bytes", got=size)


def _decoded(data: bytes) -> list[Anchor]:
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise FieldError("anchors", wanted="upheld pairs", got=error) from error
