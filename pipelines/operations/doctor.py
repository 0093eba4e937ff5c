"""The addresses of an installation: where each leads, whether it answers, and whether it keeps what is relied upon.

An address is a row of `ADDRESSES`. One that stays in the home folder is looked at there; one that machines share is
asked, with a limit on how long that may take, and probed where machines rely on more than an answer.
"""

from __future__ import annotations

import os
import socket
import tempfile
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from pipelines.log.protocol import DECISIONS, LogError, UnknownTopic
from pipelines.logs import masked
from pipelines.settings import Settings
from pipelines.storage import Storage, StorageError, TakenError, first_line

PATIENCE_S = 5.0
"""How long an address may take to answer, in seconds."""

_UNSAFE = "AWS_S3_ALLOW_UNSAFE_RENAME"
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What was found at an address.

    Attributes:
        variable: that sets it.
        address: where it leads, without passwords.
        shared: whether machines share what is there; otherwise it is this machine's alone.
        reachable: whether it answers.
        probe: ``passed``, ``refused``, or ``none`` where an answer is all that is relied upon, or there was none.
        advice: what is wrong or missing, and what to do; "" where nothing is.
    """

    variable: str
    address: str
    shared: bool
    reachable: bool = True
    probe: str = "none"
    advice: str = ""

    def __str__(self) -> str:
        told = ["shared" if self.shared else "this machine's alone", "reachable" if self.reachable else "NOT REACHABLE"]
        told += [f"probe {self.probe}"] * (self.probe != "none")
        return f"{self.variable} {self.address}: {', '.join(told)}{f'. {self.advice}' if self.advice else ''}"


class Refused(Exception):
    """An address answers and does not keep what is relied upon; the message says what to do."""


class Address(NamedTuple):
    """A row of the table.

    Attributes:
        leads: settings -> where it leads; "" where it is not set and nothing stands for it.
        shared: settings -> whether machines share what is there.
        ask: raises where it does not answer, `Refused` where it does not keep what is relied upon; returns whether
            more than an answer was seen.
        instead: an address that machines can share, for who shares others; "" where none needs to be shared.
    """

    leads: Callable[[Settings], str]
    shared: Callable[[Settings], bool]
    ask: Callable[[Settings], bool]
    instead: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Return what is found at each address that leads anywhere, in the order of `ADDRESSES`; all are asked at once."""
    asked = [name for name, address in ADDRESSES.items() if address.leads(settings)]
    with ThreadPoolExecutor(len(asked), thread_name_prefix="doctor") as pool:
        found = list(pool.map(lambda name: _examined(name, ADDRESSES[name], settings), asked))
    apart = [finding for finding in found if finding.shared and _of(finding).instead]
    return [_advised(finding, apart) for finding in found]


def _examined(name: str, address: Address, settings: Settings) -> Finding:
    shared, leads = address.shared(settings), masked(address.leads(settings))
    finding = Finding(variable=f"DECISION_{name.upper()}", address=leads, shared=shared)
    try:
        return msgspec.structs.replace(finding, probe="passed" if address.ask(settings) else "none")
    except Refused as error:
        return msgspec.structs.replace(finding, probe="refused", advice=str(error))
    except Exception as error:  # whatever is wrong there, the other addresses are told of
        return msgspec.structs.replace(
            finding, reachable=False, advice=masked(first_line(error) or type(error).__name__)
        )


def _advised(finding: Finding, apart: list[Finding]) -> Finding:
    if finding.variable == "DECISION_HOME" and not finding.advice and _is_open_to_others(finding.address):
        return msgspec.structs.replace(finding, advice=f"Others may look into it: chmod go= {finding.address}")
    instead = _of(finding).instead
    if finding.shared or not apart or not instead or finding.advice:
        return finding
    others = ", ".join(other.variable for other in apart)
    advice = f"Other machines that share {others} do not see it: set {finding.variable}={instead}"
    return msgspec.structs.replace(finding, advice=advice)


def _of(finding: Finding) -> Address:
    return ADDRESSES[finding.variable.removeprefix("DECISION_").lower()]


def _is_open_to_others(folder: str) -> bool:
    """Return whether others than its owner reach a folder."""
    return os.path.isdir(folder) and bool(os.stat(folder).st_mode & 0o077)


def _ask_home(settings: Settings) -> bool:
    folder = settings.root
    while not folder.exists():
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"0")
        file.flush()
        os.fsync(file.fileno())
    return False


def _ask_log(settings: Settings) -> bool:
    if settings.log == "local:":
        return False
    from pipelines.log.open import open_log

    log = open_log(settings.log_url, connect_timeout_s=PATIENCE_S, read_timeout_s=PATIENCE_S)
    with closing(log), suppress(UnknownTopic):
        try:
            log.partitions(DECISIONS)
        except LogError as error:
            if isinstance(error, UnknownTopic):
                raise
            raise ConnectionError(str(error)) from error
    return False


def _ask_files(settings: Settings) -> bool:
    return _shares_files(settings) and keeps_conditions(Storage(settings.files_url, persists=False), os.environ)


def keeps_conditions(storage: Storage, environ: Mapping[str, str]) -> bool:
    """Return True where of two writes on condition that a key is new the second is refused: what Delta commits by.

    Args:
        storage: object storage; it gets two small objects below ``.doctor/``, which are removed again.
        environ: the environment.

    Raises:
        Refused: it does not keep the condition, or the environment says not to ask for it.
        StorageError: it does not answer.
    """
    if environ.get(_UNSAFE, "").lower() in ("1", "true"):
        raise Refused(f"{_UNSAFE} is set: two that commit at once would overwrite each other. Unset it")
    plain, key = (f".doctor/{uuid.uuid4()}" for _ in range(2))
    storage.write(plain, b"plain")
    try:
        try:
            storage.create(key, b"first")
        except StorageError as error:
            raise Refused(f"it cannot write on condition that a key is new: {error}") from error
        try:
            storage.create(key, b"second")
        except TakenError:
            return True
        raise Refused(
            "it ignores If-None-Match: of two that commit at once both would be told that they won, and one of the "
            "commits would be lost. Use a store that answers 412"
        )
    finally:
        with suppress(StorageError):
            storage.delete(plain, key)


def _ask_state(settings: Settings) -> bool:
    if not _shares_state(settings):
        return False
    from pipelines.state.failures import StaleError
    from pipelines.state.state import State

    with State(settings.state_url) as state:
        seen = state.get("doctor")
        change = {"doctor": (None if seen is None else seen.version, b"")}
        with suppress(StaleError):  # another doctor was faster
            state.put(change, by="doctor")
        try:
            state.put(change, by="doctor")
        except StaleError:
            return True
    raise Refused("of two changes from one version both were made")


def _ask_online(settings: Settings) -> bool:
    if not settings.online:
        return False
    import redis

    key = f"doctor:{uuid.uuid4()}"
    with redis.Redis.from_url(settings.online, socket_timeout=PATIENCE_S, socket_connect_timeout=PATIENCE_S) as client:
        try:
            first, second = (client.set(key, b"", nx=True, ex=10) for _ in range(2))
        except redis.ResponseError as error:  # of a replica, or where memory is full
            raise Refused(f"it takes no writes: {error}") from error
        client.delete(key)
    if first and not second:
        return True
    raise Refused("of two that set one key where there is none both were told that they did")


def _ask_tracking(settings: Settings) -> bool:
    from pipelines.registry.tracking import Tracking

    Tracking(settings).examine()
    parts = urlsplit(settings.registry_uri)
    if parts.scheme in ("http", "https"):
        server = parts.netloc.rpartition("@")[2]
        with suppress(urllib.error.HTTPError):  # whoever asks for a name and a password answers too
            urllib.request.urlopen(f"{parts.scheme}://{server}{parts.path}/health", timeout=PATIENCE_S).close()  # noqa: S310
    elif parts.hostname is not None:
        port = parts.port or _PORTS.get(parts.scheme.partition("+")[0])
        if port is not None:
            with socket.create_connection((parts.hostname, port), timeout=PATIENCE_S):
                pass
    return False


def _ask_issuer(settings: Settings) -> bool:
    from pipelines.access.issuer import published_by
    from pipelines.access.tokens import LEEWAY_S

    at, now = published_by(settings.oidc_issuer).at, datetime.now(UTC)
    if at is None:
        return False
    ahead_s = (now - at).total_seconds()
    if abs(ahead_s) > LEEWAY_S:
        way = "ahead of" if ahead_s > 0 else "behind"
        raise Refused(
            f"this machine's clock is {abs(ahead_s):.0f} s {way} the issuer's, and tokens hold by it with a leeway of "
            f"{LEEWAY_S:.0f} s: have both set by NTP"
        )
    return True


def _shares_files(settings: Settings) -> bool:
    return bool(settings.files)


def _shares_state(settings: Settings) -> bool:
    return not settings.state_url.startswith("sqlite:")


ADDRESSES = {
    "home": Address(lambda settings: str(settings.root), lambda settings: False, _ask_home),
    "log": Address(
        lambda settings: settings.log_url.partition("?")[0],
        lambda settings: settings.log != "local:",
        _ask_log,
        "kafka://host:port",
    ),
    "files": Address(lambda settings: settings.files_url, _shares_files, _ask_files, "s3://bucket/prefix"),
    "state": Address(
        lambda settings: settings.state_url, _shares_state, _ask_state, "postgresql://user@host:port/database"
    ),
    "online": Address(
        lambda settings: settings.online or str(settings.root),
        lambda settings: bool(settings.online),
        _ask_online,
        "redis://host:port/0",
    ),
    "tracking_uri": Address(
        lambda settings: settings.registry_uri,
        lambda settings: not settings.registry_uri.startswith("sqlite:"),
        _ask_tracking,
        "http://host:port",
    ),
    "oidc_issuer": Address(lambda settings: settings.oidc_issuer, lambda settings: True, _ask_issuer),
}
"""The addresses by the names of their settings."""
