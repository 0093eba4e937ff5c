"""What every engine of replays keeps: the steps of all units are merged, each once, whatever their order."""

from __future__ import annotations

from datetime import UTC, datetime
from operator import add

import pyarrow as pa
import pytest

from decision.errors import FieldError
from decision.policy import UniformPolicy
from pipelines.replay.engine import Engine
from pipelines.replay.passes import Job
from pipelines.replay.policy import spec_of
from pipelines.replay.source import TableSource


def job_of(rows: int, *, at_once: int = 10) -> Job:
    """Return a job on a log of `rows` decisions, cut into units of `at_once`."""
    columns = {
        "event_id": [str(n) for n in range(rows)],
        "ts": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * rows, pa.timestamp("us", "UTC")),
        "state": pa.array(["joined"] * rows, pa.string()),
        "reward": pa.array([float(n) for n in range(rows)], pa.float64()),
    }
    return Job(source=TableSource(pa.table(columns), rows=at_once), policy=spec_of(UniformPolicy(), "uniform"))


def rewards(job: Job, unit: int) -> list[float]:
    """Return the rewards of a unit."""
    return [value for table in job.source.batches(unit, ("state", "reward")) for value in table["reward"].to_pylist()]


def units_done(job: Job, unit: int) -> list[int]:
    """Return the unit's own number."""
    return [unit]


def refuse(job: Job, unit: int) -> list[int]:
    """Refuse the third unit as a step refuses a log that does not fit."""
    if unit == job.source.units()[2]:
        raise FieldError("reward", wanted="a number", got="x")
    return [unit]


def first(one: list[int], other: list[int]) -> list[int]:
    """Merge by keeping the smaller: not a sum."""
    return min(one, other)


def check_every_row_is_merged_once(engine: Engine) -> None:
    total = engine.total(rewards, add, job_of(95))
    assert total is not None
    assert sorted(total) == [float(n) for n in range(95)]


def check_every_unit_is_done_once(engine: Engine) -> None:
    job = job_of(1_000)
    total = engine.total(units_done, add, job)
    assert total is not None
    assert sorted(total) == job.source.units()
    assert len(total) == 100


def check_the_merge_is_the_one_that_is_given(engine: Engine) -> None:
    assert engine.total(units_done, first, job_of(60)) == [0]


def check_a_single_unit_needs_no_merge(engine: Engine) -> None:
    def never(one: list[float], other: list[float]) -> list[float]:
        raise AssertionError("there is nothing to merge")

    assert engine.total(rewards, never, job_of(3)) == [0.0, 1.0, 2.0]


def check_a_log_without_units_is_nothing(engine: Engine) -> None:
    assert engine.total(rewards, add, job_of(0)) is None


def check_what_a_step_refuses_is_refused_and_the_engine_goes_on(engine: Engine) -> None:
    with pytest.raises(FieldError, match="reward"):
        engine.total(refuse, add, job_of(60))
    assert engine.total(units_done, first, job_of(20)) == [0]


CHECKS = [check for name, check in sorted(globals().items()) if name.startswith("check_")]
