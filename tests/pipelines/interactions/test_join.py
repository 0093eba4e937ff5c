"""The join on real tables: incremental, repeatable, restatable, and balanced at every moment."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decision.errors import FieldError
from decision.reward import LARGEST
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.counters import Counters, counters
from pipelines.interactions.join import join, restate
from pipelines.lake.lake import ConflictError, Lake
from tests.worlds.lake import LATER, LOOP, START, WINDOW, World, decision, loop_of, outcome

SECOND = timedelta(seconds=1)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def balanced(world: World, now: datetime = LATER) -> Counters:
    counted = counters(world.lake, LOOP, now)
    assert counted.balanced, counted
    return counted


def test_the_reward_is_the_definitions_number_of_the_outcomes_in_the_window(world: World) -> None:
    world.append(*(decision(f"e{i}") for i in range(4)))
    world.append(outcome("e0", 0.25), outcome("e0", 0.5), outcome("e1", 0.75, after=601), outcome("e2", 7.0))
    ingest(world.log, world.lake)
    joined = join(world.lake, loop_of("[reward]\nminimum = 0.0\nmaximum = 1.0"), LATER)
    assert (joined.joined, joined.expired, joined.dropped, joined.clipped, joined.pending) == (2, 2, {}, 1, 0)
    assert world.state_of() == {
        "e0": ("joined", 0.75),
        "e1": ("expired", 0.0),
        "e2": ("joined", 1.0),
        "e3": ("expired", 0.0),
    }
    row = next(row for row in world.lake.interactions("shop").to_pylist() if row["event_id"] == "e0")
    assert [(o["name"], o["value"], o["ts"]) for o in row["outcomes"]] == [
        ("reward", 0.25, START + 5 * SECOND),
        ("reward", 0.5, START + 5 * SECOND),
    ]
    assert row["matured_at"] == START + WINDOW
    assert row["reward_version"] == "1"
    want = decision("e0")
    for name in want.__struct_fields__:
        value = getattr(want, name)
        assert row[name] == (bytes(value).decode() if isinstance(value, msgspec.Raw) else value), name


def test_only_mature_decisions_are_settled_and_each_once(world: World) -> None:
    world.append(*(decision(f"e{i}", ts=START + i * WINDOW) for i in range(5)))
    ingest(world.log, world.lake)
    for i in range(6):
        now = START + i * WINDOW
        assert join(world.lake, LOOP, now).expired == (i > 0)
        assert join(world.lake, LOOP, now).expired == 0
        counted = balanced(world, now)
        assert (counted.decided, counted.expired, counted.pending, counted.mature) == (5, i, 5 - i, 0)
    assert len(world.lake.interactions("shop")) == 5


def test_a_decision_that_stays_open_holds_up_nothing(world: World) -> None:
    world.append(decision("far", ts=START + timedelta(days=900)), *(decision(f"e{i}") for i in range(9)))
    ingest(world.log, world.lake)
    assert join(world.lake, LOOP, LATER).expired == 9
    world.append(*(decision(f"f{i}") for i in range(9)))
    ingest(world.log, world.lake)
    assert join(world.lake, LOOP, LATER, rows_per_commit=2).expired == 9
    assert balanced(world).pending == 1
    assert join(world.lake, LOOP, START + timedelta(days=901)).expired == 1
    assert len(world.state_of()) == 19


def test_outcomes_meet_their_slot(world: World) -> None:
    world.append(decision("e1", slot="top"), decision("e1", slot="side"), outcome("e1", slot="side"))
    ingest(world.log, world.lake)
    join(world.lake, LOOP, LATER)
    rows = {row["slot"]: row["state"] for row in world.lake.interactions("shop").to_pylist()}
    assert rows == {"top": "expired", "side": "joined"}


def test_a_loops_outcomes_are_not_anothers(world: World) -> None:
    world.append(decision("e1"), decision("e1", loop="news"), outcome("e1", loop="news"))
    ingest(world.log, world.lake)
    for loop in (LOOP, loop_of("", "news")):
        join(world.lake, loop, LATER)
    assert world.state_of() == {"e1": ("expired", 0.0)}
    assert world.state_of("news") == {"e1": ("joined", 1.0)}


def test_deferred_decisions_that_were_not_activated_are_dropped_and_counted(world: World) -> None:
    world.append(decision("e1", deferred=True), decision("e2", deferred=True), decision("e3"))
    world.append(outcome("e1", name="seen"), outcome("e2"), outcome("e2", name="activation"))
    ingest(world.log, world.lake)
    assert join(world.lake, LOOP, LATER).dropped == {"not_activated": 1}
    assert world.state_of() == {"e1": ("dropped", None), "e2": ("joined", 1.0), "e3": ("expired", 0.0)}
    assert world.lake.interactions("shop")["event_id"].to_pylist() == ["e2", "e3"]
    assert balanced(world).dropped == {"not_activated": 1}


@pytest.mark.parametrize("strict", [False, True])
def test_a_rewarded_deferred_decision_counts_unless_the_loop_is_strict(world: World, strict: bool) -> None:
    world.append(decision("e1", deferred=True), decision("e2", deferred=True))
    world.append(outcome("e1"))
    ingest(world.log, world.lake)
    loop = loop_of("[reward]\nactivates = false") if strict else LOOP
    assert join(world.lake, loop, LATER).dropped == {"not_activated": 2 if strict else 1}
    assert world.state_of()["e1"] == (("dropped", None) if strict else ("joined", 1.0))


@pytest.mark.parametrize("rows_per_commit", [1, 100])
@pytest.mark.parametrize("report", [{"name": "activation"}, {"slot": "side"}])
def test_all_slots_of_an_event_are_activated_together(
    world: World, report: dict[str, str], rows_per_commit: int
) -> None:
    for event_id in ("e1", "e2"):
        world.append(*(decision(event_id, slot=slot, deferred=True) for slot in ("top", "side")))
    world.append(outcome("e1", **report))
    ingest(world.log, world.lake)
    joined = join(world.lake, LOOP, LATER, rows_per_commit=rows_per_commit)
    assert joined.dropped == {"not_activated": 2}
    assert world.state_of()["e2"] == ("dropped", None)
    assert set(world.lake.interactions("shop")["event_id"].to_pylist()) == {"e1"}
    counted = balanced(world)
    assert (counted.orphan_outcomes, counted.doubtful) == (0, {})


@pytest.mark.parametrize(
    "broken",
    [
        {"context": b'{"a":' + b"[" * 900 + b"]" * 900 + b"}"},
        {"context": b'{"a":1e999}'},
        {"actions": b'[{"price":1}]'},
        {"actions": b"[1,2]"},
        {"feature_snapshot": b'{"a":{"b":{"c":{"d":{"e":{"f":1}}}}}}'},
    ],
)
def test_a_decision_that_no_trainer_could_read_is_dropped_and_counted(world: World, broken: dict[str, bytes]) -> None:
    world.append(decision("e1", **{name: msgspec.Raw(text) for name, text in broken.items()}), decision("e2"))
    assert ingest(world.log, world.lake).decisions == 2
    assert join(world.lake, LOOP, LATER).dropped == {"invalid_features": 1}
    assert world.state_of()["e1"] == ("dropped", None)
    assert balanced(world).expired == 1


def test_reports_that_arrived_twice_count_once(world: World) -> None:
    world.append(decision("e1"), decision("e2"), decision("e3"))
    world.append(outcome("e1", 0.25, idempotency_key="k"), outcome("e1", 0.25, idempotency_key="k"))
    world.append(outcome("e2", 0.25), headers=(("spool", b"a"), ("spool_offset", b"3")))
    world.append(outcome("e2", 0.25), headers=(("spool", b"a"), ("spool_offset", b"3")))
    world.append(outcome("e3", 0.25), outcome("e3", 0.25))
    ingest(world.log, world.lake)
    join(world.lake, LOOP, LATER)
    assert world.state_of() == {"e1": ("joined", 0.25), "e2": ("joined", 0.25), "e3": ("joined", 0.5)}
    assert balanced(world).late_outcomes == 0


def test_late_and_orphaned_outcomes_are_kept_and_counted(world: World) -> None:
    world.append(decision("e1"), decision("e2"), decision("open", ts=LATER))
    world.append(outcome("e1"), outcome("e2", after=601), outcome("nobody"), outcome("open", after=99))
    ingest(world.log, world.lake)
    join(world.lake, LOOP, LATER)
    world.append(outcome("e1", after=6), outcome("e1", after=7, idempotency_key="k"))
    world.append(outcome("e1", after=7, idempotency_key="k"))
    ingest(world.log, world.lake)
    assert join(world.lake, LOOP, LATER).joined == 0
    counted = balanced(world)
    assert (counted.outcomes, counted.late_outcomes, counted.orphan_outcomes) == (7, 3, 1)
    assert world.state_of()["e1"] == ("joined", 1.0)


def test_duplicates_and_dead_letters_are_counted_across_restarts(world: World) -> None:
    world.append(decision("e1"), decision("e1"), decision("e2"), decision("e2", loop="news"))
    world.append_raw("decisions", [(b"x", b"dead")])
    ingest(world.log, world.lake)
    world.append(decision("e1"))
    ingest(world.log, world.lake)
    counted = balanced(world)
    assert (counted.decided, counted.duplicates_seen, counted.dead_letters) == (2, 2, 1)
    assert counters(world.lake, loop_of("", "news"), LATER).duplicates_seen == 0


def test_restating_applies_a_new_definition_and_keeps_the_old_rows_reachable(world: World) -> None:
    world.append(*(decision(f"e{i}") for i in range(3)))
    world.append(outcome("e0", 0.25), outcome("e0", 1.0), outcome("e1", name="click"), outcome("e0", 0.5, after=700))
    ingest(world.log, world.lake)
    join(world.lake, LOOP, LATER)
    before, version = world.lake.interactions("shop"), world.lake.version("interactions")
    clicks = loop_of('[reward]\noutcome = "click"\nversion = "clicks"\ndefault = 0.5')
    joined = restate(world.lake, clicks, LATER)
    assert (joined.joined, joined.expired) == (1, 2)
    assert world.state_of() == {"e0": ("expired", 0.5), "e1": ("joined", 1.0), "e2": ("expired", 0.5)}
    assert set(world.lake.interactions("shop")["reward_version"].to_pylist()) == {"clicks"}
    assert world.lake.interactions("shop", version=version).equals(before)
    assert restate(world.lake, LOOP, LATER).joined == 1
    assert world.lake.interactions("shop").equals(before)
    assert balanced(world).late_outcomes == 1


def test_restating_counts_late_outcomes_only_when_asked(world: World) -> None:
    world.append(decision("e1"), decision("e2"))
    world.append(outcome("e1", 0.25), outcome("e1", 0.5, after=601))
    ingest(world.log, world.lake)
    join(world.lake, LOOP, LATER)
    world.append(outcome("e2", 0.125, after=9))  # in time, but arrived after its decision had been settled
    ingest(world.log, world.lake)
    restate(world.lake, LOOP, LATER)
    assert world.state_of() == {"e1": ("joined", 0.25), "e2": ("expired", 0.0)}
    assert balanced(world).late_outcomes == 2
    restate(world.lake, LOOP, LATER, late=True)
    assert world.state_of() == {"e1": ("joined", 0.75), "e2": ("joined", 0.125)}
    assert balanced(world).late_outcomes == 0


def test_restating_with_a_longer_window_opens_decisions_again(world: World) -> None:
    world.append(decision("e1"), decision("e2", ts=START + 10 * WINDOW))
    world.append(outcome("e2", after=6001))
    ingest(world.log, world.lake)
    now = START + 12 * WINDOW
    join(world.lake, LOOP, now)
    longer = loop_of("[reward]\nwindow_s = 6000")
    joined = restate(world.lake, longer, now)
    assert (joined.expired, joined.pending) == (1, 1)
    assert balanced(world).pending == 1
    assert join(world.lake, longer, START + 30 * WINDOW).joined == 1
    assert world.state_of() == {"e1": ("expired", 0.0), "e2": ("joined", 1.0)}


def test_restating_leaves_other_loops_alone(world: World) -> None:
    news = loop_of("", "news")
    world.append(decision("e1"), decision("n1", loop="news"))
    ingest(world.log, world.lake)
    join(world.lake, LOOP, LATER)
    join(world.lake, news, LATER)
    before = world.lake.interactions("news")
    restate(world.lake, LOOP, LATER)
    assert world.lake.interactions("news").equals(before)
    assert restate(world.lake, loop_of("", "empty"), LATER).joined == 0


def test_joins_at_the_same_time_settle_each_decision_once(world: World) -> None:
    world.append(*(decision(f"e{i}") for i in range(60)))
    ingest(world.log, world.lake)
    threads = [
        threading.Thread(target=join, args=(world.lake, LOOP, LATER), kwargs={"rows_per_commit": 5}) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(world.state_of()) == world.lake.table("interactions").count() == 60
    balanced(world)


def test_a_join_during_a_restatement_makes_it_look_again(world: World) -> None:
    world.append(*(decision(f"e{i}", ts=START + i * WINDOW) for i in range(4)))
    ingest(world.log, world.lake)
    join(world.lake, LOOP, START + 2 * WINDOW)

    class Racing(Lake):
        raced = False

        def commit(self, *args: Any, **kwargs: Any) -> int:
            if not self.raced:
                self.raced = True
                join(world.lake, LOOP, START + 3 * WINDOW)
            return super().commit(*args, **kwargs)

    restate(Racing(world.lake.path), LOOP, START + 2 * WINDOW)
    assert world.lake.table("interactions").count() == 2
    assert balanced(world, START + 3 * WINDOW).pending == 2


def test_a_crash_before_or_after_any_commit_settles_each_decision_once(world: World) -> None:
    world.append(*(decision(f"e{i}") for i in range(12)))
    ingest(world.log, world.lake)

    class Crash(BaseException):
        pass

    class Dying(Lake):
        after = False

        def commit(self, *args: Any, **kwargs: Any) -> int:
            if not self.after:
                raise Crash
            super().commit(*args, **kwargs)
            raise Crash

    for _ in range(6):
        for after in (False, True):
            lake = Dying(world.lake.path)
            lake.after = after
            if counters(world.lake, LOOP, LATER).pending:
                with pytest.raises(Crash):
                    join(lake, LOOP, LATER, rows_per_commit=3)
            balanced(world)
    join(world.lake, LOOP, LATER)
    assert world.lake.table("interactions").count() == len(world.state_of()) == 12


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("decide"), st.integers(0, 8), st.integers(0, 4)),
        st.tuples(st.just("report"), st.integers(0, 9), st.integers(-1, 5)),
        st.tuples(st.just("ingest"), st.integers(1, 6), st.just(0)),
        st.tuples(st.just("join"), st.integers(0, 8), st.just(0)),
        st.tuples(st.just("restate"), st.integers(0, 8), st.integers(0, 1)),
    ),
    max_size=14,
)


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=ACTS)
def test_the_identity_holds_after_every_step_of_any_history(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[str, int, int]]
) -> None:
    world = World(tmp_path_factory.mktemp("history"))
    ids = set[str]()
    for act, first, second in acts:
        if act == "decide":
            world.append(decision(f"e{first}", ts=START + second * WINDOW, deferred=first % 3 == 0))
        elif act == "report":
            world.append(outcome(f"e{first}", after=second * 300.0, name="reward" if second % 2 else "activation"))
        elif act == "ingest":
            ingest(world.log, world.lake, max_messages=first)
        elif act == "join":
            join(world.lake, LOOP, START + first * WINDOW, rows_per_commit=2)
        else:
            restate(world.lake, LOOP, START + first * WINDOW, late=bool(second))
        counted = balanced(world)
        rows = world.lake.decisions("shop")["event_id"].to_pylist()
        ids.update(rows)
        assert counted.decided == len(rows) == len(ids)
    assert world.lake.table("interactions").count() == len(world.state_of())


def test_joining_bit_by_bit_is_joining_at_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    worlds = []
    for name in ("bits", "once"):
        (tmp_path / name).mkdir()
        worlds.append(World(tmp_path / name))
    bits, once = worlds
    for i in range(60):
        records = [decision(f"e{i}", ts=START + timedelta(seconds=10.0 * i))]
        if i >= 5:
            records.append(outcome(f"e{i - 5}", float(rng.random()), after=10.0 * (i - 5) + float(rng.integers(60))))  # type: ignore[arg-type]
        for world in worlds:
            world.append(*records)
        if i % 7 == 0:
            ingest(bits.log, bits.lake)
            join(bits.lake, LOOP, START + timedelta(seconds=10.0 * i), rows_per_commit=4)
    for world in worlds:
        ingest(world.log, world.lake)
        join(world.lake, LOOP, LATER)
    assert bits.state_of() == once.state_of()


def test_times_without_an_offset_are_refused(world: World) -> None:
    with pytest.raises(FieldError, match="now: must be a time with its UTC offset"):
        join(world.lake, LOOP, datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(FieldError, match="since"):
        world.lake.decisions("shop", since=datetime(2026, 1, 1))  # noqa: DTZ001


def test_a_join_gives_up_when_it_always_loses(world: World) -> None:
    world.append(decision("e1"))
    ingest(world.log, world.lake)

    class Losing(Lake):
        def commit(self, *args: Any, **kwargs: Any) -> int:
            raise ConflictError("lost")

    with pytest.raises(ConflictError):
        join(Losing(world.lake.path), LOOP, LATER)


def test_rewards_are_cut_to_the_bounds_that_are_given_and_to_no_others(world: World) -> None:
    values = {"e1": 500.0, "e2": -3.5, "e3": 0.5, "e4": 1e300}
    for event_id, value in values.items():
        world.append(decision(event_id), outcome(event_id, value))
        world.append(decision(event_id, loop="cut"), outcome(event_id, value, loop="cut"))
    ingest(world.log, world.lake)
    assert join(world.lake, LOOP, LATER).clipped == 1
    found = world.state_of()
    assert {event_id: reward for event_id, (_, reward) in found.items()} == values | {"e4": LARGEST}
    assert join(world.lake, loop_of("[reward]\nminimum = 0.0\nmaximum = 1.0", "cut"), LATER).clipped == 3
    assert {e: reward for e, (_, reward) in world.state_of("cut").items()} == {"e1": 1, "e2": 0, "e3": 0.5, "e4": 1}
