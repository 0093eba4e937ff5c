"""Jobs of a study: run in a few processes, and kept, so that a study goes on where it was stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec

MOST_PROCESSES = 2

Progress = Callable[[str, float], None]


def all_of(
    work: Sequence[tuple[str, Callable[..., dict[str, Any]], Any, Any]],
    processes: int,
    progress: Progress,
    kept: Path | None,
) -> dict[str, dict[str, Any]]:
    """Run every job, `processes` at a time, and return what they returned by name."""
    done: dict[str, dict[str, Any]] = {}
    paths: dict[str, Path] = {}
    if kept is not None:
        (kept / "jobs").mkdir(parents=True, exist_ok=True)
    for name, _, _, size in work:
        # A job of another size is another job.
        mark = sha256(msgspec.json.encode(asdict(size))).hexdigest()[:8]
        if kept is not None:
            paths[name] = kept / "jobs" / f"{name}-{mark}.json"
            if paths[name].exists():
                done[name] = msgspec.json.decode(paths[name].read_bytes())
    missing = [entry for entry in work if entry[0] not in done]

    def keep(name: str, outcome: dict[str, Any]) -> None:
        done[name] = outcome
        if name in paths:
            part = paths[name].with_suffix(".part")
            part.write_bytes(msgspec.json.encode(outcome))
            part.replace(paths[name])
        progress(name, len(done) / len(work))

    if processes == 1 or len(missing) < 2:
        for name, function, job, size in missing:
            keep(name, function(job, size))
        return done
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the children when they start: two nets on two cores, one thread each
    try:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            running = {pool.submit(function, job, size): name for name, function, job, size in missing}
            for future in as_completed(running):
                keep(running[future], future.result())
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
    return done
