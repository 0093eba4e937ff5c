"""The client keeps its contract over HTTP, for threads and for tasks, and on the engine in this process."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from decision_client import AsyncClient, AsyncInProcess, Client, InProcess, Settings
from tests.contracts.decision_client import CHECKS
from tests.worlds.running import new_installation, running

PATIENT = Settings(timeout_s=60.0, deadline_s=60.0, fallback="none")
each_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)


class InALoop:
    """An asynchronous client, called as the synchronous one is: each call is a task of an event loop in a thread."""

    def __init__(self, make: Callable[[], AsyncClient]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

        async def made() -> AsyncClient:
            return make()

        self._client = asyncio.run_coroutine_threadsafe(made(), self._loop).result()

    def __getattr__(self, name: str) -> Any:
        called = getattr(self._client, name)
        if not inspect.iscoroutinefunction(called):
            return called
        return lambda *given, **named: asyncio.run_coroutine_threadsafe(called(*given, **named), self._loop).result()

    def __enter__(self) -> InALoop:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.stop()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


@pytest.fixture(scope="module", params=["threads", "tasks"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Give whom a service is for and its address; each has its own, since both use the same event ids."""
    with running(new_installation(tmp_path_factory.mktemp("home"))) as address:
        yield request.param, address


@pytest.fixture
def in_a_loop() -> Iterator[Callable[[Callable[[], AsyncClient]], Any]]:
    """Give a way to open asynchronous clients; their threads end with the test."""
    opened: list[InALoop] = []

    def open_one(make: Callable[[], AsyncClient]) -> Any:
        opened.append(InALoop(make))
        return opened[-1]

    yield open_one
    for each in opened:
        each.stop()


@pytest.mark.connected
@each_check
def test_over_http(check: Callable[..., None], service: tuple[str, str], in_a_loop: Any) -> None:
    whom, address = service
    if whom == "threads":
        check(lambda: Client(address, settings=PATIENT))
    else:
        check(lambda: in_a_loop(lambda: AsyncClient(address, settings=PATIENT)))


@each_check
def test_in_process(check: Callable[[Callable[[], Client]], None], tmp_path: Path) -> None:
    new_installation(tmp_path)
    check(lambda: Client(InProcess(home=str(tmp_path)), settings=PATIENT))


@each_check
def test_in_process_for_tasks(check: Callable[..., None], tmp_path: Path, in_a_loop: Any) -> None:
    new_installation(tmp_path)
    check(lambda: in_a_loop(lambda: AsyncClient(AsyncInProcess(home=str(tmp_path)), settings=PATIENT)))
