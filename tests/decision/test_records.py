from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.errors import FieldError
from decision.records import (
    MAX_RECORD_BYTES,
    SCHEMA_VERSION,
    Decision,
    Outcome,
    decode_decision,
    decode_outcome,
    encode,
)

DECISION_V2: dict[str, Any] = {
    "schema_version": 2,
    "loop": "news",
    "event_id": "e1",
    "ts": "2026-11-01T12:00:00Z",
    "context": {"hour": 3},
    "actions": [{"x": 1}, {"x": 2}],
    "action_ids": ["a", "b"],
    "pmf": [0.25, 0.75],
    "action_index": 1,
    "propensity": 0.75,
    "policy_version": "3",
    "baseline_version": "baseline:uniform",
    "seed": 12345,
}
DECISION_V1 = (
    b'{"schema_version":1,"loop":"news","event_id":"e1","ts":"2026-11-01T12:00:00Z","context":{"hour":3},'
    b'"actions":[{"x":1},{"x":2}],"action_ids":["a","b"],"pmf":[0.25,0.75],"action_index":1,"pscore":0.75,'
    b'"policy_version":"3","baseline_version":"baseline:uniform","seed":12345}'
)
OUTCOME_V1 = (
    b'{"schema_version":1,"loop":"news","event_id":"e1","name":"reward","value":1,"ts":"2026-11-01T12:00:09+00:00"}'
)


def changed(**fields: Any) -> bytes:
    return json.dumps(DECISION_V2 | fields).encode()


def test_decision_is_what_was_written() -> None:
    record = decode_decision(changed())
    assert (record.event_id, record.propensity, bytes(record.context)) == ("e1", 0.75, b'{"hour": 3}')
    assert decode_decision(encode(record)) == record


def test_decision_of_version_1_is_read_with_neutral_defaults() -> None:
    record = decode_decision(DECISION_V1)
    assert record.schema_version == SCHEMA_VERSION
    assert (record.propensity, record.slot, record.guard_weight, record.deferred) == (0.75, "", 0.0, False)


def test_record_in_another_script_is_what_was_written() -> None:
    record = decode_decision(changed(event_id="ключ", context={"город": "東京"}))
    assert record.event_id == "ключ"
    text = DECISION_V1.replace(b'"hour":3', '"город":"東京"'.encode())
    assert msgspec.json.decode(bytes(decode_decision(text).context)) == {"город": "東京"}
    assert decode_decision(encode(decode_decision(text))) == decode_decision(text)


def test_outcome_of_version_2_names_no_action() -> None:
    record = decode_outcome(OUTCOME_V1.replace(b'"schema_version":1', b'"schema_version":2'))
    assert (record.schema_version, record.action_id) == (SCHEMA_VERSION, None)
    named = msgspec.structs.replace(record, action_id="a")
    assert decode_outcome(encode(named)) == named
    with pytest.raises(FieldError, match="action_id"):
        decode_outcome(encode(msgspec.structs.replace(record, action_id="")))


def test_outcome_of_version_1_is_read() -> None:
    record = decode_outcome(OUTCOME_V1)
    assert (record.schema_version, record.value, record.idempotency_key) == (SCHEMA_VERSION, 1.0, None)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"schema_version": SCHEMA_VERSION + 1}, "schema_version"),
        ({"schema_version": 0}, "schema_version"),
        ({"surprise": 1}, "surprise"),
        ({"event_id": ""}, "event_id"),
        ({"event_id": "x" * 257}, "event_id"),
        ({"loop": ""}, "loop"),
        ({"ts": "2026-11-01T12:00:00"}, "ts"),
        ({"ts": "yesterday"}, "ts"),
        ({"context": [1]}, "context"),
        ({"actions": {}}, "actions"),
        ({"feature_snapshot": 3}, "feature_snapshot"),
        ({"action_ids": []}, "action_ids"),
        ({"action_ids": ["a", "a"]}, "action_ids"),
        ({"pmf": [1.0]}, "pmf"),
        ({"pmf": [0.5, 0.6]}, "pmf"),
        ({"pmf": [1.25, -0.25]}, "pmf"),
        ({"pmf_baseline": [0.1, 0.1]}, "pmf_baseline"),
        ({"pmf_candidate": [1.0]}, "pmf_candidate"),
        ({"action_index": 2}, "action_index"),
        ({"action_index": "1"}, "action_index"),
        ({"propensity": 0.7}, "propensity"),
        ({"guard_weight": 1.5}, "guard_weight"),
        ({"pass_probability": 0}, "pass_probability"),
        ({"seed": 1 << 53}, "seed"),
        ({"mode": "offline"}, "mode"),
        ({"slot": "x" * 257}, "slot"),
    ],
)
def test_decision_that_does_not_fit_names_the_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldError) as caught:
        decode_decision(changed(**fields))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"schema_version":true}', b'{"a":NaN}', b'{"schema_version":2.0}',
        b'{"schema_version":2,"loop":"\xff"}',
        b'{"schema_version":2,"loop":"\\ud800"}',
        b'{"schema_version":2,"context":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b'{"schema_version":1,"value":' + b"[" * 100_000,
        b'{"schema_version":' + b"9" * 5_000 + b"}",
    ],
)  # fmt: skip
def test_bytes_that_are_no_record_are_refused(data: bytes) -> None:
    with pytest.raises(FieldError):
        decode_decision(data)
    with pytest.raises(FieldError):
        decode_outcome(data)


@pytest.mark.parametrize("field", ["context", "actions", "event_id", "feature_snapshot"])
def test_text_that_is_no_utf_8_is_refused_wherever_it_stands(field: str) -> None:
    value = {"event_id": "mark", "actions": [{"a": "mark"}, {}]}.get(field, {"a": "mark"})
    with pytest.raises(FieldError, match="UTF-8"):
        decode_decision(changed(**{field: value}).replace(b"mark", b"\xc3\x28"))


@given(data=st.binary(max_size=80), cut=st.integers(0, 400), at=st.integers(0, 400))
def test_any_damage_is_a_record_or_a_field_error(data: bytes, cut: int, at: int) -> None:
    text = changed()
    for damaged in (text[:at] + data + text[at + cut :], data):
        for decode in (decode_decision, decode_outcome):
            with contextlib.suppress(FieldError):
                decode(damaged)


def test_record_over_the_limit_is_refused() -> None:
    with pytest.raises(FieldError, match=str(MAX_RECORD_BYTES)):
        decode_decision(b" " * (MAX_RECORD_BYTES + 1))


@pytest.mark.parametrize(("value", "name"), [("1e999", "value"), ('"1"', "value"), ("true", "value")])
def test_outcome_whose_value_is_no_finite_number_names_it(value: str, name: str) -> None:
    data = f'{{"schema_version":2,"loop":"l","event_id":"e","value":{value},"ts":"2026-11-01T00:00:00Z"}}'.encode()
    with pytest.raises(FieldError) as caught:
        decode_outcome(data)
    assert caught.value.field in (name, "record")


@given(
    event_id=st.text(min_size=1, max_size=40),
    weights=st.lists(st.integers(1, 1000), min_size=1, max_size=20),
    pick=st.integers(0, 19),
    guard=st.floats(0, 1),
)
def test_encoded_and_decoded_decision_is_the_same(event_id: str, weights: list[int], pick: int, guard: float) -> None:
    pmf = [w / sum(weights) for w in weights]
    index = pick % len(pmf)
    record = Decision(
        schema_version=SCHEMA_VERSION,
        loop="l",
        event_id=event_id,
        ts=datetime(2026, 1, 1, tzinfo=UTC),
        context=msgspec.Raw(b'{"a":[1,"x",null]}'),
        actions=msgspec.Raw(b"[]"),
        action_ids=[str(i) for i in range(len(pmf))],
        pmf=pmf,
        action_index=index,
        propensity=pmf[index],
        guard_weight=guard,
        policy_version="1",
        baseline_version="0",
        seed=7,
    )
    assert decode_decision(encode(record)) == record


def test_outcome_roundtrip() -> None:
    record = Outcome(
        schema_version=SCHEMA_VERSION, loop="l", event_id="e", value=-2.5, ts=datetime(2026, 1, 1, tzinfo=UTC)
    )
    assert decode_outcome(encode(record)) == record
