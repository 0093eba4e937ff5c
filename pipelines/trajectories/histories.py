"""Users' settled decisions, user after user and each in order of time, from a lake of any size.

The lake is partitioned by event, so a user lies in all of its partitions. One pass over them puts every row into a
scratch file by a hash of its user; then one file after the other is sorted. What is held at a time is a file, a batch
of the scan, two numbers per outcome of a partition, and never less than one user.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset as ds
from deltalake import DeltaTable

from decision.batch import Ints
from decision.errors import FieldError
from pipelines.interactions.join import place_of
from pipelines.lake.lake import Lake, dataset
from pipelines.lake.schemas import TIME
from pipelines.lake.tables import partitions_of

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

ROWS_AT_ONCE = 100_000
"""Rows that are sorted together, about; more where one user has more."""
MOST_FILES = 256
KNOWN = "known"
"""Column that `histories` makes: when each of the row's outcomes was known, microseconds since 1970."""

_ORDER = ("ts", "event_id")
AHEAD: Any = {"batch_size": 8_192, "batch_readahead": 2, "fragment_readahead": 1}
"""How far a scan reads ahead."""


def histories(
    lake: Lake,
    loop: str,
    columns: Sequence[str],
    *,
    dropped: bool = False,
    version: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    rows_at_once: int = ROWS_AT_ONCE,
) -> Iterator[pa.Table]:
    """Yield tables of whole users, sorted by user, time and event; slots are left out.

    Args:
        lake: the tables.
        loop: name of the loop.
        columns: of the interactions, or `KNOWN`, beside ``who``, ``ts`` and ``event_id``, which come first.
        dropped: with the decisions that were dropped, which have no reward.
        version: version of the interactions table; None for the present one.
        since: earliest time of decision.
        until: first time of decision that is left out.
        rows_at_once: about how many rows come together.

    Yields:
        Tables whose ``who`` is the user: the subject, or the episode where there is none; rows with neither belong to
        nobody and are left out.

    Raises:
        FieldError: `rows_at_once` is below 1, or a version that is not kept.
    """
    if rows_at_once < 1:
        raise FieldError("rows_at_once", wanted="1 or more", got=rows_at_once)
    where = settled(loop, since, until, dropped=dropped)
    with tempfile.TemporaryDirectory(prefix="decision-") as folder:

        def reading(table: DeltaTable) -> Iterator[pa.Table]:
            files = min(MOST_FILES, -(-dataset("interactions", table).count_rows(filter=where) // rows_at_once))
            parts = _scanned(lake, table, loop, where, columns)
            return iter(_together(parts)) if files < 2 else read_back(spread(parts, Path(folder), files))

        for rows in lake.read("interactions", reading, version):
            yield _sorted(rows)


def _together(parts: Iterator[pa.Table]) -> list[pa.Table]:
    found = list(parts)
    return [pa.concat_tables(found)] if found else []


def spread(parts: Iterator[pa.Table], folder: Path, files: int) -> list[Path]:
    """Write the rows to at most so many files of `folder`, those of one ``who`` to one, and return their paths."""
    paths = [folder / f"{number}.arrow" for number in range(files)]
    for path in paths:
        path.unlink(missing_ok=True)
    with ExitStack() as opened:
        writers: dict[int, pa.RecordBatchStreamWriter] = {}
        for rows in parts:
            numbers = _files_of(rows, files)
            for number in np.unique(numbers).tolist():
                if number not in writers:
                    sink = opened.enter_context(pa.OSFile(str(paths[number]), "wb"))
                    writers[number] = opened.enter_context(pa.ipc.new_stream(sink, rows.schema))
                writers[number].write_table(rows.filter(pa.array(numbers == number)))
    return [path for path in paths if path.is_file()]


def read_back(paths: list[Path]) -> Iterator[pa.Table]:
    """Yield what each file holds; it is removed."""
    for path in paths:
        with pa.OSFile(str(path)) as source:
            rows = pa.ipc.open_stream(source).read_all()
        path.unlink()
        yield rows


def settled(loop: str, since: datetime | None, until: datetime | None, *, dropped: bool = False) -> ds.Expression:
    """Return the condition for the settled decisions of somebody, without slots; see `histories`."""
    where = (pc.field("loop") == loop) & (pc.field("slot") == "")
    where &= pc.field("subject_id").is_valid() | pc.field("episode_id").is_valid()
    if not dropped:
        where &= pc.field("reward").is_valid()
    for name, at in (("since", since), ("until", until)):
        if at is not None:
            if at.tzinfo is None:
                raise FieldError(name, wanted="a time with its UTC offset", got=at.isoformat())
            scalar = pa.scalar(at, TIME)
            where &= pc.field("ts") >= scalar if name == "since" else pc.field("ts") < scalar
    return where


def begins_of(rows: pa.Table) -> Ints:
    """Return [users + 1] where each user's rows begin in a table of whole users."""
    codes = rows["who"].combine_chunks().dictionary_encode().indices.to_numpy()
    changes = np.flatnonzero(codes[1:] != codes[:-1]) + 1
    return np.concatenate(([0], changes, [len(codes)])).astype(np.int64)


def _scanned(
    lake: Lake, table: DeltaTable, loop: str, where: ds.Expression, columns: Sequence[str]
) -> Iterator[pa.Table]:
    """Yield the rows batch by batch, each with its user and the columns wanted."""
    data = dataset("interactions", table)
    more = ("outcomes", "appended_at") if KNOWN in columns else ()
    wanted = list(dict.fromkeys([*_ORDER, "subject_id", "episode_id", *columns, *more]))
    kept = ["who", *dict.fromkeys([*_ORDER, *columns])]
    for partition in partitions_of(table, loop):
        arrivals = _arrivals(lake, loop, partition) if more else None
        here = where & (pc.field("partition") == partition)
        for batch in data.scanner([name for name in wanted if name != KNOWN], filter=here, **AHEAD).to_batches():
            if not batch.num_rows:
                continue
            rows = pa.Table.from_batches([batch])
            episode = pc.binary_join_element_wise("episode ", rows["episode_id"], "")
            rows = rows.append_column("who", pc.coalesce(rows["subject_id"], episode))
            if arrivals is not None:
                rows = rows.append_column(KNOWN, _known(rows, *arrivals))
            yield rows.select(kept)


def _arrivals(lake: Lake, loop: str, partition: int) -> tuple[Ints, Ints]:
    """Return ([n], [n]) offsets and times of arrival of the outcomes in a log partition, by offset."""
    columns, here = ["offset", "appended_at"], place_of(loop, partition)
    found = lake.read("outcomes", lambda table: table.to_pyarrow_dataset().to_table(columns, filter=here))
    offsets, at = found["offset"].to_numpy(), found["appended_at"].cast(pa.int64()).to_numpy()
    order = np.argsort(offsets, kind="stable")
    return offsets[order], at[order]


def _known(rows: pa.Table, offsets: Ints, arrived: Ints) -> pa.ListArray:
    """Return when each outcome of each row was known.

    An outcome is known once it happened and came in. How long it took to come in is told by the log's own clock, from
    the decision's arrival to its own; a log that was filled later at one go has such times too.
    """
    outcomes = rows["outcomes"].combine_chunks()
    sizes = pc.fill_null(pc.list_value_length(outcomes), 0).to_numpy().astype(np.int64)
    each = outcomes.flatten()
    decided, came = (np.repeat(rows[name].cast(pa.int64()).to_numpy(), sizes) for name in ("ts", "appended_at"))
    at, place = each.field("ts").cast(pa.int64()).to_numpy(), each.field("offset").to_numpy()
    found = np.searchsorted(offsets, place)
    held = np.minimum(found, max(len(offsets) - 1, 0))
    there = offsets[held] == place if len(offsets) else np.zeros(len(place), np.bool_)
    delay = np.where(there, (arrived[held] if len(offsets) else place) - came, 0)
    known = decided + np.maximum(at - decided, delay)
    ends = np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(known, pa.int64()))


def _files_of(rows: pa.Table, files: int) -> Ints:
    users = rows["who"].combine_chunks().dictionary_encode()
    file_of = np.array([crc32(name.encode()) % files for name in users.dictionary.to_pylist()], np.int64)
    return file_of[users.indices.to_numpy()]


def _sorted(rows: pa.Table) -> pa.Table:
    return rows.sort_by([(name, "ascending") for name in ("who", *_ORDER)])
