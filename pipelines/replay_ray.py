"""A replay on a Ray cluster; the only file that imports Ray.

Units go to workers by number; each reads its part of the log itself, so nothing but sums travels. The log has to lie
where the workers can read it: object storage or a shared folder for a cluster of several machines.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

import ray

from pipelines.replay_pass import Job
from pipelines.replay_source import TableSource

Part = TypeVar("Part")


class RayEngine:
    """A Ray cluster.

    Args:
        address: of a running cluster; None to start one on this machine, unless one was started in this process.
        workers: units worked on at once; None for as many as there are cores in the cluster.
    """

    def __init__(self, *, address: str | None = None, workers: int | None = None) -> None:
        if not ray.is_initialized():
            # Ray's own report of usage would leave the machine.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            local: dict[str, Any] = {} if address else {"num_cpus": workers, "include_dashboard": False}
            ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False, **local)
        self._workers = workers or max(int(ray.cluster_resources().get("CPU", 1)), 1)

    def map(self, step: Callable[[Job, int], Part], job: Job) -> Iterable[Part]:
        """Yield the step's result of every unit as it comes."""
        if isinstance(job.source, TableSource):
            job = replace(job, source=replace(job.source, table=job.source.table.combine_chunks()))
        remote: Any = ray.remote(step)
        shared = ray.put(job)
        waiting = list(reversed(job.source.units()))
        running: list[Any] = []
        while waiting or running:
            while waiting and len(running) < self._workers:
                running.append(remote.remote(shared, waiting.pop()))
            done, running = ray.wait(running, num_returns=1)
            yield from ray.get(done)
