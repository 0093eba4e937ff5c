"""From an address to the event log that is kept there."""

from __future__ import annotations

from decision.errors import FieldError
from pipelines.log.protocol import EventLog


def open_log(url: str, **options: object) -> EventLog:
    """Return the log at `url`: ``local:/path/to/log.db`` or ``kafka://host:port[,host:port]``.

    Args:
        url: its address. Kafka's client options may follow as a query (``?security_protocol=SSL``); a password is
            better named by a file: ``sasl_plain_password_file=/run/secrets/kafka``.
        **options: further arguments of `LocalLog` or `KafkaLog`.

    Raises:
        FieldError: the address is neither.
    """
    if url.startswith("local:"):
        from pipelines.log.sqlite.log import LocalLog

        path = url.removeprefix("local:")
        if not path:
            raise FieldError("log", wanted="local:/path/to/log.db", got=url)
        return LocalLog(path, **options)  # pyright: ignore[reportArgumentType]
    if url.startswith("kafka://"):
        # imported on demand: the embedded service starts without a Kafka client
        from pipelines.log.kafka.log import KafkaLog
        from pipelines.log.kafka.options import parse_address

        servers, given = parse_address(url)
        return KafkaLog(servers, **{**given, **options})  # pyright: ignore[reportArgumentType]
    raise FieldError("log", wanted='"local:/path/to/log.db" or "kafka://host:port"', got=url.split("?")[0])
