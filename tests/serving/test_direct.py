"""Decisions acknowledged by a log of several machines: what is sent, remembered, refused."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path

import pytest

from decision.errors import FieldError
from pipelines.log.protocol import DECISIONS, OUTCOMES, Item, LogUnavailable
from pipelines.log.sqlite.log import Group, LocalLog, Stored
from pipelines.operations.waiting import wait_until
from pipelines.settings import load_settings
from serving.replicas.direct import DirectLog
from serving.spool import Spool


class Copied(LocalLog):
    """A local log that says of itself how many copies it has, and may be away."""

    away = False
    told: tuple[int, int] = (3, 2)

    def copies(self, topic: str) -> tuple[int, int]:
        return self.told

    def append_many(self, topic: str, items: Iterable[Item]) -> list[tuple[int, int]]:
        self._answer()
        return super().append_many(topic, items)

    def create(self, topic: str, partitions: int) -> None:
        self._answer()
        super().create(topic, partitions)

    def watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        self._answer()
        return super().watermarks(topic, partition)

    def _answer(self) -> None:
        if self.away:
            raise LogUnavailable("the broker is away")


@pytest.fixture
def log(tmp_path: Path) -> Copied:
    return Copied(tmp_path / "log.db")


def group(key: bytes, value: bytes, loop: str = "shop", *, standing: bool = False) -> Group:
    return Group(key, [(DECISIONS, b'{"loop":"%s","v":"%s"}' % (loop.encode(), value), ())], True, loop, standing)


def values(stored: Stored) -> list[bytes]:
    return [message.value[-4:-2] for message in stored.messages]


def test_what_is_sent_is_on_the_log_once_and_a_repetition_gets_the_first_answer(log: Copied) -> None:
    direct = DirectLog(log, 3)
    first, again, other = direct.append_groups([group(b"e1", b"1a"), group(b"e1", b"1b"), group(b"e1", b"1c", "news")])
    assert (first.existing, again.existing, other.existing) == (False, True, False)
    assert values(again) == [b"1a"]
    (later,) = direct.append_groups([group(b"e1", b"1d")])
    assert (later.existing, values(later), later.positions) == (True, [b"1a"], ())
    assert [message.value[-4:-2] for message in log.find(DECISIONS, b"e1")] == [b"1a", b"1c"]
    outcome = Group(b"e1", [(OUTCOMES, b"{}", ())])
    assert len(direct.append_groups([outcome, outcome])) == 2
    assert len(log.find(OUTCOMES, b"e1")) == 2


def test_what_another_replica_answered_is_sent_and_given(log: Copied) -> None:
    direct = DirectLog(log, 1)
    (standing,) = direct.append_groups([group(b"e1", b"2a", standing=True)])
    assert (standing.existing, values(standing), len(standing.positions)) == (True, [b"2a"], 1)
    assert len(log.find(DECISIONS, b"e1")) == 1


def test_a_log_that_is_away_is_an_error_at_once_until_it_is_found_again(log: Copied) -> None:
    direct = DirectLog(log, 1)
    spool = Spool(direct)

    def ask(key: bytes) -> Future[list[Stored]]:
        return spool.submit([group(key, b"3a")])

    assert ask(b"e1").result(300)
    log.away = True
    for key in (b"e2", b"e3"):
        with pytest.raises(LogUnavailable):
            ask(key).result(300)
    assert not spool.healthy
    log.away = False
    wait_until(lambda: spool.healthy, "the log to be found again")
    assert not ask(b"e2").result(300)[0].existing
    assert [len(log.find(DECISIONS, key)) for key in (b"e1", b"e2", b"e3")] == [1, 1, 0]
    spool.close()


def test_a_service_that_starts_while_the_log_is_away_waits_for_it(log: Copied) -> None:
    log.away = True
    direct = DirectLog(log, 1)
    spool = Spool(direct, healthy=not direct.away)
    assert not spool.healthy
    with pytest.raises(LogUnavailable):
        spool.submit([group(b"e1", b"4a")]).result(300)
    log.away = False
    wait_until(lambda: spool.healthy, "the log to be found")
    assert spool.submit([group(b"e1", b"4a")]).result(300)
    spool.close()


@pytest.mark.parametrize("told", [(1, 1), (3, 1), (2, 2)])
def test_a_log_that_one_lost_broker_takes_along_is_refused_unless_the_setting_says_so_aloud(
    log: Copied, told: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    log.told = told
    with pytest.raises(FieldError, match=r"ack: must be .* 3 copies and min\.insync\.replicas=2"):
        DirectLog(log, 1)
    DirectLog(log, 1, unreplicated=True)
    assert "a lost broker takes acknowledged decisions along" in caplog.text


def test_acknowledging_by_the_log_needs_a_log_and_what_answers_are_agreed_on_in() -> None:
    both = {"log": "kafka://broker:9092", "online": "redis://there/0"}
    assert load_settings({}, ack="kafka", **both).ack == "kafka"
    for missing in both:
        with pytest.raises(FieldError, match=f"{missing}: must be"):
            load_settings({}, ack="kafka", **{name: value for name, value in both.items() if name != missing})
