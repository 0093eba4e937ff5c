"""What an installation keeps as whole files, by keys: in the home folder, or below an address on object storage.

A key is a relative path with "/". A write replaces a file as a whole and is durable when it returns; readers see the
old bytes or the new ones. On object storage each call is one request. Delta tables are not written through here, but
their files are. How object storage is reached stands in the ``AWS_`` variables, which Delta reads in the same way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.request import url2pathname

from pipelines.files import write_atomically
from pipelines.settings import Settings

if TYPE_CHECKING:  # who reads no Parquet does not wait for the library
    import pyarrow.fs as pafs

_S3_SAYS = re.compile(r"<Code>([^<]+)</Code>.*?<Message>([^<]+)</Message>")


class StorageError(Exception):
    """Object storage does not answer, or refuses."""


class TakenError(StorageError):
    """There is a file of that key already."""


class Stored(NamedTuple):
    """A file.

    Attributes:
        key: of the file.
        size: in bytes.
        modified: when it was written, in seconds since 1970.
    """

    key: str
    size: int
    modified: float


def write_file(target: str, data: bytes) -> None:
    """Make `data` the file at a path, or at ``s3://bucket/key``.

    Raises:
        StorageError: object storage does not answer.
    """
    folder, _, name = target.rpartition("/")
    Storage(folder or (os.sep if target.startswith(os.sep) else ".")).write(name, data)


class Storage:
    """The files below a folder or an address.

    Args:
        url: folder, as a path or ``file:///folder``, or ``s3://bucket/prefix``.
        persists: whether a request to object storage that failed is made again, for minutes.
    """

    def __init__(self, url: str | Path, *, persists: bool = True) -> None:
        text = url2pathname(str(url)[7:]) if str(url).startswith("file://") else str(url)
        self.local = "://" not in text
        self.url = str(Path(text).absolute()) if self.local else text.rstrip("/")
        self._persists = persists

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the files of an installation."""
        return cls(settings.files_url)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def path(self, key: str) -> Path:
        """Return the path of a file in a folder."""
        return Path(self.url) / key

    def read(self, key: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            FileNotFoundError: there is none.
            StorageError: object storage does not answer.
        """
        if self.local:
            return self.path(key).read_bytes()
        return bytes(self._ask("get", key).bytes())

    def write(self, key: str, data: bytes) -> None:
        """Make `data` the file `key`.

        Raises:
            StorageError: object storage does not answer.
        """
        if self.local:
            self.path(key).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path(key), data)
        else:
            self._ask("put", key, data, use_multipart=False)

    def write_new(self, key: str, data: bytes) -> None:
        """Make `data` the file `key`, which nobody else writes or reads before this returns; it is durable then.

        Raises:
            StorageError: object storage does not answer.
        """
        if not self.local:
            self.write(key, data)
            return
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        for target in (path, path.parent):
            handle = os.open(target, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def create(self, key: str, data: bytes) -> None:
        """Make `data` the object `key` unless there is one; of several who try, one succeeds where storage keeps to it.

        Raises:
            TakenError: there is one.
            StorageError: object storage does not answer.
        """
        self._ask("put", key, data, mode="create", use_multipart=False)

    def upload(self, key: str, path: Path) -> None:
        """Make a copy of a file on this machine the file `key`, in parts where it is large.

        Raises:
            StorageError: object storage does not answer.
        """
        if self.local:
            self.write(key, path.read_bytes())
        else:
            self._ask("put", key, path)

    def has(self, folder: str) -> bool:
        """Return whether there are files below `folder`.

        Raises:
            StorageError: object storage does not answer.
        """
        return self.path(folder).is_dir() if self.local else bool(self._ask("list", folder, some=True))

    def look(self, key: str) -> Stored:
        """Return what is known of the file `key` without its bytes.

        Raises:
            FileNotFoundError: there is none.
            StorageError: object storage does not answer.
        """
        if self.local:
            found = self.path(key).stat()
            return Stored(key, found.st_size, found.st_mtime)
        return _stored(self._ask("head", key))

    def list(self, folder: str) -> list[Stored]:
        """Return the files below `folder`, by key; names that begin with "." are of files that are being written.

        Raises:
            StorageError: object storage does not answer.
        """
        if self.local:
            top = self.path(folder)
            paths = sorted(path for path in top.rglob("*") if path.is_file()) if top.is_dir() else []
            named = {path.relative_to(self.url).as_posix(): path for path in paths}
            return [
                Stored(key, path.stat().st_size, path.stat().st_mtime)
                for key, path in named.items()
                if not any(part.startswith(".") for part in key.removeprefix(folder).split("/"))
            ]
        found = [entry for page in self._ask("list", folder) for entry in page]
        return sorted(map(_stored, found))

    def delete(self, *keys: str) -> None:
        """Delete files; those that are gone already are no error.

        Raises:
            StorageError: object storage does not answer.
        """
        if self.local:
            for key in keys:
                self.path(key).unlink(missing_ok=True)
        elif keys:
            self._ask("delete", list(keys))

    def filesystem(self) -> pafs.FileSystem:
        """Return the files for pyarrow, by their keys; for reading."""
        import pyarrow.fs as pafs

        if self.local:
            return pafs.SubTreeFileSystem(self.url, pafs.LocalFileSystem())
        from deltalake.fs import DeltaStorageHandler

        return pafs.PyFileSystem(DeltaStorageHandler(self.url))

    @cached_property
    def _store(self) -> Any:
        from obstore.store import from_url

        return from_url(self.url, retry_config=None if self._persists else {"max_retries": 0})

    def _ask(self, what: str, *arguments: Any, some: bool = False, **options: Any) -> Any:
        import obstore
        from obstore.exceptions import AlreadyExistsError, BaseError

        try:
            found = getattr(obstore, what)(self._store, *arguments, **options)
            if what == "list":
                return next(found, []) if some else list(found)
            return found
        except FileNotFoundError:
            raise
        except AlreadyExistsError as error:
            raise TakenError(str(arguments[0])) from error
        except (BaseError, OSError) as error:
            raise StorageError(f"{self.url}: {first_line(error)}") from error


def _stored(entry: Mapping[str, Any]) -> Stored:
    return Stored(entry["path"], entry["size"], entry["last_modified"].timestamp())


def first_line(error: Exception) -> str:
    """Return what an error says in one line: of an S3 server's answer its code and message, which stand at its end."""
    text = " ".join(str(error).split())
    said = _S3_SAYS.search(text)
    return (f"{said[1]}: {said[2]}" if said else text)[:300]
