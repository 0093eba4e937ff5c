"""Memories in Redis: on every machine those that one machine makes of all that happened, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from decision.memory import BLOCK
from pipelines.interactions.window import rule_of
from pipelines.log.sqlite.log import LocalLog
from pipelines.online.connection import Online
from pipelines.trajectories.memories import Memories, remembering
from pipelines.trajectories.shared_memories import SharedMemories
from tests.decision.oracles.test_session import ACTIONS, oracle
from tests.pipelines.trajectories.test_memories import LATER, SOON, USED, paid, put, visit
from tests.redis_server import RedisServer
from tests.soak.memory import RULES, play
from tests.worlds.lake import loop_of

WINDOW_S = 600.0


@pytest.fixture
def online(redis: RedisServer) -> Iterator[Online]:
    """An empty database."""
    made = Online(redis.url)
    made.ask([("FLUSHALL",)])
    yield made
    made.close()


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[list[LocalLog]]:
    """The logs of two machines."""
    made = [LocalLog(tmp_path / f"{name}.db") for name in "ab"]
    for log in made:
        for topic in ("decisions", "outcomes"):
            log.create(topic, 2)
    yield made
    for log in made:
        log.close()


def shared(online: Online) -> SharedMemories:
    return SharedMemories(online, "shop", WINDOW_S)


@pytest.mark.parametrize("number", range(0, len(RULES), 2))
def test_served_and_judged_memories_are_the_same_bits(tmp_path: Path, online: Online, number: int) -> None:
    """Restarts, late and doubled reports, users with more turns than a memory goes over, which are cut off."""
    loop = loop_of(RULES[number])

    def opened() -> SharedMemories:
        return SharedMemories(online, "shop", loop.reward.window_s, most_fields=3 * BLOCK)

    found = play(tmp_path, 100 + number, 20, loop, ticks=14, open_store=opened)
    assert found["differ"] == 0
    assert found["remembered"] > 0


def test_what_happens_at_either_machine_is_known_at_both_as_at_a_single_one(
    online: Online, logs: list[LocalLog], tmp_path: Path
) -> None:
    here, there = shared(online), shared(online)
    alone, whole = Memories(tmp_path / "alone.sqlite", "shop"), LocalLog(tmp_path / "alone.db")
    for topic in ("decisions", "outcomes"):
        whole.create(topic, 2)
    for number in range(12):
        decided, reported = logs[number % 2], logs[(number // 2) % 2]
        put(decided, visit(number, action=number % 3))
        put(reported, paid(number, number / 2))
        put(whole, visit(number, action=number % 3), paid(number, number / 2))
        for store, log in zip((there, here) if number % 3 else (here, there), logs, strict=True):
            store.follow(log, SOON)  # an outcome often comes before its decision
        alone.follow(whole, SOON)
        expected = alone.online("u", SOON, USED)
        assert expected is not None
        assert here.online("u", SOON, USED) == there.online("u", SOON, USED) == expected
    assert [turn.event_id for turn in here.history("u", SOON)] == [turn.event_id for turn in alone.history("u", SOON)]
    other = remembering(oracle(9), rule_of(loop_of("[reward]\nmaximum = 1.0\n")))
    names = {"session": USED, "candidate": other}
    assert here.online_many(["u", "nobody"], SOON, names) == alone.online_many(["u", "nobody"], SOON, names)
    alone.close()
    whole.close()


def test_what_is_brought_twice_and_in_any_order_counts_once(online: Online, logs: list[LocalLog]) -> None:
    store = shared(online)
    put(logs[0], paid(1, 2.0, idempotency_key="a"), visit(1), paid(1, 9.0, idempotency_key="a"))
    messages = {topic: [*logs[0].find(topic, b"e1")] for topic in ("decisions", "outcomes")}
    counts = [store.take(topic, messages[topic], logs[0].identity()) for topic in ("outcomes", "decisions")]
    assert counts == [0, 3]  # what was reported waited for its decision
    assert [store.take(topic, messages[topic], logs[0].identity()) for topic in messages] == [0, 0]
    assert shared(online).follow(logs[0], SOON) == 0
    known = USED.oracle.advance(USED.oracle.start(), ACTIONS[0], 2.0)
    assert store.online("u", SOON, USED) == known.tolist()


def test_an_id_that_two_users_have_is_the_first_ones(online: Online, logs: list[LocalLog]) -> None:
    store = shared(online)
    put(logs[0], visit(1, "first"), paid(1, 2.0))
    store.follow(logs[0], SOON)
    put(logs[1], visit(1, "second"))
    store.follow(logs[1], SOON)
    assert store.online("first", SOON, USED) is not None
    assert store.online("second", SOON, USED) is None


def test_one_of_all_machines_brings_what_is_on_a_log_that_they_share(online: Online, logs: list[LocalLog]) -> None:
    here, there = (SharedMemories(online, "shop", WINDOW_S, everybodys=True) for _ in range(2))
    put(logs[0], visit(1), paid(1, 2.0))
    assert (here.follow(logs[0], SOON), there.follow(logs[0], SOON)) == (2, 0)
    put(logs[0], visit(2), paid(2, 3.0))
    assert (there.follow(logs[0], SOON), here.follow(logs[0], SOON)) == (0, 2)
    assert there.online("u", SOON, USED) == here.online("u", SOON, USED) is not None
    online.ask([("DEL", f"memory:shop:lease:{logs[0].identity()}")])  # as when the first is gone for two seconds
    put(logs[0], visit(3), paid(3, 4.0))
    assert (there.follow(logs[0], SOON), here.follow(logs[0], SOON)) == (2, 0)


def test_a_redis_that_lost_everything_is_filled_again_from_the_logs(
    online: Online, redis: RedisServer, logs: list[LocalLog]
) -> None:
    store = shared(online)
    put(logs[0], visit(1), paid(1, 2.0))
    store.follow(logs[0], SOON)
    before = store.online("u", SOON, USED)
    redis.pause()
    put(logs[0], visit(2), paid(2, 3.0))
    assert store.follow(logs[0], SOON) == 0
    assert store.online("u", SOON, USED) == before  # as it was read last
    redis.kill()
    redis.start()
    again = Online(redis.url)
    fresh = shared(again)
    assert fresh.follow(logs[0], SOON) == 4
    first = USED.oracle.advance(USED.oracle.start(), ACTIONS[0], 2.0)
    assert fresh.online("u", SOON, USED) == USED.oracle.advance(first, ACTIONS[0], 3.0).tolist()
    again.close()


def test_an_erased_user_leaves_nothing_in_redis(online: Online, logs: list[LocalLog]) -> None:
    store = shared(online)
    put(logs[0], visit(1, "ann-of-ulm"), paid(1, 2.0), visit(2, "other"), paid(2, 3.0))
    store.follow(logs[0], SOON)
    assert store.online("ann-of-ulm", SOON, USED) is not None
    assert store.erase("ann-of-ulm") == 1
    assert store.online("ann-of-ulm", SOON, USED) is None
    assert store.history("ann-of-ulm", LATER) == []
    assert store.online("other", SOON, USED) is not None
    (keys,) = online.ask([("KEYS", "*")]) or [[]]
    assert not [key for key in keys if b"ann-of-ulm" in key or key.endswith(b":e1")]


def test_an_erasure_never_passes_over_a_redis_that_does_not_answer(redis: RedisServer) -> None:
    redis.pause()
    alone = Online(redis.url)
    with pytest.raises(ConnectionError):
        shared(alone).erase("u")
    alone.close()
    redis.go_on()
