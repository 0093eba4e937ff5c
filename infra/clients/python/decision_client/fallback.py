"""What the application would have done without the service: its own order, as the baseline `first` takes it."""

from __future__ import annotations

from collections.abc import Sequence

from decision_client.errors import refused
from decision_client.wire import DecideRequest, DecideResponse, Fallback, Ranked, SlotAnswer, invalid

VERSION = "fallback:first"
MODE = "fallback"


def first_action(request: DecideRequest, reason: Fallback) -> DecideResponse:
    """Return the answer that takes the first action, or the first that each slot may have.

    Args:
        request: the question, with its event id.
        reason: why the service did not decide.

    Raises:
        RefusedError: no action is left to choose, or a slot is left without one.
    """
    offered = [action.id for action in request.actions]
    eligible = [action for action in offered if action not in set(request.excluded_actions)]
    if not eligible:
        raise refused(invalid("actions", "at least one that is not excluded", f"{len(offered)} actions, none left"))
    event_id = request.event_id or ""
    if request.slots is None:
        return _answer(event_id, eligible[0], _certain(eligible[0], eligible), None, reason)
    if not request.slots:
        raise refused(invalid("slots", "at least one slot", "none"))
    allowed = [_allowed(eligible, slot.excluded_actions, slot.baseline_action) for slot in request.slots]
    taken = _filled(allowed)
    if taken is None:
        raise refused(invalid("slots", "slots that can all be filled", f"{len(eligible)} actions for {len(allowed)}"))
    slots = [
        SlotAnswer(slot.id, action, 1.0, _certain(action, free))
        for slot, action, free in zip(request.slots, taken, allowed, strict=True)
    ]
    return _answer(event_id, taken[0], slots[0].ranking, slots, reason)


def _allowed(eligible: Sequence[str], excluded: Sequence[str], wanted: str | None) -> list[str]:
    """Return what a slot may have, the application's own choice first."""
    free = [action for action in eligible if action not in set(excluded)]
    return sorted(free, key=lambda action: action != wanted)


def _filled(allowed: Sequence[Sequence[str]]) -> list[str] | None:
    """Return an action for each slot, none twice; None when there is no way.

    A slot takes its first choice among what leaves every later slot one, as the service does.
    """
    if not _fillable(allowed, set()):
        return None
    taken: dict[str, None] = {}
    for slot, choices in enumerate(allowed):
        free = (action for action in choices if action not in taken)
        taken[next(action for action in free if _fillable(allowed[slot + 1 :], {*taken, action}))] = None
    return list(taken)


def _fillable(allowed: Sequence[Sequence[str]], taken: set[str]) -> bool:
    """Return whether every slot can have an action of its own, none of those taken (Kuhn's algorithm, 1955)."""
    at: dict[str, int] = {}

    def place(slot: int, tried: set[str]) -> bool:
        for action in allowed[slot]:
            if action not in taken and action not in tried:
                tried.add(action)
                if action not in at or place(at[action], tried):
                    at[action] = slot
                    return True
        return False

    return all(place(slot, set()) for slot in range(len(allowed)))


def _certain(chosen: str, free: Sequence[str]) -> list[Ranked]:
    return [Ranked(chosen, 1.0), *(Ranked(action, 0.0) for action in free if action != chosen)]


def _answer(
    event_id: str, action: str, ranking: list[Ranked], slots: list[SlotAnswer] | None, reason: Fallback
) -> DecideResponse:
    return DecideResponse(event_id, action, 1.0, ranking, VERSION, MODE, slots, reason)
