"""Outcomes over HTTP say something: what cannot count is refused with its field, what may is counted as doubtful."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decision.records import decode_outcome
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.counters import counters
from pipelines.interactions.join import join
from pipelines.operations.installation import Installation
from pipelines.operations.status import look, status_table
from pipelines.settings import load_loop
from tests.serving.http.test_app import QUESTION, Caller, open_at
from tests.worlds.lake import LATER

OUTCOMES = "/v1/loops/news/outcomes"


@pytest.fixture
def call(tmp_path: Path) -> Iterator[Caller]:
    core = open_at(tmp_path)
    yield Caller(core)
    core.close()


def reported(call: Caller, event_id: str) -> list[float]:
    return [decode_outcome(m.value).value for m in call.core.spool.find("outcomes", event_id.encode())]


def doubts(call: Caller) -> dict[str, int]:
    return call("GET", "/v1/loops/news").json()["process"]["doubtful"]


@pytest.mark.parametrize("ts", ["1969-12-31T23:59:59Z", "2200-01-02T00:00:00Z", "0001-01-01T00:00:00Z"])
def test_a_time_that_the_lake_does_not_take_is_refused(call: Caller, ts: str) -> None:
    answer = call("POST", OUTCOMES, {"event_id": "e", "value": 1, "ts": ts})
    assert (answer.status_code, answer.json()["field"]) == (422, "ts")
    assert reported(call, "e") == []


@pytest.mark.parametrize(
    ("text", "report", "field"),
    [
        ('[reward]\naggregation = "latest"\nmaximum = 1.0', {"value": 1.5}, "value"),
        ('[reward]\naggregation = "mean"\nminimum = -2\n', {"value": -2.5}, "value"),
        ('[reward]\nothers = ["dwell"]', {"value": 1, "name": "reword"}, "name"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_field(
    tmp_path: Path, text: str, report: dict[str, Any], field: str
) -> None:
    core = open_at(tmp_path, text)
    call = Caller(core)
    answer = call("POST", OUTCOMES, {"event_id": "e"} | report)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    many = call("POST", OUTCOMES, [{"event_id": "e", "value": 1}, {"event_id": "e"} | report])
    assert (many.status_code, many.json()["field"]) == (422, f"[1].{field}")  # all of a list or nothing
    assert reported(call, "e") == []
    assert call("POST", OUTCOMES, {"event_id": "e", "value": 1}).status_code == 202
    core.close()


def test_names_that_the_loop_lists_are_in_no_doubt(tmp_path: Path) -> None:
    core = open_at(tmp_path, '[reward]\nothers = ["dwell"]')
    call = Caller(core)
    assert call("POST", OUTCOMES, {"event_id": "e", "value": 31.0, "name": "dwell"}).status_code == 202
    assert doubts(call) == {}
    core.close()


def test_what_may_be_meant_is_counted_at_once_and_seen_by_operators_before_and_after_ingestion(
    tmp_path: Path,
) -> None:
    core = open_at(tmp_path, "[reward]\nminimum = 0.0\nmaximum = 1.0")
    call = Caller(core)
    assert call("POST", "/v1/loops/news/decide", QUESTION | {"event_id": "known"}).status_code == 200
    odd = [
        {"event_id": "known", "value": 1, "name": "reword"},
        {"event_id": "known", "value": 2},  # one part of a sum may lie outside of the range
        {"event_id": "known", "value": -0.5},
        {"event_id": "known", "value": 1},
    ]
    assert call("POST", OUTCOMES, odd).json() == {"accepted": 4}
    for event_id in ("known", "nobody"):
        assert call("POST", "/v1/loops/news/activate", {"event_id": event_id}).status_code == 202
    assert doubts(call) == {"name": 1, "value": 2, "event_id": 1}
    shown = call("GET", "/metrics").text
    assert 'decision_outcomes_doubtful_total{field="value",loop="news"}' in shown

    parts = Installation(call.core.settings)
    before = look(parts).loops[0]
    assert before.doubtful == {"name": 1, "value": 2}
    ingest(parts.log, parts.lake)
    loop = load_loop(call.core.settings, "news", {})
    join(parts.lake, loop, LATER)
    after = look(parts)
    assert after.loops[0].doubtful == {"name": 1, "value": 2, "event_id": 1}
    assert counters(parts.lake, loop, LATER).doubtful == after.loops[0].doubtful
    assert status_table(after) is not None
    parts.log.close()
    core.close()


def test_without_a_range_no_value_is_in_doubt(call: Caller) -> None:
    assert call("POST", OUTCOMES, {"event_id": "e", "value": 1e6}).status_code == 202
    assert doubts(call) == {}


def test_an_activation_of_a_slate_makes_all_its_slots_count(tmp_path: Path) -> None:
    core = open_at(tmp_path, "deferred = true\n[reward]\nwindow_s = 1\n")
    call = Caller(core)
    slots = [{"id": "s1", "baselineAction": "a"}, {"id": "s2", "baselineAction": "b"}]
    for event_id in ("shown", "rewarded", "unseen"):
        body = {"eventId": event_id, "actions": [{"id": name, "features": []} for name in "abc"], "slots": slots}
        body |= {"deferActivation": True}
        assert call("POST", "/personalizer/v1.1-preview.2/multislot/rank", body).status_code == 201
    events = "/personalizer/v1.1-preview.2/multislot/events"
    assert call("POST", f"{events}/shown/activate").status_code == 204
    reward = {"reward": [{"slotId": "s2", "value": 1}]}
    assert call("POST", f"{events}/rewarded/reward", reward).status_code == 204
    parts = Installation(core.settings)
    ingest(parts.log, parts.lake)
    joined = join(parts.lake, load_loop(core.settings, "news", {}), LATER.replace(year=2150))
    assert (joined.joined, joined.expired, joined.dropped) == (1, 3, {"not_activated": 2})
    parts.log.close()
    core.close()
