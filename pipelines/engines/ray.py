"""The parts of a pass on a Ray cluster; the only file that imports Ray.

Units go to workers by number, some at once; each reads its part of the log itself and adds it up, so nothing but a few
sums travels. The log has to lie where the workers can read it: object storage or a shared
folder for a cluster of several machines.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import ray

from pipelines.engines.engine import total_of

Job = TypeVar("Job")
Part = TypeVar("Part")

_TASKS = 4  # of every worker in every pass: few results to merge, and the last to finish is not waited for long


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

    def total(
        self,
        step: Callable[[Job, int], Part],
        merge: Callable[[Part, Part], Part],
        job: Job,
        units: Sequence[int],
        seen: Callable[[Part], None] | None = None,
    ) -> Part | None:
        """Return the merged result of all units."""
        remote: Any = ray.remote(total_of)
        shared = ray.put(job)
        tasks = min(len(units), _TASKS * self._workers)
        waiting = [units[number::tasks] for number in reversed(range(tasks))]
        running: list[Any] = []
        done: list[Any] = []
        total: Part | None = None
        while waiting or running or done:
            while waiting and len(running) < self._workers:
                running.append(remote.remote(step, merge, shared, waiting.pop()))
            for part in ray.get(done):  # the workers are busy meanwhile
                if seen is not None:
                    seen(part)
                total = part if total is None else merge(total, part)
            done, running = ray.wait(running, num_returns=1) if running else ([], [])
        return total


def open_engine(*, address: str | None, workers: int | None) -> RayEngine:
    """Return the cluster at `address`, or one that is started on this machine."""
    return RayEngine(address=address, workers=workers)
