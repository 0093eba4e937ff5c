"""A thread that keeps something fresh: what it survives, and when it counts as late."""

from __future__ import annotations

import logging
import threading

import pytest

from serving import metrics
from serving.refresher import Refresher


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("error", [OSError(24, "too many open files"), MemoryError(), KeyError("x"), RecursionError()])
def test_it_survives_whatever_its_work_raises_and_says_so_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    calls, done = [], threading.Event()

    def work() -> None:
        calls.append(1)
        if len(calls) <= 3:
            raise error
        done.set()

    name = f"test-{type(error).__name__}"
    refresher = Refresher(name, work, period_s=0.001)
    with caplog.at_level(logging.WARNING, logger="serving.refresher"):
        refresher.start()
        assert done.wait(300)
        refresher.close()
    assert refresher.failures == 3
    assert [record.fields["thread"] for record in caplog.records].count(name) == 1
    assert f'decision_thread_failures_total{{thread="{name}"}} 3.0'.encode() in metrics.exposition()


def test_it_is_late_ten_periods_after_its_work_last_got_on() -> None:
    clock, go = Clock(), threading.Semaphore(0)
    done = threading.Semaphore(0)

    def work() -> None:
        go.acquire()
        done.release()

    refresher = Refresher("late", work, period_s=0.01, clock=clock)
    assert not refresher.late  # it was not started: nothing is expected of it
    refresher.start()
    clock.now = 59.0
    assert not refresher.late  # the first call may import for a minute
    clock.now = 61.0
    assert refresher.late
    go.release()
    done.acquire()
    while refresher.first:
        pass
    assert not refresher.late
    clock.now += 0.099
    assert not refresher.late
    clock.now += 0.002
    assert refresher.late
    refresher.beat()
    assert not refresher.late
    refresher._stop.set()
    go.release()
    refresher.close()


def test_closing_twice_or_without_a_start_does_no_harm() -> None:
    refresher = Refresher("closed", lambda: None, period_s=0.001)
    refresher.close()
    refresher.start()
    refresher.close()
    refresher.close()
    assert "closed" not in [thread.name for thread in threading.enumerate()]
