"""What the console's pages of a loop with ten million decisions cost, against those of a loop with a few hundred.

The ten million are files that the lake's log of commits tells of and nobody ever wrote: a page that read one would
fail. A thread counts them meanwhile, as often as it does in a service.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from deltalake.transaction import AddAction

from pipelines.interactions.window import join_mark
from pipelines.lake.lake import Lake
from pipelines.lake.schemas import Table
from pipelines.lake.statistics import actions_of
from pipelines.lake.tables import mark_of
from tests.worlds.operated import Operated

QUICK = os.environ.get("QUICK") == "1"
DECISIONS, NIGHTS, PAGES = (200_000, 30, 3) if QUICK else (10_000_000, 365, 15)
ROWS = 20_000
"""Rows of a file: what a join commits together, so nothing was compacted yet."""


def grow(lake: Lake, decisions: int) -> int:
    """Let the lake tell of so many more settled decisions and outcomes of the loop, and return the files."""
    partitions, files = (0, 1), 0
    each = decisions // len(partitions) // ROWS
    starts = {p: mark_of(lake.table("interactions"), join_mark("shop", p)) or 0 for p in partitions}
    names: tuple[Table, ...] = ("decisions", "outcomes", "interactions")
    for name in names:
        table = lake.table(name)
        known = [row for row in actions_of(table) if row["partition.loop"] == "shop"]
        made: list[AddAction] = []
        for partition in partitions:
            pattern = next(row for row in known if int(row["partition.partition"]) == partition)
            made += [_like(pattern, starts[partition] + number * ROWS) for number in range(each)]
        marks = {join_mark("shop", p): starts[p] + each * ROWS for p in partitions} if name == "interactions" else {}
        lake.commit(name, table, made, marks)
        files += len(made)
    return files


def _like(known: dict[str, Any], start: int) -> AddAction:
    folder, _, file = known["path"].rpartition("/")
    path = f"{folder}/{uuid.uuid4()}.{file.partition('.')[2]}"
    values = {name.removeprefix("partition."): str(known[name]) for name in known if name.startswith("partition.")}
    ends = {"minValues": {"offset": start}, "maxValues": {"offset": start + ROWS - 1}}
    stats = json.dumps({"numRecords": ROWS, **ends, "nullCount": {"offset": 0}})
    return AddAction(path, 1 << 20, values, int(time.time() * 1000), True, stats)


def milliseconds(site: Operated, path: str) -> tuple[list[float], list[float]]:
    """Return how long each of some pages took, and what processor time of this process; threads of its own included."""
    took, used = list[float](), list[float]()
    for _ in range(PAGES + 1):
        begun, before = time.perf_counter(), time.process_time()
        answer = site.call("GET", path, accept="text/html")
        took.append(1e3 * (time.perf_counter() - begun))
        used.append(1e3 * (time.process_time() - before))
        if answer.status_code != 200:
            raise RuntimeError(f"{path} gave {answer.status_code}: {answer.text[-300:]}")
    return took[1:], used[1:]  # the first imports and opens


def main() -> None:
    """Run the benchmark and print its line."""
    paths = {"loops": "/console/loops", "loop": "/console/loops/shop"}
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        small, large = Operated(Path(one), nights=2), Operated(Path(other), nights=NIGHTS)
        files = grow(large.shop.world.lake, DECISIONS)
        counted = large.core.describe("shop").counters
        took = {
            name: {"small": milliseconds(small, path), "large": milliseconds(large, path)}
            for name, path in paths.items()
        }
        for site in (small, large):
            site.close()
    middle, used = (
        {name: {of: statistics.median(ms[which]) for of, ms in both.items()} for name, both in took.items()}
        for which in (0, 1)
    )
    line = {
        "name": "console",
        "ratios": {name: round(of["large"] / of["small"], 3) for name, of in middle.items()},
        "detail": {
            "decided": None if counted is None else counted["decided"],
            "files": files,
            "nights": NIGHTS,
            "milliseconds": {name: {of: round(ms, 1) for of, ms in both.items()} for name, both in middle.items()},
            "processor_milliseconds": {
                name: {of: round(ms, 1) for of, ms in both.items()} for name, both in used.items()
            },
            "worst": {name: round(max(both["large"][0]), 1) for name, both in took.items()},
        },
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
