"""What an event log is: named topics of ordered, numbered partitions of messages, durable when `append` returns.

A message's partition follows from its key alone, so all messages of an event, in every topic with the same number of
partitions, meet in one partition, in the order they were appended.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec

from decision.errors import FieldError, Words
from pipelines.log.partitioner import murmur2

DECISIONS = "decisions"
OUTCOMES = "outcomes"
TOPICS = (DECISIONS, OUTCOMES)

MAX_MESSAGE_BYTES = 4 << 20
MAX_KEY_BYTES = 1024
MAX_HEADERS = 32
MAX_HEADER_BYTES = 64 << 10
FORWARDER_HEADERS = 2
"""A spool leaves room for what the forwarder adds; else a message could be accepted and never be forwarded."""
MAX_PARTITIONS = 1024
TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,200}")

Headers = tuple[tuple[str, bytes], ...]
Item = tuple[bytes, bytes, Headers]
"""Key, value and headers of a message that is to be appended."""


class Message(NamedTuple):
    """One message as it stands on the log.

    Attributes:
        topic: name of its topic.
        partition: number of its partition, from 0.
        offset: its number in the partition; contiguous, never reused.
        key: what its partition was chosen by; the event id.
        value: the record.
        headers: names and values beside the record.
        ts_ms: when it was appended, in milliseconds since 1970 UTC.
    """

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: Headers
    ts_ms: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """Messages of one partition, in order, as columns: no object for each.

    Attributes:
        topic: name of their topic.
        partition: number of their partition.
        offsets: [n] their numbers.
        keys: [n] their keys.
        values: [n] their records.
        headers: [n] their headers.
        ts_ms: [n] when they were appended, in milliseconds since 1970 UTC.
    """

    topic: str
    partition: int
    offsets: Sequence[int]
    keys: Sequence[bytes]
    values: Sequence[bytes]
    headers: Sequence[Headers]
    ts_ms: Sequence[int]

    @classmethod
    def of(cls, messages: Sequence[Message]) -> Stretch:
        """Return `messages`, at least one and all of one partition, as columns."""
        _, _, offsets, keys, values, headers, ts_ms = zip(*messages, strict=True)
        return cls(messages[0].topic, messages[0].partition, offsets, keys, values, headers, ts_ms)

    def __len__(self) -> int:
        return len(self.offsets)

    def none(self) -> Stretch:
        """Return no message of the same partition."""
        return Stretch(self.topic, self.partition, (), (), (), (), ())

    def messages(self) -> list[Message]:
        """Return the messages as objects."""
        columns = zip(self.offsets, self.keys, self.values, self.headers, self.ts_ms, strict=True)
        return [Message(self.topic, self.partition, *row) for row in columns]


class _OfLoop(msgspec.Struct):
    loop: str


_read_loop = msgspec.json.Decoder(_OfLoop).decode


def of_loop(messages: Sequence[Message], loop: str) -> list[Message]:
    """Return the messages whose records are of `loop`, and those that no longer tell; all where `loop` is ""."""
    return [message for message in messages if not loop or _loop_of(message.value) in (loop, None)]


def _loop_of(value: bytes) -> str | None:
    try:
        return _read_loop(value).loop
    except (msgspec.DecodeError, UnicodeDecodeError):  # emptied by an erasure
        return None


class LogError(Exception):
    """Root of the errors of an event log.

    LogError
    ├── LogUnavailable      the broker or the disk does not answer; the same call may work later
    ├── LogCorrupt          the file is damaged or no log
    ├── UnknownTopic        the topic was not created
    └── OffsetOutOfRange    the offset is below the first kept one or beyond the end
    """


class LogUnavailable(LogError):
    """The broker or the disk does not answer; the same call may work later."""


class LogCorrupt(LogError):
    """The file is damaged or no log; restore it or start a new one."""


class UnknownTopic(LogError):
    """The topic was not created."""


class OffsetOutOfRange(LogError):
    """The offset asked for is below the first kept one (messages are gone) or beyond the end.

    Attributes:
        low: first offset that is kept.
        high: next offset to be written.
    """

    def __init__(self, topic: str, partition: int, offset: int, *, low: int, high: int) -> None:
        self.low = low
        self.high = high
        super().__init__(f"{topic}[{partition}]: the offset must be in [{low}, {high}], is {offset}")


class EventLog(Protocol):
    """Durable, partitioned, ordered log; `tests/contracts/event_log.py` is its executable contract."""

    def identity(self) -> str:
        """Return the log's own id: an offset in one log means nothing in another."""
        ...

    def create(self, topic: str, partitions: int) -> None:
        """Create `topic`, or do nothing when it exists with as many partitions; any other count is an error."""
        ...

    def partitions(self, topic: str) -> int:
        """Return the number of partitions of `topic`."""
        ...

    def append(self, topic: str, key: bytes, value: bytes, headers: Headers = ()) -> tuple[int, int]:
        """Append one message; it is durable when this returns its (partition, offset)."""
        ...

    def append_many(self, topic: str, items: Iterable[Item]) -> list[tuple[int, int]]:
        """Append messages in order; all are durable when this returns their (partition, offset).

        Raises:
            LogUnavailable: some may have been written, and of each partition only a prefix of its share.
        """
        ...

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
        """Return messages from `offset` on, [] at the end.

        Args:
            topic: its name.
            partition: its number.
            offset: first offset wanted, in [low, high].
            max_messages: most messages returned.
            max_bytes: stop before keys and values grow beyond this; one message is always returned.
            wait_s: how long to wait for a first message at the end, in seconds.

        Raises:
            OffsetOutOfRange: `offset` is not in [low, high].
        """
        ...

    def read_stretch(
        self, topic: str, partition: int, offset: int, *, max_messages: int = 1000, max_bytes: int = 64 << 20
    ) -> Stretch:
        """Return as columns what `read` returns with the same arguments, without waiting.

        Raises:
            OffsetOutOfRange: `offset` is not in [low, high].
        """
        ...

    def watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        """Return (low, high): the first kept offset and the next one to be written."""
        ...

    def close(self) -> None:
        """Release files and connections; nothing else may be called after."""
        ...


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of `key`, as Kafka's default partitioner chooses it."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def check_topic(topic: str) -> str:
    """Return `topic`.

    Raises:
        FieldError: it is not 1 to 200 letters, digits, ".", "_" and "-".
    """
    if not TOPIC_NAME.fullmatch(topic) or topic in {".", ".."}:
        raise FieldError("topic", wanted='1 to 200 letters, digits, ".", "_" or "-"', got=topic)
    return topic


def check_partitions(partitions: int) -> int:
    """Return `partitions`.

    Raises:
        FieldError: it is not in 1..1024.
    """
    if not 1 <= partitions <= MAX_PARTITIONS:
        raise FieldError("partitions", wanted=f"1 to {MAX_PARTITIONS}", got=partitions)
    return partitions


def check_message(key: bytes, value: bytes, headers: Headers, *, max_headers: int = MAX_HEADERS) -> int:
    """Return the size of a message in bytes.

    Raises:
        FieldError: key, value or headers are missing or too large.
    """
    if not 0 < len(key) <= MAX_KEY_BYTES:
        raise FieldError("key", wanted=f"1 to {MAX_KEY_BYTES} bytes", got=Words(f"{len(key)} bytes"))
    size = len(key) + len(value)
    if size > MAX_MESSAGE_BYTES:
        raise FieldError("value", wanted=f"at most {MAX_MESSAGE_BYTES} bytes with its key", got=Words(f"{size} bytes"))
    if headers:
        if len(headers) > max_headers:
            raise FieldError("headers", wanted=f"at most {max_headers}", got=len(headers))
        extra = sum(len(name) + len(content) for name, content in headers)
        if extra > MAX_HEADER_BYTES:
            raise FieldError("headers", wanted=f"at most {MAX_HEADER_BYTES} bytes", got=Words(f"{extra} bytes"))
        size += extra
    return size
