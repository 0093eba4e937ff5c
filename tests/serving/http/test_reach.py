"""Who reaches a service without a key: nobody by a socket that others than this machine can reach."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from decision.errors import FieldError
from pipelines.operations.processes import check_keys, free_port
from pipelines.settings import load_settings
from serving.http.reach import check_reach
from serving.problems import ProblemError
from tests.serving.http.test_app import Caller, open_at
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
        check_reach({"type": "http", "server": (host, port)})
    assert raised.value.status == 403


@pytest.mark.parametrize("server", [("127.0.0.1", 80), ("::1", 80), ("/run/decision.sock", None), None])
def test_connections_of_this_machine_are_answered(server: Any) -> None:
    check_reach({"type": "http", "server": server})


@pytest.mark.parametrize(("keys", "status"), [("", 403), ("k", 200)])
def test_a_public_socket_answers_nobody_without_keys_whoever_bound_it(tmp_path: Path, keys: str, status: int) -> None:
    core = open_at(tmp_path, api_keys=keys)
    app, port = Caller(core).app, free_port()

    async def ask() -> list[int]:
        async with opened(app, port, host="0.0.0.0"):
            return [(await asyncio.to_thread(get, port, path))[0] for path in ("/livez", "/metrics", "/openapi.json")]

    try:
        assert asyncio.run(ask()) == [status] * 3
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
