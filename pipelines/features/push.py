"""From the lake to the stream's features: what came into the tables since the last push, in order, in bounded parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from pipelines.features.store import Features
from pipelines.features.stream import COLUMNS, Place, Topic
from pipelines.ingestion.conflicts import conflicts_of
from pipelines.interactions.join import place_of
from pipelines.lake.lake import ConflictError, Lake, dataset
from pipelines.lake.schemas import Table
from pipelines.lake.tables import partitions_of
from pipelines.logs import step
from pipelines.progress import Progress, silent
from pipelines.settings import LoopSettings

ROWS_PER_PART = 20_000
_ATTEMPTS = 5


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """What one run brought.

    Attributes:
        decisions: rows of decisions.
        outcomes: rows of outcomes.
        subjects: subjects whose features changed.
    """

    decisions: int = 0
    outcomes: int = 0
    subjects: int = 0


@step("features pushed")
def push_new(lake: Lake, loop: LoopSettings, features: Features, progress: Progress = silent) -> Pushed:
    """Push what the lake holds beyond the features' positions; nothing when the loop has no stream.

    Safe to run again and in several processes. After a change of the half-life or the reward it reads the whole lake.

    Args:
        lake: the tables.
        loop: the loop.
        features: its features.
        progress: told of the rows taken, in parts.

    Raises:
        ConflictError: others kept changing the definition of the features; run it again.
    """
    if not (loop.features.enabled and loop.features.stream):
        return Pushed()
    taken = Counter[Topic]()
    for attempt in range(_ATTEMPTS):
        # outcomes first, so that none is seen before its decision; other answers to it last, so that none is missing
        outcomes, decisions, dead = lake.table("outcomes"), lake.table("decisions"), lake.table("dead_letters")
        positions = features.positions()
        try:
            _take(features, "decisions", decisions, loop.name, positions, taken, progress)
            _take(features, "outcomes", outcomes, loop.name, positions, taken, progress)
            for partition in partitions_of(decisions, loop.name):
                since = positions.get(("conflicts", partition), 0)
                found = conflicts_of(dead, decisions, loop.name, partition, since - 1)
                features.contest(found.events, partition, found.until)
            return Pushed(decisions=taken["decisions"], outcomes=taken["outcomes"], subjects=features.publish())
        except ConflictError:
            if attempt == _ATTEMPTS - 1:
                raise
            taken.clear()
        except OSError:  # an erasure took files away: what was taken is kept, the rest is read again
            seen: dict[Table, DeltaTable] = {"decisions": decisions, "outcomes": outcomes, "dead_letters": dead}
            if attempt == _ATTEMPTS - 1 or all(lake.version(name) == table.version() for name, table in seen.items()):
                raise
    raise AssertionError("unreachable")


def _take(
    features: Features,
    topic: Topic,
    table: DeltaTable,
    loop: str,
    positions: Mapping[tuple[Place, int], int],
    taken: Counter[Topic],
    progress: Progress,
) -> None:
    for partition in partitions_of(table, loop):
        since = positions.get((topic, partition), 0)
        for rows in _beyond(topic, table, loop, partition, since):
            taken[topic] += features.take(topic, rows, since=since)
            progress(f"{topic} taken into features", taken[topic])
            since = pc.call_function("max", [rows["offset"]]).as_py() + 1


def _beyond(topic: Topic, table: DeltaTable, loop: str, partition: int, position: int) -> Iterator[pa.Table]:
    data = dataset(topic, table)
    place = place_of(loop, partition)
    ahead = data.to_table(["offset"], filter=place & (pc.field("offset") >= position))
    offsets = np.sort(ahead["offset"].to_numpy())
    for start in range(0, len(offsets), ROWS_PER_PART):
        part = offsets[start : start + ROWS_PER_PART]
        within = (pc.field("offset") >= int(part[0])) & (pc.field("offset") <= int(part[-1]))
        yield data.to_table(COLUMNS[topic], filter=place & within)
