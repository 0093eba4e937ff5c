"""A rollout from end to end: services under live traffic, the guard as a process of its own that is killed on the way.

Two services share a home folder; the second cannot reach the registry. Outcomes come out of order, some twice, some
after the window. The aggregator ingests, joins and guards in a loop until it is killed with SIGKILL; another goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest

from decision.records import Decision, decode_decision
from pipelines.guard.replay import replay
from pipelines.guard.store import GuardStore
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.join import join
from pipelines.lake.lake import Lake
from pipelines.log.sqlite.log import LocalLog
from pipelines.operations.processes import free_port, process, serve_command, wait_until_ready
from pipelines.registry.registry import Registry
from pipelines.settings import Settings, load_settings
from tests.worlds.rollout import published_bytes
from tests.worlds.shop import PAYS, check_propensities, policy, register
from tests.worlds.synthetic import KINDS, new_loop, new_settings

ROOT = Path(__file__).resolve().parents[2]
TEXT = "[reward]\nwindow_s = 1.0\n[guard]\nenabled = true\nttl_s = 60\nbatch = 300\n"
MOST_DECISIONS = 60_000
AGGREGATOR = """
import sys, time
from datetime import UTC, datetime
from pipelines.guard.step import guard
from pipelines.ingestion.ingest import ingest
from pipelines.operations.installation import Installation
from pipelines.interactions.join import join
from pipelines.settings import load_settings

with Installation(load_settings(home=sys.argv[1])) as parts:
    while True:
        now = datetime.now(UTC)
        ingest(parts.log, parts.lake, loops=parts.loops)
        join(parts.lake, parts.loop("shop"), now)
        guard(parts.settings, parts.loop("shop"), parts.lake, parts.registry, now)
        time.sleep(0.2)
"""


class Shoppers:
    """Live traffic on two services; remembers what was acknowledged."""

    def __init__(self, ports: list[int]) -> None:
        self.urls = [f"http://127.0.0.1:{port}/v1/loops/shop" for port in ports]
        self.rng = np.random.default_rng(3)
        self.decided: list[str] = []
        self.failed = 0
        self.versions: set[str] = set()
        self._reports: list[tuple[float, dict[str, Any]]] = []

    async def shop(self, seconds: float) -> None:
        """Shop for so long, as fast as the services answer."""
        until = time.monotonic() + seconds
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(300)) as session:
            while time.monotonic() < until:
                await asyncio.gather(*(self._visit(session, self.urls[i % 2]) for i in range(24)))
                due = [entry for entry in self._reports if entry[0] <= time.monotonic()]
                self._reports = [entry for entry in self._reports if entry[0] > time.monotonic()]
                self.rng.shuffle(due)  # type: ignore[arg-type]
                body = [report for _, report in due][:100]
                self._reports += due[100:]
                if body:
                    async with session.post(f"{self.urls[0]}/outcomes", json=body) as answer:
                        self.failed += answer.status != 202

    async def _visit(self, session: aiohttp.ClientSession, url: str) -> None:
        kind = KINDS[int(self.rng.integers(3))]
        event_id = f"e{len(self.decided):06d}-{self.rng.integers(1 << 40):x}"
        actions = [{"id": colour, "features": {"colour": colour}} for colour in KINDS]
        body = {"event_id": event_id, "context": {"kind": kind}, "actions": actions}
        async with session.post(f"{url}/decide", json=body) as response:
            if response.status != 200:
                self.failed += 1
                return
            answer = await response.json()
        self.decided.append(event_id)
        self.versions.add(answer["policy_version"])
        report = {"event_id": event_id, "value": 1.0, "idempotency_key": event_id}
        if self.rng.random() < (0.8 if answer["action_id"] == kind else 0.1):
            at = time.monotonic() + self.rng.uniform(0.0, 0.4)
            self._reports += [(at, report)] * (1 + int(self.rng.random() < 0.1))
        elif self.rng.random() < 0.02:
            self._reports.append((time.monotonic() + 1.5, report))


@contextmanager
def aggregator(settings: Settings, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the aggregator; it is killed at the end of the block at the latest."""
    command = [sys.executable, "-c", AGGREGATOR, settings.home]
    with output.open("ab") as file:
        running = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)
        try:
            yield running
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(running.pid, signal.SIGKILL)
            running.wait(300)


def moves(settings: Settings) -> list[str]:
    return [entry.kind for entry in GuardStore(settings, "shop").moves()]


async def until(shoppers: Shoppers, settings: Settings, kind: str) -> None:
    """Shop until the guard made a move of this kind."""
    decided = len(shoppers.decided)
    while kind not in moves(settings):
        # Some 3,000 decisions are enough, however long a slow machine takes for them.
        assert len(shoppers.decided) - decided < MOST_DECISIONS, moves(settings)
        assert shoppers.failed < 100
        await shoppers.shop(0.5)


@pytest.mark.connected
@pytest.mark.statistical
def test_a_good_candidate_becomes_champion_and_a_bad_one_is_killed_over_http(tmp_path: Path) -> None:
    """Seeded but for the clock: lifts of +65% and -60%, some 3,000 decisions; twenty times as many are allowed."""
    new_settings(tmp_path)
    new_loop(load_settings({}, home=str(tmp_path)), "shop", TEXT)
    settings = load_settings({}, home=str(tmp_path), port=free_port(), reload_s=0.2)
    cut_off = load_settings(
        {}, home=str(tmp_path), port=free_port(), reload_s=0.2, tracking_uri="sqlite:////nowhere/mlflow.db"
    )
    registry = Registry(settings)
    verdict = {
        "verdict": "set",
        "reasons": ["a test"],
        "numbers": {},
        "at": "2026-01-01T00:00:00+00:00",
        "by": "a test",
    }

    def point(alias: str, version: str) -> None:
        registry.set_alias("shop", alias, version, verdict)  # type: ignore[arg-type]

    point("champion", register(registry, policy(PAYS["good"], 0.7)))
    good, bad = register(registry, policy(PAYS["good"], 0.05)), register(registry, policy(PAYS["bad"], 0.05))
    output = tmp_path / "aggregator.log"
    with ExitStack() as stack:
        services = [
            stack.enter_context(process(f"service {i}", serve_command(one), one, tmp_path / f"service-{i}.log"))
            for i, one in enumerate((settings, cut_off))
        ]
        for i, (running, one) in enumerate(zip(services, (settings, cut_off), strict=True)):
            wait_until_ready(running, one, tmp_path / f"service-{i}.log")
        shoppers = Shoppers([settings.port, cut_off.port])
        point("candidate", good)
        with aggregator(settings, output) as running:
            asyncio.run(until(shoppers, settings, "raised"))
            os.kill(running.pid, signal.SIGKILL)
            running.wait(300)
        asyncio.run(shoppers.shop(0.5))
        with aggregator(settings, output):
            asyncio.run(until(shoppers, settings, "promoted"))
            assert registry.aliases("shop") == {"champion": good}
            decided = len(shoppers.decided)
            while good not in shoppers.versions:  # once the services have looked
                assert len(shoppers.decided) - decided < MOST_DECISIONS
                asyncio.run(shoppers.shop(0.5))
            point("candidate", bad)
            asyncio.run(until(shoppers, settings, "killed"))
            decided = len(shoppers.decided)
            while registry.aliases("shop") != {"champion": good}:  # decided first, carried out next
                assert len(shoppers.decided) - decided < MOST_DECISIONS
                asyncio.run(shoppers.shop(0.2))
        asyncio.run(shoppers.shop(1.0))
    assert shoppers.failed == 0
    log, lake = LocalLog(settings.spool_path), Lake(settings.lake_url)
    records: list[Decision] = [
        decode_decision(message.value)
        for number in range(settings.partitions)
        for message in log.read("decisions", number, 0, max_messages=1_000_000)
    ]
    assert sorted(record.event_id for record in records) == sorted(shoppers.decided)
    check_propensities(records)
    served = {round(record.guard_weight, 10) for record in records}
    assert {0.0, 0.05, 0.95} <= served
    late = [record for record in records if record.policy_version == good]
    assert max(record.guard_weight for record in late) <= 0.3, "the bad one never had much"
    ingest(log, lake)
    join(lake, new_loop(settings, "shop", TEXT), datetime.now(UTC))
    assert replay(settings, new_loop(settings, "shop", TEXT), lake).same
    verdicts = [(entry.verdict, entry.by) for entry in registry.verdicts("shop")]
    assert ("promoted", "guard") in verdicts
    assert ("killed", "guard") in verdicts
    assert msgspec.json.decode(published_bytes(settings))["killed"] is True
    log.close()
