"""Prometheus metrics: what the workers did, and the lake's counters per loop.

BentoML serves ``/metrics`` itself and adds up its workers' metrics from a shared folder; those made here with
prometheus_client are in that sum. They are made on first use, after BentoML has pointed the library to that folder.
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from pipelines.settings import LoopSettings

if TYPE_CHECKING:
    from serving.core import Core

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_LAKE_TTL_S = 5.0
_lake_cache: dict[tuple[str, str], tuple[float, dict[str, Any] | None]] = {}

_COUNTERS = {
    "decided": "Decisions acknowledged",
    "repeated": "Requests that repeated an event id",
    "outcomes": "Outcomes acknowledged",
    "fallbacks": "Decisions that the baseline took because the policy failed",
}
_GAUGES = {
    "spool_depth": ("Decisions and outcomes that wait for the disk", "livesum"),
    "spool_healthy": ("1 while the spool takes writes", "min"),
    "spool_fsync_seconds": ("Duration of the latest commit", "max"),
    "model_reloads": ("Policies swapped since the start", "max"),
    "loops_with_errors": ("Loops that do not run as configured", "max"),
}


@cache
def _counter(name: str, loop: str) -> Any:
    return _family(name).labels(loop)


@cache
def _family(name: str) -> Any:
    from prometheus_client import Counter

    return Counter(f"decision_{name}", _COUNTERS[name], ["loop"])


@cache
def _gauge(name: str) -> Any:
    from prometheus_client import Gauge

    text, mode = _GAUGES[name]
    return Gauge(f"decision_{name}", text, multiprocess_mode=mode)  # type: ignore[arg-type]


@cache
def _refusals() -> Any:
    from prometheus_client import Counter

    return Counter("decision_refused", "Requests answered with a problem document", ["status"])


def count(name: str, loop: str, amount: int = 1) -> None:
    """Add to one of the loop's counters."""
    _counter(name, loop).inc(amount)


def refused(status: int) -> None:
    """Count an answer that is a problem document."""
    _refusals().labels(str(status)).inc()


def observe(core: Core) -> None:
    """Set the gauges from the core's present state."""
    _gauge("spool_depth").set(core.spool.depth)
    _gauge("spool_healthy").set(int(core.spool.healthy))
    _gauge("spool_fsync_seconds").set(core.spool.last_fsync_seconds)
    _gauge("model_reloads").set(core.loops.reloads)
    _gauge("loops_with_errors").set(sum(core.loops.error(name) is not None for name in core.loops.names()))


def exposition(core: Core) -> bytes:
    """Return this process's metrics in Prometheus' text format, where BentoML does not serve them."""
    from prometheus_client import generate_latest

    observe(core)
    return generate_latest()


def lake_counters(core: Core, loop: LoopSettings) -> dict[str, Any] | None:
    """Return the loop's counters from the lake, at most five seconds old; None while there is no lake; blocking."""
    now = time.monotonic()
    key = (core.settings.home, loop.name)
    kept = _lake_cache.get(key)
    if kept is not None and now - kept[0] < _LAKE_TTL_S:
        return kept[1]
    found: dict[str, Any] | None = None
    if core.settings.lake_path.exists():
        from datetime import UTC, datetime

        from pipelines.interactions.counters import counters
        from pipelines.lake.lake import Lake

        counted = counters(Lake(core.settings.lake_path), loop, datetime.fromtimestamp(core.clock(), UTC))
        found = msgspec.to_builtins(counted)
    _lake_cache[key] = (now, found)
    return found
