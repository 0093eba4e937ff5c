"""Time that the guard adds to a decision: the same requests with a candidate in the mixture and without, alternating.

In process, without the disk: `decide` on one snapshot each. The candidate's own scores cost what its oracle costs,
whoever serves it, and are reported apart: ``guard`` serves a candidate whose distribution is given, so that what is
measured is the guard, ``rollout`` a second VW policy. ``decision`` is the whole of it, `Core.decide` until the record
is on disk, with the guard against without.

``python -m tests.bench.guard``, ``QUICK=1`` for less.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import tempfile
import time
from datetime import UTC, datetime

import msgspec
import numpy as np

from decision.batch import Batch, Floats, Interactions
from decision.exploration.rule import Exploration
from decision.features import flatten
from decision.guard.snapshot import GuardSnapshot
from decision.oracles.vw import VwOracle
from decision.policy import OraclePolicy
from pipelines.settings import LoopSettings, load_settings
from serving.core import Core
from serving.deciding.decide import Ask, decide
from serving.deciding.question import Catalogues, question_of
from serving.snapshot import Snapshot
from serving.start import open_core
from serving.wire import Action, DecideRequest
from tests.bench.serving import question

QUICK = os.environ.get("QUICK") == "1"
REQUESTS, ROUNDS = 500, 6 if QUICK else 40
DURABLE = 500 if QUICK else 4000


class GivenPolicy:
    """Always the same distribution over ten actions."""

    def __init__(self) -> None:
        self._pmf = np.arange(1.0, 11.0) / 55.0

    def pmf(self, batch: Batch) -> Floats:
        return self._pmf


def trained(seed: int) -> OraclePolicy:
    """Return a VW policy that learned from 1,000 random decisions."""
    rng = np.random.default_rng(seed)
    requests = [question(rng) for i in range(1000)]
    contexts = [flatten(r["context"], field="context") for r in requests]
    actions = [flatten(a["features"], field="actions") for r in requests for a in r["actions"]]
    n = len(requests)
    batch = Batch(contexts, actions, [f"a{i}" for i in range(10)] * n, np.arange(n + 1) * 10)
    chosen = np.arange(n) * 10 + rng.integers(10, size=n)
    oracle = VwOracle()
    oracle.fit(Interactions(batch, chosen, np.full(n, 0.1), (rng.random(n) < 0.3) * 1.0, np.full(10 * n, 0.1)))
    return OraclePolicy(oracle, Exploration())


def durable(plain: Snapshot, guarded: Snapshot, requests: list[DecideRequest]) -> list[float]:
    """Return the median times, without and with the guard, of decisions that are on disk, in microseconds."""

    async def alternate(core: Core) -> list[list[float]]:
        times: list[list[float]] = [[], []]
        for number in range(DURABLE):
            for side, snapshot in enumerate((plain, guarded)):
                core.loops._snapshots["bench"] = snapshot
                request = msgspec.structs.replace(requests[number % len(requests)], event_id=f"e{number}-{side}")
                started = time.perf_counter_ns()
                await core.decide("bench", request)
                times[side].append((time.perf_counter_ns() - started) / 1e3)
        return times

    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings({}, home=folder, reload_s=3600.0)
        path = settings.loop_path("bench")
        path.parent.mkdir(parents=True)
        path.write_text("")
        core = open_core(settings)
        try:
            return [float(np.median(side[DURABLE // 10 :])) for side in asyncio.run(alternate(core))]
        finally:
            core.close()


def main() -> None:
    """Run the benchmark and print its line."""
    rng = np.random.default_rng(1)
    raw = [question(rng) for i in range(REQUESTS)]
    requests = [
        DecideRequest(r["context"], [Action(a["id"], a["features"]) for a in r["actions"]], event_id=f"e{i}")
        for i, r in enumerate(raw)
    ]
    catalogues = Catalogues()
    asked_before = [question_of(request, catalogues) for request in requests]
    champion, given = trained(0), GivenPolicy()
    guard = GuardSnapshot(
        guard_version=1,
        loop="bench",
        baseline_version="1",
        candidate_version="2",
        weight=0.4,
        floor=0.05,
        killed=False,
        n=0,
        expires_at=4e9,
        ttl_s=60.0,
    )
    loop, ts = LoopSettings(name="bench"), datetime(2026, 1, 1, tzinfo=UTC)
    plain = Snapshot(loop, champion, "1", given, "baseline:given")
    snapshots = {
        "plain": plain,
        "guard": Snapshot(loop, champion, "1", given, "baseline:given", given, guard),
        "rollout": Snapshot(loop, champion, "1", given, "baseline:given", trained(1), guard),
    }
    times = {name: np.empty((ROUNDS, REQUESTS)) for name in snapshots}
    gc.disable()
    for number in range(-1, ROUNDS):
        for i, asked in enumerate(asked_before):
            for name, snapshot in snapshots.items():
                started = time.perf_counter_ns()
                decide((Ask(asked, snapshot, f"e{i}", {}),), ts)
                if number >= 0:  # the first round warms up
                    times[name][number, i] = (time.perf_counter_ns() - started) / 1e3
        gc.collect()
    # Each request's fastest round leaves other processes' turns out; the tail is that over requests.
    best = {name: measured.min(0) for name, measured in times.items()}
    added = {name: best[name] - best["plain"] for name in ("guard", "rollout")}
    detail = {
        "added_us": {
            name: {"p50": round(float(np.median(d)), 2), "p99": round(float(np.quantile(d, 0.99)), 2)}
            for name, d in added.items()
        },
        "every_round_us": {
            name: {f"p{q}": round(float(np.quantile(measured, q / 100)), 2) for q in (50, 99)}
            for name, measured in times.items()
        },
        "requests": REQUESTS,
        "rounds": ROUNDS,
    }
    on_disk = durable(plain, snapshots["guard"], requests)
    detail["on_disk_us"] = {"plain": round(on_disk[0], 1), "guard": round(on_disk[1], 1)}
    ratios = {name: round(float(np.median(best[name]) / np.median(best["plain"])), 4) for name in ("guard", "rollout")}
    ratios["decision"] = round(on_disk[1] / on_disk[0], 4)
    print(json.dumps({"name": "guard", "ratios": ratios, "detail": detail}))


if __name__ == "__main__":
    main()
