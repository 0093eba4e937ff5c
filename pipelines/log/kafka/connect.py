"""Connecting a kafka-python client without leaving anything behind where no broker answers.

A client of kafka-python 3.0.12 whose constructor fails leaves its I/O thread and sockets running, and a forwarder may
try for hours. So it is first seen whether any broker takes a connection, and what fails after that is stopped here.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeVar

from kafka.errors import KafkaTimeoutError
from kafka.net.compat import KafkaNetClient

from pipelines.log.protocol import LogUnavailable

T = TypeVar("T")

_LOOK_S = 1.0


def connect(kind: type[T], options: Mapping[str, Any]) -> T:
    """Return a client of class `kind`.

    Raises:
        LogUnavailable: no broker takes a connection, or one does, and then does not answer as one.
        KafkaError: a broker refuses.
    """
    _reach(options["bootstrap_servers"], options["bootstrap_timeout_ms"] / 1000)
    made: list[KafkaNetClient] = []

    def make(**given: Any) -> KafkaNetClient:
        made.append(KafkaNetClient(**given))
        return made[-1]

    try:
        return kind(**{**options, "kafka_client": make})
    except BaseException as error:
        for network in made:
            with suppress(Exception):
                network.close()
        if isinstance(error, KafkaTimeoutError):
            raise LogUnavailable(_why_silent(options)) from error
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


def _why_silent(options: Mapping[str, Any]) -> str:
    """Return what can be said of a broker that takes connections and gave no answer: what TLS has against it."""
    servers, protocol = options["bootstrap_servers"], options.get("security_protocol", "PLAINTEXT")
    said = f"{', '.join(servers)}: takes connections, but does not answer over {protocol} (security_protocol)"
    if not protocol.endswith("SSL"):
        return said
    host, _, port = servers[0].rpartition(":")
    try:
        context = ssl.create_default_context(cafile=options.get("ssl_cafile"))
        context.check_hostname = options.get("ssl_check_hostname", True)
        if "ssl_certfile" in options:
            chain = options["ssl_certfile"], options.get("ssl_keyfile"), options.get("ssl_password")
            context.load_cert_chain(*chain)
        with (
            socket.create_connection((host.strip("[]"), int(port)), timeout=_LOOK_S) as plain,
            context.wrap_socket(plain, server_hostname=host.strip("[]")) as secured,
        ):
            secured.recv(1)  # a broker that misses our certificate says so only now; else it is silent
    except (TimeoutError, ConnectionError):
        return said
    except (OSError, ValueError) as error:
        return f"{said}: {error}"
    return said
