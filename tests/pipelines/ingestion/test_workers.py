from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from decision.errors import FieldError
from pipelines.ingestion.ingest import Ingested, IngestError, ingest
from pipelines.ingestion.workers import IngestWorkers
from tests.worlds.lake import World, decision, outcome


def test_workers_bring_in_what_one_process_would(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.append(*(decision(f"e{i}") for i in range(50)), decision("e7"), *(outcome(f"e{i}") for i in range(20)))
    world.append_raw("decisions", [(b"x", b"dead")])
    with IngestWorkers(f"local:{world.path}", world.lake, 4, rows_per_commit=7) as workers:
        assert len(workers.pids) == 2  # the log has no more partitions
        assert workers.run() == Ingested(decisions=50, outcomes=20, dead_letters=1, duplicates=1)
        world.append(decision("e50"), decision("e3"))
        assert workers.run() == Ingested(decisions=1, duplicates=1)
    assert ingest(world.log, world.lake) == Ingested()
    assert len(world.lake.decisions("shop")) == 51


def test_a_worker_that_dies_is_an_error_and_leaves_nothing_half_done(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.append(*(decision(f"e{i}") for i in range(20)))
    with IngestWorkers(f"local:{world.path}", world.lake, 2) as workers:
        os.kill(workers.pids[0], signal.SIGKILL)
        with pytest.raises(IngestError, match="ended with status -9"):
            workers.run()
    assert ingest(world.log, world.lake).decisions > 0
    assert len(world.lake.decisions("shop")) == 20


def test_an_error_of_a_worker_says_what_it_was(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.append(decision("e1"))
    ingest(world.log, world.lake)
    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other")
    with (
        IngestWorkers(f"local:{other.path}", world.lake, 2) as workers,
        pytest.raises(IngestError, match="IngestError: log: must be the one that"),
    ):
        workers.run()
    with pytest.raises(FieldError, match="workers: must be 1 to 64, is 0"):
        IngestWorkers(f"local:{world.path}", world.lake, 0)
