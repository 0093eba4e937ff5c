"""Real brokers for tests: one that all tests share, and others that a test may kill."""

from __future__ import annotations

import atexit
import gc
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from pipelines.operations.kafka_server import KafkaServer, missing_parts
from tests.parts import require


def shared_broker() -> str:
    """Return the address of a broker that lives until the tests are over; skip the test where none can be started."""
    require(not missing_parts(), f"a Kafka broker: {missing_parts()}")
    return _shared().bootstrap


@contextmanager
def own_broker() -> Iterator[KafkaServer]:
    """Give a broker of the test's own, to be killed and started as it likes."""
    require(not missing_parts(), f"a Kafka broker: {missing_parts()}")
    folder = tempfile.mkdtemp(prefix="kafka-")
    server = KafkaServer(folder, heap_mb=256)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def lost_sockets() -> Iterator[None]:
    """Put up with the sockets of failed connections, which the client library leaves to the garbage collector.

    Its log records are silenced too: they hold the errors, and those the sockets, until after the test.
    """
    logger = logging.getLogger("kafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            yield
            gc.collect()
    finally:
        logger.setLevel(level)


@cache
def _shared() -> KafkaServer:
    folder = tempfile.mkdtemp(prefix="kafka-")
    server = KafkaServer(folder, heap_mb=256)
    server.start()

    def end() -> None:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return server
