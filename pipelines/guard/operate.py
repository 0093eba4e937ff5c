"""What people do with a guard: cap it, stop it, resume it, and have its evidence computed again from the lake.

An operator's word takes effect at once: it needs neither the lake nor the registry, and an aggregation that runs
meanwhile is refused its commit and begins again from it.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec.structs import replace

from decision.errors import FieldError, Words
from pipelines.guard.state import GuardState, evidence_in, weighed
from pipelines.guard.step import begun, fold_until, move, next_version
from pipelines.guard.store import FencedError, GuardStore
from pipelines.lake.lake import Lake
from pipelines.logs import step
from pipelines.settings import LoopSettings, Settings

_ATTEMPTS = 50
_REPLAYED = ("parts", "positions", "skipped", "inexact")


@step("guard operated")
def operate(
    settings: Settings,
    loop: LoopSettings,
    *,
    now: datetime,
    by: str,
    cap: float | None = None,
    stop: bool | None = None,
) -> GuardState:
    """Cap, stop or resume the loop's rollout, publish it, and return the state after it.

    Args:
        settings: the installation.
        loop: the loop.
        now: the time, with its UTC offset.
        by: who asks, for the record.
        cap: largest weight from now on, in [0, 1]; 1 takes the cap away.
        stop: True gives the candidate nothing; False lets it go on where it was, or, when the audit froze it, begin
            anew.

    Raises:
        FieldError: the cap is none, or the loop has no guard.
        FencedError: others kept moving the guard.
    """
    if not loop.guard.enabled:
        raise FieldError("guard.enabled", wanted="true in loop.toml", got=Words("false"))
    if cap is not None and not 0.0 <= cap <= 1.0:
        raise FieldError("cap", wanted="a number in [0, 1]", got=cap)
    store = GuardStore(settings, loop.name)
    for attempt in range(_ATTEMPTS):
        try:
            state = _operated(store, loop, now, by, cap, stop)
            break
        except FencedError:
            if attempt == _ATTEMPTS - 1:
                raise
    else:
        raise AssertionError("unreachable")
    store.publish(loop.guard.alpha, loop.guard.ttl_s)
    return state


def _operated(
    store: GuardStore, loop: LoopSettings, now: datetime, by: str, cap: float | None, stop: bool | None
) -> GuardState:
    before = store.load()
    state, moves, attempts = before, [], list[GuardState]()
    version = next_version(before, now)
    for kind, changes in (("capped", {"cap": cap}), ("resumed" if stop is False else "stopped", {"stopped": stop})):
        if None in changes.values():
            continue
        earlier = state
        state = replace(state, **changes, guard_version=version)
        if kind == "resumed" and state.status == "frozen":
            attempt = store.attempts_of(state.candidate_version) + 1
            state = begun(state, attempt=attempt, version=version, reason="resumed")
            attempts.append(state)
        state = weighed(state, loop.guard.cap)
        told = replace(state, reason=f"{kind} by {by}")
        moves.append(move(kind, earlier, told, version, now, {"cap": state.cap}))
    return store.commit(state, moves=moves, begun=attempts)


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


def replay(settings: Settings, loop: LoopSettings, lake: Lake) -> Replayed:
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
    for until in folds:
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
