"""Marks: named positions that stand in a Delta table's log beside the rows they belong to.

Delta's own reader looks through the whole log for one mark at a time. Here the log is read once for all of them, and
then only what was committed since.

References:
    Delta transaction log protocol, "Transaction Identifiers", "Last Checkpoint File" and "Checkpoints".
"""

from __future__ import annotations

import io
from typing import Any

import msgspec
from deltalake import DeltaTable

from pipelines.lake.damage import check_places
from pipelines.storage import Storage


class _Transaction(msgspec.Struct, rename="camel"):
    app_id: str
    version: int


class _Action(msgspec.Struct):
    txn: _Transaction | None = None


class _Checkpoint(msgspec.Struct):
    version: int
    parts: int | None = None


_action = msgspec.json.Decoder(_Action)
_checkpoint = msgspec.json.Decoder(_Checkpoint)


class MarkedTable(DeltaTable):
    """A Delta table that knows its marks; copies of it share what they know.

    Args:
        storage: the tables' folder or address.
        name: of the table in it.
        version: which one; None for the latest.
    """

    def __init__(self, storage: Storage, name: str, version: int | None = None) -> None:
        super().__init__(f"{storage.url}/{name}", version=version)
        self._name = name
        self._marks = _Marks(storage, f"{name}/_delta_log")
        self._checked: set[int] = set()

    def to_pyarrow_dataset(self, *arguments: Any, **options: Any) -> Any:
        """Return the rows as `DeltaTable` does, whose pages are held against their checksums as they are read.

        Raises:
            DamagedError: the log of commits names a file that lies in another partition.
        """
        import pyarrow.dataset as ds  # only who reads rows needs it

        version = self.version()
        if version not in self._checked:
            check_places(self, self._name)
            self._checked.clear()
            self._checked.add(version)
        found = super().to_pyarrow_dataset(*arguments, **options)
        checked = ds.ParquetFragmentScanOptions(pre_buffer=True, page_checksum_verification=True)
        found.format.default_fragment_scan_options = checked
        return found

    def mark(self, name: str) -> int | None:
        """Return the value of a mark, None where it was never set."""
        try:
            return self._marks.at(self.version()).get(name)
        except FileNotFoundError:  # the log was cleaned up: what this table read of it is still there
            return self.transaction_version(name)

    def moved(self, version: int, marks: dict[str, int]) -> None:
        """Take note of `marks` that were committed as `version`."""
        self._marks.moved(version, marks)


class _Marks:
    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage, self._folder = storage, folder
        self._version, self._values = -1, dict[str, int]()

    def at(self, version: int) -> dict[str, int]:
        """Return the marks at a version of the table."""
        if self._version < 0 or version < self._version:
            self._version, self._values = self._before(version)
        if version > self._version:
            values = dict(self._values)
            for number in range(self._version + 1, version + 1):
                values |= self._committed(number)
            self._version, self._values = version, values
        return self._values

    def moved(self, version: int, marks: dict[str, int]) -> None:
        if self._version == version - 1 and version > 0:
            self._version, self._values = version, self._values | marks

    def _before(self, version: int) -> tuple[int, dict[str, int]]:
        """Return the last checkpoint at or before a version, with its marks; -1 where there is none to be read."""
        try:
            last = _checkpoint.decode(self._storage.read(f"{self._folder}/_last_checkpoint"))
        except (FileNotFoundError, msgspec.DecodeError):
            return -1, {}
        if last.version > version or last.parts is not None:
            return -1, {}
        import pyarrow.parquet as pq  # only a log that is long enough to have one needs it

        data = self._storage.read(f"{self._folder}/{last.version:020d}.checkpoint.parquet")
        file = pq.ParquetFile(io.BytesIO(data))
        if "txn" not in file.schema_arrow.names:
            return last.version, {}
        rows: list[Any] = file.read(columns=["txn"])["txn"].drop_null().to_pylist()
        return last.version, {row["appId"]: row["version"] for row in rows if row["appId"] is not None}

    def _committed(self, version: int) -> dict[str, int]:
        data = self._storage.read(f"{self._folder}/{version:020d}.json")
        found = [_action.decode(line).txn for line in data.splitlines() if b'"txn"' in line]
        return {txn.app_id: txn.version for txn in found if txn is not None}
