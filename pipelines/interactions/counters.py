"""What became of a loop's decisions: the counters of the identity ``decided = joined + pending + expired + dropped``.

Each is counted by itself, in tables that are read at one moment: *decided* from the decisions, *joined*, *expired* and
*dropped* from the interactions, *pending* as the decisions without an interaction. So the identity is a check and not
a definition. While an erasure is under way, or where one was stopped, an interaction may outlive its decision: it is
counted by itself and nowhere else, so the identity needs no wait.

A short history is counted row by row. Of a long one, what is settled is read off what the log of commits
says of the files, whose rows have one state each; rows are looked at only from the join's position on. So a look does
not grow with history. `in_full` counts every row again, whatever the length: ``decision verify``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from deltalake import DeltaTable

from decision.join import ACTIVATION
from pipelines.ingestion.conflicts import conflict_mark, late_conflicts
from pipelines.interactions.doubtful import range_of
from pipelines.interactions.window import HISTORY, instant_us, join_mark, window_us
from pipelines.lake.moment import at_one_moment
from pipelines.lake.statistics import actions_of, one_value
from pipelines.lake.tables import Tables, mark_of, rows_of
from pipelines.settings import LoopSettings

if TYPE_CHECKING:
    from pipelines.lake.schemas import Table

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
        late_outcomes: outcomes of settled decisions that came too late to count; None where history is too long to
            look for them and was not counted in full.
        orphan_outcomes: outcomes whose decision is not in the lake; None likewise.
        orphan_interactions: settled decisions that are in the lake no more. An erasure is under way, or it was stopped
            and has to be run again.
        duplicates_seen: repeated decisions that were left out.
        dead_letters: messages that fit no schema, of all loops: most do not say which they belong to. Conflicts are
            among them.
        doubtful: outcomes that say less than was meant, by the field in doubt: a ``name`` that changes no reward, a
            ``value`` outside of the reward's range, an ``event_id`` that is no decision's (the orphan outcomes), an
            ``action_id`` that its decision did not draw; empty where `late_outcomes` is None.
        conflicts_seen: other answers to an event that already had one; they are left out.
        late_conflicts: those that came after the event's decision was settled, and which a restatement counts; None as
            for `late_outcomes`.
    """

    decided: int
    joined: int
    pending: int
    mature: int
    expired: int
    dropped: dict[str, int]
    outcomes: int
    late_outcomes: int | None
    orphan_outcomes: int | None
    orphan_interactions: int
    duplicates_seen: int
    dead_letters: int
    doubtful: dict[str, int] = {}
    conflicts_seen: int = 0
    late_conflicts: int | None = None

    @property
    def balanced(self) -> bool:
        """Whether ``decided = joined + pending + expired + dropped``."""
        return self.decided == self.joined + self.pending + self.expired + sum(self.dropped.values())


def counters(tables: Tables, loop: LoopSettings, now: datetime, *, in_full: bool = False) -> Counters:
    """Return the counters of `loop` at `now`; all of them are of one moment of the lake.

    Args:
        tables: the lake's.
        loop: the loop; its reward window says which pending decisions are mature.
        now: the time, with its UTC offset.
        in_full: look at every row, however many there are.

    Raises:
        FieldError: `now` has no UTC offset.
        NoMomentError: others kept committing; ask again.
    """
    now_us = instant_us(now)
    return at_one_moment(tables, _TABLES, lambda opened: _counted(opened, loop, now_us, in_full))


def _counted(tables: Mapping[Table, DeltaTable], loop: LoopSettings, now_us: int, in_full: bool) -> Counters:
    found, reward = Counter[str](), loop.reward
    held: dict[Table, list[_File]] = {name: _held(tables[name], loop.name) for name in _PARTITIONED}
    every = in_full or sum(file.rows for files in held.values() for file in files) <= ROW_BY_ROW
    low, high = range_of(reward)
    # Made once: of a table with hundreds of files that takes longer than all that is read of it.
    data: dict[Table, Any] = {} if every else {name: tables[name].to_pyarrow_dataset() for name in _SETTLING}
    named = {
        "reward": _text(reward.outcome),
        "known": ", ".join(map(_text, {reward.outcome, ACTIVATION, *reward.beside})),
        "outside": " OR ".join([f"value < {low!r}"] * math.isfinite(low) + [f"value > {high!r}"] * math.isfinite(high))
        or "FALSE",
    }
    for partition in sorted({file.partition for files in held.values() for file in files}):
        values = {
            "here": f"loop = '{loop.name}' AND partition = {partition}",
            "position": mark_of(tables["interactions"], join_mark(loop.name, partition)) or 0,
            "mature_us": now_us - window_us(loop),
            "activation": ACTIVATION,
        }
        here: dict[Table, list[_File]] = {
            name: [file for file in files if file.partition == partition] for name, files in held.items()
        }
        found["decided"] += sum(file.rows for file in here["decisions"])
        found["outcomes"] += sum(file.rows for file in here["outcomes"])
        if every:
            for query in (_STATES, _OPEN, _STRAYS, _DOUBTFUL):
                found += _of(query.format(**values, **named), tables)
            if "action_id" in {each.name for each in tables["outcomes"].schema().fields}:
                found += _of(_ELSEWHERE.format(**values), tables)
            found["late_conflicts"] += late_conflicts(tables, loop.name, partition)
            continue
        place = _Place(loop.name, partition, values["position"], values["mature_us"])
        beyond = _beyond(data, place)
        found["pending"] += beyond.pending
        found["mature"] += beyond.mature
        settled = _settled(here, beyond)
        found += _of(_STATES.format(**values), tables) if settled is None else settled
    logged = (int(each["partition"]) for each in tables["decisions"].partitions())
    partitions = range(max((number for number in logged if number < HISTORY), default=-1) + 1)
    doubtful = {name: found[name] for name in ("name", "value", "action_id")} | {"event_id": found["orphan_outcomes"]}
    dropped = {what.removeprefix("dropped/"): n for what, n in sorted(found.items()) if what.startswith("dropped/")}
    return Counters(
        decided=found["decided"],
        joined=found["joined"],
        pending=found["pending"],
        mature=found["mature"],
        expired=found["expired"],
        outcomes=found["outcomes"],
        orphan_interactions=found["orphan_interactions"],
        late_outcomes=found["late_outcomes"] if every else None,
        orphan_outcomes=found["orphan_outcomes"] if every else None,
        dropped=dropped,
        duplicates_seen=sum(mark_of(tables["decisions"], f"duplicates/{loop.name}/{p}") or 0 for p in partitions),
        dead_letters=sum(row["num_records"] for row in actions_of(tables["dead_letters"])),
        doubtful={name: n for name, n in doubtful.items() if n},
        conflicts_seen=sum(mark_of(tables["dead_letters"], conflict_mark(loop.name, p)) or 0 for p in partitions),
        late_conflicts=found["late_conflicts"] if every else None,
    )


class _File(NamedTuple):
    partition: int
    rows: int
    state: str | None  # of every row, with its reason; None where its name does not say


def _held(table: DeltaTable, loop: str) -> list[_File]:
    """Return the files with rows of `loop`."""
    return [
        _File(int(row["partition.partition"]), row["num_records"], "/".join(one_value(row["path"]) or ()) or None)
        for row in actions_of(table)
        if row["partition.loop"] == loop
    ]


class _Place(NamedTuple):
    """A partition, and the join's position in it."""

    loop: str
    partition: int
    position: int
    mature_us: int


class _Beyond(NamedTuple):
    """Rows from the join's position on."""

    decided: int
    settled: int
    pending: int
    mature: int
    orphans: int


def _beyond(data: Mapping[Table, Any], place: _Place) -> _Beyond:
    """Return what is there beyond the join's position; files that end before it are not opened.

    Args:
        data: decisions and interactions, as datasets.
        place: the partition and the position.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    here = (pc.field("loop") == place.loop) & (pc.field("partition") == place.partition)
    here &= pc.field("offset") >= place.position
    decided = data["decisions"].to_table(["offset", "ts"], filter=here)
    settled = data["interactions"].to_table(["offset"], filter=here)["offset"].to_numpy()
    offsets = decided["offset"].to_numpy()
    is_open = ~np.isin(offsets, settled)
    mature = is_open & (decided["ts"].cast(pa.int64()).to_numpy() <= place.mature_us)
    return _Beyond(
        decided=len(offsets),
        settled=len(settled),
        pending=int(is_open.sum()),
        mature=int(mature.sum()),
        orphans=int((~np.isin(settled, offsets)).sum()),
    )


def _settled(here: Mapping[Table, list[_File]], beyond: _Beyond) -> Counter[str] | None:
    """Return how many interactions of a partition have which state, None where files do not say so for sure.

    Below the join's position each decision has one interaction. Where their numbers differ, or an interaction beyond
    it has no decision, interactions outlived their decisions, and rows have to be looked at.

    Args:
        here: the partition's files.
        beyond: what is there from the join's position on.
    """
    decided, settled = (sum(file.rows for file in here[name]) for name in ("decisions", "interactions"))
    whole = decided - beyond.decided == settled - beyond.settled and not beyond.orphans
    if not whole or any(file.state is None for file in here["interactions"]):
        return None
    found = Counter[str]()
    for file in here["interactions"]:
        found[str(file.state)] += file.rows
    return found


def _of(query: str, tables: Mapping[Table, DeltaTable]) -> Counter[str]:
    found = Counter[str]()
    for row in rows_of(query, tables):
        found[row["what"]] += row["n"]
    return found


def _text(name: str) -> str:
    """Return a name as SQL's text."""
    return "'" + name.replace("'", "''") + "'"


_SETTLING: tuple[Table, ...] = ("decisions", "interactions")
_PARTITIONED: tuple[Table, ...] = ("decisions", "outcomes", "interactions")
ROW_BY_ROW = 100_000
"""Rows of a loop, in all tables, up to which they are counted one by one."""

# Each query gives rows of `what` and `n`, for one loop and partition, whose rows of all tables meet nobody else's.
_STATES = """
SELECT CASE WHEN d."offset" IS NULL THEN 'orphan_interactions'
            WHEN i.reason IS NULL THEN i.state ELSE i.state || '/' || i.reason END AS what, count(*) AS n
FROM (SELECT "offset", state, reason FROM interactions WHERE {here}) i
LEFT JOIN (SELECT "offset" FROM decisions WHERE {here}) d ON d."offset" = i."offset"
GROUP BY 1
"""
# Below the join's position every decision is settled.
_OPEN = """
WITH open AS (
    SELECT d.us FROM (
        SELECT "offset", arrow_cast(ts, 'Int64') AS us FROM decisions WHERE {here} AND "offset" >= {position}) d
    LEFT ANTI JOIN (SELECT "offset" FROM interactions WHERE {here} AND "offset" >= {position}) i
    ON d."offset" = i."offset"
)
SELECT 'pending' AS what, count(*) AS n FROM open
UNION ALL SELECT 'mature', count(*) FROM open WHERE us <= {mature_us}
"""
# An outcome that arrived twice is one outcome; the first copy counts.
_STRAYS = """
WITH outcome AS (
    SELECT event_id, slot, name, min("offset") AS position, min(arrow_cast(ts, 'Int64')) AS us
    FROM outcomes WHERE {here}
    GROUP BY event_id, slot, name,
             coalesce('k' || idempotency_key, 's' || spool || ':' || spool_offset, 'o' || "offset")
), stray AS (
    SELECT CASE WHEN d.event_id IS NULL AND e.event_id IS NULL THEN 'orphan_outcomes'
                WHEN o.position >= s.outcomes_until OR o.us > s.us + s.window_us THEN 'late_outcomes' END AS what
    FROM outcome o
    LEFT JOIN (SELECT DISTINCT event_id, slot FROM decisions WHERE {here}) d
        ON d.event_id = o.event_id AND d.slot = o.slot
    LEFT JOIN (SELECT DISTINCT event_id FROM decisions WHERE {here} AND slot <> '') e
        ON e.event_id = o.event_id AND o.slot = '' AND o.name = '{activation}'
    LEFT JOIN (
        SELECT event_id, slot, arrow_cast(ts, 'Int64') AS us, outcomes_until, window_us FROM interactions WHERE {here}
    ) s ON s.event_id = o.event_id AND s.slot = o.slot
)
SELECT what, count(*) AS n FROM stray WHERE what IS NOT NULL GROUP BY what
"""
_DOUBTFUL = """
SELECT 'name' AS what, count(*) AS n FROM outcomes WHERE {here} AND name NOT IN ({known})
UNION ALL SELECT 'value', count(*) FROM outcomes WHERE {here} AND name = {reward} AND ({outside})
"""
# A table that older code wrote has no such column.
_ELSEWHERE = """
SELECT 'action_id' AS what, count(*) AS n
FROM (SELECT event_id, slot, action_id FROM outcomes WHERE {here} AND action_id IS NOT NULL) o
JOIN (SELECT event_id, slot, array_element(action_ids, action_index + 1) AS drawn FROM decisions WHERE {here}) d
    ON d.event_id = o.event_id AND d.slot = o.slot
WHERE d.drawn <> o.action_id
"""
