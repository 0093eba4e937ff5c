"""While one loop asks for more than the disk takes, the others are answered; over HTTP, on a real core and disk."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pipelines.log.sqlite.log import LocalLog
from serving.core import Core
from serving.http.app import App
from serving.spool import Spool
from tests.serving.http.test_app import open_at

LOUD, QUIET = "news", "quiet"
DECIDE = {"context": {}, "actions": [{"id": "a"}, {"id": "b"}]}


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    quiet = tmp_path / "loops" / QUIET / "loop.toml"
    quiet.parent.mkdir(parents=True)
    quiet.write_text("")
    core = open_at(tmp_path)
    small = Spool(core.spool._log, max_events=200)  # pyright: ignore[reportPrivateUsage]
    core.spool.close()
    core.spool, core._give, core._turns.give = small, small.give, small.give  # pyright: ignore[reportPrivateUsage]
    yield core
    small.close()
    core.close()


@pytest.mark.parametrize(("path", "body"), [("decide", DECIDE), ("outcomes", {"event_id": "e", "value": 1})])
def test_a_loop_beyond_its_share_is_told_so_and_no_other_is_refused(core: Core, path: str, body: object) -> None:
    blocker = LocalLog(core.settings.spool_path)

    async def run() -> tuple[list[httpx.Response], list[httpx.Response]]:
        transport = httpx.ASGITransport(app=App(lambda: core))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:

            async def ask(loop: str, path: str, body: object) -> httpx.Response:
                return await client.post(f"/v1/loops/{loop}/{path}", json=body)

            with blocker._file.transaction():  # pyright: ignore[reportPrivateUsage]
                loud = [asyncio.create_task(ask(LOUD, path, body)) for _ in range(300)]
                while sum(task.done() for task in loud) < 200:
                    await asyncio.sleep(0.001)
                quiet = [asyncio.create_task(ask(QUIET, "decide", DECIDE)) for _ in range(40)]
                while core.spool.depth < 140:
                    await asyncio.sleep(0.001)
            return await asyncio.gather(*loud), await asyncio.gather(*quiet)

    loud, quiet = asyncio.run(run())
    blocker.close()
    assert [answer.status_code for answer in quiet] == [200] * 40
    refused = [answer for answer in loud if answer.status_code >= 400]
    assert len(refused) == 200
    for answer in refused:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["detail"] == "too many requests of the loop 'news' wait to be written down"
    kept = sum(high - low for low, high in (blocker.watermarks("decisions", n) for n in range(core.spool.partitions)))
    assert kept == 40 + (100 if path == "decide" else 0)
