"""The lake: four Delta tables, and commits that carry positions beside rows.

Rows are written as Parquet files first and become visible with one commit, together with named positions
("marks"). A mark is also a fence: when two writers that read the same mark commit, one wins and the other gets
`ConflictError`, reads again and finds the work done. `schemas.py` holds the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Field, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from decision.batch import Floats
from decision.errors import FieldError
from pipelines.lake.files import AT_ONCE, FileWriter, Replacement, merged, without
from pipelines.lake.marks import MarkedTable
from pipelines.lake.schemas import PARTITIONED_BY, SCHEMAS, TIME, Table
from pipelines.lake.statistics import actions_of
from pipelines.lake.tables import Tables, mark_of

_PLAIN_BY_STATE = ("joined", "expired")
_ATTEMPTS = 100
_EARLIEST = datetime(1, 1, 1, tzinfo=UTC)
_NO_CLEANING = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
"""Looking for commits past their retention would list the whole log at every commit; compacting does it."""
_AGES = ("delta.logRetentionDuration", "delta.deletedFileRetentionDuration")
REWRITES = "rewrites"
"""Mark that every replacement of files moves: two of them never mix."""
_WRITTEN_H = 1  # hours after which no writer is still at work on a file


class ConflictError(Exception):
    """Someone else committed what this commit assumed to be unchanged; read again."""


class _Rewritten(NamedTuple):
    added: int
    removed: int
    rows: int


class Lake(Tables):
    """The tables of one installation, with their rows; arguments as `Tables`."""

    def decisions(
        self,
        loop: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        version: int | None = None,
        latest: int | None = None,
        event_ids: Sequence[str] | None = None,
    ) -> pa.Table:
        """Return the decisions of `loop` with since <= ts < until, by time; the `latest` of them, or those named."""
        named = None if event_ids is None else pc.field("event_id").isin(pa.array(event_ids, pa.string()))
        return self._rows("decisions", loop, since, until, version, named, latest, few=named is not None)

    def outcomes(
        self, loop: str, *, since: datetime | None = None, until: datetime | None = None, version: int | None = None
    ) -> pa.Table:
        """Return the raw outcomes of `loop` with since <= ts < until, by time."""
        return self._rows("outcomes", loop, since, until, version)

    def interactions(
        self,
        loop: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        version: int | None = None,
        latest: int | None = None,
    ) -> pa.Table:
        """Return the interactions of `loop` with since <= ts < until, by time; dropped decisions are left out.

        Args:
            loop: its name.
            since: earliest time of decision.
            until: first time of decision that is left out.
            version: version of the table; None for the latest.
            latest: return only this many, the latest.

        Raises:
            FieldError: a time without its UTC offset, or a version that is not kept.
        """
        counts = pc.field("state").isin(_PLAIN_BY_STATE)
        return self._rows("interactions", loop, since, until, version, counts, latest)

    def dead_letters(self, *, version: int | None = None) -> pa.Table:
        """Return the messages that fit no schema, by position."""
        rows = self.read("dead_letters", lambda table: table.to_pyarrow_dataset().to_table(), version)
        return rows.sort_by([("topic", "ascending"), ("partition", "ascending"), ("offset", "ascending")])

    def write(self, name: Table, rows: pa.Table) -> list[AddAction]:
        """Write `rows` to new files, one for each of the table's partitions, and return what to commit.

        The files are on disk when this returns, and not visible before `commit`.
        """
        return self._writer(name).write(rows)

    def commit(
        self,
        name: Table,
        seen: DeltaTable,
        files: Sequence[AddAction],
        marks: Mapping[str, int],
        *,
        replace: tuple[str, Sequence[int]] | None = None,
    ) -> int:
        """Make `files` and `marks` visible in one transaction.

        Args:
            name: the table.
            seen: the table as it was when the marks were read; brought up to date.
            files: from `write`.
            marks: new value by name.
            replace: (loop, partitions) whose other rows are removed in the same transaction.

        Returns:
            The table's version after it.

        Raises:
            ConflictError: one of the marks, or the rows to be replaced, changed since `seen`.
        """
        if replace is not None:
            marks = {**marks, REWRITES: (mark_of(seen, REWRITES) or 0) + 1}
        return self._commit(name, seen, files, marks, replace)

    def _commit(
        self,
        name: Table,
        seen: DeltaTable,
        actions: Sequence[AddAction | RemoveAction],
        marks: Mapping[str, int],
        replace: tuple[str, Sequence[int]] | None = None,
    ) -> int:
        try:
            _widen(seen, name)
            seen.create_write_transaction(
                list(actions),
                mode="append" if replace is None else "overwrite",
                schema=SCHEMAS[name],  # pyright: ignore[reportArgumentType]
                partition_by=PARTITIONED_BY[name],
                partition_filters=None if replace is None else _filters(*replace),
                commit_properties=CommitProperties(
                    app_transactions=[Transaction(mark, value) for mark, value in sorted(marks.items())]
                ),
                post_commithook_properties=_NO_CLEANING,
            )
        except CommitFailedError as error:
            # The files stay for `vacuum`: only a later look tells a lost race from a lost answer.
            raise ConflictError(str(error)) from error
        before = seen.version()
        seen.update_incremental()
        if isinstance(seen, MarkedTable) and seen.version() == before + 1:  # and so it is the commit of this call
            seen.moved(seen.version(), dict(marks))
        return seen.version()

    def delete(
        self,
        name: Table,
        where: ds.Expression,
        marks: Mapping[str, int] | None = None,
        *,
        seen: DeltaTable | None = None,
    ) -> int:
        """Remove the rows for which `where` is true and return how many.

        Args:
            name: the table.
            where: condition on its columns.
            marks: new value by name; set even when there is nothing to remove.
            seen: the table as it was when the marks were read; without it a lost race is run again.

        Raises:
            ConflictError: others committed meanwhile; nothing was removed.
        """

        def plan(table: DeltaTable) -> Iterator[Replacement]:
            return without(table, where)

        return self._rewrite(name, plan, marks or {}, seen).rows

    def compact(self, name: Table) -> dict[str, Any]:
        """Merge small files, and forget commits that are past their retention; rows and marks stay as they are.

        Raises:
            ConflictError: others kept rewriting; nothing was changed.
        """
        done = self._rewrite(name, merged, {}, None)
        self.table(name).cleanup_metadata()
        return {"files_added": done.added, "files_removed": done.removed}

    def _rewrite(
        self,
        name: Table,
        plan: Callable[[DeltaTable], Iterator[Replacement]],
        marks: Mapping[str, int],
        seen: DeltaTable | None,
    ) -> _Rewritten:
        for attempt in range(_ATTEMPTS):
            table = self.table(name) if seen is None else seen
            try:
                return self._rewritten(name, table, plan(table), marks)
            except ConflictError:
                if seen is not None or attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _rewritten(
        self, name: Table, table: DeltaTable, plan: Iterator[Replacement], marks: Mapping[str, int]
    ) -> _Rewritten:
        added, removed, rows = list[AddAction](), list[RemoveAction](), 0
        before = table.version()
        try:
            for replacement in plan:
                change = replacement.dropped > 0
                if len(replacement.rows):
                    added += self._writer(name).write(replacement.rows, data_change=change)
                removed += replacement.removed
                rows += replacement.dropped
        except FileNotFoundError as error:
            if self.version(name) == before:
                raise
            raise ConflictError(f"others replaced files of the table {name!r} and took them away") from error
        if removed or marks:
            fence = {REWRITES: (mark_of(table, REWRITES) or 0) + 1}
            self._commit(name, table, [*added, *removed], {**marks, **fence})
        return _Rewritten(len(added), len(removed), rows)

    def forget(self, name: Table) -> int:
        """Delete the files of earlier versions, and return how many; others may write meanwhile.

        Earlier versions can be read no more. Files that no version names are what a writer left that was killed, or
        belong to one at work: they go once they are older than any write takes.
        """
        return self._vacuum(name, 0, full=False) + self._vacuum(name, _WRITTEN_H, full=True)

    def unneeded(self, name: Table, *, retention_hours: int) -> list[str]:
        """Return the files that `vacuum` would delete, by their paths in the table's folder."""
        return self.table(name).vacuum(retention_hours, dry_run=True, enforce_retention_duration=False, full=True)

    def keep(self, name: Table, days: int) -> None:
        """Have earlier versions kept for so many days, as the table's own properties say to all who clean it up.

        What Delta deletes by itself otherwise, the log's commits after 30 days and the names of replaced files after
        7, would cut an age short that is longer, and fill a disk where it is shorter.

        Raises:
            ConflictError: others kept committing.
        """
        wanted: dict[str, str] = dict.fromkeys(_AGES, f"interval {days} days")
        for attempt in range(_ATTEMPTS):
            table = self.table(name)
            known = table.metadata().configuration
            if all(known.get(each) == value for each, value in wanted.items()):
                return
            try:
                table.alter.set_table_properties(wanted, commit_properties=CommitProperties(max_commit_retries=0))
                return
            except CommitFailedError as error:
                if attempt == _ATTEMPTS - 1:
                    raise ConflictError(str(error)) from error

    def vacuum(self, name: Table, *, retention_hours: int = 168) -> int:
        """Delete files that no version within `retention_hours` needs, and return how many.

        Earlier versions can be read no more. Files of writers that are still at work are younger than any sensible
        retention; with 0 hours nobody else may write.
        """
        return self._vacuum(name, retention_hours, full=True)

    def _vacuum(self, name: Table, hours: int, *, full: bool) -> int:
        def work(*, dry_run: bool) -> list[str]:
            return self.table(name).vacuum(hours, dry_run=dry_run, enforce_retention_duration=False, full=full)

        found = set[str]()
        for attempt in range(_ATTEMPTS):
            found.update(work(dry_run=True))
            try:
                found.update(work(dry_run=False))
                return len(found)
            except CommitFailedError as error:  # it writes down that it began and ended, between the commits of others
                if attempt == _ATTEMPTS - 1:
                    raise ConflictError(str(error)) from error
        raise AssertionError("unreachable")

    def _rows(
        self,
        name: Table,
        loop: str,
        since: datetime | None,
        until: datetime | None,
        version: int | None,
        where: ds.Expression | None = None,
        latest: int | None = None,
        *,
        few: bool = False,
    ) -> pa.Table:
        keep = pc.field("loop") == loop
        if where is not None:
            keep &= where
        if since is not None:
            keep &= pc.field("ts") >= _instant("since", since)
        if until is not None:
            keep &= pc.field("ts") < _instant("until", until)
        if latest is not None and latest < 1:
            raise FieldError("latest", wanted="at least 1", got=latest)

        def reading(table: DeltaTable) -> pa.Table:
            these = keep if latest is None else keep & (pc.field("ts") >= _cut(table, loop, keep, latest, until))
            ahead = {} if self.storage.local else {"fragment_readahead": AT_ONCE}
            data = dataset(name, table)
            if few:  # all columns of a whole history are much to look through; files' statistics know times
                times = data.to_table(columns=["ts"], filter=these, **ahead)["ts"].unique()
                these &= pc.field("ts").isin(times)
            rows = data.to_table(filter=these, **ahead)
            # Sorted by what does not depend on files or partitions: the same rows always come in the same order.
            rows = rows.sort_by([(column, "ascending") for column in ("ts", "event_id", "slot")])
            return rows if latest is None else rows.slice(max(0, len(rows) - latest))

        return self.read(name, reading, version)

    def _writer(self, name: Table) -> FileWriter:
        return FileWriter(self.storage, name, PARTITIONED_BY[name])


def _filters(loop: str, partitions: Sequence[int]) -> list[Any]:
    return [("loop", "=", loop), ("partition", "in", [str(partition) for partition in partitions])]


def _widen(table: DeltaTable, name: Table) -> None:
    """Add the columns that a table written by older code lacks.

    Raises:
        CommitFailedError: others committed meanwhile.
    """
    known = pa.schema(table.schema()).names
    missing = [Field.from_arrow(field) for field in SCHEMAS[name] if field.name not in known]
    if missing:
        table.alter.add_columns(missing, commit_properties=CommitProperties(max_commit_retries=0))


def _cut(table: DeltaTable, loop: str, keep: ds.Expression, latest: int, until: datetime | None) -> pa.Scalar:
    """Return a time from which on there are `latest` rows of `loop` for which `keep` is true, the earliest if fewer.

    The log's statistics say about when so many rows began. What that leaves out of sight is asked for only where it
    was too late.
    """
    files = [action for action in actions_of(table) if action["partition.loop"] == loop]
    times, rows = _backwards(files)
    data, wanted = table.to_pyarrow_dataset(), 2.0 * latest
    later = 0.0
    if until is not None and len(rows):
        later = float(np.interp(-pa.scalar(until, TIME).cast(pa.int64()).as_py(), -times, rows))
    while len(rows) and later + wanted < rows[-1]:
        since = _time(int(np.interp(later + wanted, rows, times)))
        seen = data.to_table(columns=["ts"], filter=keep & (pc.field("ts") >= since))["ts"].cast(pa.int64()).to_numpy()
        if len(seen) >= latest:
            return _time(int(np.partition(seen, len(seen) - latest)[len(seen) - latest]))
        wanted *= 4.0
    return pa.scalar(_EARLIEST, TIME)


def _backwards(files: Sequence[Mapping[str, Any]]) -> tuple[Floats, Floats]:
    """Return ([m], [m]) times, the latest first, and about how many rows of `files` there are from each on.

    The rows of a file count as spread evenly from its first to its last.
    """
    bounds = pa.array([file[end] for end in ("min.ts", "max.ts") for file in files], TIME).cast(pa.int64()).to_numpy()
    first, last = bounds[: len(files)].astype(np.float64), bounds[len(files) :].astype(np.float64) + 1.0
    dense = np.array([file["num_records"] for file in files], np.float64) / (last - first)
    times, change = np.concatenate([last, first]), np.concatenate([dense, -dense])
    order = np.argsort(-times, kind="stable")
    times, density = times[order], np.cumsum(change[order])
    return times, np.concatenate([[0.0], np.cumsum(density[:-1] * -np.diff(times))])[: times.size]


def _time(us: int) -> pa.Scalar:
    return pa.scalar(us, pa.int64()).cast(TIME)


def dataset(name: Table, table: DeltaTable) -> ds.Dataset:
    """Return the rows of `table` in the present columns of the table `name`; null where older code wrote them."""
    return table.to_pyarrow_dataset(schema=SCHEMAS[name])


def _instant(field: str, value: datetime) -> pa.Scalar:
    if value.tzinfo is None:
        raise FieldError(field, wanted="a time with its UTC offset", got=value.isoformat())
    return pa.scalar(value, pa.timestamp("us", "UTC"))
