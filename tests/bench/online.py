"""What a Redis on the request path costs: answers, features and memories of replicas against those of one machine.

Both sides alternate in one run on the same disk; the Redis is a real one, on loopback. Medians count.
``python -m tests.bench.online``, ``QUICK=1`` for less.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipelines.features.store import Features
from pipelines.log.sqlite.log import LocalLog
from pipelines.online.connection import Online
from pipelines.settings import Settings, load_settings
from pipelines.trajectories.memories import Memories
from pipelines.trajectories.shared_memories import SharedMemories
from serving.start import open_core
from serving.wire import Action, DecideRequest
from tests.pipelines.trajectories.test_memories import USED, paid, put, visit
from tests.redis_server import own_redis
from tests.worlds.lake import START, loop_of
from tests.worlds.synthetic import new_loop, new_settings

QUICK = os.environ.get("QUICK") == "1"
ROUNDS = 30 if QUICK else 400
TOGETHER = (1, 16)
SUBJECTS = 60
NOW = datetime(2026, 1, 1, tzinfo=UTC)
AFTER = START + timedelta(seconds=20 * SUBJECTS)
Sides = dict[str, Callable[[int], object]]
"""What is measured in a round, embedded and on Redis."""


def medians(sides: Sides) -> dict[str, float]:
    """Return the median milliseconds of each side, alternated."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(ROUNDS):
        for name, run in sides.items():
            started = time.perf_counter()
            run(number)
            taken[name].append(time.perf_counter() - started)
    return {name: round(1e3 * statistics.median(times), 4) for name, times in taken.items()}


def subjects(number: int, together: int) -> list[str]:
    """Return who is asked about in a round."""
    return [f"u{(number * together + at) % SUBJECTS}" for at in range(together)]


def decisions(homes: dict[str, Settings], found: dict[str, dict[str, float]]) -> None:
    """Measure decisions whose ids the caller chose."""
    with ExitStack() as opened, asyncio.Runner() as runner:
        sides: dict[int, Sides] = {together: {} for together in TOGETHER}
        for name, settings in homes.items():
            new_loop(new_settings(settings.root), "shop", "")
            core = open_core(settings)
            opened.callback(core.close)

            async def ask(number: int, together: int, core: object = core) -> None:
                actions = [Action(letter) for letter in "abcdefghij"]
                asked = [
                    DecideRequest({"hour": 9}, actions, event_id=f"{together}-{number}-{at}") for at in range(together)
                ]
                await asyncio.gather(*[core.decide("shop", each) for each in asked])  # type: ignore[attr-defined]

            for together in TOGETHER:
                sides[together][name] = lambda number, n=together, ask=ask: runner.run(ask(number, n))
        for together in TOGETHER:
            found[f"decide_{together}"] = medians(sides[together])


def features(homes: dict[str, Settings], folder: Path, found: dict[str, dict[str, float]]) -> None:
    """Measure lookups of ten uploaded features."""
    loop = loop_of("[features]\nenabled = true\ncache_s = 0.0\n")
    names = ",".join(f"f{column}" for column in range(10))
    rows = [f"u{number}," + ",".join(str(number + column) for column in range(10)) for number in range(SUBJECTS)]
    (folder / "upload.csv").write_text("\n".join([f"subject_id,{names}", *rows]))
    with ExitStack() as opened:
        stores: dict[str, Features] = {}
        for name, settings in homes.items():
            stores[name] = opened.enter_context(closing(Features(settings, loop)))
            stores[name].load_subjects(folder / "upload.csv", now=NOW)
        for together in TOGETHER:
            found[f"features_{together}"] = medians(
                {
                    name: lambda number, n=together, store=store: store.online_many(subjects(number, n), NOW)
                    for name, store in stores.items()
                }
            )


def memories(online: Online, folder: Path, found: dict[str, dict[str, float]]) -> None:
    """Measure lookups of memories that have not changed."""
    with ExitStack() as opened:
        log = opened.enter_context(closing(LocalLog(folder / "log.db")))
        for topic in ("decisions", "outcomes"):
            log.create(topic, 2)
        for number in range(10 * SUBJECTS):
            put(log, visit(number, user=f"u{number % SUBJECTS}"), paid(number, 1.0))
        stores = {"embedded": Memories(folder / "s.sqlite", "shop"), "redis": SharedMemories(online, "shop", 600.0)}
        for store in stores.values():
            opened.enter_context(closing(store))
            store.follow(log, AFTER)
        for together in TOGETHER:
            found[f"memories_{together}"] = medians(
                {
                    name: lambda number, n=together, store=store: store.online_many(
                        subjects(number, n), AFTER, {"session": USED}
                    )
                    for name, store in stores.items()
                }
            )


def main() -> None:
    """Run the benchmark and print its line."""
    found: dict[str, dict[str, float]] = {}
    with own_redis() as server, tempfile.TemporaryDirectory() as scratch, closing(Online(server.url)) as online:
        folder, homes = Path(scratch), dict[str, Settings]()
        for name, url in (("embedded", ""), ("redis", server.url)):
            (folder / name).mkdir()
            homes[name] = load_settings({}, home=str(folder / name), online=url, reload_s=3600.0)
        decisions(homes, found)
        features(homes, folder, found)
        memories(online, folder, found)
    ratios = {name: round(times["redis"] / times["embedded"], 2) for name, times in found.items()}
    print(json.dumps({"name": "online", "ratios": ratios, "detail": {"milliseconds": found, "rounds": ROUNDS}}))


if __name__ == "__main__":
    main()
