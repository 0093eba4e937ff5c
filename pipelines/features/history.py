"""History of the stream's features: one Parquet file per push, merged by and by.

A file is named by the range of pushes it holds and replaced as a whole, so a push that is repeated after a crash
leaves one copy. Merging sixty-four files of one size writes one beside them; the sixty-four go an hour later, when
nobody reads them any more. A row that stands in two files is the same row: readers take one per subject and time.

On object storage each home that pushes has files of its own, which begin with its name: a machine that takes over
pushes all sums once more, which repeats what is known at a later time and is never wrong.
"""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.features.copies import Copies
from pipelines.state.failures import StateError

FILES_PER_MERGE = 64
_GRACE_S = 3600.0

Range = tuple[int, int]


class History:
    """Files of one folder.

    Args:
        copies: the files of the loop, among which they are.
        schema: their columns; the first is the subject, the second the time.
    """

    def __init__(self, copies: Copies, schema: pa.Schema) -> None:
        self._copies, self._folder, self._schema = copies, copies.folder / "stream", schema

    @property
    def pattern(self) -> str:
        """Pattern of the files' paths."""
        return str(self._folder / "*.parquet")

    def create(self) -> None:
        """Make an empty history, so that questions have an answer."""
        if not self._path((0, 0)).is_file():
            self._write((0, 0), self._schema.empty_table())

    def append(self, number: int, rows: pa.Table) -> None:
        """Keep `rows` of the push `number`, which is above that of every push before it, or the last one again."""
        self._write((number, number), rows.cast(self._schema))
        if self._of_one_size():
            with suppress(StateError), self._copies.alone():  # a later push merges them, if this one may not
                self._merge()

    def read(self) -> pa.Table:
        """Return all rows, each once, by time."""
        self._copies.fetch()
        parts = [pq.read_table(path) for path in self._paths_held()]
        rows = pa.concat_tables(parts) if parts else self._schema.empty_table()
        return rows.sort_by([(self._schema.names[1], "ascending"), (self._schema.names[0], "ascending")])

    def erase(self, subject_id: str) -> int:
        """Remove the rows of a subject and return how many there were.

        Raises:
            StateError: another machine rewrites the files all the time; run it again.
        """
        with self._copies.alone():
            removed, held = 0, set(self._paths_held())
            for path in sorted(self._folder.glob("*.parquet")):
                table = pq.read_table(path)
                kept = table.filter(pc.field(self._schema.names[0]) != subject_id)
                if len(kept) < len(table):
                    self._copies.write(path, kept)
                    removed += len(table) - len(kept) if path in held else 0
        return removed

    def trim(self, before: datetime, *, dry_run: bool = False) -> tuple[int, int]:
        """Remove rows that another row of their subject had replaced before a time.

        What held at that time or later can still be asked for, so each subject's last row before it stays.

        Returns:
            How many rows went, or would go with `dry_run`, and about how many bytes they took.

        Raises:
            StateError: another machine rewrites the files all the time; run it again.
        """
        subject, time_ = self._schema.names[:2]
        rows = size = 0
        with self._copies.alone():
            cut = pa.scalar(before, self._schema.field(time_).type)
            open_ = {self._path(self._held(writer)[-1], writer) for writer in self._writers()}  # pushed again, perhaps
            old = [path for path in self._paths_held() if _oldest(path, time_, before)]
            keys = [pq.read_table(path, columns=[subject, time_]).filter(pc.field(time_) < cut) for path in old]
            if not keys:
                return 0, 0
            last = pa.concat_tables(keys).group_by(subject).aggregate([(time_, "max")])
            last = last.rename_columns([subject, "last"])
            for path in (path for path in old if path not in open_):
                table = pq.read_table(path)
                held = table.join(last, subject)
                kept = held.filter((pc.field(time_) >= cut) | (pc.field(time_) == pc.field("last")))
                if len(kept) == len(table):
                    continue
                taken = path.stat().st_size
                if dry_run:
                    size += taken * (len(table) - len(kept)) // len(table)
                else:
                    self._copies.write(path, kept.select(self._schema.names).cast(self._schema).sort_by(time_))
                    size += max(0, taken - path.stat().st_size)
                rows += len(table) - len(kept)
        return rows, size

    def _paths_held(self) -> list[Path]:
        """Return the files that hold everything, whoever wrote them."""
        return [self._path(held, writer) for writer in self._writers() for held in self._held(writer)]

    def _writers(self) -> list[str]:
        return sorted({_writer(path) for path in self._folder.glob("*.parquet")})

    def _files(self, writer: str | None = None) -> list[Range]:
        ours = self._copies.writer if writer is None else writer
        names = [path.stem.split("-")[-2:] for path in self._folder.glob("*.parquet") if _writer(path) == ours]
        return sorted((int(first), int(last)) for first, last in names)

    def _held(self, writer: str | None = None) -> list[Range]:
        """Return the files that hold everything, without those that were merged into another."""
        files = self._files(writer)
        return [f for f in files if not any(f != o and o[0] <= f[0] and f[1] <= o[1] for o in files)]

    def _of_one_size(self) -> list[Range]:
        """Return files of ours that are due to be merged, [] where none are."""
        sizes: dict[int, list[Range]] = defaultdict(list)
        for first, last in self._held():
            if last > 0:
                sizes[_power(last - first + 1)].append((first, last))
        for same in sizes.values():
            # Larger files are older, so files of one size follow each other; what lies between others stays as it is.
            if len(same) >= FILES_PER_MERGE and all(a[1] + 1 == b[0] for a, b in pairwise(same)):
                return same
        return []

    def _merge(self) -> None:
        if not (same := self._of_one_size()):
            return
        rows = pa.concat_tables([pq.read_table(self._path(part)) for part in same])
        self._write((same[0][0], same[-1][1]), rows.sort_by(self._schema.names[1]))
        for path in map(self._path, set(self._files()) - set(self._held())):
            if path.stat().st_mtime < time.time() - _GRACE_S:
                self._copies.remove(path)

    def _path(self, held: Range, writer: str | None = None) -> Path:
        ours = self._copies.writer if writer is None else writer
        return self._folder / f"{ours}{held[0]:012d}-{held[1]:012d}.parquet"

    def _write(self, held: Range, rows: pa.Table) -> None:
        self._copies.write(self._path(held), rows)


def _oldest(path: Path, column: str, before: datetime) -> bool:
    """Return whether a file has a row from before a time, by its statistics."""
    about = pq.read_metadata(path)
    place = about.schema.to_arrow_schema().get_field_index(column)
    groups = [about.row_group(number).column(place) for number in range(about.num_row_groups)]
    return any(group.num_values and group.statistics.min < before for group in groups)


def _writer(path: Path) -> str:
    return path.stem[: -len("000000000000-000000000000")]


def _power(pushes: int) -> int:
    power = 0
    while FILES_PER_MERGE ** (power + 1) <= pushes:
        power += 1
    return power
