"""A real Apache Kafka broker on this machine, for development, the demo and tests.

Maven fetches the broker that `infra/kafka/pom.xml` names into a cache folder; `infra/kafka/server.properties` is its
configuration. ``python -m pipelines.operations.kafka_server`` runs one in the foreground.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import string
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kafka.errors import KafkaError

from pipelines.files import SOURCES, locked
from pipelines.log.kafka.topics import admin_client
from pipelines.log.protocol import LogUnavailable
from pipelines.operations.processes import free_port

_INFRA = SOURCES / "infra" / "kafka"
_START_S = 300.0  # it is there in five where the machine is idle
_STOP_S = 20.0


class KafkaServerError(RuntimeError):
    """The broker could not be fetched or started; the message says why."""


def missing_parts() -> str:
    """Return why no broker can be started here, "" when one can."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return "" if (_INFRA / "pom.xml").is_file() else "infra/kafka/pom.xml is missing: run from a checkout"


def fetch_broker() -> Path:
    """Return the folder of the broker's jars, fetched on first use.

    Raises:
        KafkaServerError: Java or Maven is missing, or the download failed.
    """
    if reason := missing_parts():
        raise KafkaServerError(f"a Kafka broker cannot be started: {reason}")
    pom = _INFRA / "pom.xml"
    dependency = ET.parse(pom).getroot().find(".//{*}dependency/{*}version")  # noqa: S314 - a file of ours
    if dependency is None or not dependency.text:
        raise KafkaServerError(f"{pom}: the broker's version is missing")
    default = Path("~/.cache/decision/kafka").expanduser()
    cache = Path(os.environ.get("DECISION_KAFKA_CACHE") or default).absolute()
    jars = cache / dependency.text
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "lock"):
        if jars.is_dir():
            return jars
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            shutil.copy(pom, scratch)
            command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=jars"]
            done = subprocess.run(  # noqa: S603 - a fixed command
                [*command, "-DincludeScope=runtime"], cwd=scratch, capture_output=True, text=True, check=False
            )
            fetched = Path(scratch) / "jars"
            if done.returncode != 0 or not fetched.is_dir():
                raise KafkaServerError(
                    f"Maven could not fetch the broker: {(done.stdout + done.stderr)[-2000:].strip()}"
                )
            fetched.rename(jars)
    return jars


class KafkaServer:
    """One broker with its data in `folder`; it may be killed and started again on the same ports.

    Args:
        folder: its data, configuration and output; created when missing.
        port: where it listens on loopback; 0 for a free one.
        heap_mb: memory of its Java heap.
    """

    def __init__(self, folder: str | Path, *, port: int = 0, heap_mb: int = 512) -> None:
        self.folder = Path(folder).absolute()
        self._wanted_port = port
        self._ports = (0, 0)
        self._known = False  # it has answered, so others know its address
        self._heap_mb = heap_mb
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """Its address, ``host:port``."""
        return f"127.0.0.1:{self._ports[0]}"

    def start(self) -> None:
        """Start it and return once it answers; where it has answered before, on the same ports.

        Raises:
            KafkaServerError: it did not; the end of its output is in the message.
        """
        jars = fetch_broker()
        why = ""
        for _ in range(3):
            if not self._known:
                self._ports = (self._wanted_port or free_port(), free_port())
            try:
                self._launch(jars)
                self._known = True
                return
            except _Ended as error:  # somebody may have taken a port since it was free
                why = str(error)
        raise KafkaServerError(f"the broker ended: {why}")

    def stop(self) -> None:
        """Stop it in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it as a crash would (SIGKILL)."""
        self._end(signal.SIGKILL)

    @property
    def running(self) -> bool:
        """It was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def _launch(self, jars: Path) -> None:
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        for port in self._ports:
            if not _is_free(port):
                raise _Ended(f"port {port} is taken")
        template = string.Template((_INFRA / "server.properties").read_text())
        properties = self.folder / "server.properties"
        text = template.substitute(port=self._ports[0], controller_port=self._ports[1], data=data)
        properties.write_text(text)
        java = ["java", "-Xms128m", f"-Xmx{self._heap_mb}m", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*"]
        if not (data / "meta.properties").is_file():
            tool = [*java, "kafka.tools.StorageTool"]
            cluster = _run([*tool, "random-uuid"], self.folder).splitlines()[-1].strip()
            _run([*tool, "format", "-t", cluster, "-c", str(properties), "--ignore-formatted"], self.folder)
        with (self.folder / "output.txt").open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - a fixed command
                [*java, "kafka.Kafka", str(properties)],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupt from the keyboard ends us, and we end it
            )
        try:
            self._await_answer()
        except BaseException:
            self.kill()
            raise

    def _await_answer(self) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                self._process = None
                raise _Ended((self.folder / "output.txt").read_text(errors="replace")[-3000:])
            if not _is_free(self._ports[0]):
                options = {"bootstrap_servers": [self.bootstrap], "bootstrap_timeout_ms": 2000}
                with suppress(KafkaError, LogUnavailable), admin_client(options) as admin:
                    if admin.describe_cluster()["brokers"]:
                        return
            time.sleep(0.1)
        raise KafkaServerError(f"the broker did not answer within {_START_S:.0f} s")

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(how)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Ended(Exception):
    """The broker ended before it answered, with the end of its output, or had no port to listen on."""


@contextmanager
def kafka_server(folder: str | Path, *, port: int = 0) -> Iterator[str]:
    """Run a broker with its data in `folder` and give its address, ``host:port``.

    Raises:
        KafkaServerError: it cannot be fetched or started.
    """
    server = KafkaServer(folder, port=port)
    server.start()
    try:
        yield server.bootstrap
    finally:
        server.stop()


def main(arguments: list[str] | None = None) -> int:
    """Run a broker in the foreground until it is interrupted; its address is printed."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.operations.kafka_server", description=main.__doc__)
    parser.add_argument("--port", type=int, default=9092, help="where it listens on 127.0.0.1 (default: %(default)s)")
    parser.add_argument("--folder", default=".decision/kafka", help="its data (default: %(default)s)")
    options = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    sys.stderr.write("starting Apache Kafka ...\n")
    server = KafkaServer(options.folder, port=options.port)
    try:
        server.start()
        sys.stdout.write(f"{server.bootstrap}\n")
        sys.stdout.flush()
        sys.stderr.write(f"use it with DECISION_LOG=kafka://{server.bootstrap}; end it with Ctrl-C\n")
        while not stop.wait(0.2):
            if not server.running:
                raise KafkaServerError(f"the broker ended; its output is in {server.folder / 'output.txt'}")
    except KafkaServerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    finally:
        server.stop()
    return 0


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - fixed
    if done.returncode != 0:
        raise KafkaServerError(f"{command[-4:]} failed: {(done.stdout + done.stderr)[-2000:].strip()}")
    return done.stdout


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) != 0


if __name__ == "__main__":
    sys.exit(main())
