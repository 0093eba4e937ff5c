"""Compute a guard's evidence again from the lake, and compare it bit for bit with what is in force."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from decision.errors import FieldError
from pipelines.guard.state import GuardState, evidence_in
from pipelines.guard.step import fold_until
from pipelines.guard.store import GuardStore
from pipelines.lake.lake import Lake
from pipelines.progress import Progress, counted, silent
from pipelines.settings import LoopSettings, Settings

_REPLAYED = ("parts", "positions", "skipped", "inexact")


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a replay.

    Attributes:
        same: the state is the one in force, bit for bit.
        differs: what is not the same.
        decisions: decisions folded in.
        folds: steps they were folded in by.
        attempt: number of the attempt replayed.
    """

    same: bool
    differs: list[str]
    decisions: int
    folds: int
    attempt: int


def replay(settings: Settings, loop: LoopSettings, lake: Lake, progress: Progress = silent) -> Replayed:
    """Fold the present attempt again from its beginning and compare; nothing is written.

    Erasing a subject or restating rewards takes decisions or rewards away that were counted: then the states differ.

    Raises:
        FieldError: there is no attempt.
    """
    store = GuardStore(settings, loop.name)
    kept = store.load()
    if kept.attempt_number == 0:
        raise FieldError("attempt", wanted="a rollout to replay", got=None, says="there was no rollout yet")
    state, folds = store.attempt(kept.attempt_number)
    for until in counted(folds, progress, "folds made again", total=len(folds)):
        state = fold_until(lake, state, until)
    # Weights are what an operator may cap and stop; evidence is what is replayed.
    state, compared = (_unweighed(one) for one in (state, kept))
    differs = [name for name in _REPLAYED if getattr(state, name) != getattr(compared, name)]
    decisions = evidence_in(state).decisions
    return Replayed(
        same=not differs, differs=differs, decisions=decisions, folds=len(folds), attempt=kept.attempt_number
    )


def _unweighed(state: GuardState) -> GuardState:
    parts = {name: replace(part, weight=0.0, killed=False) for name, part in state.parts.items()}
    return replace(state, parts=parts)
