"""The registry keeps its contract on State in a file and on PostgreSQL, and on an MLflow server that has none."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.registry.registry import Registry
from pipelines.settings import load_settings
from tests.contracts.registry import CHECKS, Open
from tests.postgres_server import new_database
from tests.worlds.synthetic import new_settings


def _server(folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "server.log"
    address = f"http://127.0.0.1:{port}"
    command = ["server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "mlflow", *command], stdout=out, stderr=out)
        try:
            while True:  # until it answers or ends
                assert process.poll() is None, log.read_text()
                try:
                    urllib.request.urlopen(f"{address}/health").close()
                    break
                except (urllib.error.URLError, ConnectionError):
                    time.sleep(0.1)
            yield address
        finally:
            process.terminate()
            process.wait()


SERVED = [pytest.param(name, marks=pytest.mark.connected) for name in ("server", "postgresql and a server")]


@pytest.fixture(scope="module", params=["sqlite", *SERVED])
def opener(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    folder = tmp_path_factory.mktemp("registry")
    server = None
    address = new_settings(folder).registry_uri
    if request.param != "sqlite":
        server = _server(folder)
        address = next(server)
    state = new_database(request.getfixturevalue("postgres")) if "postgresql" in request.param else ""

    def open_registry(machine: str = "one") -> Registry:
        home = folder if machine == "one" and server is None else folder / machine
        return Registry(load_settings({}, home=str(home), tracking_uri=address, state=state))

    yield open_registry
    if server is not None:
        next(server, None)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_registry(check: Callable[[Open, str], None], opener: Open, capfd: pytest.CaptureFixture[str]) -> None:
    check(opener, check.__name__.removeprefix("check_").replace("_", "-")[:40].strip("-"))
    assert capfd.readouterr().out == ""  # what is said there is a command's result
