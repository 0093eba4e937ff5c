"""What became of a loop's decisions: the counters of the identity ``decided = joined + pending + expired + dropped``.

Each is counted by itself, in tables that are read at one moment: *decided* from the decisions, *joined*, *expired* and
*dropped* from the interactions, *pending* as the decisions without an interaction. So the identity is a check and not
a definition.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime
from typing import Any

import duckdb
import msgspec
import numpy as np
import pyarrow.compute as pc
from deltalake import DeltaTable

from pipelines.interactions.join import instant_us, open_decisions, partitions_of, place_of, rule_of
from pipelines.lake.lake import ERASURES, Lake, mark_of
from pipelines.settings import LoopSettings

_ATTEMPTS = 100
_PAUSE_S = 0.05


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a loop's decisions.

    Attributes:
        decided: decisions in the lake.
        joined: settled with an outcome.
        pending: not settled yet.
        mature: those of the pending whose reward window is over, and which the next join settles.
        expired: settled without an outcome, with the default reward.
        dropped: left out of the interactions, by reason.
        outcomes: outcomes in the lake.
        late_outcomes: outcomes of settled decisions that came too late to count.
        orphan_outcomes: outcomes whose decision is not in the lake.
        duplicates_seen: repeated decisions that were left out.
        dead_letters: messages that fit no schema, of all loops: most do not say which they belong to.
    """

    decided: int
    joined: int
    pending: int
    mature: int
    expired: int
    dropped: dict[str, int]
    outcomes: int
    late_outcomes: int
    orphan_outcomes: int
    duplicates_seen: int
    dead_letters: int

    @property
    def balanced(self) -> bool:
        """Whether ``decided = joined + pending + expired + dropped``."""
        return self.decided == self.joined + self.pending + self.expired + sum(self.dropped.values())


def counters(lake: Lake, loop: LoopSettings, now: datetime) -> Counters:
    """Return the counters of `loop` at `now`.

    Args:
        lake: the tables.
        loop: the loop; its reward window says which pending decisions are mature.
        now: the time, with its UTC offset.

    Raises:
        FieldError: `now` has no UTC offset.
    """
    now_us, window_us = instant_us(now), rule_of(loop).window_us
    interactions, decisions = _at_one_moment(lake)
    outcomes = lake.table("outcomes")
    here = pc.field("loop") == loop.name
    partitions = partitions_of(decisions, loop.name)
    still_open = [open_decisions(interactions, decisions, loop.name, p)[1] for p in partitions]
    states = _states(interactions, loop.name)
    late, orphans = _strays(interactions, decisions, outcomes, loop.name)
    return Counters(
        decided=decisions.to_pyarrow_dataset().count_rows(filter=here),
        joined=states["joined"],
        pending=sum(map(len, still_open)),
        mature=sum(int(np.count_nonzero(ts + window_us <= now_us)) for ts in still_open),
        expired=states["expired"],
        dropped={key.removeprefix("dropped/"): n for key, n in sorted(states.items()) if key.startswith("dropped/")},
        outcomes=outcomes.to_pyarrow_dataset().count_rows(filter=here),
        late_outcomes=late,
        orphan_outcomes=orphans,
        duplicates_seen=_duplicates(decisions, loop.name),
        dead_letters=lake.table("dead_letters").to_pyarrow_dataset().count_rows(),
    )


def _at_one_moment(lake: Lake) -> tuple[DeltaTable, DeltaTable]:
    """Return interactions and decisions such that every interaction's decision is there.

    Interactions are read first: what is decided or joined meanwhile makes no difference then. Only an erasure takes
    decisions away; while one is under way this waits for it, but not for ever, because it may have been killed.
    """
    before = mark_of(lake.table("decisions"), ERASURES) or 0
    for _ in range(_ATTEMPTS):
        interactions, decisions = lake.table("interactions"), lake.table("decisions")
        erasures = mark_of(decisions, ERASURES) or 0
        if erasures == before and erasures % 2 == 0:
            break
        before = erasures
        time.sleep(_PAUSE_S)
    return interactions, decisions  # pyright: ignore[reportPossiblyUnboundVariable]


def _states(interactions: DeltaTable, loop: str) -> Counter[str]:
    here = pc.field("loop") == loop
    rows = interactions.to_pyarrow_dataset().to_table(["state", "reason"], filter=here)
    counts = rows.group_by(["state", "reason"]).aggregate([([], "count_all")]).to_pylist()
    return Counter(
        {
            row["state"] if row["reason"] is None else f"{row['state']}/{row['reason']}": row["count_all"]
            for row in counts
        }
    )


def _duplicates(decisions: DeltaTable, loop: str) -> int:
    partitions = {int(values["partition"]) for values in decisions.partitions()}
    return sum(mark_of(decisions, f"duplicates/{loop}/{p}") or 0 for p in range(max(partitions, default=-1) + 1))


def _strays(interactions: DeltaTable, decisions: DeltaTable, outcomes: DeltaTable, loop: str) -> tuple[int, int]:
    """Return how many outcomes came too late for their decision, and how many have none."""
    late = orphans = 0
    connection = duckdb.connect()
    try:
        for partition in partitions_of(outcomes, loop):
            place = place_of(loop, partition)
            tables: dict[str, Any] = {
                "arrived": outcomes.to_pyarrow_dataset().scanner(filter=place, columns=_OUTCOME_COLUMNS).to_reader(),
                "decided": decisions.to_pyarrow_dataset().scanner(filter=place, columns=_KEY).to_reader(),
                "settled": interactions.to_pyarrow_dataset()
                .scanner(filter=place, columns=_SETTLED_COLUMNS)
                .to_reader(),
            }
            for name, table in tables.items():
                connection.register(name, table)
            # all of it: a result that is not read to its end keeps the connection busy
            found = connection.execute(_STRAYS).fetchall()[0]
            late, orphans = late + int(found[0]), orphans + int(found[1])
    finally:
        connection.close()
    return late, orphans


_KEY = ["event_id", "slot"]
_OUTCOME_COLUMNS = [*_KEY, "offset", "ts", "name", "idempotency_key", "spool", "spool_offset"]
_SETTLED_COLUMNS = [*_KEY, "ts", "outcomes_until", "window_us"]
# An outcome that arrived twice is one outcome; the first copy counts.
_STRAYS = """
WITH outcome AS (
    SELECT event_id, slot, min("offset") AS position, min(ts) AS ts
    FROM arrived
    GROUP BY event_id, slot, name,
             coalesce('k' || idempotency_key, 's' || spool || ':' || spool_offset, 'o' || "offset")
)
SELECT count(*) FILTER (
           s.event_id IS NOT NULL
           AND (o.position >= s.outcomes_until OR epoch_us(o.ts) > epoch_us(s.ts) + s.window_us)
       ) AS late,
       count(*) FILTER (d.event_id IS NULL) AS orphans
FROM outcome o
LEFT JOIN (SELECT DISTINCT event_id, slot FROM decided) d USING (event_id, slot)
LEFT JOIN settled s USING (event_id, slot)
"""
