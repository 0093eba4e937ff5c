"""From an address to the event log that is kept there."""

from __future__ import annotations

from importlib import import_module

from decision.errors import FieldError
from pipelines.log.protocol import EventLog

SCHEMES = {"local": "pipelines.log.sqlite.log", "kafka": "pipelines.log.kafka.log"}
"""Event logs: the module that holds each one's `open_address`, imported when such an address is opened, so that the
embedded service starts without a Kafka client. `tests/contracts/event_log.py` holds what each keeps."""


def open_log(url: str, **options: object) -> EventLog:
    """Return the log at `url`: ``local:/path/to/log.db`` or ``kafka://host:port[,host:port]``.

    Args:
        url: its address. Kafka's client options may follow as a query (``?security_protocol=SSL``); a password is
            better named by a file: ``sasl_plain_password_file=/run/secrets/kafka``.
        **options: further arguments of `LocalLog` or `KafkaLog`.

    Raises:
        FieldError: the address is of no known scheme, or does not fit its scheme.
    """
    scheme, colon, _ = url.partition(":")
    if not colon or scheme not in SCHEMES:
        wanted = '"local:/path/to/log.db" or "kafka://host:port"'
        raise FieldError("log", wanted=wanted, got=url.partition("?")[0].rpartition("@")[2])
    return import_module(SCHEMES[scheme]).open_address(url, **options)
