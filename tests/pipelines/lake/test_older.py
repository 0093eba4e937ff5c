"""A lake that was written before there were columns of features is read, filled, joined, merged and erased."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction

from decision.features import VERSION
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.arrays import to_interactions
from pipelines.interactions.counters import counters
from pipelines.interactions.join import join
from pipelines.lake.files import FileWriter
from pipelines.lake.lake import Lake
from pipelines.lake.schemas import DECISIONS, FEATURE_FIELDS, INTERACTIONS, PARTITIONED_BY, Table
from pipelines.lake.statistics import actions_of, one_value
from pipelines.operations.erase import erase
from pipelines.replay.source import source_of
from tests.worlds.lake import LATER, LOOP, World, decision, outcome

OLD: dict[Table, pa.Schema] = {
    name: pa.schema([field for field in schema if field not in FEATURE_FIELDS])
    for name, schema in (("decisions", DECISIONS), ("interactions", INTERACTIONS))
}
RICH = msgspec.Raw(b'{"age":1.5,"tags":["new","red"],"user":{"city":"Bonn"},"null":null}')


def records(*numbers: int) -> list[object]:
    made: list[object] = []
    for n in numbers:
        changes = {"context": RICH, "feature_snapshot": msgspec.Raw(b'{"visits":3}')} if n % 2 else {}
        made += [decision(f"e{n}", subject_id=f"s{n % 3}", **changes), outcome(f"e{n}", n)]
    return made


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Eight decisions in a lake as former code would have left it, the first four of them joined."""
    world = World(tmp_path)
    world.append(*records(0, 1, 2, 3))  # type: ignore[arg-type]
    ingest(world.log, world.lake)
    join(world.lake, LOOP, LATER)
    world.append(*records(4, 5, 6, 7))  # type: ignore[arg-type]
    ingest(world.log, world.lake)
    old = Lake(tmp_path / "old")
    for name in ("decisions", "outcomes", "interactions"):
        new = world.lake.table(name)
        schema = OLD.get(name, pa.schema(new.schema()))
        uri = f"{old.path}/{name}"
        Path(uri).mkdir(parents=True)
        kept = new.metadata()
        table = DeltaTable.create(
            uri,
            schema=schema,  # type: ignore[arg-type]
            partition_by=kept.partition_columns,
            configuration={**kept.configuration, "delta.dataSkippingStatsColumns": "offset,ts,appended_at"},
        )
        marks = [
            "log",
            *(f"{topic}/{p}" for topic in ("decisions", "outcomes") for p in (0, 1)),
            "join/shop/0",
            "join/shop/1",
        ]
        rows = new.to_pyarrow_dataset().to_table(schema.names)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pipelines.lake.files.name_of", lambda values: "")
            patch.setattr("pipelines.lake.files.STATISTICS", ("offset", "ts", "appended_at"))
            files = FileWriter(old.storage, name, PARTITIONED_BY[name]).write(rows)
        table.create_write_transaction(
            files,
            mode="append",
            schema=schema,  # type: ignore[arg-type]
            partition_by=PARTITIONED_BY[name],
            commit_properties=CommitProperties(
                app_transactions=[
                    Transaction(mark, value) for mark in marks if (value := new.transaction_version(mark)) is not None
                ]
            ),
        )
    world.new, world.lake = world.lake, old  # type: ignore[attr-defined]
    return world


def test_files_with_all_states_in_one_are_counted_by_their_rows_and_taken_apart_when_merged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.interactions.counters.ROW_BY_ROW", -1)
    join(world.lake, LOOP, LATER)
    assert [counters(world.lake, LOOP, LATER, in_full=full).joined for full in (True, False)] == [8, 8]
    world.lake.compact("interactions")
    actions = actions_of(world.lake.table("interactions"))
    assert {one_value(action["path"]) for action in actions} == {("joined",)}
    assert counters(world.lake, LOOP, LATER).joined == 8


def test_its_rows_are_found_by_what_its_statistics_do_not_say(world: World) -> None:
    join(world.lake, LOOP, LATER)  # adds files whose statistics and names say more
    assert world.lake.decisions("shop", event_ids=["e1", "e6"])["event_id"].to_pylist() == ["e1", "e6"]
    assert len(world.lake.interactions("shop")) == 8
    where = (pc.field("state") == "joined") & (pc.field("event_id") == "e1")
    assert world.lake.delete("interactions", where) == 1


def versions(lake: Lake) -> list[int | None]:
    return lake.interactions("shop")["features_version"].to_pylist()


def test_its_rows_are_read_from_their_texts(world: World) -> None:
    rows, new = world.lake.interactions("shop"), world.new.interactions("shop")  # type: ignore[attr-defined]
    assert rows.schema == new.schema
    assert versions(world.lake) == [None] * 4
    assert list(to_interactions(rows).batch.contexts) == list(to_interactions(new).batch.contexts)
    assert len(world.lake.decisions("shop")) == 8
    unit = next(source_of(world.lake, "shop").batches(0))
    assert len(to_interactions(unit)) == len(unit)


def test_it_is_filled_and_joined_and_old_rows_stay_as_they_are(world: World) -> None:
    world.append(*records(8, 9))  # type: ignore[arg-type]
    assert ingest(world.log, world.lake).decisions == 2
    assert ingest(world.log, world.lake).messages == 0
    join(world.lake, LOOP, LATER)
    for name in ("decisions", "interactions"):
        assert set(pa.schema(world.lake.table(name).schema()).names) >= {field.name for field in FEATURE_FIELDS}
    rows = world.lake.interactions("shop")
    by_event = dict(zip(rows["event_id"].to_pylist(), rows["features_version"].to_pylist(), strict=True))
    assert by_event == {f"e{n}": VERSION if n >= 8 else None for n in range(10)}
    contexts = to_interactions(rows).batch.contexts
    expected = {
        0: {"country=fr": 1.0, "age": 41.5},
        1: {"age": 1.5, "tags=new": 1.0, "tags=red": 1.0, "user.city=Bonn": 1.0, "feature.visits": 3.0},
    }
    assert [list(row.items()) for row in contexts] == [
        list(expected[int(event[1:]) % 2].items()) for event in rows["event_id"].to_pylist()
    ]


def test_it_is_merged_and_erased(world: World) -> None:
    world.lake.compact("decisions")
    assert versions(world.lake) == [None] * 4
    erase(world.lake, "s1")
    assert {row["event_id"] for row in world.lake.decisions("shop").to_pylist()} == {"e0", "e2", "e3", "e5", "e6"}
    world.append(*records(10, 11))  # type: ignore[arg-type]
    ingest(world.log, world.lake)
    world.lake.compact("decisions")
    join(world.lake, LOOP, LATER)
    assert len(to_interactions(world.lake.interactions("shop"))) == 7
    erase(world.lake, "s2")
    left = world.lake.decisions("shop")
    assert {row["event_id"] for row in left.to_pylist()} == {"e0", "e3", "e6", "e10"}
    assert left["context_names"].null_count == 3
