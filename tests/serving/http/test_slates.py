"""Slates over HTTP: every one that can be filled is, with exact propensities, and the application's choice per slot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from decision.draw import draw
from decision.records import decode_decision
from tests.serving.http.test_app import Caller, open_at

ACTIONS = [{"id": name, "features": {"kind": name}} for name in "abc"]
# The second slot takes only `a`: a first slot that drew `a` would leave it empty.
TIGHT = [{"id": "top"}, {"id": "side", "excluded_actions": ["b", "c"]}]


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    core = open_at(tmp_path_factory.mktemp("home"))
    yield Caller(core)
    core.close()


def ask(call: Caller, event_id: str, slots: list[dict[str, Any]], **more: Any) -> Any:
    return call(
        "POST",
        "/v1/loops/news/decide",
        {"event_id": event_id, "context": {"hour": 9}, "actions": ACTIONS, "slots": slots} | more,
    )


def test_a_slate_that_can_be_filled_is_filled_for_every_event_id(call: Caller) -> None:
    for number in range(40):
        answer = ask(call, f"tight-{number}", TIGHT)
        assert answer.status_code == 200
        assert answer.json()["slots"][1]["action_id"] == "a"


def test_the_propensity_is_that_of_the_draw_among_what_can_be_completed(call: Caller) -> None:
    drawn = Counter[str]()
    for number in range(300):
        top = ask(call, f"exact-{number}", TIGHT).json()["slots"][0]
        assert top["propensity"] == 0.5  # `a` is masked before the distribution is asked for
        assert sorted(entry["id"] for entry in top["ranking"]) == ["b", "c"]
        drawn[top["action_id"]] += 1
    records = [decode_decision(message.value) for message in call.logged("exact-0")]
    assert [record.action_ids for record in records] == [["b", "c"], ["a"]]
    assert all(draw(record.pmf, record.seed) == record.action_index for record in records)
    assert chisquare([drawn["b"], drawn["c"]]).pvalue > 1e-4  # fails once in 10,000 seeds; the ids are fixed


@pytest.mark.parametrize(
    "other",
    [
        {"excluded_actions": ["a"]},
        {"excluded_actions": ["a", "b"]},
        {"excluded_actions": ["c"]},
        {"features": {"x": 1}},
    ],
)
def test_a_repeated_slate_is_answered_again_and_one_with_another_later_slot_conflicts(
    call: Caller, other: dict[str, Any]
) -> None:
    conflicts = 0
    for number in range(8):
        event_id = f"again-{number}-{sorted(other.items())}"
        slots = [{"id": "top"}, {"id": "side", "excluded_actions": ["b"]}]
        first = ask(call, event_id, slots)
        assert ask(call, event_id, slots).json() == first.json()
        conflicts += ask(call, event_id, [slots[0], {"id": "side"} | other]).status_code == 409
    # What differs says nothing where the first slot took it.
    assert conflicts > 2


def test_a_repeated_slate_with_another_choice_of_the_application_conflicts(tmp_path: Path) -> None:
    core = open_at(tmp_path, 'mode = "apprentice"\n')
    call, slots = Caller(core), [{"id": "top"}, {"id": "side", "baseline_action": "b"}]
    try:
        first = ask(call, "chosen", slots)
        assert ask(call, "chosen", slots).json() == first.json()
        assert ask(call, "chosen", [slots[0], {"id": "side", "baseline_action": "c"}]).status_code == 409
        assert ask(call, "chosen", [slots[0] | {"baseline_action": "c"}, slots[1]]).status_code == 409
    finally:
        core.close()


def test_slates_at_random_are_filled_or_refused_with_the_slot_that_cannot_be(call: Caller) -> None:
    rng, filled, refused = np.random.default_rng(11), 0, 0
    for number in range(150):
        slots = [{"id": f"s{i}", "excluded_actions": [name for name in "abc" if rng.random() < 0.5]} for i in range(3)]
        answer = ask(call, f"random-{number}", slots)
        if answer.status_code == 200:
            filled += 1
            picks = [slot["action_id"] for slot in answer.json()["slots"]]
            assert len(set(picks)) == 3
            assert all(pick not in slot["excluded_actions"] for pick, slot in zip(picks, slots, strict=True))
        else:
            refused += 1
            assert answer.status_code == 422
            assert answer.json()["field"].startswith("slots[")
            assert call.logged(f"random-{number}") == []
    assert filled > 20
    assert refused > 20


def test_excluded_actions_of_the_request_hold_for_every_slot(call: Caller) -> None:
    answer = ask(call, "excluded", [{"id": "top"}, {"id": "side"}], excluded_actions=["b"])
    assert {slot["action_id"] for slot in answer.json()["slots"]} == {"a", "c"}
    refused = ask(call, "excluded-2", [{"id": "top"}, {"id": "side"}], excluded_actions=["b", "c"])
    assert (refused.status_code, refused.json()["field"]) == (422, "slots[1]")


def test_the_baseline_first_takes_each_slots_own_choice(tmp_path: Path) -> None:
    core = open_at(tmp_path, 'mode = "apprentice"\n[baseline]\nkind = "first"\n')
    call = Caller(core)
    slots = [{"id": "s1", "baselineAction": "c"}, {"id": "s2", "baselineAction": "b"}]
    body = {"eventId": "p1", "actions": [{"id": name, "features": []} for name in "abc"], "slots": slots}
    answer = call("POST", "/personalizer/v1.1-preview.2/multislot/rank", body).json()
    assert [slot["rewardActionId"] for slot in answer["slots"]] == ["c", "b"]
    records = [decode_decision(message.value) for message in call.logged("p1")]
    assert [record.pmf_baseline for record in records] == [[0.0, 0.0, 1.0], [0.0, 1.0]]
    own = [{"id": "s1", "baseline_action": "b"}, {"id": "s2", "baseline_action": "b"}, {"id": "s3"}]
    answer = ask(call, "p2", own).json()
    # the second slot's choice is taken: the first action offered that is left
    assert [slot["action_id"] for slot in answer["slots"]] == ["b", "a", "c"]
    refused = ask(call, "p3", [{"id": "s1", "baseline_action": "z"}])
    assert (refused.status_code, refused.json()["field"]) == (422, "slots[0].baseline_action")
    core.close()


def test_the_uniform_baseline_has_no_choice_of_its_own(call: Caller) -> None:
    ask(call, "uniform", [{"id": "top", "baseline_action": "c"}])
    (record,) = (decode_decision(message.value) for message in call.logged("uniform"))
    assert record.pmf == [1 / 3] * 3
