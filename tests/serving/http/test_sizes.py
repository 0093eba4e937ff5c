"""Whatever is acknowledged fits into the lake, up to the limits: one at a time, as slates and in batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from decision.records import MAX_RECORD_BYTES, decode_decision
from pipelines.ingestion.ingest import ingest
from pipelines.lake.lake import Lake
from pipelines.log.slates import whole
from serving.core import MAX_SLATE_BYTES
from serving.routes import MAX_BODY
from tests.serving.http.test_app import Caller, open_at

DECIDE, BATCH = "/v1/loops/news/decide", "/v1/loops/news/decide/batch"


@pytest.fixture
def call(tmp_path: Path) -> Iterator[Caller]:
    core = open_at(tmp_path)
    yield Caller(core)
    core.close()


def body(size: int, event_id: str, slots: int = 0) -> dict[str, Any]:
    """Return a question whose JSON has about `size` bytes."""
    asked: dict[str, Any] = {"event_id": event_id, "context": {}, "actions": [{"id": f"a{i}"} for i in range(60)]}
    if slots:
        asked["slots"] = [{"id": f"s{i}"} for i in range(slots)]
    rest = size - len(json.dumps(asked))
    texts = [f"{i:04}" + "x" * min(1_000, rest - i * 1_017) for i in range(rest // 1_017)]
    return asked | {"context": {f"t{i:04}": text for i, text in enumerate(texts)}}


def ingested(call: Caller, tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "out")
    found = ingest(call.core.spool._log, lake)  # pyright: ignore[reportPrivateUsage]
    assert found.dead_letters == 0, lake.dead_letters().to_pylist()
    return lake


def test_a_request_is_taken_as_long_as_its_record_fits_and_refused_beyond(call: Caller, tmp_path: Path) -> None:
    taken, refused = 0, 0
    for size in (900_000, 1_000_000, *range(1_038_000, MAX_BODY - 600, 1_300), 1_047_995):
        answer = call("POST", DECIDE, body(size, f"e{size}"))
        if answer.status_code == 200:
            taken += 1
            (message,) = call.logged(f"e{size}")
            assert len(message.value) <= MAX_RECORD_BYTES
        else:
            refused += 1
            assert (answer.status_code, answer.json()["field"]) == (422, "record")
            assert call.logged(f"e{size}") == []
    assert min(taken, refused) > 1
    assert len(ingested(call, tmp_path).decisions("news")) == taken


def test_fifty_slots_of_a_large_context_are_taken_and_write_it_once(call: Caller, tmp_path: Path) -> None:
    answer = call("POST", DECIDE, body(900_000, "slate", slots=50))
    assert answer.status_code == 200
    messages = call.logged("slate")
    assert sum(len(m.value) for m in messages) < 1.3 * len(messages[0].value)
    records = [decode_decision(value) for value in whole(messages)]
    assert {bytes(record.context) for record in records} == {bytes(records[0].context)}
    assert call("POST", DECIDE, body(900_000, "slate", slots=50)).json() == answer.json()  # it is answered again
    explained = call("GET", "/v1/decisions/slate").json()["decisions"]
    assert all(each["draw_matches"] for each in explained)
    rows = ingested(call, tmp_path).decisions("news")
    assert rows["context"].to_pylist() == [bytes(record.context).decode() for record in records]


def test_a_slate_whose_records_are_too_much_together_is_refused(call: Caller) -> None:
    asked = body(2_000, "far", slots=50)
    asked["actions"] = [{"id": f"a{i}", "features": {"text": "x" * 900}} for i in range(400)]
    asked["slots"][0]["excluded_actions"] = [f"a{i}" for i in range(399)]  # the first slot holds nothing to share
    answer = call("POST", DECIDE, asked)
    assert (answer.status_code, answer.json()["field"]) == (422, "slots")
    assert str(MAX_SLATE_BYTES) in answer.json()["wanted"]
    assert call.logged("far") == []


def test_a_batch_of_large_slates_is_taken_as_a_whole(call: Caller, tmp_path: Path) -> None:
    asked = {"decisions": [body(200_000, f"b{i}", slots=20) for i in range(5)]}
    answers = call("POST", BATCH, asked).json()["decisions"]
    assert all("event_id" in answer for answer in answers)
    assert len(ingested(call, tmp_path).decisions("news")) == 5 * 20


def test_a_slots_own_features_come_back(call: Caller) -> None:
    asked = {
        "event_id": "own",
        "context": {"hour": 3, "user": {"geo": "de"}},
        "actions": [{"id": name, "features": {"kind": name}} for name in "abc"],
        "slots": [{"id": "top"}, {"id": "side", "features": {"size": 2}}, {"id": "foot", "excluded_actions": ["a"]}],
    }
    assert call("POST", DECIDE, asked).status_code == 200
    records = [decode_decision(value) for value in whole(call.logged("own"))]
    contexts = [msgspec.json.decode(record.context) for record in records]
    assert contexts == [asked["context"], asked["context"] | {"slot": {"size": 2}}, asked["context"]]
    for record in records:
        assert msgspec.json.decode(record.actions) == [{"kind": name} for name in record.action_ids]
    own = asked | {"event_id": "key", "context": {"slot": 1}}  # a context that has the key itself
    assert call("POST", DECIDE, own).status_code == 200
    records = [decode_decision(value) for value in whole(call.logged("key"))]
    assert [msgspec.json.decode(record.context)["slot"] for record in records] == [1, {"size": 2}, 1]
