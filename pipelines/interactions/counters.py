"""What became of a loop's decisions: the counters of the identity ``decided = joined + pending + expired + dropped``.

Each is counted by itself, in tables that are read at one moment: *decided* from the decisions, *joined*, *expired* and
*dropped* from the interactions, *pending* as the decisions without an interaction. So the identity is a check and not
a definition. While an erasure is under way, or where one was stopped, an interaction may outlive its decision: it is
counted by itself and nowhere else, so the identity needs no wait.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
from deltalake import DeltaTable

from decision.join import ACTIVATION
from pipelines.interactions.doubtful import range_of
from pipelines.interactions.window import instant_us, join_mark, window_us
from pipelines.lake.moment import at_one_moment
from pipelines.lake.tables import Tables, mark_of, partitions_of, rows_of
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
        late_outcomes: outcomes of settled decisions that came too late to count.
        orphan_outcomes: outcomes whose decision is not in the lake.
        orphan_interactions: settled decisions that are in the lake no more. An erasure is under way, or it was stopped
            and has to be run again.
        duplicates_seen: repeated decisions that were left out.
        dead_letters: messages that fit no schema, of all loops: most do not say which they belong to.
        doubtful: outcomes that say less than was meant, by the field in doubt: a ``name`` that changes no reward, a
            ``value`` outside of the reward's range, an ``event_id`` that is no decision's (the orphan outcomes).
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
    doubtful: dict[str, int] = {}

    @property
    def balanced(self) -> bool:
        """Whether ``decided = joined + pending + expired + dropped``."""
        return self.decided == self.joined + self.pending + self.expired + sum(self.dropped.values())


def counters(tables: Tables, loop: LoopSettings, now: datetime) -> Counters:
    """Return the counters of `loop` at `now`; all of them are of one moment of the lake.

    Args:
        tables: the lake's.
        loop: the loop; its reward window says which pending decisions are mature.
        now: the time, with its UTC offset.

    Raises:
        FieldError: `now` has no UTC offset.
        NoMomentError: others kept committing; ask again.
    """
    now_us = instant_us(now)
    return at_one_moment(tables, _TABLES, lambda opened: _counted(opened, loop, now_us))


def _counted(tables: Mapping[Table, DeltaTable], loop: LoopSettings, now_us: int) -> Counters:
    found, reward = Counter[str](), loop.reward
    low, high = range_of(reward)
    named = {
        "reward": _text(reward.outcome),
        "known": ", ".join(map(_text, {reward.outcome, ACTIVATION, *reward.others})),
        "outside": " OR ".join([f"value < {low!r}"] * math.isfinite(low) + [f"value > {high!r}"] * math.isfinite(high))
        or "FALSE",
    }
    for partition in sorted({p for name in _PARTITIONED for p in partitions_of(tables[name], loop.name)}):
        values = {
            "here": f"loop = '{loop.name}' AND partition = {partition}",
            "position": mark_of(tables["interactions"], join_mark(loop.name, partition)) or 0,
            "mature_us": now_us - window_us(loop),
            "activation": ACTIVATION,
        }
        for query in (_STATES, _OPEN, _STRAYS, _DOUBTFUL):
            for row in rows_of(query.format(**values, **named), tables):
                found[row["what"]] += row["n"]
    letters = rows_of("SELECT count(*) AS n FROM dead_letters", {"dead_letters": tables["dead_letters"]})
    doubtful = {"name": found["name"], "value": found["value"], "event_id": found["orphan_outcomes"]}
    dropped = {what.removeprefix("dropped/"): n for what, n in sorted(found.items()) if what.startswith("dropped/")}
    return Counters(
        **{name: found[name] for name in _COUNTED},
        dropped=dropped,
        duplicates_seen=_duplicates(tables["decisions"], loop.name),
        dead_letters=letters[0]["n"],
        doubtful={name: n for name, n in doubtful.items() if n},
    )


def _text(name: str) -> str:
    """Return a name as SQL's text."""
    return "'" + name.replace("'", "''") + "'"


def _duplicates(decisions: DeltaTable, loop: str) -> int:
    partitions = {int(values["partition"]) for values in decisions.partitions()}
    return sum(mark_of(decisions, f"duplicates/{loop}/{p}") or 0 for p in range(max(partitions, default=-1) + 1))


_PARTITIONED: tuple[Table, ...] = ("decisions", "outcomes", "interactions")
_COUNTED = (
    *("decided", "joined", "pending", "mature", "expired"),
    *("outcomes", "late_outcomes", "orphan_outcomes", "orphan_interactions"),
)

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
SELECT 'decided' AS what, count(*) AS n FROM decisions WHERE {here}
UNION ALL SELECT 'pending', count(*) FROM open
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
UNION ALL SELECT 'outcomes', count(*) FROM outcomes WHERE {here}
"""
_DOUBTFUL = """
SELECT 'name' AS what, count(*) AS n FROM outcomes WHERE {here} AND name NOT IN ({known})
UNION ALL SELECT 'value', count(*) FROM outcomes WHERE {here} AND name = {reward} AND ({outside})
"""
