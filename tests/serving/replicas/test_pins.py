"""Pins of episodes: the first one stays, on file and in Redis, and without Redis each process goes by its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipelines.online.connection import Online
from serving.replicas.pins import FilePins, OnlinePins, Pin, Pins
from tests.redis_server import RedisServer
from tests.serving.test_rollout_units import EPISODES, Site, check_side

FIRST, LATER = Pin("1", "2", 0.1 + 0.2, 7, 1_800_000_000.25), Pin("2", "", 0.0, 9, 1_800_000_001.0)


@pytest.fixture(params=["file", "redis"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Pins]]:
    """Give what opens the same pins as another process would."""
    with ExitStack() as stack:

        def made() -> Pins:
            pins: Pins = FilePins(tmp_path / "episodes.db")
            if request.param == "redis":
                online = Online(request.getfixturevalue("redis").url)
                stack.callback(online.close)
                pins = OnlinePins(online)
            stack.callback(pins.close)
            return pins

        yield made


def test_the_first_pin_of_an_episode_stays_for_every_process(opened: Callable[[], Pins]) -> None:
    one, other = opened(), opened()
    assert one.first("shop", [("e", FIRST)], kept_s=60.0) == [FIRST]
    assert other.first("shop", [("new", LATER), ("e", LATER)], kept_s=60.0) == [LATER, FIRST]
    assert one.first("news", [("e", LATER)], kept_s=60.0) == [LATER]  # an episode is a loop's own


def test_an_episode_keeps_to_what_it_began_with_at_another_home(tmp_path: Path, redis: RedisServer) -> None:
    homes = [tmp_path / name for name in ("a", "b")]
    for home in homes:
        home.mkdir()
    one, other = (Site(home, EPISODES, redis.url) for home in homes)
    try:
        one.publish(0.5)
        other.publish(0.9)
        here, there = one.replica(), other.replica()
        names = [f"visit-{n}" for n in range(10)]
        for name in names:
            check_side(one.ask(here, f"{name}.0", episode_id=name)[0], 0.5, name)
            check_side(other.ask(there, f"{name}.1", episode_id=name)[0], 0.5, name)
        check_side(other.ask(there, "own.0", episode_id="own")[0], 0.9, "own")
        redis.kill()
        check_side(other.ask(there, "alone.0", episode_id="alone")[0], 0.9, "alone")
        check_side(other.ask(there, "alone.1", episode_id="alone")[0], 0.9, "alone")
        check_side(other.ask(there, f"{names[0]}.2", episode_id=names[0])[0], 0.5, names[0])
    finally:
        one.close()
        other.close()
        redis.start()
