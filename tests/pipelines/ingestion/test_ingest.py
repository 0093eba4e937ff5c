"""Ingestion on a real log and real Delta tables: each message once, whatever happens in between."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decision.errors import FieldError
from decision.records import encode
from pipelines.ingestion.ingest import Ingested, Ingester, IngestError, ingest
from pipelines.lake.lake import ConflictError, Lake
from pipelines.log.protocol import DECISIONS, OUTCOMES
from tests.worlds.lake import World, decision, outcome


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def events(lake: Lake) -> list[str]:
    return sorted(lake.decisions("shop")["event_id"].to_pylist())


def positions(lake: Lake) -> list[tuple[str, int, int]]:
    """Where every message is that the lake has, row or dead letter."""
    found: list[tuple[str, int, int]] = []
    for topic in (DECISIONS, OUTCOMES):
        rows = lake.table(topic).to_pyarrow_table(columns=["partition", "offset"])
        found += [(topic, *pair) for pair in zip(*(column.to_pylist() for column in rows.columns), strict=True)]
    dead = lake.dead_letters().select(["topic", "partition", "offset"])
    return sorted([*found, *zip(*(column.to_pylist() for column in dead.columns), strict=True)])


def logged(world: World) -> list[tuple[str, int, int]]:
    return [
        (topic, p, offset)
        for topic in (DECISIONS, OUTCOMES)
        for p in range(2)
        for offset in range(world.log.watermarks(topic, p)[1])
    ]


def test_what_is_on_the_log_is_in_the_lake_once(world: World) -> None:
    world.append(*(decision(f"e{i}") for i in range(50)), *(outcome(f"e{i}") for i in range(0, 50, 2)))
    assert ingest(world.log, world.lake) == Ingested(decisions=50, outcomes=25)
    assert ingest(world.log, world.lake) == Ingested()
    world.append(decision("e50"))
    assert ingest(world.log, world.lake) == Ingested(decisions=1)
    assert events(world.lake) == sorted(f"e{i}" for i in range(51))
    assert positions(world.lake) == logged(world)
    partitions = set(world.lake.decisions("shop")["partition"].to_pylist())
    assert partitions == {0, 1}


def test_loops_stand_in_their_own_partitions(world: World) -> None:
    world.append(decision("e1"), decision("e2", loop="news"), outcome("e2", loop="news"))
    ingest(world.log, world.lake)
    assert world.lake.decisions("news")["event_id"].to_pylist() == ["e2"]
    assert world.lake.outcomes("news")["event_id"].to_pylist() == ["e2"]
    assert len(world.lake.outcomes("shop")) == 0


def test_what_fits_no_schema_is_a_dead_letter_with_its_bytes_position_and_reason(world: World) -> None:
    world.append(decision("e1"))
    world.append_raw(DECISIONS, [(b"e1", b"{broken"), (b"other", encode(decision("e9")))])
    world.append_raw(OUTCOMES, [(b"e1", b"\xff\x00")])
    assert ingest(world.log, world.lake) == Ingested(decisions=1, dead_letters=3)
    dead = world.lake.dead_letters().to_pylist()
    assert [row["topic"] for row in dead] == [DECISIONS, DECISIONS, OUTCOMES]
    by_value = {row["value"]: row for row in dead}
    assert set(by_value) == {b"{broken", encode(decision("e9")), b"\xff\x00"}
    assert by_value[encode(decision("e9"))]["key"] == b"other"
    assert by_value[encode(decision("e9"))]["field"] == "key"
    assert positions(world.lake) == logged(world)


def test_a_record_of_a_loop_that_does_not_exist_is_a_dead_letter(world: World) -> None:
    world.append(decision("e1"), decision("e2", loop="nowhere"))
    assert ingest(world.log, world.lake, loops={"shop"}) == Ingested(decisions=1, dead_letters=1)
    assert world.lake.dead_letters()["reason"].to_pylist() == ["loop: must be 'shop', is 'nowhere'"]


def test_a_repeated_decision_is_counted_and_left_out(world: World) -> None:
    world.append(decision("e1"), decision("e2"), decision("e1"), decision("e1", slot="second"))
    assert ingest(world.log, world.lake) == Ingested(decisions=3, duplicates=1)
    world.append(decision("e2"), decision("e3"), decision("e3"), decision("e1", loop="news"))
    ingester = Ingester(world.log, world.lake)
    assert ingester.run() == Ingested(decisions=2, duplicates=2)
    world.append(decision("e3"))
    assert ingester.run() == Ingested(duplicates=1)
    assert events(world.lake) == ["e1", "e1", "e2", "e3"]


def test_the_first_of_repeated_decisions_is_kept(world: World) -> None:
    world.append(decision("e1", policy_version="first"), decision("e1", policy_version="second"))
    ingest(world.log, world.lake)
    world.append(decision("e1", policy_version="third"))
    ingest(world.log, world.lake)
    assert world.lake.decisions("shop")["policy_version"].to_pylist() == ["first"]


def test_repeated_decisions_are_recognised_within_the_horizon_of_the_logs_progress(tmp_path: Path) -> None:
    now = [1_800_000_000.0]
    world = World(tmp_path, clock=lambda: now[0])
    for hours, duplicates in ((0, 0), (23, 1)):
        now[0] += hours * 3600
        world.append(decision("e1"))
        assert ingest(world.log, world.lake).duplicates == duplicates
    for i in range(200):
        now[0] += 900
        world.append(decision(f"later{i}"))
    ingester = Ingester(world.log, world.lake, rows_per_commit=20)
    assert ingester.run().decisions == 200
    assert len(ingester._topics[0]._repeats) < 140  # memory is bounded by the horizon
    again = Ingester(world.log, world.lake)
    world.append(decision("later199"))
    assert again.run() == Ingested(duplicates=1)
    assert len(again._topics[0]._repeats) < 140


@pytest.mark.parametrize("jumps", [(48, 0), (-48, 0), (48, -48), (-48, 48)])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_that_jumps_by_two_days_doubles_no_event(
    tmp_path: Path, jumps: tuple[int, int], restarted: bool
) -> None:
    now = [1_800_000_000.0]
    world = World(tmp_path, clock=lambda: now[0])
    ingester = Ingester(world.log, world.lake)
    some = [decision(f"e{i}") for i in range(100)]
    world.append(*some)
    ingester.run()
    for number, jump in enumerate(jumps):
        now[0] += jump * 3600 + 600
        more = [decision(f"jump{number}-{i}") for i in range(4)]
        world.append(*more)
        some += more
        ingester.run()
        if restarted:
            ingester = Ingester(world.log, world.lake)
        now[0] += 600
        world.append(*some)
        assert ingester.run() == Ingested(duplicates=len(some))
    assert len(world.lake.decisions("shop")) == 108


def test_outcomes_that_repeat_are_kept_for_the_join_to_see(world: World) -> None:
    world.append(outcome("e1", idempotency_key="k"), outcome("e1", idempotency_key="k"))
    assert ingest(world.log, world.lake) == Ingested(outcomes=2)


def test_max_messages_stops_and_the_next_run_goes_on(world: World) -> None:
    world.append(*(decision(f"e{i}") for i in range(10)), *(outcome(f"e{i}") for i in range(5)))
    runs = [ingest(world.log, world.lake, max_messages=4) for _ in range(5)]
    assert [run.messages for run in runs] == [4, 4, 4, 3, 0]
    assert positions(world.lake) == logged(world)
    assert ingest(world.log, world.lake, max_messages=0) == Ingested()
    with pytest.raises(FieldError, match="max_messages"):
        ingest(world.log, world.lake, max_messages=-1)


def test_ingesters_of_disjoint_partitions_share_the_work(world: World) -> None:
    world.append(*(decision(f"e{i}") for i in range(20)))
    parts = [ingest(world.log, world.lake, partitions=[p]).decisions for p in (0, 1)]
    assert sum(parts) == 20
    assert min(parts) > 0
    with pytest.raises(FieldError, match="partitions"):
        ingest(world.log, world.lake, partitions=[2])


def test_a_lake_that_was_filled_from_another_log_is_refused(world: World, tmp_path: Path) -> None:
    world.append(decision("e1"))
    ingest(world.log, world.lake)
    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other")
    other.append(decision("e2"))
    with pytest.raises(IngestError, match="log: must be the one that"):
        ingest(other.log, world.lake)


def test_messages_that_are_gone_before_they_were_ingested_are_an_error(world: World) -> None:
    world.append(decision("e1"))
    ingest(world.log, world.lake)
    p = world.lake.decisions("shop")["partition"].to_pylist()[0]
    world.append(*(decision("e1") for _ in range(3)))
    world.log.trim(DECISIONS, p, 3)
    with pytest.raises(IngestError, match="messages are gone that were never ingested"):
        ingest(world.log, world.lake)


def test_a_log_that_was_trimmed_after_ingestion_is_fine(world: World) -> None:
    world.append(*(decision(f"e{i}") for i in range(10)))
    ingest(world.log, world.lake)
    for p in (0, 1):
        world.log.trim(DECISIONS, p, world.log.watermarks(DECISIONS, p)[1])
    world.append(decision("e10"))
    assert ingest(world.log, world.lake).decisions == 1


class Crash(BaseException):
    """The process dies here."""


class DyingLake(Lake):
    """A real lake whose process dies before or after the n-th commit."""

    def __init__(self, path: str, dies_at: int, *, after: bool) -> None:
        super().__init__(path)
        self.left, self.after = dies_at, after

    def commit(self, *args: Any, **kwargs: Any) -> int:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Crash
        version = super().commit(*args, **kwargs)
        if self.left == 0:
            raise Crash
        return version


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dies_at=st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=4), size=st.sampled_from([3, 7, 1000]))
def test_ingest_after_a_crash_at_any_commit_keeps_each_message_once(
    tmp_path_factory: pytest.TempPathFactory, dies_at: list[tuple[int, bool]], size: int
) -> None:
    world = World(tmp_path_factory.mktemp("crash"))
    world.append(*(decision(f"e{i}") for i in range(12)), *(outcome(f"e{i}") for i in range(6)))
    world.append_raw(DECISIONS, [(f"d{i}".encode(), b"dead") for i in range(5)])
    world.append(*(decision(f"f{i}") for i in range(5)))
    for commit, after in dies_at:
        with pytest.raises(Crash):  # noqa: PT012 (the second line is for runs that end before the crash)
            Ingester(world.log, DyingLake(world.lake.path, commit, after=after), rows_per_commit=size).run()
            raise Crash
    Ingester(world.log, world.lake, rows_per_commit=size).run()
    assert positions(world.lake) == logged(world)


def test_a_dead_letter_stays_one_when_its_loop_appears_between_crash_and_restart(world: World) -> None:
    world.append(decision("e1"), decision("e1", loop="news"))
    with pytest.raises(Crash):
        Ingester(world.log, DyingLake(world.lake.path, 2, after=True), loops={"shop"}).run()
    assert len(world.lake.dead_letters()) == 1
    assert ingest(world.log, world.lake, loops={"shop", "news"}) == Ingested(decisions=1)
    assert positions(world.lake) == logged(world)


def test_an_ingester_goes_on_after_an_error_without_leaving_anything_out(world: World) -> None:
    lake = DyingLake(world.lake.path, 3, after=False)
    ingester = Ingester(world.log, lake, rows_per_commit=4)
    world.append(*(decision(f"e{i}") for i in range(30)))
    with pytest.raises(Crash):
        ingester.run()
    ingester.run()
    assert positions(world.lake) == logged(world)


def test_ingesters_that_overlap_keep_each_message_once(world: World) -> None:
    world.append(*(decision(f"e{i}") for i in range(60)), *(outcome(f"e{i}") for i in range(30)))
    world.append_raw(DECISIONS, [(f"d{i}".encode(), b"dead") for i in range(9)])
    total: list[Ingested] = []

    def work() -> None:
        total.append(Ingester(world.log, world.lake, rows_per_commit=5).run())

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert positions(world.lake) == logged(world)
    assert sum(one.decisions + one.outcomes for one in total) == 90


@pytest.mark.parametrize("at", range(4))
def test_a_commit_of_another_ingester_that_is_seen_with_ones_own_is_not_taken_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Another ingester commits between a commit and the look that brings the table up to date."""
    world.append(*(decision(f"e{n}") for n in range(40)), *(outcome(f"e{n}") for n in range(40)))
    for topic in (DECISIONS, OUTCOMES):
        for n in range(20):
            world.append_raw(topic, [(b"rubbish%d" % n, b"no record")])
    looks = [0]
    update = DeltaTable.update_incremental

    def look(table: DeltaTable) -> None:
        looks[0] += 1
        if looks[0] == at + 2:  # the first is that of the log's own mark
            Ingester(world.log, world.lake, rows_per_commit=7).run()
        update(table)

    monkeypatch.setattr(DeltaTable, "update_incremental", look)
    Ingester(world.log, world.lake, rows_per_commit=5).run()
    assert looks[0] > at + 2
    assert positions(world.lake) == logged(world)


def test_an_ingester_that_lost_the_race_reads_on_from_where_the_winner_came(world: World) -> None:
    world.append(*(decision(f"e{i}") for i in range(10)))
    slow, fast = Ingester(world.log, world.lake), Ingester(world.log, world.lake)
    assert slow.run(max_messages=2).decisions == 2
    assert fast.run().decisions == 8
    world.append(decision("e10"), decision("e1"))
    assert slow.run() == Ingested(decisions=1, duplicates=1)
    assert positions(world.lake)[:3] == logged(world)[:3]
    assert events(world.lake) == sorted(f"e{i}" for i in range(11))


def test_compaction_and_vacuum_change_neither_rows_nor_positions(world: World) -> None:
    ingester = Ingester(world.log, world.lake, rows_per_commit=3)
    for start in range(0, 24, 6):
        world.append(*(decision(f"e{i}") for i in range(start, start + 6)))
        ingester.run()
    before = world.lake.decisions("shop")
    compacted = world.lake.compact("decisions")
    assert compacted["files_removed"] > compacted["files_added"]
    assert world.lake.vacuum("decisions", retention_hours=0) >= compacted["files_removed"]
    assert world.lake.decisions("shop").equals(before)
    world.append(decision("e99"), decision("e5"))
    assert ingester.run() == Ingested(decisions=1, duplicates=1)
    assert ingest(world.log, world.lake) == Ingested()


def test_a_commit_on_a_stale_position_is_refused(world: World) -> None:
    first, second = world.lake.table("decisions"), world.lake.table("decisions")
    world.lake.commit("decisions", first, [], {"decisions/0": 5})
    with pytest.raises(ConflictError):
        world.lake.commit("decisions", second, [], {"decisions/0": 5})
    third = world.lake.table("decisions")
    world.lake.commit("decisions", third, [], {"decisions/1": 7})
    assert third.transaction_version("decisions/0") == 5


def test_large_records_are_committed_before_they_fill_the_memory(world: World) -> None:
    big = "x" * 900_000
    context = f'{{"text":"{big}"}}'.encode()
    from msgspec import Raw

    world.append(*(decision(f"e{i}", context=Raw(context)) for i in range(3)))
    assert ingest(world.log, world.lake).decisions == 3
    assert pa.compute.utf8_length(world.lake.decisions("shop")["context"]).to_pylist() == [len(context)] * 3
