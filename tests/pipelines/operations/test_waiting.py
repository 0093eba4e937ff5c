"""A wait goes on while things get on, however slowly, and ends where they stand still."""

from __future__ import annotations

import pytest

from pipelines.operations.waiting import StandstillError, wait_until


class Machine:
    """A clock that runs as it is waited on, and a count that grows every `pace` seconds, up to `most`."""

    def __init__(self, pace: float, most: int) -> None:
        self.now, self.pace, self.most = 0.0, pace, most

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    @property
    def count(self) -> int:
        return min(int(self.now / self.pace), self.most)

    def wait(self, wanted: int) -> None:
        wait_until(
            lambda: self.count >= wanted,
            "the count",
            progress=lambda: self.count,
            still_s=10.0,
            clock=self.clock,
            sleep=self.sleep,
        )


def test_what_gets_on_slowly_is_waited_for() -> None:
    machine = Machine(pace=9.0, most=100)
    machine.wait(100)
    assert machine.now >= 900.0


def test_what_stands_still_is_given_up_with_what_was_seen() -> None:
    machine = Machine(pace=1.0, most=3)
    with pytest.raises(StandstillError, match="the count: nothing moved for 10 s; the last seen is 3"):
        machine.wait(4)
    assert machine.now < 14.0


def test_without_a_measure_of_progress_only_the_time_counts() -> None:
    machine = Machine(pace=1.0, most=3)
    with pytest.raises(StandstillError):
        wait_until(lambda: False, "nothing", still_s=5.0, clock=machine.clock, sleep=machine.sleep)
    wait_until(lambda: True, "nothing", still_s=0.0)
