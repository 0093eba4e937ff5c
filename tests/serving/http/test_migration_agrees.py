"""What `decision migrate check` says of an old log is what the service does with the requests that made it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.operations.migration.check import check_log
from pipelines.settings import LoopSettings
from serving.core import Core
from tests.serving.http.test_app import Caller, open_at

HUTS = ("north", "south", "lake")


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    core: Core = open_at(tmp_path_factory.mktemp("home"))
    yield Caller(core)
    core.close()


def request(ids: Any = HUTS, features: Any = ({"month": 7},), slots: Any = None, **more: Any) -> dict[str, Any]:
    """A request as an application sent it."""
    actions = [{"id": id, "features": [{"beds": 4 + at}]} for at, id in enumerate(ids)]
    asked: dict[str, Any] = {"contextFeatures": list(features), "actions": actions}
    if slots is not None:
        asked["slots"] = [{"id": slot, "baselineAction": ids[0], "features": []} for slot in slots]
    return asked | more


def line(event: str, asked: dict[str, Any], reward: float) -> dict[str, Any]:
    """The line that the old service wrote of a request: drawn evenly, the first action was taken."""
    k = len(asked["actions"])
    multi = [{"_tag": a["id"], "i": {"constant": 1, "id": a["id"]}, "j": a["features"]} for a in asked["actions"]]
    c: dict[str, Any] = {"FromUrl": asked["contextFeatures"], "_multi": multi}
    written: dict[str, Any] = {"EventId": event, "Timestamp": "2026-07-01T10:00:00Z", "c": c}
    if "slots" in asked:
        c["_slots"] = [{"_id": slot["id"], "sj": slot["features"]} for slot in asked["slots"]]
        left = [list(range(at, k)) for at in range(len(asked["slots"]))]
        return written | {
            "_outcomes": [
                {"_label_cost": -reward, "_a": each, "_p": [1 / len(each)] * len(each), "_o": [{"v": reward}]}
                for each in left
            ]
        }
    label = {"_label_cost": -reward, "_label_probability": 1 / k, "_label_Action": 1, "_labelIndex": 0}
    return written | label | {"a": [*range(1, k + 1)], "p": [1 / k] * k, "o": [{"v": reward}]}


CASES: dict[str, tuple[str, dict[str, Any], float, int, int]] = {
    "plain": ("e1", request(), 1.0, 201, 204),
    "slots": ("e2", request(slots=("top", "side")), -1.0, 201, 204),
    "50 actions": ("e3", request([f"hut {n}" for n in range(50)]), 0.0, 201, 204),
    "51 actions": ("e4", request([f"hut {n}" for n in range(51)]), 0.0, 400, 204),
    "an action twice": ("e5", request(("north", "lake", "north")), 0.0, 400, 204),
    "a slot twice": ("e6", request(slots=("top", "top")), 0.0, 400, 204),
    "a long text": ("e7", request(features=[{"note": "n" * 1_025}]), 0.0, 400, 204),
    "a text that fits": ("e8", request(features=[{"note": "n" * 1_024}]), 0.0, 201, 204),
    "many features": ("e9", request(features=[{f"f{n}": n for n in range(2_001)}]), 0.0, 400, 204),
    "a long id": ("e10", request(("x" * 257, "lake")), 0.0, 400, 204),
    "an id that cannot be printed": ("e\x7f11", request(), 0.0, 400, 204),
    "a large reward": ("e12", request(), 1.5, 201, 400),
}


@pytest.mark.parametrize("case", CASES)
def test_a_line_is_refused_in_the_check_where_the_service_refuses_its_request(
    tmp_path: Path, call: Caller, case: str
) -> None:
    event, asked, reward, ranked, rewarded = CASES[case]
    base = "/personalizer/v1.1-preview.1/multislot" if "slots" in asked else "/personalizer/v1.0"
    answer = call("POST", f"{base}/rank", asked | {"eventId": event})
    assert answer.status_code == ranked, answer.text
    if ranked == 201:
        value: dict[str, Any] = {"value": reward}
        if "slots" in asked:
            value = {"reward": [{"slotId": slot["id"], "value": reward} for slot in asked["slots"]]}
        assert call("POST", f"{base}/events/{event}/reward", value).status_code == rewarded
    (tmp_path / "log.json").write_text(json.dumps(line(event, asked, reward)) + "\n")
    found = check_log(tmp_path / "log.json", LoopSettings(name="news"), None)
    assert (found.refused > 0) is (400 in (ranked, rewarded)), found.findings


def test_an_id_that_comes_again_is_told_apart_as_the_service_does(tmp_path: Path, call: Caller) -> None:
    first, other = request(), request(features=[{"month": 8}])
    statuses = [
        call("POST", "/personalizer/v1.0/rank", each | {"eventId": "twice"}).status_code
        for each in (first, first, other)
    ]
    assert statuses == [201, 201, 409]
    lines = [line("twice", each, 0.0) for each in (first, first, other)]
    (tmp_path / "log.json").write_text("".join(json.dumps(each) + "\n" for each in lines))
    found = check_log(tmp_path / "log.json", LoopSettings(name="news"), None)
    assert {
        each.kind: (each.count, each.first) for each in found.findings if each.kind in ("reused_id", "repeated")
    } == {
        "repeated": (1, "line 2"),
        "reused_id": (1, "line 3"),
    }
