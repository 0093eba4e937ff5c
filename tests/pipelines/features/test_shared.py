"""Features in Redis: what one home puts there every home serves, Feast reads it too, and an erasure takes it away."""

from __future__ import annotations

import shutil
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from pipelines.features.repository import SUBJECT, repository_of
from pipelines.features.store import Features
from pipelines.features.views import Views
from pipelines.ingestion.ingest import ingest
from pipelines.lake.schemas import TIME
from pipelines.operations.waiting import wait_until
from pipelines.settings import Settings, load_settings
from tests.redis_server import RedisServer
from tests.worlds.lake import World, decision, loop_of, outcome
from tests.worlds.s3 import BUCKET, S3

LOOP = loop_of("[features]\nenabled = true\nhalf_life_s = 60.0\n")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def homes(tmp_path: Path, redis: RedisServer, postgres_database: str) -> list[Settings]:
    return [
        load_settings({}, home=str(tmp_path / name), online=redis.url, state=postgres_database) for name in ("a", "b")
    ]


def upload(features: Features, folder: Path, rows: str, *, replace: bool = False) -> None:
    path = folder / "upload.csv"
    path.write_text(rows)
    features.load_subjects(path, now=NOW, replace=replace)


@pytest.mark.connected
def test_what_one_home_puts_there_every_home_serves_as_feast_does(
    homes: list[Settings], redis: RedisServer, tmp_path: Path
) -> None:
    with closing(Features(homes[0], LOOP)) as writing, closing(Features(homes[1], LOOP)) as serving:
        assert serving.online("ann", NOW) == {}
        upload(writing, tmp_path, "subject_id,age,town\nann,3.5,Köln\nbob,,\ncy ü,1e300,\n")
        assert serving.online_many(["ann", "bob", "cy ü", "nobody"], NOW) == [
            {"age": 3.5, "town": "Köln"},
            {},
            {"age": 1e300},
            {},
        ]
        upload(writing, tmp_path, "subject_id,age,town,size\nann,4,,2\n")  # of the same time: it replaces the row
        assert serving.online("ann", NOW) == {"age": 4.0, "size": 2.0}
        views = Views(homes[1], LOOP)  # whose home never saw an upload: the registry is shared
        store: Any = views.open()
        theirs = store.get_online_features(
            features=[f"{views.subject_view}:{name}" for name in ("age", "town")], entity_rows=[{SUBJECT: "cy ü"}]
        ).to_dict()
        assert (theirs["age"], theirs["town"]) == ([1e300], [None])
        views.close()
        assert serving.failures == 0
        upload(writing, tmp_path, "subject_id,town\nann,Ulm\n", replace=True)
        assert serving.online_many(["ann", "cy ü"], NOW) == [{"town": "Ulm"}, {}]
        redis.kill()
        redis.start()  # empty
        assert serving.online("ann", NOW) == {}
        wait_until(lambda: writing.materialize(NOW) and serving.online("ann", NOW) == {"town": "Ulm"}, "a night")
        assert serving.erase("ann") == 1
        assert writing.online("ann", NOW) == {}


@pytest.mark.connected
def test_new_columns_are_written_though_feast_goes_on_with_the_registry_it_had(
    homes: list[Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Features(homes[0], LOOP)) as writing, closing(Features(homes[1], LOOP)) as serving:
        upload(writing, tmp_path, "subject_id,age\nann,3\n")
        # Feast notes at level "debug" that a database did not answer, and goes on
        monkeypatch.setattr("feast.infra.registry.sql.SqlRegistry.refresh", lambda self, project=None: None)
        upload(writing, tmp_path, "subject_id,age,size\nann,4,2\n")
        assert serving.online("ann", NOW) == {"age": 4.0, "size": 2.0}


@pytest.mark.connected
def test_streams_are_those_of_a_single_home_and_redis_may_go(
    homes: list[Settings], redis: RedisServer, tmp_path: Path
) -> None:
    world = World(tmp_path)
    alone = Features(load_settings({}, home=str(tmp_path)), LOOP)
    writing, serving = Features(homes[0], LOOP), Features(homes[1], LOOP)
    try:
        for n in range(5):
            world.append(decision(f"e{n}", subject_id="eve"), outcome(f"e{n}", n / 4))
        ingest(world.log, world.lake)
        rows = {name: world.lake.table(name).to_pyarrow_dataset().to_table() for name in ("decisions", "outcomes")}
        for features in (alone, writing):
            assert features.push(**rows) > 0
        found = serving.online("eve", NOW)
        assert found == alone.online("eve", NOW)
        assert found["stream_decisions"] > 0.0
        redis.pause()
        assert serving.online("eve", NOW) == {}
        assert serving.failures == 1
        with pytest.raises(ConnectionError):
            serving.erase("eve")  # an erasure never passes over what it cannot reach
        redis.go_on()
    finally:
        for features in (alone, writing, serving):
            features.close()
        world.log.close()


@pytest.mark.connected
def test_each_home_reads_the_past_from_its_own_files(
    homes: list[Settings], redis: RedisServer, s3: S3, tmp_path: Path
) -> None:
    homes = [msgspec.structs.replace(home, files=f"s3://{BUCKET}/past") for home in homes]
    asked = pa.table({"subject_id": ["ann", "bob"], "ts": pa.array([NOW + timedelta(seconds=9)] * 2, TIME)})
    with closing(Features(homes[0], LOOP)) as one, closing(Features(homes[1], LOOP)) as other:
        upload(one, tmp_path, "subject_id,age\nann,3.5\n")
        upload(other, tmp_path, "subject_id,age\nbob,4\n")
        first, other_first = (features.historical(asked)["age"].to_pylist() for features in (one, other))
        assert first == other_first == [3.5, 4.0]
        shutil.rmtree(homes[1].root)  # the machine that declared the views last is gone
        assert one.historical(asked)["age"].to_pylist() == [3.5, 4.0]
        redis.kill()  # the past is not asked of it
        with closing(Features(homes[0], LOOP)) as later:
            assert later.historical(asked)["age"].to_pylist() == [3.5, 4.0]


def test_addresses_of_redis_and_postgresql_are_written_as_feast_reads_them() -> None:
    settings = load_settings({}, online="rediss://me:p%40ss@there:6380/3", state="postgresql://u:p@db/x")
    text = repository_of(settings)
    assert 'connection_string: "there:6380,db=3,username=me,password=p@ss,ssl=true"' in text
    assert 'path: "postgresql://u:p@db/x"' in text
    assert "registry: registry.db" in repository_of(load_settings({}, online="redis://there"))
    assert "sqlite" in repository_of(load_settings({}))
