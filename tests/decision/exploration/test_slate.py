"""Draws that cannot be completed are masked, no others, however the slots exclude."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from decision.exploration.slate import Completion


def bits(actions: set[int]) -> int:
    return sum(1 << action for action in actions)


def fillable(allowed: list[set[int]]) -> bool:
    """Whether distinct actions exist, found by trying all."""
    actions = sorted(set().union(*allowed)) if allowed else []
    return any(
        all(action in some for action, some in zip(chosen, allowed, strict=True))
        for chosen in permutations(actions, len(allowed))
    )


def test_choices_are_those_after_which_the_rest_can_be_filled() -> None:
    rng = np.random.default_rng(3)
    for _ in range(400):
        slots, actions = int(rng.integers(1, 5)), int(rng.integers(1, 7))
        keep = rng.uniform(0.2, 0.9)
        allowed = [set(np.flatnonzero(rng.random(actions) < keep).tolist()) for _ in range(slots)]
        completion = Completion([bits(some) for some in allowed])
        assert (completion.missing is None) == fillable(allowed)
        if completion.missing is not None:
            assert fillable(allowed[: completion.missing])
            assert not fillable(allowed[: completion.missing + 1])
            continue
        left = allowed
        for slot in range(slots):
            first, *rest = left
            wanted = {action for action in first if fillable([some - {action} for some in rest])}
            assert completion.choices(slot) == bits(wanted)
            given = int(rng.choice(sorted(wanted)))
            completion.give(slot, 1 << given)
            left = [some - {given} for some in rest]


@pytest.mark.parametrize("slots", [1, 20, 50])
def test_every_draw_of_a_tight_chain_is_forced(slots: int) -> None:
    # slot i takes action i or i + 1; the last takes only the last action: all are forced, from the end
    allowed = [bits({i, i + 1}) for i in range(slots)] + [bits({slots})]
    completion = Completion(allowed)
    assert completion.missing is None
    for slot in range(slots + 1):
        assert completion.choices(slot) == 1 << slot
        completion.give(slot, 1 << slot)


def test_slots_that_exclude_nothing_keep_all_that_is_left() -> None:
    completion = Completion([0b1111] * 3)
    for slot, expected in enumerate((0b1111, 0b1110, 0b1100)):
        assert completion.choices(slot) == expected
        completion.give(slot, 1 << slot)
