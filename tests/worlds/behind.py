"""A reader of the lake who looked at a table just before an erasure took its files away."""

from __future__ import annotations

from pathlib import Path

from deltalake import DeltaTable

from pipelines.ingestion.ingest import ingest
from pipelines.interactions.join import join
from pipelines.lake.lake import Lake
from pipelines.lake.schemas import Table
from pipelines.operations.erase import erase
from pipelines.settings import LoopSettings
from tests.worlds.lake import LATER, World, decision, outcome


class Behind(Lake):
    """A lake whose first look at a table is one from before an erasure."""

    def __init__(self, lake: Lake, name: Table) -> None:
        super().__init__(lake.path)
        self.looks = [lake.table(name)]

    def table(self, name: Table, version: int | None = None) -> DeltaTable:
        return self.looks.pop() if self.looks and version is None else super().table(name, version)


def about_to_lose_files(folder: Path, name: Table, *, settled: LoopSettings | None = None) -> tuple[World, Behind]:
    """Return a world without the subject s0 of s0, s1, s2, and a reader from before; `settled` is the loop joined."""
    world = World(folder)
    world.append(*(decision(f"e{i}", subject_id=f"s{i % 3}") for i in range(6)))
    world.append(*(outcome(f"e{i}") for i in range(6)))
    ingest(world.log, world.lake)
    if settled is not None:
        join(world.lake, settled, now=LATER)
    behind = Behind(world.lake, name)
    erase(world.lake, "s0")
    return world, behind
