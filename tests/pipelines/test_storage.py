"""Files by key behave alike in a folder and on object storage."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from decision.errors import FieldError
from pipelines.operations.processes import free_port
from pipelines.settings import Settings
from pipelines.storage import Storage, StorageError, TakenError
from tests.worlds.s3 import BUCKET, S3


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.connected)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return Storage(tmp_path / "home")
    request.getfixturevalue("s3")
    return Storage(f"s3://{BUCKET}/{request.node.name}/")


def test_a_file_is_what_was_written_last(storage: Storage) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read("a/b.json")
    storage.write("a/b.json", b"1")
    storage.write("a/b.json", b"22")
    storage.write_new("a/c.json", b"333")
    assert (storage.read("a/b.json"), storage.read("a/c.json")) == (b"22", b"333")


def test_files_are_listed_by_folder_and_deleted_once_or_twice(storage: Storage) -> None:
    assert storage.list("a") == []
    assert not storage.has("a")
    for key in ("a/2", "a/1", "a/b/3", "ab/4"):
        storage.write(key, key.encode())
    assert [(found.key, found.size) for found in storage.list("a")] == [("a/1", 3), ("a/2", 3), ("a/b/3", 5)]
    assert abs(storage.list("ab")[0].modified - storage.list("a")[0].modified) < 100
    assert storage.look("a/b/3") == storage.list("a/b")[0]
    assert storage.has("a")
    storage.delete("a/1", "a/2")
    storage.delete("a/1", "a/2")
    assert [found.key for found in storage.list("a")] == ["a/b/3"]


def test_parquet_is_read_in_place(storage: Storage, tmp_path: Path) -> None:
    table = pa.table({"x": range(1000)})
    pq.write_table(table, tmp_path / "t.parquet")
    storage.upload("deep/t.parquet", tmp_path / "t.parquet")
    assert pq.read_table("deep/t.parquet", filesystem=storage.filesystem()) == table


@pytest.mark.connected
def test_of_two_who_create_an_object_one_succeeds(s3: S3) -> None:
    one, other = (Storage(f"s3://{BUCKET}/created") for _ in range(2))
    one.create("key", b"one")
    with pytest.raises(TakenError):
        other.create("key", b"other")
    assert other.read("key") == b"one"


def test_storage_that_does_not_answer_is_an_error_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in S3.environment_of(f"http://127.0.0.1:{free_port()}").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match="s3://bucket/x"):
        Storage("s3://bucket/x", persists=False).read("key")


@pytest.mark.parametrize(
    "address", ["gs://bucket", "s3://", "bucket/prefix", "s3://bucket/a b", "s3://key:word@bucket"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(FieldError, match="files"):
        Settings(files=address)


def test_without_an_address_everything_is_in_the_home_folder() -> None:
    at_home, apart = Settings(home="/h"), Settings(home="/h", files="s3://bucket/a/b/")
    assert (at_home.files_url, at_home.lake_url) == ("/h", "/h/lake")
    assert (apart.files_url, apart.lake_url) == ("s3://bucket/a/b", "s3://bucket/a/b/lake")
