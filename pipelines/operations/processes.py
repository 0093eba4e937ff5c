"""The service as a process: how it is started, and how to know that it answers.

Serving is above this package, so it is named, not imported. The forwarder runs beside it when the event log is not the
spool itself.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from decision.errors import FieldError, Words
from pipelines.access.keys import has_keys
from pipelines.files import SOURCES
from pipelines.operations.parent import started_by_us
from pipelines.settings import BENTO_PORT_OFFSET, Settings

SERVICE = "serving.service:DecisionService"
_UNDER_PARENT = (sys.executable, "-m", "pipelines.operations.parent")
_POLL_S = 0.1
_START_S = 300.0  # it imports for seconds where the machine is idle
_STOP_S = 60.0
_FIRST_PORT, _PORTS, _PORT_TRIES = 10_000, 10_000, 100


class ServiceError(RuntimeError):
    """A process did not start or did not live; the message has the end of its output."""


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a process that serves this installation: ours, with every setting spelled out."""
    ours = {f"DECISION_{name.upper()}": str(value) for name, value in msgspec.structs.asdict(settings).items()}
    ours["DECISION_HOME"] = str(settings.root)
    quiet = {"BENTOML_DO_NOT_TRACK": "1", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    return {**os.environ, **quiet, **{name: value for name, value in ours.items() if value}}


def serve_command(settings: Settings) -> list[str]:
    """Return the command line that serves this installation; its port is BentoML's own."""
    return [
        *(*_UNDER_PARENT, "bentoml", "serve", SERVICE),
        *("--host", settings.host, "--port", str(settings.frame_port), "--working-dir", str(SOURCES)),
    ]


def let_others_first(pid: int, *, steps: int) -> None:
    """Make a process so many steps nicer than it is, from its first import on; does nothing when it has ended."""
    with suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, pid, min(os.getpriority(os.PRIO_PROCESS, pid) + steps, 19))


def forward_command() -> list[str]:
    """Return the command line of the forwarder; the installation comes from the environment."""
    return [*_UNDER_PARENT, "pipelines.cli", "forward"]


@contextmanager
def process(name: str, command: list[str], settings: Settings, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` for the installation, its output in a file; it ends with the block, or with this process.

    Args:
        name: what it is called in errors.
        command: its command line.
        settings: the installation.
        output: where its output goes.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("ab") as file:
        started = subprocess.Popen(  # noqa: S603 - command lines of ours
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(settings) | started_by_us(),
            cwd=SOURCES,
            start_new_session=True,  # it has workers: signals go to all of them
        )
    try:
        yield started
    finally:
        _stop(started)


def wait_until_ready(running: subprocess.Popen[bytes], settings: Settings, output: Path) -> float:
    """Wait until the service says it is ready and return how long it took, in seconds.

    Raises:
        ServiceError: it ended or was not ready in five minutes; the end of its output is in the message.
    """
    begun = time.monotonic()
    url = f"http://{settings.host}:{settings.port}/readyz"
    while time.monotonic() - begun < _START_S:
        if running.poll() is not None:
            raise ServiceError(f"the service ended with status {running.returncode}:\n{tail(output)}")
        try:
            with urllib.request.urlopen(url, timeout=2.0) as response:
                if response.status == 200:
                    return time.monotonic() - begun
        except (urllib.error.URLError, OSError):
            time.sleep(_POLL_S)
    raise ServiceError(f"the service was not ready after {_START_S:.0f} s:\n{tail(output)}")


def wait_until_forwarded(forwarder: subprocess.Popen[bytes], settings: Settings) -> int:
    """Wait until `forwarder` has taken to the log what a service left that ended; return how many messages it has not.

    It is given up when it ends, or after the grace of the settings.
    """
    from pipelines.ingestion.forward import to_forward
    from pipelines.log.sqlite.log import LocalLog

    source, begun = LocalLog(settings.spool_path), time.monotonic()
    try:
        while left := to_forward(source):
            if forwarder.poll() is not None or time.monotonic() - begun >= settings.grace_s:
                break
            time.sleep(_POLL_S)
        return left
    finally:
        source.close()


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on, nor on the one that BentoML takes beside it.

    They lie below those that systems hand out by themselves: a service takes seconds to bind its ports, and one of
    these might be given away meanwhile, to a connection or to another service's own sockets.
    """
    for _ in range(_PORT_TRIES):
        port = _FIRST_PORT + secrets.randbelow(_PORTS)
        with socket.socket() as probe, socket.socket() as beside:
            try:
                probe.bind((host, port))
                beside.bind((host, port + BENTO_PORT_OFFSET))
            except OSError:
                continue
            return port
    raise ServiceError(f"no free port between {_FIRST_PORT} and {_FIRST_PORT + _PORTS}")


def is_loopback(host: str) -> bool:
    """Return whether `host`, an address or a name, is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


def check_keys(settings: Settings, *hosts: str) -> None:
    """Check that there are API keys, or an issuer of tokens, where the service is to be reached from elsewhere.

    Args:
        settings: the installation.
        hosts: further addresses to listen on, beside that of the settings.

    Raises:
        FieldError: it is, and there are none.
    """
    for host in (settings.host, *hosts):
        if not (is_loopback(host) or settings.keys or settings.oidc_issuer or has_keys(settings)):
            where = host or "every address"
            made = "`decision keys create` makes one, DECISION_API_KEYS holds some"
            says = f"must be given, since {where} is not loopback ({made})"
            raise FieldError("api_keys", wanted=f"given, since {where} is not loopback", got=Words("empty"), says=says)


def check_port(setting: str, host: str, port: int) -> None:
    """Check that nobody listens on `port`; also not another service, whose workers share their port among themselves.

    Raises:
        FieldError: somebody does, or this process may not; names the setting.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that ended lately do not count
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            raise cannot_listen(setting, host, port, error) from error


def cannot_listen(setting: str, host: str, port: int, error: OSError) -> FieldError:
    """Return the error of a port that cannot be listened on; it names the setting and its variable."""
    variable = f"DECISION_{setting.upper()}"
    if error.errno == errno.EADDRINUSE:
        return FieldError(
            setting, wanted="free", got=port, says=f"must be free, {port} is taken on {host} ({variable})"
        )
    says = f"must be a port to listen on, {port} on {host} is not: {error.strerror} ({variable})"
    return FieldError(setting, wanted="a port to listen on", got=port, says=says)


def tail(path: Path, characters: int = 2_000) -> str:
    """Return the end of a text file."""
    return path.read_text(errors="replace")[-characters:].strip() if path.is_file() else ""


def _stop(running: subprocess.Popen[bytes]) -> None:
    for sent in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(running.pid, sent)
        except ProcessLookupError:
            break
        try:
            running.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            continue
        # The leader is gone; what it left behind in its group goes too.
        if sent == signal.SIGKILL:
            break
    running.wait()
