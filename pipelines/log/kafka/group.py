# pyright: reportAttributeAccessIssue=false, reportCallIssue=false
# (the stubs that pyright brings describe kafka-python 2)
"""A consumer group that shares the partitions of topics out to its members, and keeps no positions of its own.

Positions live with the rows they describe. Whenever partitions are assigned, the member asks for theirs and goes on
from there, so a rebalance can neither skip nor repeat what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import LogTruncationError, OffsetOutOfRangeError

from pipelines.log.kafka.connect import connect
from pipelines.log.kafka.errors import translated
from pipelines.log.kafka.options import client_options, consumer_options
from pipelines.log.protocol import Message, OffsetOutOfRange

Partition = tuple[str, int]


class KafkaGroupReader:
    """One member of a consumer group; use it from one thread, and poll at least every five minutes.

    Topics with equal numbers of partitions are assigned alike: who gets a partition of one gets it of all.

    Args:
        servers: ``host:port`` of some brokers.
        group: name of the group.
        topics: what it reads.
        position: where to go on in a (topic, partition), asked at every assignment; None for the first kept message.
        on_assigned: told of partitions gained, after they were sought to their positions.
        on_revoked: told of partitions lost, before others get them.
        client: further options of kafka-python.
        session_timeout_s: after this silence a member is taken for dead, in seconds.
        connect_timeout_s: how long a connection may take, in seconds.

    Raises:
        LogUnavailable: the cluster does not answer.
    """

    def __init__(
        self,
        servers: Sequence[str],
        group: str,
        topics: Sequence[str],
        *,
        position: Callable[[str, int], int | None],
        on_assigned: Callable[[list[Partition]], None] | None = None,
        on_revoked: Callable[[list[Partition]], None] | None = None,
        client: Mapping[str, Any] | None = None,
        session_timeout_s: float = 10.0,
        connect_timeout_s: float = 10.0,
    ) -> None:
        options = {
            **consumer_options(client_options(servers, client, connect_timeout_s)),
            "group_id": group,
            "session_timeout_ms": int(session_timeout_s * 1000),
            "heartbeat_interval_ms": int(session_timeout_s * 300),
            "partition_assignment_strategy": [RangePartitionAssignor],
        }
        with translated(f"join group {group}"):
            self._consumer = connect(KafkaConsumer, options)
        self._positions: dict[TopicPartition, int] = {}
        self._consumer.subscribe(list(topics), listener=_Listener(self._consumer, position, on_assigned, on_revoked))

    def poll(self, *, max_messages: int = 1000, wait_s: float = 1.0) -> list[Message]:
        """Return the next messages of the partitions assigned, in order within each; [] when none came in time.

        Raises:
            OffsetOutOfRange: a position lies outside what is kept; messages were deleted before they were read.
            LogUnavailable: the cluster does not answer.
        """
        with translated("poll"):
            try:
                found = self._consumer.poll(int(wait_s * 1000), max_records=max_messages)
            except (OffsetOutOfRangeError, LogTruncationError) as error:
                where, offset = _lost(error)
                low = self._consumer.beginning_offsets([where])[where]
                high = self._consumer.end_offsets([where])[where]
                raise OffsetOutOfRange(where.topic, where.partition, offset, low=low, high=high) from error
        return [
            Message(
                record.topic,
                record.partition,
                record.offset,
                record.key or b"",
                record.value or b"",
                tuple(record.headers or ()),
                record.timestamp,
            )
            for records in found.values()
            for record in records
        ]

    def assignment(self) -> set[Partition]:
        """Return the (topic, partition) this member reads now."""
        return {(where.topic, where.partition) for where in self._consumer.assignment()}

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close(autocommit=False)


class _Listener(ConsumerRebalanceListener):
    def __init__(
        self,
        consumer: KafkaConsumer,
        position: Callable[[str, int], int | None],
        on_assigned: Callable[[list[Partition]], None] | None,
        on_revoked: Callable[[list[Partition]], None] | None,
    ) -> None:
        self._consumer = consumer
        self._position = position
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        for where in assigned:
            offset = self._position(where.topic, where.partition)
            if offset is None:
                self._consumer.seek_to_beginning(where)
            else:
                self._consumer.seek(where, offset)
        if self._on_assigned is not None:
            self._on_assigned([(where.topic, where.partition) for where in assigned])

    def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        if self._on_revoked is not None:
            self._on_revoked([(where.topic, where.partition) for where in revoked])


def _lost(error: Exception) -> tuple[TopicPartition, int]:
    positions = getattr(error, "divergent_offsets", None) or error.args[0]  # either way a mapping of partitions
    where = next(iter(positions))
    return where, positions[where] if isinstance(positions[where], int) else -1
