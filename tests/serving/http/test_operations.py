"""Routes for those who run the service: what many ask for at once holds nobody else up."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from serving.http.operations import routes

WAITING = 50


def test_who_waits_for_the_description_gets_it_one_by_one_with_others_answered_in_between() -> None:
    made: list[str] = []
    all_wait = threading.Event()

    def document() -> bytes:
        all_wait.wait(300)
        made.append("document")
        return b"{}"

    answer: Any = next(route.answer for route in routes(document, lambda: None) if route.path == "/openapi.json")

    async def run() -> int:
        events: list[str] = []

        async def ask() -> None:
            assert await answer(None) == b"{}"
            events.append("described")

        async def decide() -> None:
            while events.count("described") < WAITING:
                events.append("decided")
                await asyncio.sleep(0)

        asked = [asyncio.create_task(ask()) for _ in range(WAITING)]
        await asyncio.sleep(0)
        all_wait.set()
        await asyncio.gather(decide(), *asked)
        runs = "".join("x" if event == "described" else " " for event in events).split()
        return max(map(len, runs))

    assert asyncio.run(run()) == 1
    assert made == ["document"]
