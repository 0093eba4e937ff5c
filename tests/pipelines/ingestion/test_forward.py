"""The forwarder: everything, in order within a key, whatever fails, and trimming that never outruns it."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decision.errors import FieldError
from pipelines.ingestion.forward import ForwarderBusy, forward, lags, run_forwarder
from pipelines.log.kafka.log import KafkaLog
from pipelines.log.protocol import Headers, Item, LogUnavailable, Message, OffsetOutOfRange
from pipelines.log.sqlite.log import LocalLog
from pipelines.operations.waiting import wait_until
from pipelines.settings import Settings
from tests.contracts.event_log import read_all

TOPICS = ("decisions", "outcomes")
HOUR = 3600.0


class LossyLog(LocalLog):
    """A target that now and then writes a prefix of what it is given and then does not answer."""

    def __init__(self, path: Path, rng: random.Random) -> None:
        super().__init__(path)
        self._rng = rng

    def append_many(self, topic: str, items: Iterable[Item]) -> list[tuple[int, int]]:
        items = list(items)
        if self._rng.random() < 0.5:
            super().append_many(topic, items[: self._rng.randint(0, len(items))])
            raise LogUnavailable("the line is dead")
        return super().append_many(topic, items)


@pytest.fixture
def source(tmp_path: Path):
    log = LocalLog(tmp_path / "spool.db")
    for topic in TOPICS:
        log.create(topic, 2)
    yield log
    log.close()


@pytest.fixture
def target(tmp_path: Path):
    log = LocalLog(tmp_path / "target.db")
    yield log
    log.close()


def fill(log: LocalLog, count: int, *, start: int = 0) -> None:
    for topic in TOPICS:
        log.append_many(
            topic, [(b"k%d" % (n % 7), b"%d" % n, (("h", b"%d" % n),)) for n in range(start, start + count)]
        )


def messages(log: LocalLog, topic: str) -> list[Message]:
    return [m for p in range(log.partitions(topic)) for m in read_all(log, topic, p)]


def check_complete(source: LocalLog, target: LocalLog) -> None:
    """Every message of the spool is in the target, and first occurrences are in the order of the spool."""
    for topic in TOPICS:
        for partition in range(2):
            seen: dict[int, Message] = {}
            for message in read_all(target, topic, partition):
                headers = dict(message.headers)
                assert headers["spool"] == source.identity().encode()
                seen.setdefault(int(headers["spool_offset"]), message)
            wanted = read_all(source, topic, partition)
            assert list(seen) == [m.offset for m in wanted]
            for original in wanted:
                copy = seen[original.offset]
                assert (copy.key, copy.value, copy.headers[:-2]) == (original.key, original.value, original.headers)


def test_once_copies_everything_and_again_copies_only_what_is_new(source: LocalLog, target: LocalLog) -> None:
    fill(source, 100)
    done = forward(source, target, once=True, batch_messages=30)
    assert done.messages == 200
    assert set(done.lag.values()) == {0}
    check_complete(source, target)
    fill(source, 10, start=100)
    assert lags(source) == {
        target.identity(): {
            (topic, p): source.watermarks(topic, p)[1] - target.watermarks(topic, p)[1]
            for topic in TOPICS
            for p in (0, 1)
        }
    }
    assert sum(lags(source)[target.identity()].values()) == 20
    assert forward(source, target, once=True).messages == 20
    assert sum(len(messages(target, topic)) for topic in TOPICS) == 220
    check_complete(source, target)


def test_messages_that_were_forwarded_before_keep_their_first_origin(source: LocalLog, target: LocalLog) -> None:
    headers: Headers = (("spool", b"first"), ("spool_offset", b"99"))
    source.append("decisions", b"k", b"v", headers)
    forward(source, target, once=True)
    assert [m.headers for m in messages(target, "decisions")] == [headers]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), batch=st.integers(1, 40))
def test_whatever_fails_nothing_is_lost_and_first_occurrences_stay_in_order(seed: int, batch: int) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        source, target = LocalLog(Path(folder) / "spool.db"), LossyLog(Path(folder) / "target.db", rng)
        for topic in TOPICS:
            source.create(topic, 2)
        for n in range(3):
            fill(source, 25, start=n * 25)
            for _ in range(200):  # a crash at every failure: nothing but the spool is remembered
                try:
                    forward(source, target, once=True, batch_messages=batch)
                    break
                except LogUnavailable:
                    continue
        check_complete(source, target)
        source.close()
        target.close()


def test_loop_goes_on_after_failures_and_takes_what_comes_meanwhile(source: LocalLog, tmp_path: Path) -> None:
    target, stop = LossyLog(tmp_path / "target.db", random.Random(5)), threading.Event()
    fill(source, 50)
    results = []
    thread = threading.Thread(target=lambda: results.append(forward(source, target, stop=stop, batch_messages=20)))
    thread.start()
    for n in range(1, 4):
        fill(source, 50, start=n * 50)
    try:
        wait_until(lambda: lags(source) and not any(lags(source)[target.identity()].values()), "the forwarder")
    finally:
        stop.set()
        thread.join()
    assert results[0].messages == 400
    assert results[0].failures > 0
    check_complete(source, target)
    target.close()


def test_absent_target_costs_nothing_but_time(source: LocalLog) -> None:
    fill(source, 10)
    absent = KafkaLog(["127.0.0.1:1"], connect_timeout_s=0.2)
    with pytest.raises(LogUnavailable):
        forward(source, absent, once=True)

    class SecondPause(threading.Event):
        """Ends the forwarder in its second pause, which has been tried twice by then."""

        paused = 0

        def wait(self, timeout: float | None = None) -> bool:
            self.paused += 1
            if self.paused == 2:
                self.set()
            return super().wait(timeout)

    done = forward(source, absent, stop=SecondPause())
    assert (done.messages, done.failures) == (0, 2)
    assert sum(len(messages(source, topic)) for topic in TOPICS) == 20
    absent.close()


def test_trimming_takes_only_what_is_forwarded_and_old(tmp_path: Path) -> None:
    now = [1_000_000.0]
    source = LocalLog(tmp_path / "spool.db", clock=lambda: now[0])
    target = LossyLog(tmp_path / "target.db", random.Random(0))
    for topic in TOPICS:
        source.create(topic, 2)
    fill(source, 20)
    now[0] += 2 * HOUR
    fill(source, 20, start=20)
    now[0] += 2 * HOUR
    target._rng = random.Random(1)
    while True:  # failures first: nothing old may go before it is over there
        try:
            done = forward(source, target, once=True, retention_s=3 * HOUR, clock=lambda: now[0])
            break
        except LogUnavailable:
            assert all(
                source.watermarks(topic, p)[0] <= source.positions(f"forward:{target.identity()}")[topic, p]
                for topic in TOPICS
                for p in (0, 1)
            )
    assert done.trimmed == 40
    for topic in TOPICS:
        assert sorted(int(m.value) for m in messages(source, topic)) == list(range(20, 40))
        assert {int(m.value) for m in messages(target, topic)} == set(range(40))
    fill(source, 5, start=40)
    now[0] += 100 * HOUR
    while True:
        try:
            forward(source, target, once=True, retention_s=3 * HOUR, clock=lambda: now[0])
            break
        except LogUnavailable:
            continue
    for topic in TOPICS:
        assert messages(source, topic) == []
        assert {int(m.value) for m in messages(target, topic)} == set(range(45))
    source.close()
    target.close()


def test_messages_lost_before_they_were_forwarded_are_an_error(source: LocalLog, target: LocalLog) -> None:
    fill(source, 20)
    forward(source, target, once=True)
    fill(source, 20, start=20)
    partition = 0 if source.watermarks("decisions", 0)[1] > target.watermarks("decisions", 0)[1] else 1
    source.trim("decisions", partition, source.watermarks("decisions", partition)[1])
    with pytest.raises(OffsetOutOfRange, match="decisions"):
        forward(source, target)


def test_a_new_target_gets_what_the_spool_still_has(source: LocalLog, target: LocalLog, tmp_path: Path) -> None:
    fill(source, 20)
    forward(source, target, once=True, retention_s=0, clock=lambda: time.time() + 10)
    assert messages(source, "decisions") == []
    fill(source, 1, start=20)
    other = LocalLog(tmp_path / "other.db")
    for _ in range(2):
        forward(source, other, once=True)
    assert [m.value for m in messages(other, "decisions")] == [b"20"]
    other.close()


def test_a_spool_has_one_forwarder_at_a_time(source: LocalLog, target: LocalLog) -> None:
    stop, running = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=lambda: forward(source, target, stop=stop, on_pass=lambda _: running.set()), daemon=True
    )
    thread.start()
    assert running.wait(300)
    with pytest.raises(ForwarderBusy):
        forward(source, target, once=True)
    stop.set()
    thread.join(300)
    forward(source, target, once=True)


def test_a_target_with_other_partitions_is_refused(source: LocalLog, target: LocalLog) -> None:
    target.create("decisions", 3)
    with pytest.raises(FieldError, match="partitions: must be 3"):
        forward(source, target)


def test_a_local_installation_needs_no_forwarder(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match="log"):
        run_forwarder(Settings(home=str(tmp_path)), once=True)
