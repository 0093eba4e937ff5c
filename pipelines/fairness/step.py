"""The panels' part of a night: close what is overdue, mine the day's decisions, draw panels."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import numpy as np

from decision.errors import SupportError
from pipelines.fairness.mine import mine
from pipelines.fairness.publish import publish
from pipelines.fairness.store import Governance
from pipelines.fairness.tasks import assign
from pipelines.fairness.verdicts import close_overdue
from pipelines.lake.lake import Lake
from pipelines.logs import step
from pipelines.progress import Progress, silent
from pipelines.registry.registry import Registry
from pipelines.settings import LoopSettings, Settings


@step("audited")
def audit(
    settings: Settings,
    lake: Lake,
    registry: Registry,
    loop: LoopSettings,
    now: datetime,
    *,
    seed: int,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Run it and return what was done; nothing in loops without panels. `progress` as in `mine`."""
    if not loop.fairness.enabled:
        return {"skipped": "the loop has no panels"}
    by = "night"
    with Governance.at(settings) as store:
        closed = close_overdue(store, now=now, by=by)
        try:
            mined = mine(store, lake, registry, loop, now=now, by=by, seed=seed, progress=progress)
            found: dict[str, Any] = msgspec.to_builtins(mined)
        except SupportError as error:
            found = {"nothing": str(error)}
        counts = assign(store, loop.name, now=now, by=by, rng=np.random.default_rng(seed))
        clamped = publish(settings, store, lake, loop)
    return {"closed": closed, "mined": found, **counts, "clamped": clamped}
