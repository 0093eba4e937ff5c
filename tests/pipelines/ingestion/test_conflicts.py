"""Events answered twice: seen, counted, and never booked on an action that was not taken."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decision.records import Decision, decode_decision
from pipelines.ingestion.forward import forward
from pipelines.ingestion.ingest import Ingested, Ingester, ingest
from pipelines.interactions.counters import Counters, counters
from pipelines.interactions.join import join, restate
from pipelines.lake.lake import Lake
from pipelines.log.protocol import OUTCOMES
from pipelines.log.sqlite.log import LocalLog
from pipelines.settings import load_settings
from serving.client import Client
from serving.wire import Action, DecideRequest, OutcomeRequest
from tests.worlds.lake import LATER, LOOP, World, decision, loop_of, outcome

IDS = 200


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def other(event_id: str, **changes: object) -> Decision:
    """The answer of another replica, which drew "a"."""
    return decision(event_id, **{"action_index": 0, "propensity": 0.75} | changes)


def balanced(world: World) -> Counters:
    counted = counters(world.lake, LOOP, LATER)
    assert counted.balanced, counted
    return counted


def test_another_answer_to_an_event_is_a_conflict_and_an_equal_one_a_repetition(world: World) -> None:
    world.append(decision("e1"), other("e1"), decision("e1"), decision("e2"), decision("e1", loop="news"))
    assert ingest(world.log, world.lake) == Ingested(decisions=3, duplicates=1, conflicts=1)
    world.append(decision("e2", policy_version="4"), decision("e2"), decision("e2", seed=7))
    assert ingest(world.log, world.lake) == Ingested(duplicates=1, conflicts=2)
    letters = {row["offset"]: row for row in world.lake.dead_letters().to_pylist()}
    assert len(letters) == 3
    assert {row["field"] for row in letters.values()} == {"conflict"}
    kept = [decode_decision(row["value"]) for row in letters.values() if row["key"] == b"e1"]
    assert kept == [other("e1")]
    counted = balanced(world)
    assert (counted.conflicts_seen, counted.duplicates_seen, counted.decided) == (3, 2, 2)
    assert counters(world.lake, loop_of("", "news"), LATER).conflicts_seen == 0


def test_a_conflicting_decision_is_dropped_unless_an_outcome_names_its_action(world: World) -> None:
    for event in ("none", "unnamed", "kept", "other"):
        world.append(decision(event), other(event))
    world.append(outcome("unnamed"), outcome("kept", action_id="b"), outcome("other", action_id="a"))
    world.append(decision("plain"), outcome("plain", action_id="a"), outcome("plain", 0.5, action_id="b"))
    ingest(world.log, world.lake)
    joined = join(world.lake, LOOP, LATER)
    assert (joined.joined, joined.dropped) == (2, {"conflict": 3})
    dropped = ("dropped", None)
    assert world.state_of() == {
        "none": dropped, "unnamed": dropped, "other": dropped, "kept": ("joined", 1.0), "plain": ("joined", 0.5),
    }  # fmt: skip
    counted = balanced(world)
    assert (counted.dropped, counted.conflicts_seen, counted.late_conflicts) == ({"conflict": 3}, 4, 0)
    assert counted.doubtful == {"action_id": 2}


def test_a_conflict_that_comes_after_its_decision_was_settled_is_late_and_left_to_a_restatement(world: World) -> None:
    world.append(decision("e1"), outcome("e1"))
    ingest(world.log, world.lake)
    join(world.lake, LOOP, LATER)
    world.append(other("e1"))
    ingest(world.log, world.lake)
    assert join(world.lake, LOOP, LATER).dropped == {}
    assert world.state_of() == {"e1": ("joined", 1.0)}
    assert balanced(world).late_conflicts == 1
    assert restate(world.lake, LOOP, LATER).dropped == {"conflict": 1}
    assert balanced(world).late_conflicts == 0


def test_rows_of_before_there_were_actions_of_outcomes_read_on(world: World) -> None:
    old = msgspec.structs.replace(outcome("e1"), schema_version=2)
    without = msgspec.json.encode({k: v for k, v in msgspec.structs.asdict(old).items() if k != "action_id"})
    world.append(decision("e1", schema_version=2))
    world.append_raw(OUTCOMES, [(b"e1", without)])
    assert ingest(world.log, world.lake) == Ingested(decisions=1, outcomes=1)
    join(world.lake, LOOP, LATER)
    assert world.state_of() == {"e1": ("joined", 1.0)}


EVENTS = st.sampled_from(["e1", "e2", "e3", "e4", "e5"])
STEPS = st.one_of(
    st.tuples(st.just("answer"), EVENTS, st.integers(0, 1)),
    st.tuples(st.just("outcome"), EVENTS, st.sampled_from([None, "a", "b"])),
    st.tuples(st.sampled_from(["ingest", "restart", "cut"]), st.just(""), st.none()),
)


@given(steps=st.lists(STEPS, max_size=24), rows=st.integers(1, 3))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_however_answers_and_ingestion_interleave_no_reward_is_booked_on_another_action(
    steps: list[tuple[str, str, int | str | None]], rows: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        ingester = Ingester(world.log, world.lake, rows_per_commit=rows)
        answers: dict[str, list[int]] = {}
        outcomes: dict[str, list[int | str | None]] = {}
        for what, event, value in steps:
            if what == "answer":
                answers.setdefault(event, []).append(0 if value == 0 else 1)
                world.append(decision(event) if value else other(event))
            elif what == "outcome":
                outcomes.setdefault(event, []).append(value)
                world.append(outcome(event, action_id=value))
            elif what == "restart":
                ingester = Ingester(world.log, world.lake, rows_per_commit=rows)
            else:
                ingester.run(max_messages=2 if what == "cut" else None)
        ingester.run()
        join(world.lake, LOOP, LATER)
        wanted: dict[str, tuple[str, float | None]] = {}
        for event, given_ in answers.items():
            conflicting, drawn = len(set(given_)) > 1, "ab"[given_[0]]
            counted = [x for x in outcomes.get(event, []) if x == drawn or (x is None and not conflicting)]
            if conflicting and not counted:
                wanted[event] = ("dropped", None)
            else:
                wanted[event] = ("joined", float(len(counted))) if counted else ("expired", 0.0)
        assert world.state_of() == wanted
        counted_ = balanced(world)
        assert counted_.conflicts_seen == sum(x != given_[0] for given_ in answers.values() for x in given_)
        assert counted_.duplicates_seen == sum(given_.count(given_[0]) - 1 for given_ in answers.values())


@pytest.mark.parametrize("names_action", [False, True])
def test_200_ids_answered_by_two_homes_give_no_reward_to_an_action_that_was_not_taken(
    tmp_path: Path, names_action: bool
) -> None:
    target = LocalLog(tmp_path / "log.db")
    answers: dict[str, dict[str, str]] = {}
    for home, baseline in (("first", "uniform"), ("second", "first")):
        path = tmp_path / home / "loops" / "news"
        path.mkdir(parents=True)
        (path / "loop.toml").write_text(f'[baseline]\nkind = "{baseline}"\n')
        installation = load_settings({}, home=str(tmp_path / home))
        with Client(installation) as client:
            for number in range(IDS):
                event = f"e{number}"
                asked = DecideRequest({"hour": number % 24}, [Action("a"), Action("b")], event_id=event)
                answers.setdefault(event, {})[home] = client.decide("news", asked).action_id
            if home == "second":  # whoever asked acts on the second answer, and only "a" pays
                for event, given_ in answers.items():
                    action = given_["second"]
                    named = action if names_action else None
                    client.outcome("news", OutcomeRequest(event, float(action == "a"), action_id=named))
        spool = LocalLog(installation.spool_path)
        forward(spool, target, once=True)
        spool.close()
    differ = [event for event, given_ in answers.items() if given_["first"] != given_["second"]]
    assert len(differ) > IDS / 4

    lake, loop = Lake(tmp_path / "lake"), loop_of("", "news")
    done = ingest(target, lake)
    assert (done.decisions, done.duplicates + done.conflicts) == (IDS, IDS)
    now = datetime.now(UTC) + timedelta(days=1)
    join(lake, loop, now)
    counted = counters(lake, loop, now)
    assert counted.balanced
    assert counted.conflicts_seen == done.conflicts >= len(differ)
    booked = lake.interactions("news").to_pylist()
    taken = {row["event_id"]: row["action_ids"][row["action_index"]] for row in booked}
    assert [event for event in taken if taken[event] != answers[event]["second"]] == []
    assert all(row["reward"] == float(taken[row["event_id"]] == "a") for row in booked)
    assert len(booked) == (IDS - len(differ) if names_action else IDS - done.conflicts)
    target.close()
