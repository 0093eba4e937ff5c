"""What a policy would do that the log hardly ever did."""

from __future__ import annotations

import numpy as np
import pytest

from decision.batch import Batch, Floats, Interactions
from decision.ope.diagnostics.untried import untried

NAMES = ["a", "b", "c"]


def log_of(drawn: list[int]) -> Interactions:
    n = len(drawn)
    offsets = np.arange(n + 1, dtype=np.int64) * 3
    batch = Batch([{}] * n, [{}] * (3 * n), NAMES * n, offsets)
    return Interactions(batch, offsets[:-1] + np.array(drawn), np.full(n, 0.5), np.zeros(n), np.full(3 * n, 1 / 3))


def of(policy: list[float], n: int) -> Floats:
    return np.tile(policy, n)


def test_choices_that_the_log_never_made_are_counted_and_named() -> None:
    found = untried(log_of([0] * 1_000), of([0.5, 0.2, 0.3], 1_000))
    assert found.share == pytest.approx(0.5)
    assert found.actions == ("c", "b")


@pytest.mark.parametrize(("accidents", "share"), [(1, 0.5), (2, 0.0)])
def test_an_action_drawn_once_in_a_thousand_is_an_accident(accidents: int, share: float) -> None:
    found = untried(
        log_of([2] * accidents + [0, 1] * ((1_000 - accidents) // 2)), of([0.25, 0.25, 0.5], 1_000 - accidents % 2)
    )
    assert found.share == pytest.approx(share)


def test_what_a_floor_gives_to_every_action_is_no_choice() -> None:
    floored = [0.7 * 0.9 + 0.1 / 3, 0.3 * 0.9 + 0.1 / 3, 0.1 / 3]
    assert untried(log_of([0, 1] * 500), of(floored, 1_000), floor=0.1).share == pytest.approx(0.0, abs=1e-12)
    assert untried(log_of([0, 1] * 500), of(floored, 1_000)).share == pytest.approx(0.1 / 3)
