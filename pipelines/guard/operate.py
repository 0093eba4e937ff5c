"""What operators do with a guard: cap it, stop it, resume it.

Their word takes effect at once: it needs neither the lake nor the registry, and nothing that reads them is imported.
An aggregation that runs meanwhile is refused its commit and starts over from the operator's state.
"""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from decision.errors import FieldError, Words
from pipelines.guard.state import GuardState, begun, next_version, weighed
from pipelines.guard.store import FencedError, GuardStore, move
from pipelines.logs import step
from pipelines.settings import LoopSettings, Settings

_ATTEMPTS = 50


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
