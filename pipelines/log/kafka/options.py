"""Addresses of Kafka clusters: ``kafka://host:port[,host:port]?option=value``, with secrets kept out of logs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from decision.errors import FieldError, Words

_SERVER = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}")
_MAX_SERVERS = 64
_CLIENT_OPTIONS = {
    "client_id",
    "security_protocol",
    "sasl_mechanism",
    "sasl_plain_username",
    "sasl_plain_password",
    "sasl_kerberos_name",
    "sasl_kerberos_service_name",
    "sasl_kerberos_domain_name",
    "ssl_cafile",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_password",
    "ssl_crlfile",
    "ssl_check_hostname",
}
_FETCH_BYTES = 8 << 20
_SECRETS = {"sasl_plain_password", "ssl_password"}
_COMPRESSIONS = {"lz4", "zstd", "gzip"}
_PROTOCOLS = {"PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"}
_MECHANISMS = {"AWS_MSK_IAM", "GSSAPI", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}
_FILES = {"ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile"}


class Secret(str):
    """Text that does not show itself: the client library prints its configuration when it debugs."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def parse_address(url: str) -> tuple[list[str], dict[str, Any]]:
    """Return the servers of ``kafka://...`` and the arguments of `KafkaLog` that its query holds.

    A secret may be named by a file: ``sasl_plain_password_file=/run/secrets/kafka``.

    Raises:
        FieldError: a server without port; an option that does not exist or fit, or that the security protocol would
            pass over; a file that cannot be read. Secrets are not shown.
    """
    rest, _, query = url.removeprefix("kafka://").partition("?")
    servers = rest.rstrip("/").split(",")
    if len(servers) > _MAX_SERVERS or not all(_SERVER.fullmatch(server) for server in servers):
        raise FieldError("log", wanted="kafka://host:port[,host:port]", got="kafka://" + rest.rpartition("@")[2])
    client: dict[str, Any] = {}
    arguments: dict[str, Any] = {"client": client}
    for name, text in parse_qsl(query, keep_blank_values=True):
        option = name.removesuffix("_file")
        if option in _SECRETS:
            client[option] = Secret(_read_secret(name, text) if name.endswith("_file") else text)
        elif name == "ssl_check_hostname":
            client[name] = _flag(name, text)
        elif name == "security_protocol":
            if text not in _PROTOCOLS:
                raise FieldError.choice(name, sorted(_PROTOCOLS), text)
            client[name] = text
        elif name == "sasl_mechanism" and text not in _MECHANISMS:
            raise FieldError.choice(name, sorted(_MECHANISMS), text)
        elif name in _CLIENT_OPTIONS:
            if name in _FILES:
                _read(name, text)
            client[name] = text
        elif name == "replication_factor":
            if not text.isdecimal() or not 1 <= int(text) <= 100:
                raise FieldError(name, wanted="1 to 100", got=text)
            arguments[name] = int(text)
        elif name == "compression":
            if text not in _COMPRESSIONS:
                raise FieldError.choice(name, sorted(_COMPRESSIONS), text)
            arguments[name] = text
        else:
            known = sorted(_CLIENT_OPTIONS | {"replication_factor", "compression"})
            raise FieldError.unknown(name, known, noun="log option")
    _check_protocol(client)
    return servers, arguments


def client_options(
    servers: Sequence[str], client: Mapping[str, Any] | None, connect_timeout_s: float
) -> dict[str, Any]:
    """Return the options that every kafka-python client of ours is made with."""
    return {
        "client_id": "decision",
        **(client or {}),
        "bootstrap_servers": list(servers),
        "bootstrap_timeout_ms": int(connect_timeout_s * 1000),
        "request_timeout_ms": 15_000,
        "reconnect_backoff_max_ms": 1000,  # the default of 30 s outlasts most outages
    }


def consumer_options(client: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a consumer that keeps no offsets and skips no messages."""
    return {
        **client,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "allow_auto_create_topics": False,
        "fetch_max_wait_ms": 100,  # a reader that turns to another partition waits for the last fetch first
        "max_partition_fetch_bytes": _FETCH_BYTES,
        "metrics_enabled": False,
    }


def _check_protocol(client: Mapping[str, Any]) -> None:
    protocol = client.get("security_protocol", "PLAINTEXT")
    for kind, fitting in (("ssl", {"SSL", "SASL_SSL"}), ("sasl", {"SASL_PLAINTEXT", "SASL_SSL"})):
        named = sorted(name for name in client if name.startswith(f"{kind}_"))
        if named and protocol not in fitting:
            raise FieldError(
                "security_protocol", wanted=f"{' or '.join(sorted(fitting))} with {named[0]}", got=protocol
            )
    if protocol.startswith("SASL") and "sasl_mechanism" not in client:
        raise FieldError("sasl_mechanism", wanted=f"given with {protocol}", got=Words("missing"))


def _read_secret(name: str, path: str) -> str:
    return _read(name, path).strip()


def _read(name: str, path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError as error:
        raise FieldError(name, wanted="a file that can be read", got=Words(f"{path}: {error.strerror}")) from error


def _flag(name: str, text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise FieldError(name, wanted="true or false", got=text)
    return text.lower() == "true"
