"""Parquet files of a loop's features: in the home folder, or on object storage with copies in the home folder.

Feast reads files of this machine. Where an installation's files are on object storage, the originals stand there, are
written first, and the folder holds copies of all of them, whoever wrote them. Who rewrites files of any writer is
alone with them: by a lock file, or by a lease of State where machines share them.
"""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.files import locked, replacing, write_atomically
from pipelines.settings import Settings
from pipelines.state.failures import StateError
from pipelines.state.holding import LEASE_S, holding
from pipelines.state.state import State
from pipelines.storage import Storage, Stored


class Copies:
    """The files of one loop.

    Args:
        settings: the installation.
        loop: the loop's name.
        lease_s: how long a machine that was lost while it rewrote files keeps others from it, in seconds.
    """

    def __init__(self, settings: Settings, loop: str, lease_s: float = LEASE_S) -> None:
        storage = Storage.of(settings)
        self._state_url, self._lease_s = settings.state_url, lease_s
        self._key = f"features/{loop}"
        self._originals = None if storage.local else storage
        self.folder = settings.root / self._key

    @cached_property
    def writer(self) -> str:
        """What the names of files begin with that only this home writes; "" where nobody else could."""
        if self._originals is None:
            return ""
        path = self.folder / "writer"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, f"{uuid.uuid4().hex[:12]}-".encode())
        return path.read_text()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others from rewriting files meanwhile, and make the folder hold what the originals are.

        Raises:
            StateError: another machine rewrites them, for longer than one that was lost would.
        """
        if self._originals is None:
            with locked(self.folder / ".rewriting") if self.folder.is_dir() else nullcontext():
                yield
            return
        with State(self._state_url) as state, holding(state, self._key, self._lease_s) as lease:
            if lease is None:
                raise StateError(f"{self._key}: another machine rewrites these files; run it again later")
            self.fetch()
            yield

    def fetch(self) -> None:
        """Make the folder hold what the originals are; without originals there is nothing to do."""
        if self._originals is None:
            return
        there = {self._path(found.key): found for found in self._originals.list(self._key)}
        for path in self.folder.rglob("*.parquet"):
            if path not in there and not path.name.startswith("."):
                path.unlink(missing_ok=True)
        for path, found in there.items():
            if path.suffix == ".parquet" and not _is_copy(path, found):
                self._copy(path, self._originals.read(found.key), found)

    def write(self, path: Path, table: pa.Table) -> None:
        """Make `table` the file at a path of the folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._originals is None:
            with replacing(path) as file:
                pq.write_table(table, file, compression="zstd")
            return
        data, key = io.BytesIO(), f"{self._key}/{path.relative_to(self.folder).as_posix()}"
        pq.write_table(table, data, compression="zstd")
        self._originals.write(key, data.getvalue())
        self._copy(path, data.getvalue(), self._originals.look(key))

    def remove(self, path: Path) -> None:
        """Delete the file at a path of the folder."""
        if self._originals is not None:
            self._originals.delete(f"{self._key}/{path.relative_to(self.folder).as_posix()}")
        path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / key.removeprefix(f"{self._key}/")

    def _copy(self, path: Path, data: bytes, original: Stored) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
        os.utime(path, (original.modified, original.modified))


def _is_copy(path: Path, original: Stored) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return (found.st_size, int(found.st_mtime)) == (original.size, int(original.modified))
