"""The service's memories and the gate's are one: from the log as it grows, and from the lake afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from decision.memory import memory
from decision.records import Decision, Outcome, encode
from pipelines.files import open_sqlite
from pipelines.interactions.window import rule_of
from pipelines.log.sqlite.log import LocalLog
from pipelines.trajectories.memories import Memories, micros, remembering
from tests.decision.oracles.test_session import ACTIONS, oracle
from tests.soak.memory import RULES, play
from tests.worlds.lake import LATER, START, decision, loop_of, outcome

LOOP = loop_of("[reward]\nmaximum = 10.0\n")
USED = remembering(oracle(), rule_of(LOOP))
SOON = START + timedelta(seconds=60)


def visit(number: int, user: str = "u", action: int = 0) -> Decision:
    return decision(
        f"e{number}",
        subject_id=user,
        ts=START + timedelta(seconds=number),
        action_ids=ACTIONS,
        pmf=[0.5, 0.25, 0.25],
        action_index=action,
        propensity=[0.5, 0.25, 0.25][action],
    )


def paid(number: int, value: float, **changes: object) -> Outcome:
    return outcome(f"e{number}", value, number + 0.5, **changes)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LocalLog]:
    made = LocalLog(tmp_path / "log.sqlite")
    for topic in ("decisions", "outcomes"):
        made.create(topic, 2)
    yield made
    made.close()


def put(log: LocalLog, *records: Decision | Outcome) -> None:
    for record in records:
        topic = "decisions" if isinstance(record, Decision) else "outcomes"
        log.append(topic, record.event_id.encode(), encode(record))


def opened(folder: Path) -> Memories:
    made = Memories(folder / "s.sqlite", "shop")
    made.use([USED])
    return made


@pytest.mark.parametrize("number", range(len(RULES)))
def test_served_and_judged_memories_are_the_same_bits(tmp_path: Path, number: int) -> None:
    """The short form of ``make soak NAME=memory``."""
    found = play(tmp_path, 100 + number, 20, loop_of(RULES[number]), ticks=14)
    assert found["differ"] == 0
    assert found["remembered"] > 0


def test_memory_is_what_the_policy_makes_of_the_history(log: LocalLog, tmp_path: Path) -> None:
    store, known = opened(tmp_path), USED.oracle.start()
    for number, reward in enumerate((3.0, 1.0, 7.5)):
        put(log, visit(number, action=number), paid(number, reward))
        assert store.follow(log, SOON) == 2
        known = USED.oracle.advance(known, ACTIONS[number], reward)
        assert store.online("u", SOON, USED) == known.tolist()
    assert store.online("someone else", SOON, USED) is None
    turns = store.history("u", SOON)
    assert [turn.event_id for turn in turns] == ["e0", "e1", "e2"]
    assert np.array_equal(memory(USED.oracle, turns, USED.rule, micros(SOON)), known)
    store.close()


def test_what_is_delivered_twice_counts_once_and_order_does_not_matter(log: LocalLog, tmp_path: Path) -> None:
    store = opened(tmp_path)
    put(log, paid(1, 2.0, idempotency_key="a"))
    store.follow(log, SOON)
    assert store.online("u", SOON, USED) is None
    put(log, visit(1))
    store.follow(log, SOON)
    before = store.online("u", SOON, USED)
    assert before == USED.oracle.advance(USED.oracle.start(), ACTIONS[0], 2.0).tolist()
    put(log, visit(1), paid(1, 9.0, idempotency_key="a"))
    store.follow(log, SOON)
    assert store.online("u", SOON, USED) == before
    store.close()


def test_restart_loses_no_memory_and_repeats_nothing(log: LocalLog, tmp_path: Path) -> None:
    first = opened(tmp_path)
    put(log, visit(1), paid(1, 2.0))
    first.follow(log, SOON)
    before = first.online("u", SOON, USED)
    first.close()
    second = opened(tmp_path)
    assert second.online("u", SOON, USED) == before
    assert second.follow(log, SOON) == 0
    second.close()


def test_a_process_sees_what_another_has_read(log: LocalLog, tmp_path: Path) -> None:
    one, other = opened(tmp_path), opened(tmp_path)
    assert other.online("u", SOON, USED) is None
    put(log, visit(1), paid(1, 2.0))
    assert one.follow(log, SOON) == 2
    assert other.follow(log, SOON) == 0
    assert other.online("u", SOON, USED) == one.online("u", SOON, USED) is not None
    one.close()
    other.close()


def test_another_policy_makes_its_own_memory_of_the_same_history(log: LocalLog, tmp_path: Path) -> None:
    store, other = opened(tmp_path), remembering(oracle(9), rule_of(LOOP))
    put(log, visit(1, action=2), paid(1, 2.0))
    store.follow(log, SOON)
    known = other.oracle.advance(other.oracle.start(), "d18", 2.0)
    assert store.online("u", SOON, other) == known.tolist()  # asked for, and not in charge
    store.use([other, USED])
    put(log, visit(2), paid(2, 3.0))
    store.follow(log, SOON)
    assert store.online("u", SOON, other) == other.oracle.advance(known, ACTIONS[0], 3.0).tolist()
    store.close()


def test_another_definition_of_the_reward_makes_another_memory_at_once(log: LocalLog, tmp_path: Path) -> None:
    store = opened(tmp_path)
    put(log, visit(1), paid(1, 8.0))
    store.follow(log, SOON)
    clipped = remembering(oracle(), rule_of(loop_of("[reward]\nmaximum = 1.0\n")))
    expected = [USED.oracle.advance(USED.oracle.start(), ACTIONS[0], reward).tolist() for reward in (8.0, 1.0)]
    assert [store.online("u", SOON, used) for used in (USED, clipped)] == expected
    store.close()


def test_the_window_s_end_is_known_without_any_record(log: LocalLog, tmp_path: Path) -> None:
    store = opened(tmp_path)
    put(log, visit(0))
    store.follow(log, SOON)
    window = timedelta(seconds=LOOP.reward.window_s)
    assert store.online("u", START + window - timedelta(microseconds=1), USED) is None
    expected = USED.oracle.advance(USED.oracle.start(), ACTIONS[0], LOOP.reward.default).tolist()
    assert store.online("u", START + window, USED) == expected
    store.close()


def test_records_that_cannot_be_read_stop_nobody(log: LocalLog, tmp_path: Path) -> None:
    store = opened(tmp_path)
    put(log, visit(1))
    for topic in ("decisions", "outcomes"):
        log.append(topic, b"e1", b"no record")
        log.append(topic, b"e1", b"")
    put(log, paid(1, 2.0))
    assert store.follow(log, SOON) == 2
    assert store.online("u", SOON, USED) is not None
    store.close()


def test_an_erased_user_leaves_nothing(log: LocalLog, tmp_path: Path) -> None:
    store = opened(tmp_path)
    put(log, visit(1), paid(1, 2.0), visit(2, "other"), paid(2, 3.0))
    store.follow(log, SOON)
    assert store.erase("u") == 1
    assert store.online("u", SOON, USED) is None
    assert store.history("u", LATER) == []
    assert store.online("other", SOON, USED) is not None
    store.close()
    rest = b"".join(path.read_bytes() for path in tmp_path.glob("s.sqlite*"))
    assert b"e2" in rest


def test_a_file_of_the_earlier_form_is_made_anew_from_the_log(log: LocalLog, tmp_path: Path) -> None:
    sql = open_sqlite(
        tmp_path / "s.sqlite",
        busy_s=1.0,
        synchronous="NORMAL",
        schema="CREATE TABLE positions (topic TEXT, part INTEGER, next INTEGER);"
        "CREATE TABLE states (subject_id TEXT PRIMARY KEY, policy TEXT, state BLOB);"
        "INSERT INTO positions VALUES ('decisions', 0, 100), ('decisions', 1, 100);",
    )
    sql.close()
    put(log, visit(1), paid(1, 2.0))
    store = opened(tmp_path)
    assert store.follow(log, SOON) == 2
    assert store.online("u", SOON, USED) is not None
    store.close()
