"""Slow clients of every kind are ended, each as it deserves, and others are answered meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.operations.processes import free_port
from serving.http.app import App
from tests.serving.http.test_app import open_at
from tests.serving.http.test_door import get, opened
from tests.soak.slow_clients import KINDS, turn

CLIENTS = 60
TOLD = {"no body": "408", "slow body": "408", "kept, idle": "200"}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    core = open_at(tmp_path)
    app = App(lambda: core)
    app.document()  # takes seconds, once
    yield app
    app.close()


@pytest.mark.parametrize("kind", KINDS)
def test_slow_clients_are_all_ended_and_others_are_answered(app: App, kind: str) -> None:
    port = free_port()
    answers: list[int] = []

    def during() -> None:
        answers.extend(get(port, "/livez")[0] for _ in range(20))

    async def run() -> dict[str, int]:
        async with opened(app, port, head_s=1.0, answer_s=1.0, read_s=1.0) as door:
            ended = await turn(port, kind, CLIENTS, during)
            while door.connections:
                await asyncio.sleep(0.01)
            return ended

    assert asyncio.run(run()) == {TOLD.get(kind, "ended"): CLIENTS}
    assert answers == [200] * 20
