"""What became of a loop's decisions: the counters of the identity ``decided = joined + pending + expired + dropped``.

Each is counted by itself, in tables that are read at one moment: *decided* from the decisions, *joined*, *expired* and
*dropped* from the interactions, *pending* as the decisions without an interaction. So the identity is a check and not
a definition. While an erasure is under way, or where one was stopped, an interaction may outlive its decision: it is
counted by itself and nowhere else, so the identity needs no wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable

from pipelines.interactions.join import instant_us, open_decisions, partitions_of, place_of, rule_of
from pipelines.lake.lake import Lake, mark_of
from pipelines.lake.moment import at_one_moment
from pipelines.lake.schemas import Table
from pipelines.settings import LoopSettings

_TABLES: tuple[Table, ...] = ("interactions", "outcomes", "decisions", "dead_letters")


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
        orphan_interactions: settled decisions that are in the lake no more. An erasure is under way, or it was stopped
            and has to be run again.
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
    orphan_interactions: int
    duplicates_seen: int
    dead_letters: int

    @property
    def balanced(self) -> bool:
        """Whether ``decided = joined + pending + expired + dropped``."""
        return self.decided == self.joined + self.pending + self.expired + sum(self.dropped.values())


def counters(lake: Lake, loop: LoopSettings, now: datetime) -> Counters:
    """Return the counters of `loop` at `now`; all of them are of one moment of the lake.

    Args:
        lake: the tables.
        loop: the loop; its reward window says which pending decisions are mature.
        now: the time, with its UTC offset.

    Raises:
        FieldError: `now` has no UTC offset.
        NoMomentError: others kept committing; ask again.
    """
    now_us = instant_us(now)
    return at_one_moment(lake, _TABLES, lambda tables: _counted(tables, loop, now_us))


def _counted(tables: Mapping[Table, DeltaTable], loop: LoopSettings, now_us: int) -> Counters:
    interactions, decisions = tables["interactions"], tables["decisions"]
    rows: dict[Table, ds.Dataset] = {name: table.to_pyarrow_dataset() for name, table in tables.items()}
    window_us, here = rule_of(loop).window_us, pc.field("loop") == loop.name
    still_open = [open_decisions(interactions, decisions, loop.name, p)[1] for p in partitions_of(decisions, loop.name)]
    states, gone = _states(rows, loop.name, partitions_of(interactions, loop.name))
    late, orphans = _strays(rows, loop.name, partitions_of(tables["outcomes"], loop.name))
    return Counters(
        decided=rows["decisions"].count_rows(filter=here),
        joined=states["joined"],
        pending=sum(map(len, still_open)),
        mature=sum(int(np.count_nonzero(ts + window_us <= now_us)) for ts in still_open),
        expired=states["expired"],
        dropped={key.removeprefix("dropped/"): n for key, n in sorted(states.items()) if key.startswith("dropped/")},
        outcomes=rows["outcomes"].count_rows(filter=here),
        late_outcomes=late,
        orphan_outcomes=orphans,
        orphan_interactions=gone,
        duplicates_seen=_duplicates(decisions, loop.name),
        dead_letters=rows["dead_letters"].count_rows(),
    )


def _states(rows: Mapping[Table, ds.Dataset], loop: str, partitions: list[int]) -> tuple[Counter[str], int]:
    """Return how many decisions are in each state, and how many interactions have no decision any more."""
    states, gone = Counter[str](), 0
    for partition in partitions:
        place = place_of(loop, partition)
        settled = rows["interactions"].to_table(["offset", "state", "reason"], filter=place)
        decided = rows["decisions"].to_table(["offset"], filter=place)["offset"].to_numpy()
        there = np.isin(settled["offset"].to_numpy(), decided)
        gone += int(np.count_nonzero(~there))
        counts = settled.filter(pa.array(there)).group_by(["state", "reason"]).aggregate([([], "count_all")])
        for row in counts.to_pylist():
            key = row["state"] if row["reason"] is None else f"{row['state']}/{row['reason']}"
            states[key] += row["count_all"]
    return states, gone


def _duplicates(decisions: DeltaTable, loop: str) -> int:
    partitions = {int(values["partition"]) for values in decisions.partitions()}
    return sum(mark_of(decisions, f"duplicates/{loop}/{p}") or 0 for p in range(max(partitions, default=-1) + 1))


def _strays(rows: Mapping[Table, ds.Dataset], loop: str, partitions: list[int]) -> tuple[int, int]:
    """Return how many outcomes came too late for their decision, and how many have none."""
    late = orphans = 0
    connection = duckdb.connect()
    try:
        for partition in partitions:
            place = place_of(loop, partition)
            tables: dict[str, Any] = {
                "arrived": rows["outcomes"].scanner(filter=place, columns=_OUTCOME_COLUMNS).to_reader(),
                "decided": rows["decisions"].scanner(filter=place, columns=_KEY).to_reader(),
                "settled": rows["interactions"].scanner(filter=place, columns=_SETTLED_COLUMNS).to_reader(),
            }
            for name, table in tables.items():
                connection.register(name, table)
            # all of it: a result that is not read to its end keeps the connection busy
            found = connection.execute(_STRAYS).fetchall()[0]
            late, orphans = late + int(found[0]), orphans + int(found[1])
    except duckdb.Error as error:  # a file that could not be read is told as an error of the query
        raise OSError(f"outcomes of the loop {loop!r} cannot be read: {error}") from error
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
           d.event_id IS NOT NULL AND s.event_id IS NOT NULL
           AND (o.position >= s.outcomes_until OR epoch_us(o.ts) > epoch_us(s.ts) + s.window_us)
       ) AS late,
       count(*) FILTER (d.event_id IS NULL) AS orphans
FROM outcome o
LEFT JOIN (SELECT DISTINCT event_id, slot FROM decided) d USING (event_id, slot)
LEFT JOIN settled s USING (event_id, slot)
"""
