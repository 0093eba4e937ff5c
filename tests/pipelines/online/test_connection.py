"""A Redis on the request path: one question waits for one that hangs, none for one that is gone; it is found again."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from decision.errors import FieldError
from pipelines.online.connection import Online, open_online
from pipelines.operations.waiting import wait_until
from pipelines.settings import load_settings
from tests.redis_server import RedisServer


@pytest.fixture
def online(redis: RedisServer) -> Iterator[Online]:
    made = Online(redis.url)
    yield made
    made.close()


def test_replies_come_in_order(online: Online) -> None:
    assert online.ask([("SET", "a", b"\x00"), ("GET", "a"), ("GET", "nothing")]) == [True, b"\x00", None]
    assert online.ask([]) == []


def test_a_connection_that_was_closed_meanwhile_is_opened_again(online: Online) -> None:
    assert online.ask([("SET", "a", 1)]) is not None
    online.ask([("CLIENT", "KILL", "SKIPME", "yes", "TYPE", "normal")])
    threads = [threading.Thread(target=lambda: found.append(online.ask([("GET", "a")]))) for _ in range(4)]
    found: list[list[bytes] | None] = []
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[b"1"]] * 4
    assert not online.away


def test_nothing_is_asked_of_a_redis_that_hangs_until_it_answers(redis: RedisServer) -> None:
    online = Online(redis.url, again_s=0.01)
    redis.pause()
    assert online.ask([("GET", "a")]) is None
    assert online.away
    assert [online.ask([("GET", "a")]) for _ in range(1_000)] == [None] * 1_000  # each at once, or this took minutes
    redis.go_on()
    wait_until(lambda: not online.away, "Redis to be asked again")
    assert online.ask([("SET", "a", 1)]) is not None
    online.close()


def test_a_redis_that_takes_nothing_is_one_that_is_away(redis: RedisServer) -> None:
    online = Online(redis.url, again_s=3600.0)
    online.ask([("CONFIG", "SET", "maxmemory", 1)])
    assert online.ask([("SET", "full", b"x")]) is None
    assert online.away
    online.close()
    again = Online(redis.url)
    again.ask([("CONFIG", "SET", "maxmemory", 0)])
    again.close()


def test_an_address_that_is_none_is_refused_without_showing_it() -> None:
    for address in ("redis://", "http://there", "redis://there/db", "redis://me:hush@there:1/0?x=1"):
        with pytest.raises(FieldError, match="DECISION_ONLINE") as refused:
            load_settings({"DECISION_ONLINE": address})
        assert "hush" not in str(refused.value)
    assert load_settings({"DECISION_ONLINE": "rediss://me:p@there:6380/15"}).online
    assert open_online(load_settings({})) is None
