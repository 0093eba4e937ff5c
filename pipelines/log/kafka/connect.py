"""Connecting a kafka-python client without leaving anything behind where no broker answers.

A client of kafka-python 3.0.12 whose constructor fails leaves its I/O thread and sockets running, and a forwarder may
try for hours. So it is first seen whether any broker takes a connection, and what fails after that is stopped here.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeVar

from kafka.net.compat import KafkaNetClient

from pipelines.log.protocol import LogUnavailable

T = TypeVar("T")


def connect(kind: type[T], options: Mapping[str, Any]) -> T:
    """Return a client of class `kind`.

    Raises:
        LogUnavailable: no broker takes a connection.
        KafkaError: a broker does, and then does not answer as one.
    """
    _reach(options["bootstrap_servers"], options["bootstrap_timeout_ms"] / 1000)
    made: list[KafkaNetClient] = []

    def make(**given: Any) -> KafkaNetClient:
        made.append(KafkaNetClient(**given))
        return made[-1]

    try:
        return kind(**{**options, "kafka_client": make})
    except BaseException:
        for network in made:
            with suppress(Exception):
                network.close()
        raise


def _reach(servers: list[str], timeout_s: float) -> None:
    reasons: list[str] = []
    for server in servers:
        host, _, port = server.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s):
                return
        except OSError as error:
            reasons.append(f"{server}: {error}")
    raise LogUnavailable(f"no broker takes a connection ({'; '.join(reasons)})")
