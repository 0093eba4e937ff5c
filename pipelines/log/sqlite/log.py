"""The event log in one local file: what a single machine runs on, and the spool in front of Kafka.

Transactions are exclusive, so offsets are contiguous and a reader never sees a gap; they may hold several topics, so
a decision with its slots is written whole or not at all. `local_table.py` holds the rows, `sqlite_file.py` the file.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from decision.errors import FieldError, Words
from pipelines.log.protocol import (
    FORWARDER_HEADERS,
    MAX_HEADERS,
    Headers,
    Item,
    Message,
    OffsetOutOfRange,
    Stretch,
    UnknownTopic,
    check_message,
    check_partitions,
    check_topic,
    of_loop,
    partition_of,
)
from pipelines.log.sqlite import table
from pipelines.log.sqlite.file import SqliteFile

_APPLICATION_ID = 0x44454C47
_ITEMS_PER_TRANSACTION = 4096
_BYTES_PER_TRANSACTION = 16 << 20
_PROBE_BYTES = 64 << 10
_TRIM_PER_TRANSACTION, _TRIM_REST_S = 256, 0.05  # a request waits for one of these
_MAX_HEADERS = MAX_HEADERS - FORWARDER_HEADERS
_REDACTED: Headers = (("redacted", b"1"),)

_new = tuple.__new__


class Group(NamedTuple):
    """Messages that are written together or not at all.

    Attributes:
        key: key of all of them.
        messages: topic, value and headers of each; at least one.
        unique: write nothing when the first message's topic already holds `key`, in a record of `loop`.
        loop: within which `key` is unique; "" for the whole topic.
        standing: the messages are what another machine answered under `key`: they are returned as existing even where
            they had to be written here.
    """

    key: bytes
    messages: Sequence[tuple[str, bytes, Headers]]
    unique: bool = False
    loop: str = ""
    standing: bool = False


class Stored(NamedTuple):
    """What became of a `Group`.

    Attributes:
        existing: an answer stood under the key before.
        positions: (partition, offset) of each message written; empty where the topic held the key.
        messages: what stands under the key; empty unless `existing`.
    """

    existing: bool
    positions: tuple[tuple[int, int], ...]
    messages: tuple[Message, ...] = ()


class LocalLog:
    """`EventLog` in a file that any number of processes of one machine read and append to.

    Args:
        path: the file; created when missing.
        clock: seconds since 1970, for the time of appending.
        busy_s: how long a write waits for a foreign program that holds the file, in seconds.
        max_bytes: the file grows no larger than this; appends are then refused. None for no limit.

    Raises:
        LogCorrupt: the file is damaged or no event log.
        LogUnavailable: the disk does not answer.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Callable[[], float] = time.time,
        busy_s: float = 10.0,
        max_bytes: int | None = None,
    ) -> None:
        self.path = Path(path).absolute()
        self._clock = clock
        self._file = SqliteFile(
            self.path,
            application_id=_APPLICATION_ID,
            version=1,
            schema=table.SCHEMA,
            busy_s=busy_s,
            max_bytes=max_bytes,
        )
        self._topics: dict[str, tuple[int, int]] = {}  # name -> id, partitions; neither ever changes
        self._identity = ""
        self._highs: dict[int, int] = {}  # partition's base -> next id, valid while nobody else writes
        self._seen = (0, 0)

    def __repr__(self) -> str:
        return f"LocalLog({str(self.path)!r})"

    def identity(self) -> str:
        """Return the id the file was given when it was created."""
        if not self._identity:
            with self._file.transaction() as db:
                db.execute("INSERT OR IGNORE INTO meta VALUES ('identity', ?)", (uuid.uuid4().hex,))
                self._identity = db.execute("SELECT value FROM meta WHERE name = 'identity'").fetchone()[0]
        return self._identity

    def create(self, topic: str, partitions: int) -> None:
        """Create `topic`, or do nothing when it exists with as many partitions.

        Raises:
            FieldError: the name or number does not fit, or the topic exists with another number.
        """
        check_partitions(partitions)
        with self._file.transaction() as db:
            found = db.execute("SELECT partitions FROM topics WHERE name = ?", (check_topic(topic),)).fetchone()
            if found is None:
                count = db.execute("SELECT count(*) FROM topics").fetchone()[0]
                if count >= table.MAX_TOPICS:
                    raise FieldError("topic", wanted=f"at most {table.MAX_TOPICS} topics", got=topic)
                db.execute("INSERT INTO topics VALUES (?, ?, ?)", (count, topic, partitions))
            elif found[0] != partitions:
                raise FieldError("partitions", wanted=f"{found[0]}, as {topic!r} was created with", got=partitions)

    def partitions(self, topic: str) -> int:
        """Return the number of partitions of `topic`.

        Raises:
            UnknownTopic: it was not created.
        """
        return self._topic(topic)[1]

    def append(self, topic: str, key: bytes, value: bytes, headers: Headers = ()) -> tuple[int, int]:
        """Append one message; on disk when this returns its (partition, offset)."""
        return self.append_many(topic, [(key, value, headers)])[0]

    def append_many(self, topic: str, items: Iterable[Item]) -> list[tuple[int, int]]:
        """Append messages in order; on disk when this returns their (partition, offset).

        Large inputs take several transactions, so that other writers get their turn in between.
        """
        number, partitions = self._topic(topic)
        positions: list[tuple[int, int]] = []
        stream = iter(items)
        while True:
            size, batch = 0, list[table.Row]()
            for key, value, headers in islice(stream, _ITEMS_PER_TRANSACTION):
                size += check_message(key, value, headers, max_headers=_MAX_HEADERS)
                batch.append(table.row_of(number, partition_of(key, partitions), key, value, headers))
                if size >= _BYTES_PER_TRANSACTION:
                    break
            if not batch:
                return positions
            with self._file.transaction() as db:
                positions += self._insert(db, batch)

    def append_groups(self, groups: Sequence[Group]) -> list[Stored]:
        """Append each group whole, all in one transaction; on disk when this returns what became of each.

        A group that is to be unique finds keys written by any process, and by earlier groups of the same call.

        Raises:
            FieldError: a group without messages, or a message that does not fit.
        """
        prepared: list[list[table.Row]] = []
        for key, messages, *_ in groups:
            if not messages:
                raise FieldError("messages", wanted="at least one", got=Words("none"))
            rows: list[table.Row] = []
            for topic, value, headers in messages:
                number, partitions = self._topic(topic)
                check_message(key, value, headers, max_headers=_MAX_HEADERS)
                rows.append(table.row_of(number, partition_of(key, partitions), key, value, headers))
            prepared.append(rows)
        with self._file.transaction() as db:
            taken = table.taken(db, [group.key for group in groups if group.unique])
            batch: list[table.Row] = []
            refused: set[int] = set()
            new: set[tuple[int, bytes, str]] = set()
            for index, (group, rows) in enumerate(zip(groups, prepared, strict=True)):
                number, key, loop = table.place_of(rows[0].base)[0], group.key, group.loop
                if group.unique and ((number, key, loop) in new or ((number, key) in taken and self._held(db, group))):
                    refused.add(index)
                else:
                    batch += rows
                    for row in rows:
                        number = table.place_of(row.base)[0]
                        new |= {(number, key, loop), (number, key, "")}
            written = iter(self._insert(db, batch))
            stored: list[Stored] = []
            for index, group in enumerate(groups):
                positions = () if index in refused else tuple(islice(written, len(group.messages)))
                existing = group.standing or index in refused
                stored.append(Stored(existing, positions, tuple(self._held(db, group)) if existing else ()))
            return stored

    def read(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        max_messages: int = 1000,
        max_bytes: int = 64 << 20,
        wait_s: float = 0.0,
    ) -> list[Message]:
        """Return messages from `offset` on, [] at the end; see `EventLog.read`.

        Raises:
            OffsetOutOfRange: `offset` is not between the watermarks.
        """
        rows = self._read(topic, partition, offset, max_messages, max_bytes, wait_s)
        return [
            _new(Message, (topic, partition, at, key, value, table.decode_headers(raw) if raw else (), ts_ms))
            for at, key, value, raw, ts_ms in rows
        ]

    def read_stretch(
        self, topic: str, partition: int, offset: int, *, max_messages: int = 1000, max_bytes: int = 64 << 20
    ) -> Stretch:
        """Return as columns what `read` returns; see `EventLog.read_stretch`.

        Raises:
            OffsetOutOfRange: `offset` is not between the watermarks.
        """
        rows = self._read(topic, partition, offset, max_messages, max_bytes, 0.0)
        offsets, keys, values, raws, ts_ms = zip(*rows, strict=True) if rows else ((),) * 5
        headers = [table.decode_headers(raw) if raw else () for raw in raws]
        return Stretch(topic, partition, offsets, keys, values, headers, ts_ms)

    def _read(
        self, topic: str, partition: int, offset: int, max_messages: int, max_bytes: int, wait_s: float
    ) -> list[table.Found]:
        if max_messages < 1:
            raise FieldError("max_messages", wanted="at least 1", got=max_messages)
        base = self._base(topic, partition)
        deadline, pause = time.monotonic() + wait_s, 0.001
        while True:
            if 0 <= offset <= table.MAX_OFFSET:
                with self._file.reader() as db:
                    found = table.read(db, base, offset, max_messages, max_bytes)
                if found and found[0][0] == offset:
                    return found
            low, high = self.watermarks(topic, partition)
            if not low <= offset <= high:
                raise OffsetOutOfRange(topic, partition, offset, low=low, high=high)
            if offset == high:
                left = deadline - time.monotonic()
                if left <= 0:
                    return []
                time.sleep(min(pause, left))
                pause = min(pause * 2, 0.02)

    def find(self, topic: str, key: bytes) -> list[Message]:
        """Return all messages of `topic` under `key`, in order."""
        with self._file.reader() as db:
            return table.find(db, topic, self._topic(topic)[0], key)

    def _held(self, db: sqlite3.Connection, group: Group) -> list[Message]:
        """Return what the first message's topic holds under the group's key, of its loop alone where it names one."""
        topic = group.messages[0][0]
        return of_loop(table.find(db, topic, self._topic(topic)[0], group.key), group.loop)

    def watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        """Return (low, high): the first kept offset and the next one to be written."""
        base = self._base(topic, partition)
        with self._file.reader() as db:
            return table.watermarks(db, base)

    def offset_at(self, topic: str, partition: int, ts_ms: int) -> int:
        """Return the first offset that was appended at `ts_ms` or later; the end when there is none."""
        base = self._base(topic, partition)
        with self._file.reader() as db:

            def appended(offset: int) -> int:
                return db.execute("SELECT ts_ms FROM messages WHERE id = ?", (base + offset,)).fetchone()[0]

            db.execute("BEGIN")  # one snapshot, whatever is trimmed meanwhile
            low, high = table.watermarks(db, base)
            found = low + bisect_left(range(low, high), ts_ms, key=appended)
            db.execute("COMMIT")
            return found

    def trim(self, topic: str, partition: int, before_offset: int) -> int:
        """Delete the messages below `before_offset` and return how many; offsets go on from where they were.

        The file does not shrink; its free pages are used again.

        Raises:
            OffsetOutOfRange: `before_offset` is beyond the end.
        """
        base, removed = self._base(topic, partition), 0
        while True:
            begun = time.monotonic()
            with self._file.transaction() as db:
                low, high = table.watermarks(db, base)
                if before_offset > high:
                    raise OffsetOutOfRange(topic, partition, before_offset, low=low, high=high)
                if before_offset <= low:
                    return removed
                upto = min(before_offset, low + _TRIM_PER_TRANSACTION)
                removed += db.execute(
                    "DELETE FROM messages WHERE id >= ? AND id < ?", (base + low, base + upto)
                ).rowcount
                db.execute("INSERT OR REPLACE INTO lows VALUES (?, ?)", (base, upto))
                self._highs.clear()
            time.sleep(min(time.monotonic() - begun, _TRIM_REST_S))  # the file's lock is not fair: others come first

    def size_below(self, topic: str, partition: int, offset: int) -> tuple[int, int]:
        """Return how many messages stand below `offset`, and the bytes of their keys and values."""
        with self._file.reader() as db:
            return table.size_below(db, self._base(topic, partition), offset)

    def keys(self, topic: str) -> Iterator[bytes]:
        """Yield the keys of a topic's messages that still have a value, each once."""
        number = self._topic(topic)[0]
        first, end = table.base_of(number, 0), table.base_of(number + 1, 0)
        with self._file.reader() as db:
            found = "SELECT DISTINCT key FROM messages WHERE id >= ? AND id < ? AND length(value) > 0"
            for (key,) in db.execute(found, (first, end)):
                yield key

    def redact(self, topic: str, keys: Iterable[bytes]) -> int:
        """Empty the values under `keys`, also on disk, and return how many; keys and offsets stay.

        A redacted message carries the header ``redacted`` instead of its own.
        """
        number, changed = self._topic(topic)[0], 0
        with self._file.transaction() as db:
            db.execute("PRAGMA secure_delete = ON")
            for key in keys:
                changed += db.execute(
                    "UPDATE messages SET value = x'', headers = ? WHERE key = ? AND id >= ? AND id < ?",
                    (table.encode_headers(_REDACTED), key, table.base_of(number, 0), table.base_of(number + 1, 0)),
                ).rowcount
            db.execute("PRAGMA secure_delete = FAST")
        self._file.checkpoint()
        return changed

    def readers(self) -> list[str]:
        """Return who saved positions."""
        with self._file.reader() as db:
            return [name for (name,) in db.execute("SELECT DISTINCT reader FROM positions ORDER BY reader").fetchall()]

    def positions(self, reader: str) -> dict[tuple[str, int], int]:
        """Return the positions that `reader` saved, by (topic, partition)."""
        with self._file.reader() as db:
            rows = db.execute(
                "SELECT t.name, p.base, p.position FROM positions p JOIN topics t ON t.id = p.base >> ?"
                " WHERE p.reader = ?",
                (table.TOPIC_SHIFT, reader),
            ).fetchall()
        return {(topic, table.place_of(base)[1]): position for topic, base, position in rows}

    def save_positions(self, reader: str, positions: Mapping[tuple[str, int], int]) -> None:
        """Save how far `reader` came, by (topic, partition); on disk when this returns."""
        rows = [(reader, self._base(topic, partition), at) for (topic, partition), at in positions.items()]
        with self._file.transaction() as db:
            db.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", rows)

    def probe(self) -> None:
        """Write as much as a few messages need, wait for the disk, and take it back.

        A few bytes would fit into a page that is there already, however full the disk is.

        Raises:
            LogUnavailable: the disk is full or failing.
        """
        with self._file.transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES ('probe', zeroblob(?))", (_PROBE_BYTES,))
        with self._file.transaction() as db:
            db.execute("DELETE FROM meta WHERE name = 'probe'")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _topic(self, topic: str) -> tuple[int, int]:
        known = self._topics.get(topic)
        if known is None:
            with self._file.reader() as db:
                known = db.execute("SELECT id, partitions FROM topics WHERE name = ?", (topic,)).fetchone()
            if known is None:
                raise UnknownTopic(f"topic: there is no topic {topic!r}")
            self._topics[topic] = known
        return known

    def _base(self, topic: str, partition: int) -> int:
        number, partitions = self._topic(topic)
        if not 0 <= partition < partitions:
            raise FieldError("partition", wanted=f"0 to {partitions - 1}", got=partition)
        return table.base_of(number, partition)

    def _insert(self, db: sqlite3.Connection, rows: Sequence[table.Row]) -> list[tuple[int, int]]:
        # the version moves when another connection has committed; the generation when ours was given up after an error
        seen = (self._file.generation, db.execute("PRAGMA data_version").fetchone()[0])
        if seen != self._seen:
            self._seen = seen
            self._highs.clear()
        return table.insert(db, rows, int(self._clock() * 1000), self._highs)


def open_address(url: str, **options: Any) -> LocalLog:
    """Return the log at ``local:/path/to/log.db``.

    Raises:
        FieldError: the address names no file.
    """
    path = url.removeprefix("local:")
    if not path:
        raise FieldError("log", wanted="local:/path/to/log.db", got=url)
    return LocalLog(path, **options)
