"""Decisions that are acknowledged by Kafka and not by this machine's disk, which may then be lost at any moment.

The queue and thread of `serving.spool` write to it as they write to a file: what waits together is sent together, and a
request has its answer when all in-sync copies have its records. What was sent lately is remembered, so that a
repetition that comes back to this replica is answered even while Redis is away.

Messages of one group are sent one after the other to one partition. Where sending stops in between, nothing is
acknowledged, and the repetition sends all of them again: ingestion takes each once.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from decision.errors import FieldError, Words
from pipelines.log.open import open_log
from pipelines.log.protocol import (
    DECISIONS,
    TOPICS,
    EventLog,
    Item,
    LogError,
    LogUnavailable,
    Message,
    UnknownTopic,
    of_loop,
)
from pipelines.log.sqlite.log import Group, Stored
from pipelines.settings import Settings

_log = logging.getLogger(__name__)

LEAST_COPIES, LEAST_IN_SYNC = 3, 2
"""Of a topic, so that what is acknowledged outlives any one broker."""
_APPEND_S, _CONNECT_S = 5.0, 2.0
_KEPT_EVENTS = 10_000


class CopiedLog(EventLog, Protocol):
    """A log that says how often it holds what it acknowledges."""

    def copies(self, topic: str) -> tuple[int, int]:
        """Return the copies of `topic`, and how many must have a message before it is acknowledged."""
        ...


class DirectLog:
    """What a `Spool` writes to, on a log of several machines; safe to share between threads.

    Args:
        log: where to; its topics are created on first use.
        partitions: of each topic.
        unreplicated: accept topics that a lost broker takes along; for tests and trials.

    Attributes:
        event_log: the log.
        away: it did not answer last time; nothing is sent before `probe` has found it.

    Raises:
        FieldError: the topics have another number of partitions, or too few copies.
    """

    def __init__(self, log: CopiedLog, partitions: int, *, unreplicated: bool = False) -> None:
        self.event_log, self._partitions, self._unreplicated = log, partitions, unreplicated
        self._sent: OrderedDict[tuple[str, bytes], list[Message]] = OrderedDict()
        self._lock = threading.Lock()
        self._prepared = False
        self.away = False
        try:
            self._prepare()
        except LogError as error:
            self.away = True
            _log.warning("no decision is acknowledged before the log answers: %s", error)

    def partitions(self, topic: str) -> int:
        """Return the number of partitions of `topic`.

        Raises:
            UnknownTopic: there is no such topic.
        """
        if topic not in TOPICS:
            raise UnknownTopic(f"topic: there is no topic {topic!r}")
        return self._partitions

    def append_groups(self, groups: Sequence[Group]) -> list[Stored]:
        """Send each group; all in-sync copies have it when this returns what became of each.

        Raises:
            LogUnavailable: the log did not acknowledge all of them.
        """
        if self.away:
            raise LogUnavailable("the log is away")
        items: dict[str, list[Item]] = {topic: [] for topic in TOPICS}
        fresh: set[tuple[str, bytes, str]] = set()
        repeated: set[int] = set()
        for index, group in enumerate(groups):
            topic = group.messages[0][0]
            if group.unique and ((topic, group.key, group.loop) in fresh or self._held(group)):
                repeated.add(index)
                continue
            for of, value, headers in group.messages:
                items[of].append((group.key, value, headers))
            fresh |= {(topic, group.key, group.loop), (topic, group.key, "")}
        try:
            places = {topic: iter(self.event_log.append_many(topic, some)) for topic, some in items.items() if some}
        except LogError:
            self.away = True
            raise
        positions: dict[int, tuple[tuple[int, int], ...]] = {}
        for index, group in enumerate(groups):
            if index not in repeated:
                positions[index] = tuple(next(places[topic]) for topic, _, _ in group.messages)
                self._remember(group, positions[index])
        stored: list[Stored] = []
        for index, group in enumerate(groups):
            existing = group.standing or index in repeated
            held = tuple(self._held(group)) if existing else ()
            stored.append(Stored(existing, positions.get(index, ()), held))
        return stored

    def find(self, topic: str, key: bytes) -> list[Message]:
        """Return the messages of `topic` under `key` that were sent from here lately, in order."""
        with self._lock:
            return list(self._sent.get((topic, key), ()))

    def probe(self) -> None:
        """See whether the log answers.

        Raises:
            LogError: it does not, or is not fit to be written to.
        """
        try:
            self._prepare()
        except FieldError as error:
            raise LogUnavailable(str(error)) from error
        self.event_log.watermarks(DECISIONS, 0)
        self.away = False

    def close(self) -> None:
        """Close the connections."""
        self.event_log.close()

    def _prepare(self) -> None:
        if self._prepared:
            return
        for topic in TOPICS:
            self.event_log.create(topic, self._partitions)
            copies, in_sync = self.event_log.copies(topic)
            if copies >= LEAST_COPIES and in_sync >= LEAST_IN_SYNC:
                continue
            found = f"{copies} copies, min.insync.replicas={in_sync} of {topic!r}"
            if not self._unreplicated:
                wanted = f"a log with {LEAST_COPIES} copies and min.insync.replicas={LEAST_IN_SYNC}"
                raise FieldError("ack", wanted=wanted, got=Words(found))
            _log.critical("ack=kafka_unreplicated: a lost broker takes acknowledged decisions along: %s", found)
        self._prepared = True

    def _held(self, group: Group) -> list[Message]:
        return of_loop(self.find(group.messages[0][0], group.key), group.loop)

    def _remember(self, group: Group, positions: Sequence[tuple[int, int]]) -> None:
        with self._lock:
            for (topic, value, headers), (partition, offset) in zip(group.messages, positions, strict=True):
                if topic == DECISIONS:
                    message = Message(topic, partition, offset, group.key, value, tuple(headers), 0)
                    self._sent.setdefault((topic, group.key), []).append(message)
            while len(self._sent) > _KEPT_EVENTS:
                self._sent.popitem(last=False)


def open_direct(settings: Settings) -> DirectLog:
    """Return the installation's log, as what acknowledges its decisions.

    Raises:
        FieldError: the log's topics do not fit.
    """
    log = open_log(settings.log_url, append_timeout_s=_APPEND_S, connect_timeout_s=_CONNECT_S)
    return DirectLog(log, settings.partitions, unreplicated=settings.ack == "kafka_unreplicated")  # pyright: ignore[reportArgumentType]
