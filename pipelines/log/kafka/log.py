# pyright: reportAttributeAccessIssue=false, reportCallIssue=false
# (the stubs that pyright brings describe kafka-python 2)
"""The event log on Apache Kafka, through kafka-python.

The producer is idempotent and waits for all in-sync replicas. What it cannot deliver in time is given up all at once,
never one batch while later ones go on: of every partition exactly a prefix is then written, and sending everything
again keeps the order of first occurrences. The reading client is one consumer that is sought to where it is wanted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import (
    IllegalStateError,
    KafkaError,
    LogTruncationError,
    OffsetOutOfRangeError,
)

from decision.errors import FieldError
from pipelines.log.kafka.connect import connect
from pipelines.log.kafka.errors import translate, translated
from pipelines.log.kafka.options import client_options, consumer_options, parse_address
from pipelines.log.kafka.topics import admin_client, copies_of, create_topic, kept_for_s, partitions_of
from pipelines.log.protocol import (
    MAX_MESSAGE_BYTES,
    Headers,
    Item,
    LogError,
    LogUnavailable,
    Message,
    OffsetOutOfRange,
    Stretch,
    UnknownTopic,
    check_message,
    check_partitions,
    check_topic,
    partition_of,
)

_FRAMING_BYTES = 128 << 10
_ITEMS_PER_SEND = 8192
_BYTES_PER_SEND = 16 << 20
_DAY_MS = 24 * 3600 * 1000

_new = tuple.__new__


class KafkaLog:
    """`EventLog` on a Kafka cluster. Connects on first use, and again after failures; safe to share between threads.

    Args:
        servers: ``host:port`` of some of its brokers.
        client: further options of every kafka-python client: security protocol, SASL, TLS.
        replication_factor: copies of a topic that is created; -1 for the cluster's default.
        compression: of batches: lz4, zstd or gzip.
        connect_timeout_s: how long a connection may take, in seconds.
        append_timeout_s: how long an append may take before it is given up, in seconds.
        read_timeout_s: how long the cluster may be silent to a read, in seconds.
    """

    def __init__(
        self,
        servers: Sequence[str],
        *,
        client: Mapping[str, Any] | None = None,
        replication_factor: int = -1,
        compression: str = "lz4",
        connect_timeout_s: float = 10.0,
        append_timeout_s: float = 30.0,
        read_timeout_s: float = 10.0,
    ) -> None:
        self.servers = tuple(servers)
        self._replication_factor = replication_factor
        self._append_timeout_s = append_timeout_s
        self._read_timeout_s = read_timeout_s
        self._client = client_options(servers, client, connect_timeout_s)
        self._producing: dict[str, Any] = {
            **self._client,
            "enable_idempotence": True,  # said explicitly, a conflicting option is an error instead of a warning
            "acks": "all",
            "compression_type": compression,
            "linger_ms": 5,
            "batch_size": 256 << 10,
            "max_request_size": MAX_MESSAGE_BYTES + _FRAMING_BYTES,
            "max_block_ms": int(connect_timeout_s * 1000),
            "delivery_timeout_ms": _DAY_MS,  # `append_many` gives up first, and then as a whole
            "allow_auto_create_topics": False,
            "metrics_enabled": False,
        }
        self._partitions: dict[str, int] = {}
        self._closed = False
        self._lock = threading.Lock()
        self._producer: KafkaProducer | None = None
        self._reading = threading.Lock()
        self._consumer: KafkaConsumer | None = None
        self._at: tuple[TopicPartition, int] | None = None  # what the consumer gives next

    def __repr__(self) -> str:
        return f"KafkaLog({list(self.servers)})"

    def identity(self) -> str:
        """Return the cluster's id."""
        with translated("cluster"), admin_client(self._client) as admin:
            return str(admin.describe_cluster()["cluster_id"])

    def create(self, topic: str, partitions: int) -> None:
        """Create `topic`, or do nothing when it exists with as many partitions; warn where it is not replicated.

        Raises:
            FieldError: the name or number does not fit, or the topic exists with another number.
            LogUnavailable: the cluster does not answer.
        """
        check_topic(topic)
        check_partitions(partitions)
        with translated(f"create {topic}"), admin_client(self._client) as admin:
            create_topic(
                admin,
                topic,
                partitions,
                replication_factor=self._replication_factor,
                max_message_bytes=MAX_MESSAGE_BYTES + _FRAMING_BYTES,
            )

    def partitions(self, topic: str) -> int:
        """Return the number of partitions of `topic`.

        Raises:
            UnknownTopic: it was not created.
            LogUnavailable: the cluster does not answer.
        """
        if topic not in self._partitions:
            with translated(f"describe {topic}"), admin_client(self._client) as admin:
                found = partitions_of(admin, topic)
            if found is None:
                raise UnknownTopic(f"topic: there is no topic {topic!r}")
            self._partitions[topic] = len(found)
        return self._partitions[topic]

    def copies(self, topic: str) -> tuple[int, int]:
        """Return the copies of `topic`, and how many must have a message before it is acknowledged.

        Raises:
            UnknownTopic: it was not created.
            LogUnavailable: the cluster does not answer.
        """
        with translated(f"describe {topic}"), admin_client(self._client) as admin:
            found = partitions_of(admin, topic)
            if found is None:
                raise UnknownTopic(f"topic: there is no topic {topic!r}")
            return copies_of(admin, topic, found)

    def kept_for_s(self, topic: str) -> float | None:
        """Return how long `topic` keeps a message, in seconds; None for ever.

        Raises:
            LogUnavailable: the cluster does not answer.
        """
        with translated(f"describe {topic}"), admin_client(self._client) as admin:
            return kept_for_s(admin, topic)

    def append(self, topic: str, key: bytes, value: bytes, headers: Headers = ()) -> tuple[int, int]:
        """Append one message; all in-sync replicas have it when this returns its (partition, offset)."""
        return self.append_many(topic, [(key, value, headers)])[0]

    def append_many(self, topic: str, items: Iterable[Item]) -> list[tuple[int, int]]:
        """Append messages in order; all in-sync replicas have them when this returns their (partition, offset).

        Raises:
            LogUnavailable: some may have been written, and of each partition only a prefix of its share.
        """
        partitions = self.partitions(topic)
        positions: list[tuple[int, int]] = []
        stream = iter(items)
        while True:
            size, batch = 0, list[tuple[int, bytes, bytes, Headers]]()
            for key, value, headers in islice(stream, _ITEMS_PER_SEND):
                size += check_message(key, value, headers)
                batch.append((partition_of(key, partitions), key, value, headers))
                if size >= _BYTES_PER_SEND:
                    break
            if not batch:
                return positions
            positions += self._send(topic, batch)

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
            LogUnavailable: the cluster does not answer.
        """
        records = self._records(topic, partition, offset, max_messages, max_bytes, wait_s)
        return [
            _new(
                Message,
                (
                    topic,
                    partition,
                    record.offset,
                    record.key or b"",
                    record.value or b"",
                    tuple(record.headers) if record.headers else (),
                    record.timestamp,
                ),
            )
            for record in records
        ]

    def read_stretch(
        self, topic: str, partition: int, offset: int, *, max_messages: int = 1000, max_bytes: int = 64 << 20
    ) -> Stretch:
        """Return as columns what `read` returns; see `EventLog.read_stretch`.

        Raises:
            OffsetOutOfRange: `offset` is not between the watermarks.
            LogUnavailable: the cluster does not answer.
        """
        records = self._records(topic, partition, offset, max_messages, max_bytes, 0.0)
        return Stretch(
            topic,
            partition,
            [record.offset for record in records],
            [record.key or b"" for record in records],
            [record.value or b"" for record in records],
            [tuple(record.headers) if record.headers else () for record in records],
            [record.timestamp for record in records],
        )

    def _records(
        self, topic: str, partition: int, offset: int, max_messages: int, max_bytes: int, wait_s: float
    ) -> list[Any]:
        where = self._partition(topic, partition)
        if max_messages < 1:
            raise FieldError("max_messages", wanted="at least 1", got=max_messages)
        with self._reading:
            if offset < 0:
                low, high = self._watermarks(where)
                raise OffsetOutOfRange(topic, partition, offset, low=low, high=high)
            try:
                return self._read(where, offset, max_messages, max_bytes, wait_s)
            except (OffsetOutOfRangeError, LogTruncationError) as error:
                self._drop_consumer()
                low, high = self._watermarks(where)
                raise OffsetOutOfRange(topic, partition, offset, low=low, high=high) from error
            except KafkaError as error:
                self._drop_consumer()
                raise translate(error, f"read {topic}[{partition}]") from error

    def watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        """Return (low, high): the first kept offset and the next one to be written."""
        where = self._partition(topic, partition)
        with self._reading:
            return self._watermarks(where)

    def close(self) -> None:
        """Close the connections; appends that have not returned fail."""
        with self._lock:
            producer, self._closed = self._producer, True
        if producer is not None:
            self._abort(producer)
        with self._reading:
            self._drop_consumer()

    def _partition(self, topic: str, partition: int) -> TopicPartition:
        partitions = self.partitions(topic)
        if not 0 <= partition < partitions:
            raise FieldError("partition", wanted=f"0 to {partitions - 1}", got=partition)
        return TopicPartition(topic, partition)

    def _send(self, topic: str, batch: Sequence[tuple[int, bytes, bytes, Headers]]) -> list[tuple[int, int]]:
        deadline = time.monotonic() + self._append_timeout_s
        producer: KafkaProducer | None = None
        try:
            producer = self._connected_producer()

            def stop(_: BaseException, failed: KafkaProducer = producer) -> None:
                # runs in the sending thread, before it can send a later batch past the one that failed
                failed._sender.force_close()

            futures = [
                producer.send(topic, value, key, list(headers), partition).add_errback(stop)
                for partition, key, value, headers in batch
            ]
            positions: list[tuple[int, int]] = []
            for future in futures:
                stored = future.get(timeout=max(0.0, deadline - time.monotonic()))
                positions.append((stored.partition, stored.offset))
            return positions
        except BaseException as error:
            if producer is not None:
                self._abort(producer)
            if isinstance(error, IllegalStateError):  # another thread's append failed and ended this producer
                raise LogUnavailable(f"append to {topic}: given up: {error}") from error
            if isinstance(error, KafkaError):
                raise translate(error, f"append to {topic}") from error
            raise

    def _connected_producer(self) -> KafkaProducer:
        with self._lock:
            self._check_open()
            if self._producer is None:
                self._producer = connect(KafkaProducer, self._producing)
            return self._producer

    def _abort(self, producer: KafkaProducer) -> None:
        with self._lock:
            if self._producer is producer:
                self._producer = None
        # the public close() waits for a flush first; this is the only way to give up everything at once
        producer._sender.force_close()
        producer._sender.join(self._append_timeout_s)
        with suppress(KafkaError):
            producer.close(timeout=0)

    def _connected_consumer(self) -> KafkaConsumer:
        self._check_open()
        if self._consumer is None:
            self._consumer = connect(KafkaConsumer, consumer_options(self._client))
        return self._consumer

    def _check_open(self) -> None:
        if self._closed:
            raise LogError(f"{self}: the log is closed")

    def _drop_consumer(self) -> None:
        consumer, self._consumer, self._at = self._consumer, None, None
        if consumer is not None:
            with suppress(KafkaError):
                consumer.close(autocommit=False, timeout_ms=1000)

    def _watermarks(self, where: TopicPartition) -> tuple[int, int]:
        timeout_ms = int(self._read_timeout_s * 1000)
        try:
            consumer = self._connected_consumer()
            low = consumer.beginning_offsets([where], timeout_ms=timeout_ms)[where]
            return low, consumer.end_offsets([where], timeout_ms=timeout_ms)[where]
        except KafkaError as error:
            self._drop_consumer()
            raise translate(error, f"watermarks of {where.topic}[{where.partition}]") from error

    def _read(self, where: TopicPartition, offset: int, max_messages: int, max_bytes: int, wait_s: float) -> list[Any]:
        consumer = self._connected_consumer()
        if self._at != (where, offset):
            self._at = None
            consumer.assign([where])
            consumer.seek(where, offset)
        records: list[Any] = consumer.poll(0, max_records=max_messages).get(where, [])
        if not records:
            low, high = self._watermarks(where)
            if offset > high:
                raise OffsetOutOfRange(where.topic, where.partition, offset, low=low, high=high)
            patience_s = self._read_timeout_s if offset < high else wait_s
            if patience_s > 0:
                records = consumer.poll(int(patience_s * 1000), max_records=max_messages).get(where, [])
            if offset < high and not records:
                raise LogUnavailable(f"read {where.topic}[{where.partition}]: nothing came in {patience_s:.0f} s")
        found, size = list[Any](), 0
        while records:
            for record in records:
                size += len(record.key or b"") + len(record.value or b"")
                if size > max_bytes and found:
                    self._at = None  # the consumer is ahead of what was returned
                    return found
                found.append(record)
            left = max_messages - len(found)
            behind = (consumer.highwater(where) or 0) > found[-1].offset + 1
            records = consumer.poll(100, max_records=left).get(where, []) if left and behind else []
        self._at = (where, found[-1].offset + 1 if found else offset)
        return found


def open_address(url: str, **options: Any) -> KafkaLog:
    """Return the log at ``kafka://host:port[,host:port]``; options of the address come before those given.

    Raises:
        FieldError: the address does not fit.
    """
    servers, given = parse_address(url)
    return KafkaLog(servers, **{**given, **options})
