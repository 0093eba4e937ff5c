"""Records on a real local log, and a lake beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from decision.draw import seed_of
from decision.records import SCHEMA_VERSION, Decision, Outcome, encode
from pipelines.lake.lake import Lake
from pipelines.log.protocol import DECISIONS, OUTCOMES, Headers
from pipelines.log.sqlite.log import LocalLog
from pipelines.settings import LoopSettings, parse_loop

START = datetime(2026, 1, 1, tzinfo=UTC)
LOOP = parse_loop("", "shop", {})
WINDOW = timedelta(seconds=LOOP.reward.window_s)
LATER = START + timedelta(days=30)


def loop_of(text: str, name: str = "shop") -> LoopSettings:
    return parse_loop(text, name, {})


def decision(event_id: str, **changes: object) -> Decision:
    values: dict[str, object] = {
        "schema_version": SCHEMA_VERSION,
        "loop": "shop",
        "event_id": event_id,
        "ts": START,
        "subject_id": "ann",
        "context": msgspec.Raw(b'{"country":"fr","age":41.5}'),
        "actions": msgspec.Raw(b'[{"price":1.5},{"price":2}]'),
        "action_ids": ["a", "b"],
        "pmf": [0.75, 0.25],
        "action_index": 1,
        "propensity": 0.25,
        "policy_version": "3",
        "baseline_version": "uniform",
        "seed": seed_of("shop", event_id),
    }
    return Decision(**(values | changes))  # type: ignore[arg-type]


def outcome(event_id: str, value: float = 1.0, after: float = 5.0, **changes: object) -> Outcome:
    values: dict[str, object] = {
        "schema_version": SCHEMA_VERSION,
        "loop": "shop",
        "event_id": event_id,
        "value": value,
        "ts": START + timedelta(seconds=after),
    }
    return Outcome(**(values | changes))  # type: ignore[arg-type]


class World:
    """A log with two partitions, and a lake beside it or at an address."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] | None = None, lake: str | None = None) -> None:
        self.path = folder / "log.db"
        self.log = LocalLog(self.path, **({"clock": clock} if clock else {}))
        for topic in (DECISIONS, OUTCOMES):
            self.log.create(topic, 2)
        self.lake = Lake(folder / "lake" if lake is None else lake)

    def append(self, *records: Decision | Outcome, headers: Headers = ()) -> None:
        for topic, kind in ((DECISIONS, Decision), (OUTCOMES, Outcome)):
            self.log.append_many(
                topic, [(r.event_id.encode(), encode(r), headers) for r in records if isinstance(r, kind)]
            )

    def append_raw(self, topic: str, items: Iterable[tuple[bytes, bytes]]) -> None:
        self.log.append_many(topic, [(key, value, ()) for key, value in items])

    def state_of(self, loop: str = "shop") -> dict[str, tuple[str, float | None]]:
        """Return (state, reward) by event id of every settled decision, dropped ones included."""
        rows = self.lake.table("interactions").to_pyarrow_table()
        return {r["event_id"]: (r["state"], r["reward"]) for r in rows.to_pylist() if r["loop"] == loop}
