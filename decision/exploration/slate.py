"""Which actions a slot may be given, so that every later slot can still be filled with an action of its own.

Slots are filled one after another, each action at most once, and a slot may exclude actions. A draw that leaves a later
slot empty is masked before the distribution is asked for, so a propensity stays the probability of the draw. An action
is masked when giving it away leaves no matching of the later slots (Hall 1935); all such actions are found by one
search along alternating paths (Berge 1957) from the actions that a matching leaves free.
"""

from __future__ import annotations

from collections.abc import Sequence


class Completion:
    """Follows the slots of one request as they are filled.

    Sets of actions are integers: action ``a`` is bit ``1 << a``.

    Args:
        allowed: [s] the actions that each slot may be given.
    """

    def __init__(self, allowed: Sequence[int]) -> None:
        self._allowed = list(allowed)
        self._given: dict[int, int] = {}  # action's bit -> the slot that the matching gives it to
        self._left = -1  # actions that were not drawn: all at first
        self.missing = next((slot for slot in range(len(allowed)) if not self._match(slot, [0])), None)
        """The first slot that cannot be filled beside those before it; None where all can."""

    def choices(self, slot: int) -> int:
        """Return the actions that `slot`, the next to be filled, may be given.

        Not to be asked where a slot is `missing`.
        """
        own = next(action for action, owner in self._given.items() if owner == slot)
        free = own | self._left & ~_union(self._given)
        later = {action: self._allowed[owner] for action, owner in self._given.items() if owner != slot}
        grown = True
        while grown:
            grown = False
            for action, others in list(later.items()):
                if others & free:  # its slot can take one of those instead
                    free |= action
                    del later[action]
                    grown = True
        return self._allowed[slot] & self._left & free

    def give(self, slot: int, action: int) -> None:
        """Give an action of `choices`, the bit, to `slot`."""
        for bit, owner in list(self._given.items()):
            if owner == slot:
                del self._given[bit]
        loser = self._given.pop(action, None)
        self._left &= ~action
        if loser is not None:
            self._match(loser, [0])

    def _match(self, slot: int, seen: list[int]) -> bool:
        """Find an action for `slot`, moving other slots to other actions where needed (Kuhn 1955)."""
        wanted = self._allowed[slot] & self._left
        free = wanted & ~_union(self._given)
        if free:
            self._given[free & -free] = slot
            return True
        while rest := wanted & ~seen[0]:
            action = rest & -rest
            seen[0] |= action
            if self._match(self._given[action], seen):
                self._given[action] = slot
                return True
        return False


def _union(actions: dict[int, int]) -> int:
    out = 0
    for action in actions:
        out |= action
    return out
