"""A replay holds a batch of rows for every thread and its sums: its memory does not grow with the log."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from tests.bench.replay import written

# Not `ru_maxrss`: it begins with the peak of the process that starts this one.
SCRIPT = """
import pathlib, re, sys
from pipelines.engines.engine import LocalEngine
from pipelines.replay.policy import PolicySpec
from pipelines.replay.replay import Options, replay_log
from pipelines.replay.source import FileSource

spec = PolicySpec(kind="uniform", name="uniform")
found = replay_log(FileSource(sys.argv[1]), spec, Options(reward_model="means"), log="x", engine=LocalEngine(2))
peak = re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())
print(found.rows, int(peak[1]) / 1024)
"""


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    written(tmp_path, "some", 200_000)
    once = pq.read_table(tmp_path / "imports" / "some" / "interactions.parquet")
    peaks: list[float] = []
    for times in (2, 10):
        path = tmp_path / f"{times}.parquet"
        with pq.ParquetWriter(path, once.schema, compression="zstd") as writer:
            for _ in range(times):
                writer.write_table(once, row_group_size=50_000)
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, check=True, cwd=Path.cwd()
        )
        rows, peak = done.stdout.split()
        assert int(rows) == times * len(once)
        peaks.append(float(peak))
    grown = 8 * once.nbytes / 2**20
    assert peaks[1] - peaks[0] < grown / 8, (peaks, grown)  # the allocator alone makes some 30 MiB of 526
