"""The clamp: both people of an upheld pair within what the panel accepts, everyone else as before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decision.batch import Batch, Features, Floats, one
from decision.exploration.rule import Exploration
from decision.fairness.clamp import Anchor, ClampedPolicy, seen_of
from decision.policy import OraclePolicy

IDS = ["approve", "deny", "wait"]
ACTIONS: list[Features] = [{"a": float(i)} for i in range(3)]


class Told:
    """An oracle that says what each group is told."""

    def __init__(self, north: list[float], south: list[float]) -> None:
        self.scores = {"north": north, "south": south}

    def predict(self, batch: Batch) -> Floats:
        return np.concatenate(
            [self.scores["north" if "group=north" in context else "south"] for context in batch.contexts]
        )


def person(group: str, income: float = 3.0) -> Features:
    return {f"group={group}": 1.0, "income": income, f"name={group}": 1.0}


def policies(north: list[float], south: list[float], limit: float) -> tuple[OraclePolicy, ClampedPolicy]:
    plain = OraclePolicy(Told(north, south), Exploration(kind="softmax", inverse_temperature=5.0, floor=0.02))  # type: ignore[arg-type]
    anchor = Anchor(favoured=person("north"), disfavoured=person("south"), action_id="approve", limit=limit)
    return plain, ClampedPolicy(plain, [anchor], ["Group"])


scores = st.lists(st.floats(0, 1), min_size=3, max_size=3)


@settings(deadline=None)
@given(scores, scores, st.floats(0, 1))
def test_the_gap_is_what_the_panel_accepts_and_keeps_its_sign(
    north: list[float], south: list[float], limit: float
) -> None:
    plain, clamped = policies(north, south, limit)
    batch = Batch([person("north"), person("south")], ACTIONS * 2, IDS * 2, np.array([0, 3, 6]))
    before, after = plain.pmf(batch), clamped.pmf(batch)
    gap, left = before[0] - before[3], after[0] - after[3]
    assert abs(left) <= max(limit, 0.0) + 1e-12
    assert abs(left) == pytest.approx(min(abs(gap), limit), abs=1e-9)
    assert left * gap >= -1e-12
    for start in (0, 3):
        assert after[start : start + 3].sum() == pytest.approx(1.0)
        ratio = after[start + 1 : start + 3] / before[start + 1 : start + 3]
        assert ratio[0] == pytest.approx(ratio[1])


@settings(deadline=None)
@given(scores, scores, st.floats(1, 9))
def test_people_of_no_pair_are_answered_to_the_last_bit_as_without(
    north: list[float], south: list[float], income: float
) -> None:
    plain, clamped = policies(north, south, 0.0)
    batch = one(person("north", income + 3.5), ACTIONS, IDS)
    assert clamped.pmf(batch).tolist() == plain.pmf(batch).tolist()


def test_whoever_looks_the_same_is_clamped_whatever_is_hidden() -> None:
    _, clamped = policies([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], 0.1)
    north = person("north") | {"name=someone else": 1.0}
    assert seen_of(north, frozenset({"group"})) == seen_of(person("south"), frozenset({"group"}))
    high, low = (clamped.pmf(one(who, ACTIONS, IDS))[0] for who in (north, person("south")))
    assert high - low == pytest.approx(0.1)


def test_a_request_without_the_compared_action_is_left_alone() -> None:
    plain, clamped = policies([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], 0.0)
    batch = one(person("north"), ACTIONS, ["x", "y", "z"])
    assert clamped.pmf(batch).tolist() == plain.pmf(batch).tolist()
