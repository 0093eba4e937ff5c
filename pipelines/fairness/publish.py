"""Upheld pairs as a file that the service clamps around; written only for loops that ask for it."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from decision.fairness.clamp import Anchor
from pipelines.fairness.standing import as_pairs, upheld
from pipelines.fairness.store import Governance
from pipelines.files import write_atomically
from pipelines.lake.lake import Lake
from pipelines.logs import step
from pipelines.settings import LoopSettings, Settings

MAX_PAIRS = 10_000


@step("upheld pairs published")
def publish(
    settings: Settings, store: Governance, lake: Lake, loop: LoopSettings, *, without: Collection[str] = ()
) -> int:
    """Write the loop's upheld pairs for the service and return how many; remove the file where nothing is clamped.

    Args:
        settings: the installation.
        store: the verdicts.
        lake: where the pairs' decisions are.
        loop: the loop.
        without: decisions to leave out; those that are being erased.
    """
    path = settings.anchors_path(loop.name)
    if not (loop.fairness.enabled and loop.fairness.clamp):
        path.unlink(missing_ok=True)
        return 0
    standing = [pair for pair in upheld(store, loop.name) if not {pair.favoured, pair.disfavoured} & set(without)]
    pairs = as_pairs(lake, loop.name, standing[-MAX_PAIRS:])
    anchors: list[Anchor] = []
    for row, (first, second) in enumerate(zip(pairs.first.contexts, pairs.second.contexts, strict=True)):
        action_id, limit = pairs.first.action_ids[int(pairs.action_first[row])], float(pairs.limit[row])
        anchors.append(Anchor(favoured=first, disfavoured=second, action_id=action_id, limit=limit))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, msgspec.json.encode(anchors))
    return len(pairs)
