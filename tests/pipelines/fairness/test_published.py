"""Upheld pairs as machines that share files and State read them: what was published, or an error that says so."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest

from decision.errors import FieldError
from decision.fairness.clamp import Anchor
from pipelines.fairness.anchors import Pointer, former_stamp, published
from pipelines.settings import Settings, load_settings
from pipelines.storage import Storage
from tests.worlds.s3 import BUCKET, S3

PAIRS = [Anchor(favoured={"age": 3.0}, disfavoured={"age": 4.0}, action_id="a", limit=0.1)]


def pointer(data: bytes) -> bytes:
    return msgspec.json.encode(Pointer(digest=hashlib.sha256(data).hexdigest(), pairs=1))


def kept(settings: Settings, data: bytes) -> bytes:
    """Keep a file as `publish` does, and return the pointer to it."""
    Storage.of(settings).write(f"anchors/news/{hashlib.sha256(data).hexdigest()}.json", data)
    return pointer(data)


def test_another_machine_reads_what_one_published(tmp_path: Path, s3: S3) -> None:
    assert s3.address
    a, b = (load_settings({}, home=str(tmp_path / name), files=f"s3://{BUCKET}/published") for name in ("a", "b"))
    assert published(b, "news", kept(a, msgspec.json.encode(PAIRS))) == PAIRS


def test_a_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path))
    where = kept(settings, msgspec.json.encode(PAIRS))
    (file,) = (tmp_path / "anchors" / "news").iterdir()
    file.write_bytes(msgspec.json.encode([msgspec.structs.replace(PAIRS[0], limit=0.9)]))
    with pytest.raises(FieldError, match="anchors"):
        published(settings, "news", where)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        published(settings, "news", where)
    for nonsense in (b"{", b'{"digest": 1}'):
        with pytest.raises(FieldError, match="anchors"):
            published(settings, "news", nonsense)
    with pytest.raises(FieldError, match="upheld pairs"):
        published(settings, "news", kept(settings, b"{}"))


def test_what_an_earlier_release_published_is_read_until_the_next_publication(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path))
    assert former_stamp(settings, "news") == b""
    settings.anchors_path("news").parent.mkdir()
    settings.anchors_path("news").write_bytes(msgspec.json.encode(PAIRS))
    assert former_stamp(settings, "news") != b""
    assert published(settings, "news", None) == PAIRS
