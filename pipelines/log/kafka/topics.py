# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# (the stubs that pyright brings describe kafka-python 2)
"""Topics of a Kafka cluster: created explicitly, described, and checked for being replicated."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource
from kafka.errors import TopicAlreadyExistsError

from decision.errors import FieldError
from pipelines.log.kafka.connect import connect

_log = logging.getLogger(__name__)

_UNKNOWN_TOPIC = 3
_SAFE_COPIES = 3
_SAFE_IN_SYNC = 2


@contextmanager
def admin_client(options: Mapping[str, Any]) -> Iterator[KafkaAdminClient]:
    """Give an administration client; uses are rare enough to connect anew for each."""
    admin = connect(KafkaAdminClient, options)
    try:
        yield admin
    finally:
        admin.close()


def partitions_of(admin: KafkaAdminClient, topic: str) -> list[dict[str, Any]] | None:
    """Return the description of each partition of `topic`, or None when it does not exist."""
    found = next((entry for entry in admin.describe_topics([topic]) if entry["name"] == topic), None)
    if found is None or found["error_code"] == _UNKNOWN_TOPIC:
        return None
    return found["partitions"]


def create_topic(
    admin: KafkaAdminClient, topic: str, partitions: int, *, replication_factor: int, max_message_bytes: int
) -> None:
    """Create `topic` unless it exists, and warn where its replication would not survive a power cut.

    Raises:
        FieldError: it exists with another number of partitions.
    """
    found = partitions_of(admin, topic)
    if found is None:
        options = {
            "num_partitions": partitions,
            "replication_factor": replication_factor,
            "configs": {"max.message.bytes": str(max_message_bytes), "message.timestamp.type": "LogAppendTime"},
        }
        with suppress(TopicAlreadyExistsError):  # somebody else was faster; the count is checked below
            admin.create_topics({topic: options})
        admin.wait_for_topics([topic])
        found = partitions_of(admin, topic) or []
    if len(found) != partitions:
        raise FieldError("partitions", wanted=f"{len(found)}, as {topic!r} was created with", got=partitions)
    copies, in_sync = copies_of(admin, topic, found)
    if copies < _SAFE_COPIES or in_sync < _SAFE_IN_SYNC:
        _log.warning(
            "topic %s has %d copies and min.insync.replicas=%d; below %d and %d a power cut can lose messages",
            topic,
            copies,
            in_sync,
            _SAFE_COPIES,
            _SAFE_IN_SYNC,
        )


def kept_for_s(admin: KafkaAdminClient, topic: str) -> float | None:
    """Return how long `topic` keeps a message at least, in seconds; None for ever.

    The topic removes whole segments, so a message may stay until its segment is full and as old.
    """
    wanted = ConfigResource("TOPIC", topic, ["retention.ms", "segment.ms", "cleanup.policy"])
    configs = admin.describe_configs([wanted], config_filter="all")["topic"][topic]
    retention, segment = (int(configs[name]["value"]) for name in ("retention.ms", "segment.ms"))
    return None if retention < 0 or "delete" not in configs["cleanup.policy"]["value"] else (retention + segment) / 1e3


def copies_of(admin: KafkaAdminClient, topic: str, found: list[dict[str, Any]]) -> tuple[int, int]:
    """Return the copies of `topic`, and how many must have a message before it is acknowledged.

    Args:
        admin: the client.
        topic: its name.
        found: the description of its partitions.
    """
    wanted = ConfigResource("TOPIC", topic, ["min.insync.replicas"])
    configs = admin.describe_configs([wanted], config_filter="all")["topic"][topic]
    return min(len(partition["replica_nodes"]) for partition in found), int(configs["min.insync.replicas"]["value"])
