"""Events that were answered in two ways: by replicas that did not know of each other, while what they share was away.

The first answer that came to the log is the decision. Ingestion keeps any other as a dead letter under the field
`CONFLICT`, and counts it by loop and partition in the same transaction. Which one the caller acted on, only an outcome
that names the action can say; `decision.join` counts no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from decision.validation import prepared
from pipelines.lake.tables import mark_of

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from decision.join import Bools
    from pipelines.lake.schemas import Table

CONFLICT = "conflict"
"""The field that is at fault in such a dead letter."""


class Conflicts(NamedTuple):
    """Other answers to events of a loop in a log partition, as far as somebody looked.

    Attributes:
        events: offset of each other answer, with its event.
        until: where the log's partition was read to.
    """

    events: list[tuple[int, str]]
    until: int

    def among(self, events: Sequence[str]) -> Bools | None:
        """Return [n] which of `events` ([n]) have another answer; None where none has."""
        if not self.events:
            return None
        import numpy as np

        known = {event for _, event in self.events}
        return np.array([event in known for event in events], dtype=np.bool_)


def conflict_mark(loop: str, partition: int) -> str:
    """Return the name of the mark that counts other answers, in the table of dead letters."""
    return f"conflicts/{loop}/{partition}"


def conflicts_of(dead_letters: DeltaTable, decisions: DeltaTable, loop: str, partition: int, since: int) -> Conflicts:
    """Return the other answers to decisions of a loop at the offset `since` of a log partition and beyond.

    Args:
        dead_letters: read after `decisions`, so that nothing is missing below where those end.
        decisions: the decisions.
        loop: the loop's name.
        partition: log partition.
        since: offset of the first decision that is asked about.
    """
    until = mark_of(decisions, f"decisions/{partition}") or 0
    if not mark_of(dead_letters, conflict_mark(loop, partition)):
        return Conflicts([], until)
    import pyarrow.compute as pc

    here = (pc.field("topic") == "decisions") & (pc.field("partition") == partition)
    here &= (pc.field("field") == CONFLICT) & (pc.field("offset") > since) & (pc.field("offset") < until)
    rows = dead_letters.to_pyarrow_dataset().to_table(["offset", "value"], filter=here)
    found = list[tuple[int, str]]()
    for offset, value in zip(rows["offset"].to_pylist(), rows["value"].to_pylist(), strict=True):
        of, event = _event_of(value)
        if of == loop:
            found.append((offset, event))
    return Conflicts(found, until)


def late_conflicts(tables: Mapping[Table, DeltaTable], loop: str, partition: int) -> int:
    """Return how many other answers came after the decision of their event was settled; a restatement counts them.

    Args:
        tables: interactions, decisions and dead letters.
        loop: the loop's name.
        partition: log partition.
    """
    conflicts = conflicts_of(tables["dead_letters"], tables["decisions"], loop, partition, -1).events
    if not conflicts:
        return 0
    import pyarrow.compute as pc

    from pipelines.lake.lake import dataset

    here = (pc.field("loop") == loop) & (pc.field("partition") == partition)
    here &= pc.field("event_id").isin([event for _, event in conflicts])
    rows = dataset("interactions", tables["interactions"]).to_table(["event_id", "decisions_until"], filter=here)
    known = {event: until or 0 for event, until in zip(*(column.to_pylist() for column in rows.columns), strict=True)}
    return sum(event in known and offset >= known[event] for offset, event in conflicts)


class _Event(msgspec.Struct):
    loop: str
    event_id: str


def _event_of(record: bytes) -> tuple[str, str]:
    found = msgspec.json.decode(record, type=prepared(_Event))
    return found.loop, found.event_id
