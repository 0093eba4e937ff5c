"""Followers of one log: who does what, what a killed one leaves, and that each message is in the lake once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from decision.records import Decision, encode
from pipelines.ingestion.behind import caught_up, ends_of, to_ingest
from pipelines.ingestion.ingest import Ingested
from pipelines.ingestion.ownership import Ownership, strike_absent
from pipelines.lake.lake import Lake
from pipelines.log.protocol import DECISIONS, OUTCOMES, LogUnavailable
from pipelines.nightly import nightly
from pipelines.operations.follow import Follower
from pipelines.operations.installation import Installation
from pipelines.operations.waiting import STILL_S
from pipelines.settings import load_settings
from pipelines.state.failures import StateError
from pipelines.state.state import State
from tests.worlds.lake import LATER, decision, outcome

FOREVER = 600.0


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State(f"sqlite:///{tmp_path}/state.db") as opened:
        yield opened


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Installation]:
    path = tmp_path / "home" / "loops" / "shop"
    path.mkdir(parents=True)
    (path / "loop.toml").write_text("")
    with Installation(load_settings({}, home=str(tmp_path / "home"), partitions=4)) as opened:
        yield opened


def append(parts: Installation, *ids: str) -> None:
    records = [record for name in ids for record in (decision(name), outcome(name))]
    for record in records:
        topic = DECISIONS if isinstance(record, Decision) else OUTCOMES
        parts.log.append(topic, record.event_id.encode(), encode(record))


def test_followers_share_the_partitions_and_what_one_leaves_goes_to_the_others(state: State) -> None:
    first, second = Ownership(state, 5), Ownership(state, 5)
    assert first.renew() == [0, 1, 2, 3, 4]
    assert second.renew() == []  # the first has them still
    kept = first.renew()
    taken = second.renew()
    assert sorted(kept + taken) == [0, 1, 2, 3, 4]
    assert abs(len(kept) - len(taken)) == 1
    assert len(strike_absent(state)) == 2
    first.close()
    assert second.renew() == [0, 1, 2, 3, 4]
    second.close()
    assert strike_absent(state) == []


def test_the_partitions_of_a_killed_follower_pass_on_when_its_leases_end(state: State) -> None:
    killed, other = Ownership(state, 4, lease_s=0.0), Ownership(state, 4)
    killed.renew()
    assert other.renew() == [0, 1, 2, 3]
    assert len(strike_absent(state)) == 1
    assert killed.renew() == []  # it was only asleep: a member again, and the other gives it its share
    other.renew()
    assert len(strike_absent(state)) == 1


def test_followers_that_do_not_reach_state_keep_what_they_have(
    state: State, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ours = Ownership(state, 3)
    assert ours.renew() == [0, 1, 2]

    def away(*_: object) -> bool:
        raise StateError("away")

    monkeypatch.setattr(state, "renew", away)
    assert ours.renew() == [0, 1, 2]
    assert "away" in caplog.text


def test_a_round_ingests_and_joins_the_partitions_that_are_ours(parts: Installation, state: State) -> None:
    append(parts, *(f"e{i}" for i in range(40)))
    other = Ownership(state, 4)
    other.renew()
    with Follower(parts, state) as follower:
        assert follower.round(LATER) == Ingested()
        other.renew()
        done = follower.round(LATER)
        assert 0 < done.decisions == done.outcomes < 40
        assert len(parts.lake.interactions("shop")) == done.decisions
        other.close()
        follower.round(LATER)
        assert follower.total == Ingested(decisions=40, outcomes=40)
    assert to_ingest(ends_of(parts.log), parts.lake) == {"decisions": 0, "outcomes": 0}


def test_two_followers_at_once_bring_in_each_message_once(parts: Installation, state: State) -> None:
    stop = threading.Event()

    def follow() -> None:
        agreed_on = f"sqlite:///{parts.settings.root.parent}/state.db"
        with Installation(parts.settings) as own, State(agreed_on) as agreed, Follower(own, agreed) as follower:
            follower.run(0.01, stop)

    threads = [threading.Thread(target=follow) for _ in range(2)]
    for thread in threads:
        thread.start()
    ids = [f"e{i}" for i in range(120)]
    for start in range(0, 120, 20):
        append(parts, *ids[start : start + 20])
    assert caught_up(ends_of(parts.log), Lake(parts.settings.lake_url), patience_s=STILL_S)
    stop.set()
    for thread in threads:
        thread.join()
    assert sorted(parts.lake.decisions("shop")["event_id"].to_pylist()) == sorted(ids)
    assert sorted(parts.lake.outcomes("shop")["event_id"].to_pylist()) == sorted(ids)
    assert strike_absent(state) == []


@pytest.mark.parametrize("error", [OSError("the disk is away"), LogUnavailable("the log is"), StateError("State is")])
def test_what_is_away_is_waited_for(
    error: Exception,
    parts: Installation,
    state: State,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    append(parts, "e1")
    stop, rounds = threading.Event(), list[datetime]()
    with Follower(parts, state) as follower:
        once = follower.round

        def shaky(now: datetime) -> Ingested:
            rounds.append(now)
            if len(rounds) == 1:
                raise error
            stop.set()
            return once(now)

        monkeypatch.setattr(follower, "round", shaky)
        assert follower.run(0.001, stop).decisions == 1
    assert str(error) in caplog.text


def test_a_night_waits_for_followers_that_get_on_and_does_it_itself_where_they_do_not(
    parts: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.nightly.STEPS", ("ingest",))
    append(parts, "e1", "e2")

    def night(run_id: str) -> dict[str, object]:
        run = nightly(
            parts.settings, parts.log, parts.lake, parts.registry, parts.loop("shop"), now=LATER, run_id=run_id
        )
        return run.result("ingest") or {}

    with State(parts.settings.state_url) as agreed, Follower(parts, agreed, lease_s=FOREVER) as follower:
        follower.round(LATER)
        found = night("first")
        assert (found["followers"], found["decisions"]) == (1, 0)
        append(parts, "e3")
        monkeypatch.setattr("pipelines.nightly.caught_up", lambda *args, **kwargs: False)
        assert night("second")["decisions"] == 1
    monkeypatch.undo()
    monkeypatch.setattr("pipelines.nightly.STEPS", ("ingest",))
    append(parts, "e4")
    assert night("third")["decisions"] == 1


def test_waiting_ends_when_nothing_comes_in(parts: Installation) -> None:
    append(parts, "e1")
    slept: list[float] = []
    assert not caught_up(ends_of(parts.log), parts.lake, patience_s=1.0, pause=slept.append)
    assert sum(slept) == pytest.approx(1.0)


def test_a_log_that_is_away_when_a_follower_starts_is_waited_for(
    parts: Installation, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(parts, "e1")
    asked, stop, found = list[str](), threading.Event(), parts.log.partitions

    def away(topic: str) -> int:
        asked.append(topic)
        if len(asked) == 1:
            raise LogUnavailable("no broker takes a connection")
        stop.set()
        return found(topic)

    monkeypatch.setattr(parts.log, "partitions", away)
    with Follower(parts, state) as follower:
        assert follower.run(0.001, stop).decisions == 1
