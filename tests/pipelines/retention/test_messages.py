"""Of the embedded log what is old goes, and nothing that somebody has yet to read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from decision.records import encode
from pipelines.ingestion.ingest import Ingester, IngestError, ingest
from pipelines.interactions.counters import counters
from pipelines.interactions.join import join
from pipelines.lake.lake import Lake
from pipelines.log.protocol import DECISIONS, OUTCOMES
from pipelines.log.slates import whole, written
from pipelines.log.sqlite.log import LocalLog
from pipelines.retention.tidy import Gone, tidy
from pipelines.settings import LoopSettings, Settings, load_settings, parse_loop
from pipelines.trajectories.memories import MEMORIES, Memories
from tests.worlds.lake import LATER, decision, outcome

DAY = 86_400.0
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)


class Shop:
    """An installation with one loop whose log is appended to at any time."""

    def __init__(self, home: Path, text: str = "") -> None:
        self.settings: Settings = load_settings({}, home=str(home))
        self.now = BEGIN.timestamp()
        self.log = LocalLog(self.settings.spool_path, clock=lambda: self.now)
        for topic in (DECISIONS, OUTCOMES):
            self.log.create(topic, 2)
        self.lake = Lake(self.settings.lake_url)
        self.loop(text)

    def loop(self, text: str, name: str = "shop") -> LoopSettings:
        path = self.settings.loop_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return parse_loop(text, name, {})

    def decide(self, first: int, n: int, *, day: float, outcomes: bool = True) -> None:
        self.now = BEGIN.timestamp() + day * DAY
        ids = [f"e{i}" for i in range(first, first + n)]
        self.log.append_many(DECISIONS, [(each.encode(), encode(decision(each)), ()) for each in ids])
        if outcomes:
            self.log.append_many(OUTCOMES, [(each.encode(), encode(outcome(each)), ()) for each in ids])

    def ingest(self) -> int:
        return ingest(self.log, self.lake, loops={"shop"}).messages

    def tidy(self, day: float, **options: Any) -> Gone:
        now = BEGIN + timedelta(days=day)
        done = tidy(self.settings, self.log, self.lake, now=now, **options)
        return next(part for part in done.parts if part.part == "log")

    def kept(self, topic: str = DECISIONS) -> int:
        marks = [self.log.watermarks(topic, partition) for partition in range(2)]
        return sum(high - low for low, high in marks)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path, "[retention]\nlog_days = 3")
    yield made
    made.log.close()


def test_what_is_older_than_its_days_and_in_the_lake_goes_and_what_comes_next_is_ingested_once(shop: Shop) -> None:
    shop.decide(0, 40, day=0)
    shop.decide(40, 25, day=5)
    shop.ingest()
    gone = shop.tidy(5)
    assert (gone.number, gone.held) == (80, "")
    assert gone.bytes > 40 * 300
    assert (shop.kept(), shop.kept(OUTCOMES)) == (25, 25)
    assert shop.tidy(5).number == 0
    shop.decide(65, 10, day=5)
    assert shop.ingest() == 20
    join(shop.lake, parse_loop("", "shop", {}), LATER)
    counted = counters(shop.lake, parse_loop("", "shop", {}), LATER, in_full=True)
    assert (counted.decided, counted.joined, counted.duplicates_seen, counted.balanced) == (75, 75, 0, True)


def test_what_the_lake_has_not_committed_stays_however_old_it_is(shop: Shop) -> None:
    shop.decide(0, 30, day=0)
    shop.ingest()
    shop.decide(30, 12, day=1)
    assert shop.tidy(1) == Gone(part="log")  # nothing is old yet, so nobody holds any of it
    shop.decide(42, 1, day=80, outcomes=False)
    gone = shop.tidy(90)
    assert (gone.number, gone.held) == (30, "some are yet to be read by the lake")
    assert shop.kept(OUTCOMES) == 12
    assert shop.kept() == 43  # a slate may have begun among those before
    assert shop.ingest() == 12 + 12 + 1


def test_a_lake_that_was_filled_from_another_log_lets_nothing_go(shop: Shop, tmp_path: Path) -> None:
    shop.decide(0, 20, day=0)
    shop.ingest()
    other = Shop(tmp_path / "other", "[retention]\nlog_days = 1")
    other.decide(0, 20, day=0)
    other.decide(20, 20, day=30)
    other.lake = shop.lake
    assert other.tidy(30).held == "some are yet to be read by the lake"
    assert (other.kept(), other.kept(OUTCOMES)) == (40, 40)
    other.log.close()


def test_a_reward_window_that_is_longer_keeps_messages_longer_in_whichever_loop_it_is(shop: Shop) -> None:
    shop.loop(f"[reward]\nwindow_s = {20 * DAY}\n[retention]\nlog_days = 2", "slow")
    shop.decide(0, 10, day=0)
    shop.decide(10, 10, day=25)
    shop.ingest()
    assert shop.tidy(20.5).number == 0
    assert shop.tidy(21.5).number == 20


def test_the_longest_age_that_a_loop_asks_for_holds_and_0_is_for_ever(shop: Shop) -> None:
    shop.loop("[retention]\nlog_days = 10", "news")
    shop.decide(0, 10, day=0)
    shop.decide(10, 1, day=30)
    shop.ingest()
    assert shop.tidy(9).number == 0
    shop.loop("[retention]\nlog_days = 0", "news")
    assert shop.tidy(30) == Gone(part="log", held="retention.log_days is 0")
    shop.loop("[retention]\nlog_days = 10", "news")
    assert shop.tidy(30).number == 20


def test_nothing_that_loops_share_goes_while_the_settings_of_one_cannot_be_read(shop: Shop) -> None:
    shop.decide(0, 10, day=0)
    shop.decide(10, 1, day=30)
    shop.ingest()
    shop.settings.loop_path("broken").parent.mkdir(parents=True)
    shop.settings.loop_path("broken").write_text("= 3")
    assert shop.tidy(30) == Gone(part="log", held="the settings of broken cannot be read")
    assert shop.kept() == 11


def test_a_clock_that_runs_ahead_makes_nothing_old(shop: Shop) -> None:
    shop.decide(0, 30, day=0)
    shop.ingest()
    assert shop.tidy(400).number == 0
    assert shop.kept() == 30


def test_what_memories_have_not_read_stays(shop: Shop) -> None:
    shop.decide(0, 30, day=0)
    shop.decide(30, 2, day=30)
    shop.ingest()
    shop.loop('[policy]\noracle = "session"\nexploration = "softmax"\n[features]\nenabled = true\n', "feed")
    assert shop.tidy(30).held == "some are yet to be read by the memories of feed"
    assert shop.kept() == 32
    memories = Memories(shop.settings.loop_path("feed").parent / MEMORIES, "feed")
    memories.follow(shop.log, BEGIN)
    memories.close()
    gone = shop.tidy(30)
    assert (gone.number, gone.held) == (60, "")


def test_a_slate_is_not_cut_apart_and_one_that_is_half_in_the_lake_is_ingested_whole(shop: Shop) -> None:
    context = b'{"country":"fr"}'
    slots = [decision("slate", slot=f"s{i}", context=msgspec.Raw(context), action_ids=["a", "b"]) for i in range(6)]
    shop.decide(0, 20, day=0, outcomes=False)
    shop.log.append_many(DECISIONS, [(b"slate", value, headers) for value, headers in written(slots, context)])
    (partition,) = {m.partition for m in shop.log.find(DECISIONS, b"slate")}
    first = shop.log.find(DECISIONS, b"slate")[0].offset
    for end in range(1, 5):  # the lake has some of its slots
        before = len(shop.lake.decisions("shop"))
        Ingester(shop.log, shop.lake, partitions=[partition]).run(max_messages=first + end - before if end == 1 else 1)
    shop.now = BEGIN.timestamp() + 30 * DAY
    shop.log.append(DECISIONS, b"slate", b"the newest")
    shop.tidy(30)
    assert shop.log.watermarks(DECISIONS, partition)[0] <= first
    shop.ingest()
    rows = shop.lake.decisions("shop", event_ids=["slate"])
    assert rows["slot"].to_pylist() == [f"s{i}" for i in range(6)]
    assert set(rows["context"].to_pylist()) == {context.decode()}


def test_a_slate_that_became_old_between_its_slots_stays_whole(shop: Shop) -> None:
    context = b'{"country":"fr"}'
    slots = [decision("slate", slot=f"s{i}", context=msgspec.Raw(context)) for i in range(4)]
    for i, (value, headers) in enumerate(written(slots, context)):  # as a forwarder may bring them
        shop.now = BEGIN.timestamp() + i * DAY
        shop.log.append(DECISIONS, b"slate", value, headers)
    shop.decide(0, 20, day=5)
    shop.ingest()
    assert shop.tidy(4.5).number == 0
    assert len(whole(shop.log.find(DECISIONS, b"slate"))) == 4
    shop.decide(20, 20, day=9)
    shop.ingest()
    assert shop.tidy(9).number == 44


def test_an_older_copy_of_the_lake_is_told_that_messages_are_gone_that_it_never_had(shop: Shop, tmp_path: Path) -> None:
    shop.decide(0, 10, day=0)
    shop.ingest()
    older = shutil.copytree(shop.lake.path, tmp_path / "older")
    shop.decide(10, 10, day=1)
    shop.decide(20, 10, day=20)
    shop.ingest()
    assert shop.tidy(20).number == 40
    with pytest.raises(IngestError, match="never ingested"):
        ingest(shop.log, Lake(older), loops={"shop"})
