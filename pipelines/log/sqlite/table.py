"""The one table of a local log: rows whose integer key packs (topic, partition, offset), and the statements on it.

Sorted by that key, a partition is one stretch of the table: reading it is a sweep, its next offset one look-up.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import msgspec

from pipelines.log.protocol import Headers, Message

OFFSET_BITS, PARTITION_BITS = 44, 10
TOPIC_SHIFT = OFFSET_BITS + PARTITION_BITS
MAX_OFFSET = (1 << OFFSET_BITS) - 1
MAX_TOPICS = 256
ROWS_PER_STATEMENT = 64
_ROWS_PER_FETCH = 128

SCHEMA = """
CREATE TABLE topics (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, partitions INTEGER NOT NULL);
CREATE TABLE messages (id INTEGER PRIMARY KEY, ts_ms INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
                       headers BLOB);
CREATE INDEX messages_key ON messages (key);
CREATE TABLE lows (base INTEGER PRIMARY KEY, low INTEGER NOT NULL);
CREATE TABLE positions (reader TEXT NOT NULL, base INTEGER NOT NULL, position INTEGER NOT NULL,
                        PRIMARY KEY (reader, base)) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID
"""

encode_headers = msgspec.msgpack.Encoder().encode
decode_headers = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...]).decode


Found = tuple[int, bytes, bytes, bytes | None, int]
"""Offset, key, value, headers and time of a message as it stands in the file."""


class Row(NamedTuple):
    """A message before it has an offset; `base` is the key that offset 0 of its partition would have."""

    base: int
    key: bytes
    value: bytes
    headers: bytes | None


def base_of(topic: int, partition: int) -> int:
    """Return the key of offset 0 of a partition of the topic with this number."""
    return (topic << TOPIC_SHIFT) | (partition << OFFSET_BITS)


def row_of(topic: int, partition: int, key: bytes, value: bytes, headers: Headers) -> Row:
    """Return the row of a message."""
    return Row(base_of(topic, partition), key, value, encode_headers(headers) if headers else None)


def place_of(base: int) -> tuple[int, int]:
    """Return (topic number, partition) of a key."""
    return base >> TOPIC_SHIFT, (base >> OFFSET_BITS) & ((1 << PARTITION_BITS) - 1)


def watermarks(db: sqlite3.Connection, base: int) -> tuple[int, int]:
    """Return (low, high) of a partition."""
    low, last = db.execute(
        "SELECT (SELECT low FROM lows WHERE base = ?1), (SELECT max(id) FROM messages WHERE id >= ?1 AND id <= ?2)",
        (base, base + MAX_OFFSET),
    ).fetchone()
    low = low or 0
    return low, low if last is None else (last & MAX_OFFSET) + 1


def size_below(db: sqlite3.Connection, base: int, offset: int) -> tuple[int, int]:
    """Return how many messages of a partition stand below `offset`, and the bytes of their keys and values."""
    return db.execute(
        "SELECT count(*), coalesce(sum(length(key) + length(value)), 0) FROM messages WHERE id >= ? AND id < ?",
        (base, base + offset),
    ).fetchone()


def insert(db: sqlite3.Connection, rows: Sequence[Row], ts_ms: int, highs: dict[int, int]) -> list[tuple[int, int]]:
    """Write `rows` and return their (partition, offset).

    Args:
        db: connection in a write transaction.
        rows: what to write, in order.
        ts_ms: time of appending.
        highs: next key by base where it is known; brought up to date.
    """
    positions: list[tuple[int, int]] = []
    # many rows to a statement: the interpreter's lock is given up, and must be won back, once per statement
    for start in range(0, len(rows), ROWS_PER_STATEMENT):
        part = rows[start : start + ROWS_PER_STATEMENT]
        values: list[object] = []
        for base, key, value, headers in part:
            id_ = highs.get(base)
            if id_ is None:
                id_ = base + watermarks(db, base)[1]
            highs[base] = id_ + 1
            values += (id_, ts_ms, key, value, headers)
            positions.append((place_of(id_)[1], id_ & MAX_OFFSET))
        db.execute(_insert_rows(len(part)), values)
    return positions


def read(db: sqlite3.Connection, base: int, offset: int, max_messages: int, max_bytes: int) -> list[Found]:
    """Return messages of a partition from `offset` on: at most as many and as large as given, one in any case."""
    rows = db.execute(
        "SELECT id & ?, key, value, headers, ts_ms FROM messages WHERE id >= ? AND id <= ? ORDER BY id LIMIT ?",
        (MAX_OFFSET, base + offset, base + MAX_OFFSET, max_messages),
    )
    found, size = list[Found](), 0
    while part := rows.fetchmany(_ROWS_PER_FETCH):
        grown = size + sum(len(key) + len(value) for _, key, value, _, _ in part)
        if grown > max_bytes:
            for row in part:
                size += len(row[1]) + len(row[2])
                if size > max_bytes and found:
                    break
                found.append(row)
            break
        found += part
        size = grown
    rows.close()
    return found


def taken(db: sqlite3.Connection, keys: Sequence[bytes]) -> set[tuple[int, bytes]]:
    """Return the (topic number, key) among `keys` that hold a message."""
    found: set[tuple[int, bytes]] = set()
    for start in range(0, len(keys), ROWS_PER_STATEMENT):
        part = keys[start : start + ROWS_PER_STATEMENT]
        found.update((id_ >> TOPIC_SHIFT, key) for id_, key in db.execute(_select_keys(len(part)), part))
    return found


def find(db: sqlite3.Connection, topic: str, number: int, key: bytes) -> list[Message]:
    """Return the messages of a topic under `key`, in order."""
    rows = db.execute(
        "SELECT id, key, value, headers, ts_ms FROM messages WHERE key = ? AND id >= ? AND id < ? ORDER BY id",
        (key, base_of(number, 0), base_of(number + 1, 0)),
    ).fetchall()
    return [
        Message(topic, place_of(id_)[1], id_ & MAX_OFFSET, name, value, decode_headers(raw) if raw else (), ts_ms)
        for id_, name, value, raw, ts_ms in rows
    ]


@cache
def _insert_rows(count: int) -> str:
    return "INSERT INTO messages (id, ts_ms, key, value, headers) VALUES " + ",".join(["(?,?,?,?,?)"] * count)


@cache
def _select_keys(count: int) -> str:
    return f"SELECT id, key FROM messages WHERE key IN ({','.join('?' * count)})"
