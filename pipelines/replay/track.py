"""A replay in the tracking store: parameters, numbers and the page, as a run beside the loop's trainings."""

from __future__ import annotations

from typing import Any

import msgspec

from pipelines.registry.tracking import Tracking
from pipelines.replay.replay import Options, Replay
from pipelines.settings import Settings


def track(settings: Settings, result: Replay, options: Options, page: str) -> str:
    """Log a replay and return the id of its run.

    Args:
        settings: the installation, whose registry is the store.
        result: the replay.
        options: it was done with.
        page: its report.

    Raises:
        RegistryError: the store cannot be reached.
    """
    store = Tracking(settings)
    run = store.new_run(result.log)
    params: dict[str, Any] = {
        "replay.policy": result.policy,
        "replay.first": result.first,
        "replay.last": result.last,
        "replay.table_version": result.table_version,
        "replay.refused": "; ".join(result.refused),
        **{f"replay.{name}": value for name, value in msgspec.to_builtins(options).items()},
    }
    store.describe(run, result.metrics(), params, {})
    files = {"replay.html": page.encode(), "replay.json": msgspec.json.encode(result)}
    store.upload(run, "replay", files)
    with store.client() as client:
        client.set_terminated(run)
    return run
