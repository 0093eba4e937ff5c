from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from decision.errors import FieldError
from decision.records import encode
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.counters import counters
from pipelines.interactions.join import join
from pipelines.lake.lake import Lake
from pipelines.log.protocol import DECISIONS
from pipelines.operations.erase import digest_of, erase
from tests.worlds.lake import LATER, LOOP, World, decision, outcome

NASTY = "o'hara\"; DROP \u00e9"


@pytest.fixture(params=["ann", NASTY])
def subject(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def world(tmp_path: Path, subject: str) -> World:
    world = World(tmp_path)
    for i in range(12):
        world.append(decision(f"e{i}", subject_id=subject if i % 3 == 0 else "bob"), outcome(f"e{i}"))
    world.append(decision("open", subject_id=subject, ts=LATER), decision("n1", loop="news", subject_id=subject))
    broken = json.loads(encode(decision("e99", subject_id=subject))) | {"pmf": [1.0]}
    bobs = json.loads(encode(decision("e98", subject_id="bob"))) | {"pmf": [1.0]}
    world.append_raw(DECISIONS, [(b"e99", json.dumps(broken).encode()), (b"e98", msgspec.json.encode(bobs))])
    world.append_raw(DECISIONS, [(b"e0", b"unreadable")])
    ingest(world.log, world.lake)
    join(world.lake, LOOP, LATER)
    return world


def bytes_of(folder: str) -> bytes:
    return b"".join(path.read_bytes() for path in Path(folder).rglob("*") if path.is_file())


def test_every_row_of_the_subject_is_gone_and_the_others_stay(world: World, subject: str) -> None:
    assert counters(world.lake, LOOP, LATER).balanced
    proof = erase(world.lake, subject, now=LATER)
    assert proof.events == 6
    assert proof.rows == {
        "decisions": 6,
        "outcomes": 4,
        "interactions": 4,
        "dead_letters": 2,
    }
    assert proof.remaining == 0
    assert proof.files_removed
    for loop in ("shop", "news"):
        assert set(world.lake.decisions(loop)["subject_id"].to_pylist()) <= {"bob"}
    assert set(world.lake.interactions("shop")["subject_id"].to_pylist()) == {"bob"}
    assert len(world.lake.decisions("shop")) == len(world.lake.outcomes("shop")) == 8
    assert world.lake.dead_letters()["key"].to_pylist() == [b"e98"]
    counted = counters(world.lake, LOOP, LATER)
    assert counted.balanced
    assert (counted.decided, counted.joined, counted.orphan_outcomes) == (8, 8, 0)
    assert digest_of(proof) == proof.digest != digest_of(msgspec.structs.replace(proof, events=5))
    assert subject not in msgspec.json.encode(proof).decode()


def test_nothing_of_the_subject_is_left_on_disk(world: World, subject: str) -> None:
    erase(world.lake, subject, forget=world.log.redact)
    tables = ("decisions", "outcomes", "interactions", "dead_letters")
    files = [path for name in tables for path in (Path(world.lake.path) / name).rglob("*.parquet")]
    live = {uri.rsplit("/", 1)[-1] for name in tables for uri in world.lake.table(name).file_uris()}  # type: ignore[arg-type]
    assert {path.name for path in files if "checkpoint" not in path.name} == live
    assert json.dumps(subject).encode() not in world.path.read_bytes()


def test_what_is_still_on_the_log_comes_back_empty(world: World, subject: str) -> None:
    proof = erase(world.lake, subject, forget=world.log.redact)
    assert proof.messages == 6 + 4 + 2  # decisions, outcomes and dead letters
    again = Lake(world.lake.path + "-again")
    ingested = ingest(world.log, again)
    assert (ingested.redacted, ingested.decisions) == (12, 8)


def test_an_erasure_may_be_repeated_and_finds_nothing(world: World, subject: str) -> None:
    erase(world.lake, subject)
    again = erase(world.lake, subject)
    assert again.events == 0
    assert set(again.rows.values()) == {0}


def test_a_join_under_way_does_not_bring_the_rows_back(world: World, subject: str) -> None:
    ready, later = LATER, LATER.replace(year=2027)

    class Racing(Lake):
        raced = False

        def commit(self, *args: Any, **kwargs: Any) -> int:
            if not self.raced:
                self.raced = True
                erase(world.lake, subject, vacuum=False, now=ready)
            return super().commit(*args, **kwargs)

    joined = join(Racing(world.lake.path), LOOP, later)
    assert joined.joined == joined.expired == 0
    assert set(world.lake.interactions("shop")["subject_id"].to_pylist()) == {"bob"}
    assert counters(world.lake, LOOP, later).balanced


def test_an_empty_subject_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match="subject_id"):
        erase(Lake(tmp_path), "")
