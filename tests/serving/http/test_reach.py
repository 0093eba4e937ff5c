"""Who reaches a service without a key: nobody by a socket that others than this machine can reach."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decision.errors import FieldError
from pipelines.operations.processes import check_keys, free_port
from pipelines.settings import load_settings
from serving.core import Core
from serving.http.app import App
from serving.http.reach import check_reach
from serving.problems import ProblemError
from tests.serving.http.test_app import QUESTION, Caller, open_at
from tests.serving.http.test_door import get, opened

LOOPBACK = ("127.0.0.1", "127.0.0.2", "::1", "localhost")


@pytest.mark.parametrize("blank", [",", " ", " , ,"])
def test_keys_that_are_all_blank_are_refused_with_the_name_of_the_setting(blank: str) -> None:
    with pytest.raises(FieldError, match=r"DECISION_API_KEYS.*api_keys") as raised:
        load_settings({"DECISION_API_KEYS": blank})
    assert raised.value.field == "api_keys"


def test_keys_are_taken_without_the_blanks_and_commas_around_them() -> None:
    assert load_settings({"DECISION_API_KEYS": " one,, two ,"}).keys == [b"one", b"two"]
    assert load_settings({"DECISION_API_KEYS": ""}).keys == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.7", "2001:db8::1", "decisions.example"])
def test_addresses_beyond_loopback_need_keys_in_the_settings_and_beside_them(host: str) -> None:
    check_keys(load_settings({}, host=host, api_keys="k"), "0.0.0.0")
    check_keys(load_settings({}), *LOOPBACK)
    for settings, more in ((load_settings({}, host=host), ()), (load_settings({}), (host,))):
        with pytest.raises(FieldError, match="DECISION_API_KEYS"):
            check_keys(settings, *more)


@pytest.mark.parametrize(("host", "port"), [("192.0.2.7", 80), ("2001:db8::1", 80), ("fe80::1%eth0", 80)])
def test_connections_to_other_addresses_are_refused(host: str, port: int) -> None:
    with pytest.raises(ProblemError) as raised:
        check_reach({"type": "http", "method": "GET", "headers": [], "server": (host, port)})
    assert raised.value.status == 403


@pytest.mark.parametrize("server", [("127.0.0.1", 80), ("::1", 80), ("/run/decision.sock", None), None])
def test_connections_of_this_machine_are_answered(server: Any) -> None:
    check_reach({"type": "http", "method": "GET", "headers": [], "server": server})


@pytest.mark.parametrize(("keys", "status"), [("", 403), ("k", 200)])
def test_a_public_socket_answers_nobody_without_keys_whoever_bound_it(tmp_path: Path, keys: str, status: int) -> None:
    core = open_at(tmp_path, api_keys=keys)
    app, port = Caller(core).app, free_port()

    async def ask() -> list[int]:
        async with opened(app, port, host="0.0.0.0", answer_s=300.0):  # a busy machine makes the description late
            return [(await asyncio.to_thread(get, port, path))[0] for path in ("/livez", "/metrics", "/openapi.json")]

    try:
        assert asyncio.run(ask()) == [status, 401 if keys else status, status]
    finally:
        core.close()


def test_a_public_socket_of_another_port_changes_nothing(tmp_path: Path) -> None:
    core = open_at(tmp_path)
    app, port = Caller(core).app, free_port()

    async def ask() -> int:
        async with opened(app, port):
            return (await asyncio.to_thread(get, port, "/livez"))[0]

    try:
        with socket.create_server(("0.0.0.0", 0)):
            assert asyncio.run(ask()) == 200
    finally:
        core.close()


FOREIGN = [
    {"Origin": "http://elsewhere.example"},
    {"Origin": "http://elsewhere.example", "Content-Type": "text/plain"},
    {"Origin": "http://localhost:{other}"},
    {"Origin": "http://elsewhere.example:{port}", "Host": "elsewhere.example:{port}"},  # a name that leads to loopback
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:{port}"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://elsewhere.example"},
]
OWN = [
    {},
    {"Content-Type": "text/plain"},
    {"Origin": "http://127.0.0.1:{port}"},
    {"Origin": "http://localhost:{port}", "Host": "localhost:{port}", "Sec-Fetch-Site": "same-origin"},
    {"Origin": "http://[::1]:{port}", "Host": "[::1]:{port}"},
    {"Sec-Fetch-Site": "none"},
]


def decided(core: Core) -> int:
    """Return how many decisions the core has taken."""
    return core.count("news").decided


def sent_with(core: Core, headers: dict[str, str], path: str, *, method: str = "POST", body: str = "{}") -> int:
    """Return the status of a request to a real socket on loopback, with the port filled into the headers."""
    app, port = App(lambda: core), free_port()
    filled = {name: value.format(port=port, other=port + 1) for name, value in headers.items()}

    def request() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        try:
            connection.request(method, path, body, filled)
            return connection.getresponse().status
        finally:
            connection.close()

    async def ask() -> int:
        async with opened(app, port):
            return await asyncio.to_thread(request)

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    made = open_at(tmp_path_factory.mktemp("home"))
    yield made
    made.close()


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_page_of_another_site_changes_nothing(core: Core, headers: dict[str, str]) -> None:
    before = decided(core)
    assert sent_with(core, headers, "/v1/loops/news/decide", body=json.dumps(QUESTION)) == 403
    assert sent_with(core, headers, "/personalizer/v1.0/events/e/reward", body='{"value": 1}') == 403
    assert sent_with(core, headers, "/personalizer/v1.0/configurations/service", method="PUT", body="{}") == 403
    assert sent_with(core, headers, "/personalizer/v1.0/configurations/policy", method="DELETE") == 403
    if headers.get("Sec-Fetch-Site") != "same-origin":
        assert sent_with(core, headers, "/console/login", body="key=x") == 403
    assert decided(core) == before


@pytest.mark.parametrize("headers", OWN)
def test_programs_and_own_pages_decide(core: Core, headers: dict[str, str]) -> None:
    assert sent_with(core, headers, "/v1/loops/news/decide", body=json.dumps(QUESTION)) == 200


@pytest.mark.parametrize("headers", FOREIGN[:3])
def test_a_foreign_page_that_has_a_key_is_answered(tmp_path: Path, headers: dict[str, str]) -> None:
    keyed = open_at(tmp_path, api_keys="k")
    try:
        shown = headers | {"Authorization": "Bearer k"}
        assert sent_with(keyed, shown, "/v1/loops/news/decide", body=json.dumps(QUESTION)) == 200
    finally:
        keyed.close()


def test_the_console_signs_in_behind_a_proxy_that_changes_the_host(core: Core) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    behind = form | {"Origin": "https://panels.example", "Sec-Fetch-Site": "same-origin"}
    assert sent_with(core, behind, "/console/login", body="key=x") == 401


def test_a_page_of_another_site_may_ask(core: Core) -> None:
    assert sent_with(core, FOREIGN[0], "/livez", method="GET") == 200


READ = [
    "/v1/loops",
    "/v1/loops/news",
    "/v1/decisions/e",
    "/metrics",
    "/console/loops",
    "/personalizer/v1.0/configurations/service",
]


@pytest.mark.parametrize("host", ["elsewhere.example:{port}", "LOCALHOST.elsewhere.example", "127.0.0.1.nip.example:1"])
def test_a_page_whose_name_was_led_to_loopback_reads_nothing(core: Core, host: str) -> None:
    for path in READ:
        for method in ("GET", "HEAD"):
            assert sent_with(core, {"Host": host}, path, method=method, body="") == 403, path
    assert sent_with(core, {"Host": host}, "/readyz", method="GET", body="") == 200


@pytest.mark.parametrize(
    "host", ["localhost:{port}", "LocalHost.", "127.0.0.1", "127.8.8.8:{port}", "[::1]:{port}", "decisions:{port}", ""]
)
def test_names_of_this_machine_read(core: Core, host: str) -> None:
    assert [sent_with(core, {"Host": host}, path, method="GET", body="") for path in READ] == [
        200,
        200,
        404,
        200,
        200,
        200,
    ]


def test_the_name_of_a_loop_reads_and_so_does_any_name_with_a_key(tmp_path: Path) -> None:
    named = open_at(tmp_path / "named", 'hosts = ["news.example"]\n')
    keyed = open_at(tmp_path / "keyed", api_keys="k")
    try:
        assert sent_with(named, {"Host": "News.example:{port}"}, "/v1/loops", method="GET", body="") == 200
        assert sent_with(named, {"Host": "others.example"}, "/v1/loops", method="GET", body="") == 403
        shown = {"Host": "others.example", "Authorization": "Bearer k"}
        assert sent_with(keyed, shown, "/v1/loops", method="GET", body="") == 200
    finally:
        named.close()
        keyed.close()
