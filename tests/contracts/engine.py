"""What every engine of replays keeps: the steps of all units are merged, each once, whatever their order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from operator import add
from typing import Any

import pyarrow as pa
import pytest

from decision.errors import FieldError
from decision.policy import UniformPolicy
from pipelines.engines.engine import Engine, each_of
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


def total(engine: Engine, step: Callable[[Job, int], Any], merge: Callable[[Any, Any], Any], job: Job) -> Any:
    """Return what the engine makes of the units of the job's own log."""
    return engine.total(step, merge, job, job.source.units())


def check_every_row_is_merged_once(engine: Engine) -> None:
    assert sorted(total(engine, rewards, add, job_of(95))) == [float(n) for n in range(95)]


def check_every_unit_is_done_once(engine: Engine) -> None:
    job = job_of(1_000)
    assert sorted(total(engine, units_done, add, job)) == job.source.units()
    assert len(job.source.units()) == 100


def check_the_merge_is_the_one_that_is_given(engine: Engine) -> None:
    assert total(engine, units_done, first, job_of(60)) == [0]


def check_a_single_unit_needs_no_merge(engine: Engine) -> None:
    def never(one: list[float], other: list[float]) -> list[float]:
        raise AssertionError("there is nothing to merge")

    assert total(engine, rewards, never, job_of(3)) == [0.0, 1.0, 2.0]


def check_a_log_without_units_is_nothing(engine: Engine) -> None:
    assert total(engine, rewards, add, job_of(0)) is None


def check_what_a_step_refuses_is_refused_and_the_engine_goes_on(engine: Engine) -> None:
    with pytest.raises(FieldError, match="reward"):
        total(engine, refuse, add, job_of(60))
    assert total(engine, units_done, first, job_of(20)) == [0]


def check_results_can_be_had_in_the_order_of_the_units(engine: Engine) -> None:
    job, told = job_of(60), list[int]()
    found = each_of(engine, units_done, job, [50, 0, 20], told.append)
    assert found == [[50], [0], [20]]
    assert told[-1] == 3


CHECKS = [check for name, check in sorted(globals().items()) if name.startswith("check_")]
