"""A service whose disk is full: callers are refused in order, its workers live on, and all goes on afterwards."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest

from pipelines.operations.init import init_loop
from pipelines.operations.processes import free_port, process, serve_command, wait_until_ready
from pipelines.operations.waiting import wait_until
from pipelines.settings import Settings, load_settings
from tests.e2e.test_door import ask
from tests.e2e.traffic import BODY, booked
from tests.worlds.disk import Disk, own_disk
from tests.worlds.fleet import processes_of

pytestmark = pytest.mark.connected

KEY = {"Authorization": "Bearer of-the-house"}
DECIDE = "/v1/loops/news/decide"
UPGRADE = (
    "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: %s\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    with own_disk(tmp_path_factory.mktemp("full")) as disk:
        yield disk


@pytest.fixture(scope="module")
def service(disk: Disk) -> Iterator[Settings]:
    settings = load_settings(
        {}, home=str(disk.path / "home"), port=free_port(), workers=2, api_keys="of-the-house", reload_s=0.1
    )
    init_loop(settings, "news")
    output = disk.path.with_name("service.log")
    with process("service", serve_command(settings), settings, output) as running:
        wait_until_ready(running, settings, output)
        wait_until(
            lambda: output.read_text().count("Completed async startup hook") >= 2, "both workers to open the door"
        )
        yield settings


def upgraded(port: int, to: str, path: str = "/livez") -> int:
    """Return the status of the answer to a request that asks for another protocol."""
    with socket.create_connection(("127.0.0.1", port), timeout=300) as connection:
        connection.sendall((UPGRADE % (path, to)).encode())
        answer = b""
        while b"\r\n\r\n" not in answer and (part := connection.recv(65536)):
            answer += part
    found = re.match(rb"HTTP/1.1 (\d+) ", answer)
    assert found is not None, answer
    return int(found[1])


@pytest.mark.parametrize("path", ["/livez", DECIDE, "/console/", "/nothing"])
def test_a_websocket_is_refused_on_both_ports(service: Settings, path: str) -> None:
    assert upgraded(service.port, "websocket", path) == 400
    assert upgraded(service.frame_port, "websocket", path) == 403


def test_another_protocol_that_is_offered_is_passed_over(service: Settings) -> None:
    assert upgraded(service.port, "h2c") == 200


def test_a_full_disk_refuses_callers_and_ends_no_worker(service: Settings, disk: Disk) -> None:
    acknowledged = [decided(service.port, f"before-{n}") for n in range(20)]
    workers = set(processes_of(service.root))
    disk.fill()
    number = 0
    while ask(service.port, "POST", DECIDE, BODY | {"event_id": f"filling-{number}"}, **KEY)[0] == 200:
        acknowledged.append(f"filling-{number}")
        number += 1
    for port in (service.port, service.frame_port):
        for wrong in ({}, {"Authorization": "Bearer of-another"}, {"Ocp-Apim-Subscription-Key": "x"}):
            for method, path, body in REQUESTS:
                assert ask(port, method, path, body, **wrong)[0] == 401
        for method, path, body in REQUESTS:
            assert ask(port, method, path, body, **KEY)[0] in (200, 400, 404, 405, 422, 503)
        assert ask(port, "POST", DECIDE, BODY, **KEY)[0] == 503
        assert ask(port, "GET", "/readyz")[0] == 503
        assert ask(port, "GET", "/livez")[0] == 200
        assert ask(port, "GET", "/metrics", **KEY)[0] == 200
        assert ask(port, "GET", f"/v1/decisions/{acknowledged[0]}", **KEY)[0] == 200
    assert set(processes_of(service.root)) == workers
    disk.empty()
    wait_until(lambda: ask(service.port, "GET", "/readyz")[0] == 200, "the service to decide again")
    acknowledged += [decided(service.port, f"after-{n}") for n in range(20)]
    counts = booked(service.spool_path)["decisions"]
    assert [event for event in acknowledged if counts[event] != 1] == []
    assert "make room on it" in disk.path.with_name("service.log").read_text()


REQUESTS = (
    ("POST", DECIDE, BODY),
    ("POST", "/v1/loops/news/decide/batch", {"decisions": [BODY]}),
    ("POST", "/v1/loops/news/outcomes", {"event_id": "e", "value": 1}),
    ("POST", "/v1/loops/news/outcomes", {"event_id": "e", "value": "no number"}),
    ("POST", "/v1/loops/news/activate", {"event_id": "e"}),
    ("GET", "/v1/loops", None),
    ("GET", "/v1/loops/news", None),
    ("GET", "/v1/decisions/none", None),
    ("POST", "/personalizer/v1.0/rank", BODY),
    ("POST", "/personalizer/v1.0/events/e/reward", {"value": 1}),
)


def decided(port: int, event_id: str) -> str:
    """Return the id of a decision that was acknowledged."""
    assert ask(port, "POST", DECIDE, BODY | {"event_id": event_id}, **KEY)[0] == 200
    return event_id
