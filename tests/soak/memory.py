"""Random histories of many users, served and judged: the memory at every decision must be the same bits.

Users decide in ticks, several times at once or not at all. What is reported comes late, twice, out of order, under
other names, before its decision, after its window, or never; values pass the bounds of the reward. The service's
memories follow the log as it grows, are opened again now and then, and change their policy in the middle; the gate's
come from the lake at the end. ``python -m tests.soak.memory [USERS]``, 10,000 by default.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from decision.memory import memories
from decision.oracles.session import SessionOracle
from decision.records import Decision, Outcome
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.join import join
from pipelines.interactions.window import rule_of
from pipelines.settings import LoopSettings
from pipelines.trajectories.memories import Memories, remembering
from pipelines.trajectories.turns import turns_of
from tests.decision.oracles.test_session import ACTIONS, oracle
from tests.worlds.lake import LATER, START, World, decision, loop_of, outcome

USERS, TICKS, TICK_MS = 400, 24, 1_000
HEAVY = 2
"""Users of each world who decide twenty times a tick: their memories begin anew on the way."""
RULES = (
    "",
    "[reward]\naggregation = 'latest'\nwindow_s = 3.0\ndefault = 0.25\nmaximum = 5.0\n",
    "[reward]\naggregation = 'mean'\noutcome = 'click'\nwindow_s = 6.5\nminimum = -3.0\nmaximum = 1e308\n",
    "deferred = true\n[reward]\naggregation = 'max'\nwindow_s = 2.0\nminimum = -1.0\ndefault = -0.5\n",
    "[reward]\naggregation = 'sum'\nwindow_s = 0.5\nmaximum = 2.0\ndefault = 2.0\n",
)


def main() -> None:
    """Play one world after the other, and print what differed."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    total = {"users": 0, "decisions": 0, "reports": 0, "remembered": 0, "differ": 0}
    print("world  rule  users  decisions  reports  remembered  differ")
    started = time.perf_counter()
    number = 0
    while total["users"] < wanted:
        text = RULES[number % len(RULES)]
        with tempfile.TemporaryDirectory() as folder:
            found = play(Path(folder), number, min(USERS, wanted - total["users"]), loop_of(text))
        total = {name: total[name] + found[name] for name in total}
        columns = "  ".join(f"{found[name]:>9}" for name in total)
        print(f"{number:>5}  {number % len(RULES):>4}  {columns}")
        number += 1
    print(json.dumps({"name": "memory", **total, "seconds": round(time.perf_counter() - started, 1)}))
    sys.exit(total["differ"] > 0)


def play(
    folder: Path,
    seed: int,
    users: int,
    loop: LoopSettings,
    ticks: int = TICKS,
    open_store: Callable[[], Any] | None = None,
) -> dict[str, int]:
    """Return what one world held, and how many memories differed between service and gate.

    Args:
        folder: an empty one.
        seed: of the world.
        users: how many.
        loop: its definition of a reward.
        ticks: how long.
        open_store: opens the memories, as a restart does; those on disk when None.
    """
    rng, now = np.random.default_rng(seed), [START]
    world = World(folder, clock=lambda: now[0].timestamp())
    oracles = (oracle(), oracle(9))
    opening = open_store or (lambda: Memories(folder / "sessions.sqlite", "shop"))
    store = _opened(opening, loop, oracles[0])
    served: list[dict[str, Any]] = [{}, {}]
    coming: list[tuple[int, Outcome]] = []
    reports = 0
    for tick in range(ticks):
        at_ms = (tick + 1) * TICK_MS
        arrived = sorted((entry for entry in coming if entry[0] <= at_ms), key=lambda entry: entry[0])
        coming = [entry for entry in coming if entry[0] > at_ms]
        for arrives, together in groupby(arrived, key=lambda entry: entry[0]):
            now[0] = START + timedelta(milliseconds=arrives)
            world.append(*(record for _, record in together))
        now[0] = START + timedelta(milliseconds=at_ms)
        if rng.random() < 0.2:  # a restart, or another policy in charge
            store.close()
            store = _opened(opening, loop, oracles[int(rng.integers(2))])
        store.follow(world.log, now[0])
        decided = [made for user in range(users) for made in _decisions(rng, user, tick, now[0])]
        for which, each in enumerate(oracles):
            used = remembering(each, rule_of(loop))
            for record in decided:
                assert record.subject_id is not None
                served[which][record.event_id] = store.online(record.subject_id, now[0], used)
        world.append(*decided)
        for record in decided:
            made = list(_reports(rng, record, at_ms))
            reports += len(made)
            coming += made
    store.close()
    now[0] = START + timedelta(milliseconds=(ticks + 30) * TICK_MS)
    world.append(*(record for _, record in sorted(coming, key=lambda entry: entry[0])))
    ingest(world.log, world.lake)
    join(world.lake, loop, LATER)
    differ = sum(_differing(world, loop, each, held) for each, held in zip(oracles, served, strict=True))
    world.log.close()
    remembered = sum(state is not None for held in served for state in held.values())
    decisions = len(served[0])
    return {"users": users, "decisions": decisions, "reports": reports, "remembered": remembered, "differ": differ}


def _opened(open_store: Callable[[], Any], loop: LoopSettings, which: SessionOracle) -> Any:
    store = open_store()
    store.use([remembering(which, rule_of(loop))])
    return store


def _decisions(rng: np.random.Generator, user: int, tick: int, at: Any) -> list[Decision]:
    count = 20 if user < HEAVY else int(rng.choice([0, 0, 0, 1, 1, 2]))
    actions = msgspec.Raw(b"[{},{},{}]")
    return [
        decision(
            f"u{user}-{tick}-{number}",
            subject_id=f"u{user}",
            ts=at,
            actions=actions,
            action_ids=ACTIONS,
            pmf=[0.5, 0.25, 0.25],
            action_index=(index := int(rng.integers(3))),
            propensity=[0.5, 0.25, 0.25][index],
            deferred=bool(rng.random() < 0.3),
        )
        for number in range(count)
    ]


def _reports(rng: np.random.Generator, record: Decision, at_ms: int) -> list[tuple[int, Outcome]]:
    """Return what is reported of a decision, with the milliseconds at which it arrives."""
    out: list[tuple[int, Outcome]] = []
    for number in range(int(rng.choice([0, 1, 1, 2, 3]))):
        after = int(rng.choice([-2_000, -500, 0, 100, 400, 900, 2_500, 7_000]))
        late = int(rng.choice([0, 0, 0, 50, 1_500, 20_000]))
        value = float(rng.choice([0.0, 1.0, 0.5, 3.25, 40.0, -7.0, 1e300]))
        name = str(rng.choice(["reward", "reward", "click", "activation"]))
        key = f"k{rng.integers(2)}" if rng.random() < 0.3 else None
        said = outcome(
            record.event_id, value, ts=record.ts + timedelta(milliseconds=after), name=name, idempotency_key=key
        )
        arrives = at_ms + 50 + max(after, 0) + late + 50 * number
        out.append((arrives, said))
        if rng.random() < 0.2:
            out.append((arrives + 50, said))
    return out


def _differing(world: World, loop: LoopSettings, each: SessionOracle, served: dict[str, list[float] | None]) -> int:
    """Return at how many decisions the gate's memory is another than the service's."""
    differ, seen = 0, 0
    start = each.start().tolist()
    for _, turns, _ in turns_of(world.lake, loop):
        for turn, state in zip(turns, memories(each, turns, rule_of(loop)), strict=True):
            seen += 1
            held = served[turn.event_id]
            differ += (start if held is None else held) != state.tolist()
    return differ + abs(seen - len(served))


if __name__ == "__main__":
    main()
