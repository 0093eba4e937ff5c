"""Prometheus metrics: what the workers did, by the rows of `serving.telemetry.catalogue`.

The workers of a run share a folder, and whichever is asked adds up what all of them wrote there. Metrics are made on
first use, after prometheus_client was pointed to it. They count requests of both ports. BentoML would have one
folder for all services of a user and empty it at each start, so each run makes its own in the home folder.
"""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.evaluation.standing import KINDS, Standing
from pipelines.files import hindered
from pipelines.interactions.doubtful import DOUBTS
from serving.telemetry.catalogue import BY_NAME, CATALOGUE, OF_LOOPS, SECONDS

_RUN, _FOLDER = "SERVING_METRICS", "PROMETHEUS_MULTIPROC_DIR"
"""The variables that tell workers the folder of their run, and prometheus_client the folder it counts in."""

_ROOM = 1 << 20
"""Bytes of a file of counts: what prometheus_client begins with. It doubles one that is full."""


@cache
def _series(name: str, *values: str) -> Any:
    """Return the series of a metric of the catalogue with these values of its labels."""
    family = _family(name)
    return family.labels(*values) if values else family


@cache
def _family(name: str) -> Any:
    import prometheus_client as library

    metric = BY_NAME[name]
    if metric.kind == "counter":
        return library.Counter(metric.family, metric.help, metric.labels)
    if metric.kind == "histogram":
        return library.Histogram(metric.family, metric.help, metric.labels, buckets=SECONDS)
    return library.Gauge(metric.family, metric.help, metric.labels, multiprocess_mode=metric.mode)  # type: ignore[arg-type]


def doubtful(loop: str, field: str, amount: int) -> None:
    """Count outcomes of the loop that were taken and are in doubt."""
    _series("outcomes_doubtful", loop, field).inc(amount)


def gauge(name: str, value: float | None, *labels: str) -> None:
    """Set a gauge; None is not a number.

    Args:
        name: in the catalogue.
        value: of the gauge.
        labels: values of its labels, in their order.
    """
    _series(name, *labels).set(math.nan if value is None else value)


def night(loop: str, stands: Standing) -> None:
    """Set what the loop's last night found and counted, as State has it."""
    kinds = Counter(alarm.kind for alarm in stands.alarms)
    for kind in KINDS:
        gauge("alarms", kinds[kind], loop, kind)
    if (figures := stands.figures) is None:  # no night yet, or one of an earlier release
        return
    gauge("night_timestamp_seconds", figures.at, loop)
    gauge("night_value", figures.value, loop)
    gauge("night_join_rate", figures.join_rate, loop)
    for became, number in figures.decisions.items():
        gauge("night_decisions", number, loop, became)
    for stray, found in figures.strays.items():
        gauge("night_stray_outcomes", found, loop, stray)


def answered(route: str, status: int, seconds: float) -> None:
    """Count a request and how long it took.

    Args:
        route: its operation's id in the OpenAPI document.
        status: of its answer.
        seconds: from its head to its answer.
    """
    _request(route, status).observe(seconds)


@cache
def _request(route: str, status: int) -> Any:
    return _series("request_seconds", route, str(status))


def count(name: str, loop: str, amount: int = 1) -> None:
    """Add to one of the loop's counters."""
    _series(name, loop).inc(amount)


def show(loop: str) -> None:
    """Make the loop's counters, at zero: a rate misses the first of what is counted before it is there."""
    for name in OF_LOOPS:
        count(name, loop, 0)
    for field in DOUBTS:
        doubtful(loop, field, 0)


def refused(status: int, amount: int = 1) -> None:
    """Count an answer that is a problem document."""
    _series("refused", str(status)).inc(amount)


def thread_failures(thread: str, amount: int = 1) -> None:
    """Count a failure of a thread that keeps something fresh."""
    _series("thread_failures", thread).inc(amount)


def observe(
    *,
    spool_depth: int,
    spool_healthy: bool,
    spool_fsync_seconds: float,
    model_reloads: int,
    loops_with_errors: int,
    heartbeat_age_seconds: float,
) -> None:
    """Set the gauges.

    Args:
        spool_depth: groups that wait for the disk.
        spool_healthy: whether the spool takes writes.
        spool_fsync_seconds: duration of the latest commit.
        model_reloads: policies swapped since the start.
        loops_with_errors: loops that do not run as configured.
        heartbeat_age_seconds: age of the oldest heartbeat among the threads that keep something fresh.
    """
    _series("spool_depth").set(spool_depth)
    _series("spool_healthy").set(int(spool_healthy))
    _series("spool_fsync_seconds").set(spool_fsync_seconds)
    _series("model_reloads").set(model_reloads)
    _series("loops_with_errors").set(loops_with_errors)
    _series("heartbeat_age_seconds").set(heartbeat_age_seconds)


def exposition() -> bytes:
    """Return the metrics in Prometheus' text format: those of all workers, or of this process where it has none.

    A worker is asked again and again, and has `serving.http.exposition` for that: it gives the same in less time.
    """
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    if run_folder() is None:
        return generate_latest()
    workers = CollectorRegistry()
    MultiProcessCollector(workers)
    return generate_latest(workers)


def begin_run(home: Path) -> int:
    """Make the folder that the workers of this process will share, and remove those of runs that have ended.

    Args:
        home: the home folder; the folders are below ``metrics``.

    Returns:
        A descriptor that keeps the folder for as long as it is open; it closes with the process.
    """
    runs = home / "metrics"
    runs.mkdir(mode=0o700, parents=True, exist_ok=True)
    beginning = os.open(runs, os.O_RDONLY)
    try:
        fcntl.flock(beginning, fcntl.LOCK_EX)  # a folder that another run has just made is not held yet
        for run in runs.iterdir():
            held = os.open(run, os.O_RDONLY)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            else:
                shutil.rmtree(run)
            finally:
                os.close(held)
        folder = tempfile.mkdtemp(dir=runs)
        own = os.open(folder, os.O_RDONLY)
        fcntl.flock(own, fcntl.LOCK_EX)
    finally:
        os.close(beginning)
    os.environ[_RUN] = folder
    return own


def join_run() -> None:
    """Point prometheus_client to the folder of this worker's run, where there is one; before it is imported."""
    if folder := os.environ.get(_RUN):
        os.environ[_FOLDER] = folder


def environ_apart() -> dict[str, str]:
    """Return this process's environment without its run, for a process that is no worker and shall count nothing."""
    return {name: value for name, value in os.environ.items() if name not in (_RUN, _FOLDER)}


def reserve() -> None:
    """Make the files that this worker will count in, with all of their room; before the first metric.

    prometheus_client maps them into memory as it finds them and would make them with holes. Who first writes into a
    hole for which the disk has no room is killed by the system (SIGBUS): on a full disk every new label would end a
    worker.

    Raises:
        OSError: there is no room.
    """
    if (folder := os.environ.get(_RUN)) is None:
        return
    kinds = ("counter", "histogram", *sorted({f"gauge_{metric.mode}" for metric in CATALOGUE if metric.mode}))
    for kind in kinds:
        path = Path(folder) / f"{kind}_{os.getpid()}.db"
        try:
            with path.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, _ROOM)
        except OSError as error:
            raise OSError(error.errno, hindered(error.strerror, path)) from error


def forget() -> None:
    """Take this process's gauges out of the sum, since it ends; its counters stay."""
    from prometheus_client.multiprocess import mark_process_dead

    if run_folder() is not None:
        mark_process_dead(os.getpid())


def run_folder() -> Path | None:
    """Return where counts of several processes are added up, or None; prometheus_client decides it when imported."""
    from prometheus_client.values import MutexValue, ValueClass

    return None if ValueClass is MutexValue else Path(os.environ[_FOLDER])
