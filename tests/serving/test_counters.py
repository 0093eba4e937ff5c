"""Counters of the lake as the service shows them: where the lake is, and while it does not answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.ingestion.ingest import ingest
from pipelines.operations.processes import free_port
from pipelines.settings import Settings
from serving.counters import LakeCounters
from tests.worlds.lake import LATER, LOOP, World, decision
from tests.worlds.s3 import BUCKET, S3


def clock() -> float:
    return LATER.timestamp()


@pytest.mark.connected
def test_a_lake_on_object_storage_is_counted_once_it_is_there(tmp_path: Path, s3: S3) -> None:
    settings = Settings(home=str(tmp_path), files=f"s3://{BUCKET}/counted")
    s3.asked()  # by the tests before
    assert LakeCounters(settings, clock).of(LOOP) is None
    assert all(request.startswith("GET") for request in s3.asked())  # who looks makes no tables
    world = World(tmp_path, lake=settings.lake_url)
    world.append(decision("a"))
    ingest(world.log, world.lake)
    found = LakeCounters(settings, clock).of(LOOP)
    assert found is not None
    assert (found["decided"], found["pending"], found["mature"]) == (1, 1, 1)


def test_a_lake_that_does_not_answer_is_not_counted_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in S3.environment_of(f"http://127.0.0.1:{free_port()}").items():
        monkeypatch.setenv(name, value)
    assert LakeCounters(Settings(home=str(tmp_path), files="s3://bucket/away"), clock).of(LOOP) is None
