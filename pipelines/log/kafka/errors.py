# pyright: reportAttributeAccessIssue=false, reportCallIssue=false
# (the stubs that pyright brings describe kafka-python 2)
"""Kafka's many errors in the event log's few."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kafka.errors import KafkaError, RetriableError, UnknownTopicOrPartitionError

from pipelines.log.protocol import LogError, LogUnavailable, UnknownTopic


def translate(error: KafkaError, what: str) -> LogError:
    """Return the log's own error for `error`; `what` says what was tried."""
    text = f"{what}: {type(error).__name__}: {error}"
    if isinstance(error, UnknownTopicOrPartitionError):
        return UnknownTopic(text)
    return LogUnavailable(text) if isinstance(error, RetriableError) else LogError(text)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise Kafka's errors within the block as the log's own."""
    try:
        yield
    except KafkaError as error:
        raise translate(error, what) from error
    except OSError as error:  # an address that does not resolve, a certificate that cannot be read
        raise LogUnavailable(f"{what}: {error}") from error
