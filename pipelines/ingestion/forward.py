"""The forwarder: copies a spool to the event log, partition by partition, in order, whatever stops in between.

Messages are appended first and the position is saved after, so a crash repeats messages and never loses one; the
headers ``spool`` and ``spool_offset`` let ingestion drop the repeats. While the target is away the spool keeps
everything. What is forwarded and older than the idempotency window is trimmed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from decision.errors import FieldError
from pipelines.files import locked
from pipelines.log.open import open_log
from pipelines.log.protocol import (
    TOPICS,
    EventLog,
    Headers,
    LogCorrupt,
    LogError,
    Message,
    OffsetOutOfRange,
    UnknownTopic,
)
from pipelines.log.sqlite.log import LocalLog
from pipelines.logs import step
from pipelines.settings import Settings

_log = logging.getLogger(__name__)

RETENTION_S = 24 * 3600.0
"""How long a forwarded decision stays in the spool, so that a repeated event id is answered from it."""

_READER = "forward:"
_IDLE_S = 0.05
_TRIM_EVERY_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_BATCH_BYTES = 8 << 20


class ForwarderBusy(LogError):
    """Another forwarder copies this spool."""


@dataclass(slots=True)
class Forwarded:
    """What a forwarder has done so far.

    Attributes:
        messages: messages the target acknowledged.
        bytes: bytes of their values.
        trimmed: messages removed from the spool.
        failures: times the target or the spool did not answer.
        lag: messages not yet forwarded, by (topic, partition), as of the last pass.
    """

    messages: int = 0
    bytes: int = 0
    trimmed: int = 0
    failures: int = 0
    lag: dict[tuple[str, int], int] = field(default_factory=dict)


def forward(
    source: LocalLog,
    target: EventLog,
    *,
    topics: Sequence[str] = TOPICS,
    once: bool = False,
    stop: threading.Event | None = None,
    retention_s: float = RETENTION_S,
    batch_messages: int = 4000,
    clock: Callable[[], float] = time.time,
    on_pass: Callable[[Forwarded], None] | None = None,
) -> Forwarded:
    """Copy `source` to `target` until `stop` is set, retrying for as long as the target is away.

    Args:
        source: the spool.
        target: where its messages go; topics are created with as many partitions as the spool has.
        topics: what is copied; all exist in `source`.
        once: return when everything is copied, and raise instead of retrying.
        stop: ends the loop after the batch at hand.
        retention_s: age below which forwarded messages stay in the spool, in seconds.
        batch_messages: most messages of one partition that are copied at a time.
        clock: seconds since 1970, for the age of messages.
        on_pass: told of the totals after every pass.

    Raises:
        ForwarderBusy: another forwarder copies this spool.
        FieldError: the target's topics have other numbers of partitions.
        LogCorrupt: the spool is damaged.
        OffsetOutOfRange: messages were removed from the spool before they were forwarded.
        LogUnavailable: with `once`, the target does not answer.
    """
    stop = stop or threading.Event()
    total = Forwarded()
    with _only_forwarder(source):
        copy = _Copy(source, target, topics, batch_messages, total)
        pause_s, trimmed_at = _FIRST_PAUSE_S, 0.0
        while not stop.is_set():
            try:
                moved = copy.run_pass()
                if (once and not moved) or time.monotonic() - trimmed_at >= _TRIM_EVERY_S:
                    total.trimmed += copy.trim(int((clock() - retention_s) * 1000))
                    trimmed_at = time.monotonic()
            except (OffsetOutOfRange, LogCorrupt):
                raise
            except LogError as error:
                total.failures += 1
                if once:
                    raise
                _log.warning("not forwarded, trying again in %.1f s: %s", pause_s, error)
                stop.wait(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                continue
            pause_s = _FIRST_PAUSE_S
            if on_pass is not None:
                on_pass(total)
            if not moved:
                if once:
                    break
                stop.wait(_IDLE_S)
    return total


def lags(source: LocalLog, topics: Sequence[str] = TOPICS) -> dict[str, dict[tuple[str, int], int]]:
    """Return the messages not yet forwarded, by the target's identity and (topic, partition)."""
    found: dict[str, dict[tuple[str, int], int]] = {}
    for reader in source.readers():
        if reader.startswith(_READER):
            found[reader.removeprefix(_READER)] = _lag(source, topics, source.positions(reader))
    return found


def to_forward(source: LocalLog) -> int:
    """Return the messages that the log, or the one that is farthest behind, does not have yet.

    Raises:
        LogError: the spool cannot be read.
    """
    if by_target := lags(source):
        return max(sum(found.values()) for found in by_target.values())
    try:
        ends = [source.watermarks(topic, each) for topic in TOPICS for each in range(source.partitions(topic))]
    except UnknownTopic:  # the service ended before it made them
        return 0
    return sum(end - start for start, end in ends)  # no forwarder has come yet


@step("forwarded")
def run_forwarder(
    settings: Settings,
    *,
    once: bool = False,
    stop: threading.Event | None = None,
    retention_s: float = RETENTION_S,
    on_pass: Callable[[Forwarded], None] | None = None,
) -> Forwarded:
    """Forward the installation's spool to its event log; see `forward`.

    Raises:
        FieldError: the installation's log is the spool itself.
    """
    if settings.log_url.startswith("local:"):
        raise FieldError("log", wanted="kafka://host:port; a local log needs no forwarder", got=settings.log)
    source = LocalLog(settings.spool_path)
    target = open_log(settings.log_url)
    try:
        for topic in TOPICS:
            source.create(topic, settings.partitions)
        return forward(source, target, once=once, stop=stop, retention_s=retention_s, on_pass=on_pass)
    finally:
        target.close()
        source.close()


class _Copy:
    """Copying from where the spool says the target is."""

    def __init__(
        self, source: LocalLog, target: EventLog, topics: Sequence[str], batch_messages: int, total: Forwarded
    ) -> None:
        self._source = source
        self._target = target
        self._topics = topics
        self._batch_messages = batch_messages
        self._total = total
        self._origin = source.identity().encode()
        self._reader = ""
        self._positions: dict[tuple[str, int], int] = {}

    def run_pass(self) -> int:
        """Copy one batch of every partition and return how many messages moved."""
        if not self._reader:
            self._connect()
        moved: dict[tuple[str, int], int] = {}
        count = 0
        try:
            for topic in self._topics:
                batch: list[Message] = []
                for partition in range(self._source.partitions(topic)):
                    start = self._positions[topic, partition]
                    batch += self._source.read(
                        topic, partition, start, max_messages=self._batch_messages, max_bytes=_BATCH_BYTES
                    )
                if not batch:
                    continue
                self._target.append_many(topic, [(m.key, m.value, self._headers(m)) for m in batch])
                moved.update({(topic, m.partition): m.offset + 1 for m in batch})
                count += len(batch)
                self._total.messages += len(batch)
                self._total.bytes += sum(len(m.value) for m in batch)
        finally:
            if moved:
                self._source.save_positions(self._reader, moved)
                self._positions.update(moved)  # after it is saved: trimming must not pass what a restart comes back to
        self._total.lag = _lag(self._source, self._topics, self._positions)
        return count

    def trim(self, before_ms: int) -> int:
        """Remove from the spool what is forwarded and was appended before `before_ms`; return how many."""
        removed = 0
        for (topic, partition), position in self._positions.items():
            before = min(position, self._source.offset_at(topic, partition, before_ms))
            removed += self._source.trim(topic, partition, before)
        return removed

    def _connect(self) -> None:
        reader = _READER + self._target.identity()
        positions = self._source.positions(reader)
        fresh: dict[tuple[str, int], int] = {}
        for topic in self._topics:
            partitions = self._source.partitions(topic)
            self._target.create(topic, partitions)
            for partition in range(partitions):
                if (topic, partition) not in positions:
                    # a target seen for the first time gets what the spool still has
                    fresh[topic, partition] = self._source.watermarks(topic, partition)[0]
        if fresh:
            self._source.save_positions(reader, fresh)
        self._positions = positions | fresh
        self._reader = reader

    def _headers(self, message: Message) -> Headers:
        if any(name == "spool" for name, _ in message.headers):  # forwarded before; the first origin counts
            return message.headers
        return (*message.headers, ("spool", self._origin), ("spool_offset", str(message.offset).encode()))


def _lag(source: LocalLog, topics: Sequence[str], positions: dict[tuple[str, int], int]) -> dict[tuple[str, int], int]:
    lag: dict[tuple[str, int], int] = {}
    for topic in topics:
        for partition in range(source.partitions(topic)):
            low, high = source.watermarks(topic, partition)
            lag[topic, partition] = high - max(low, positions.get((topic, partition), 0))
    return lag


@contextmanager
def _only_forwarder(source: LocalLog) -> Iterator[None]:
    try:
        with locked(Path(f"{source.path}-forwarder"), wait=False):
            yield
    except BlockingIOError:
        raise ForwarderBusy(f"{source.path}: another forwarder copies it") from None
