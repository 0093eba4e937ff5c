"""Upheld pairs as a file that the service clamps around; written only for loops that ask for it.

What a panel upheld is clamped. Where its auditors are of several types, a pair is clamped only when each type with a
say backs it (`decision.fairness.latent_types.with_a_say`), unless the loop takes the panel's word alone
(`fairness.clamp_by`): a clamp acts without another look, and a majority of one kind does not decide there for the
others then.

A new file is written before State points to it, and the others are removed after: what was erased from one is in none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import msgspec

from decision.fairness.clamp import Anchor
from pipelines.fairness.anchors import Pointer, anchors_folder, anchors_key
from pipelines.fairness.judges.judge_types import backed, judge_types
from pipelines.fairness.standing import Standing, as_pairs, upheld
from pipelines.fairness.store import Governance
from pipelines.lake.lake import Lake
from pipelines.logs import step
from pipelines.settings import LoopSettings, Settings
from pipelines.state.change import change
from pipelines.state.state import State
from pipelines.storage import Storage

MAX_PAIRS = 10_000


@step("upheld pairs published")
def clamped(store: Governance, loop: LoopSettings) -> list[Standing]:
    """Return the pairs of `loop` to clamp: those upheld, or those of them that every type with a say backs."""
    standing = upheld(store, loop.name)
    return standing if loop.fairness.clamp_by == "panel" else backed(judge_types(store, loop.name), standing)


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
    if not (loop.fairness.enabled and loop.fairness.clamp):
        _point(settings, loop.name, None)
        return 0
    standing = [pair for pair in clamped(store, loop) if not {pair.favoured, pair.disfavoured} & set(without)]
    pairs = as_pairs(lake, loop.name, standing[-MAX_PAIRS:])
    anchors: list[Anchor] = []
    for row, (first, second) in enumerate(zip(pairs.first.contexts, pairs.second.contexts, strict=True)):
        action_id, limit = pairs.first.action_ids[int(pairs.action_first[row])], float(pairs.limit[row])
        anchors.append(Anchor(favoured=first, disfavoured=second, action_id=action_id, limit=limit))
    data = msgspec.json.encode(anchors)
    digest = hashlib.sha256(data).hexdigest()
    Storage.of(settings).write(f"{anchors_folder(loop.name)}/{digest}.json", data)
    _point(settings, loop.name, Pointer(digest=digest, pairs=len(anchors)))
    return len(pairs)


def _point(settings: Settings, loop: str, pointer: Pointer | None) -> None:
    with State(settings.state_url) as state:
        value = None if pointer is None else msgspec.json.encode(pointer)
        change(state, anchors_key(loop), lambda before: value, by="published")
    files = Storage.of(settings)
    kept = "" if pointer is None else f"{pointer.digest}.json"
    files.delete(*(stored.key for stored in files.list(anchors_folder(loop)) if not stored.key.endswith(f"/{kept}")))
    settings.anchors_path(loop).unlink(missing_ok=True)  # of an earlier release
