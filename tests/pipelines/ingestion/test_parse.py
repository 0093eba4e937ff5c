"""The fast way and the slow way agree, and nothing invalid becomes a row."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pipelines.ingestion.parse as parsing
from decision.errors import FieldError
from decision.records import SCHEMA_VERSION, decode_decision, decode_outcome, encode
from pipelines.ingestion.parse import Parsed, parse_decisions, parse_outcomes
from pipelines.log.protocol import Message, Stretch
from tests.worlds.lake import decision, outcome

DECISION: dict[str, Any] = json.loads(encode(decision("e1")))
OUTCOME: dict[str, Any] = json.loads(encode(outcome("e1")))


def message(value: bytes, key: bytes = b"e1", offset: int = 0, topic: str = "decisions", **changes: Any) -> Message:
    return Message(topic, 0, offset, key, value, **({"headers": (), "ts_ms": 1_800_000_000_000} | changes))


def parse(*values: bytes, key: bytes = b"e1", topic: str = "decisions", loops: set[str] | None = None) -> Parsed:
    messages = [message(value, key, offset, topic) for offset, value in enumerate(values)]
    return (parse_decisions if topic == "decisions" else parse_outcomes)(Stretch.of(messages), loops)


BAD_DECISIONS: list[tuple[str, str, Any]] = [
    ("pmf", "pmf", [0.5, 0.6]),
    ("pmf", "pmf", [1.5, -0.5]),
    ("pmf", "pmf", [0.25, 0.25, 0.5]),
    ("pmf", "pmf[1]", [0.75, "0.25"]),
    ("pmf", "pmf[1]", [0.75, None]),
    ("pmf_baseline", "pmf_baseline", [1.0]),
    ("pmf_candidate", "pmf_candidate", [0.9, 0.9]),
    ("propensity", "propensity", 0.75),
    ("action_index", "action_index", 2),
    ("action_index", "action_index", -1),
    ("action_index", "action_index", 1.5),
    ("action_ids", "action_ids", ["a", "a"]),
    ("action_ids", "action_ids", []),
    ("action_ids", "action_ids[0]", [1, 2]),
    ("action_ids", "action_ids", "ab"),
    ("guard_weight", "guard_weight", 1.5),
    ("pass_probability", "pass_probability", 0),
    ("seed", "seed", 1 << 53),
    ("seed", "seed", -1),
    ("step", "step", 1 << 63),
    ("guard_version", "guard_version", 1 << 64),
    ("context", "context", [1]),
    ("context", "context", "text"),
    ("actions", "actions", {"a": 1}),
    ("feature_snapshot", "feature_snapshot", None),
    ("event_id", "event_id", ""),
    ("event_id", "key", "e2"),
    ("slot", "slot", "s" * 257),
    ("loop", "loop", "No Loop"),
    ("loop", "loop", "../shop"),
    ("ts", "ts", "2026-01-01T00:00:00"),
    ("ts", "ts", "1969-01-01T00:00:00Z"),
    ("ts", "ts", "2400-01-01T00:00:00Z"),
    ("ts", "ts", "yesterday"),
    ("mode", "mode", "offline"),
    ("schema_version", "schema_version", 99),
    ("surprise", "surprise", 1),
]


@pytest.mark.parametrize(("name", "field", "value"), BAD_DECISIONS)
def test_a_decision_that_does_not_fit_is_a_dead_letter_that_names_the_field(name: str, field: str, value: Any) -> None:
    good, bad = encode(decision("e1")), json.dumps(DECISION | {name: value}).encode()
    parsed = parse(good, bad, good)
    assert parsed.rows["offset"].to_pylist() == [0, 2]
    (dead,) = parsed.dead
    assert dead.message.value == bad
    # a record's own checks name unknown and nested fields in the schema's words
    assert dead.field in {field, field.split("[")[0], "record", name}
    assert dead.reason


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"schema_version":2}',
        json.dumps(DECISION).encode().replace(b"41.5", b"NaN"),
        json.dumps(DECISION).encode().replace(b'"fr"', b'"\xff"'),
        json.dumps(DECISION).encode().replace(b"41.5", b"[" * 9000 + b"]" * 9000),
        b'{"a":' * 9000,
        b" " * (1 << 20) + json.dumps(DECISION).encode(),
    ],
)
def test_bytes_that_are_no_decision_are_dead_letters(value: bytes) -> None:
    parsed = parse(value)
    assert len(parsed.rows) == 0
    assert len(parsed.dead) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("value", "1"), ("value", None), ("value", 1e999), ("name", ""), ("name", "n" * 257), ("ts", 3), ("extra", 1)],
)
def test_an_outcome_that_does_not_fit_is_a_dead_letter(name: str, value: Any) -> None:
    text = json.dumps(OUTCOME | {name: value}).replace("Infinity", "1e999").encode()
    parsed = parse(encode(outcome("e1")), text, topic="outcomes")
    assert len(parsed.rows) == 1
    assert len(parsed.dead) == 1


def test_the_row_holds_what_the_record_said() -> None:
    record = decision(
        "e1",
        slot="s",
        ts=datetime(2026, 3, 4, 5, 6, 7, 123456, tzinfo=timezone(timedelta(hours=2))),
        episode_id="ep",
        step=3,
        pmf_baseline=[0.5, 0.5],
        pmf_candidate=[0.0, 1.0],
        guard_weight=0.25,
        guard_version=7,
        mode="apprentice",
        deferred=True,
        pass_probability=0.5,
        feature_snapshot=msgspec.Raw(b'{"x":1}'),
    )
    plain = decision("e1", subject_id=None)
    parsed = parse(encode(record), encode(plain))
    assert not parsed.dead
    for row, want in zip(parsed.rows.to_pylist(), (record, plain), strict=True):
        for name in want.__struct_fields__:
            value = getattr(want, name)
            assert row[name] == (bytes(value).decode() if isinstance(value, msgspec.Raw) else value), name
    assert parsed.rows.to_pylist()[0]["appended_at"] == datetime.fromtimestamp(1_800_000_000, UTC)


def test_older_schema_versions_are_read() -> None:
    old = {k: v for k, v in DECISION.items() if k not in {"propensity", "slot", "deferred", "guard_weight"}}
    parsed = parse(json.dumps(old | {"schema_version": 1, "pscore": 0.25}).encode(), encode(decision("e1")))
    assert not parsed.dead
    assert parsed.rows["propensity"].to_pylist() == [0.25, 0.25]
    assert parsed.rows["schema_version"].to_pylist() == [SCHEMA_VERSION] * 2


def test_only_the_loops_that_exist_are_accepted_when_they_are_given() -> None:
    good = encode(decision("e1"))
    assert not parse(good, loops={"shop"}).dead
    (dead,) = parse(good, loops={"news"}).dead
    assert (dead.field, dead.reason) == ("loop", "loop: must be 'news', is 'shop'")


def test_messages_that_an_erasure_emptied_leave_nothing() -> None:
    empty = message(b"", headers=(("redacted", b"1"),))
    for parser, good in ((parse_decisions, encode(decision("e1"))), (parse_outcomes, encode(outcome("e1")))):
        parsed = parser(Stretch.of([message(good), empty]), None)
        assert (len(parsed.rows), len(parsed.dead), parsed.redacted) == (1, 0, 1)


def test_where_a_spool_held_an_outcome_is_kept() -> None:
    headers = (("spool", b"abc"), ("spool_offset", b"17"))
    reports = [message(encode(outcome("e1")), headers=headers), message(encode(outcome("e1")))]
    parsed = parse_outcomes(Stretch.of(reports), None)
    assert parsed.rows["spool"].to_pylist() == ["abc", None]
    assert parsed.rows["spool_offset"].to_pylist() == [17, None]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 1 << 65) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
NUDGES = {
    "pmf": st.lists(st.sampled_from([0.25, 0.75, 0.75 + 4e-10, 0.75 + 2e-9, -0.25, 1.25, 0.5]), max_size=3),
    "propensity": st.sampled_from([0.25, 0.75, 0.0, 1.25]),
    "action_index": st.integers(-1, 2),
    "action_ids": st.lists(st.sampled_from(["a", "b", ""]), max_size=3),
    "context": JSON,
    "actions": JSON,
}


def accepted(value: bytes, decode: Any, **checks: Any) -> bool:
    try:
        record = decode(value)
        parsing._check_record(record, message(value), None)
    except FieldError:
        return False
    return True


@given(data=st.data(), name=st.sampled_from(sorted(DECISION)))
def test_the_fast_way_accepts_nothing_that_the_slow_way_refuses(data: st.DataObject, name: str) -> None:
    changed = DECISION | {name: data.draw(NUDGES.get(name, JSON) | JSON)}
    value = json.dumps(changed).encode()
    parsed = parse(value)
    assert len(parsed.rows) + len(parsed.dead) == 1
    assert (len(parsed.rows) == 1) == accepted(value, decode_decision)


@given(data=st.data(), name=st.sampled_from(sorted(OUTCOME)))
def test_the_same_holds_for_outcomes(data: st.DataObject, name: str) -> None:
    value = json.dumps(OUTCOME | {name: data.draw(JSON)}).encode()
    assert (len(parse(value, topic="outcomes").rows) == 1) == accepted(value, decode_outcome)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_row_or_a_dead_letter(value: bytes) -> None:
    for topic in ("decisions", "outcomes"):
        parsed = parse(value, topic=topic)
        assert len(parsed.rows) + len(parsed.dead) == 1


@pytest.mark.parametrize("name", ["loop", "policy_version", "action_ids", "context"])
def test_text_that_is_no_utf_8_is_a_dead_letter(name: str) -> None:
    changed = DECISION | {name: {"context": {"a": "mark"}, "action_ids": ["mark", "b"]}.get(name, "mark")}
    parsed = parse(json.dumps(changed).encode().replace(b"mark", b"\xc3\x28"))
    assert (len(parsed.rows), len(parsed.dead)) == (0, 1)


def test_a_repeated_key_in_the_json_cannot_smuggle_a_value_past_the_checks() -> None:
    text = json.dumps(DECISION).replace('"propensity": 0.25', '"propensity": 0.25, "propensity": 0.9').encode()
    assert len(parse(text).rows) == 0


IDS = st.lists(
    st.text(max_size=5) | st.sampled_from(['"', "\\", ",", "[]", "é", '","', "\u2028"]), min_size=1, max_size=4
)


@given(rows=st.lists(IDS, min_size=1, max_size=5))
def test_action_ids_are_read_as_they_were_written(rows: list[list[str]]) -> None:
    records = [
        decision(
            "e1",
            action_ids=ids,
            pmf=[1.0] + [0.0] * (len(ids) - 1),
            action_index=0,
            propensity=1.0,
            actions=msgspec.Raw(msgspec.json.encode([{}] * len(ids))),
        )
        for ids in rows
    ]
    parsed = parse(*map(encode, records))
    good = [ids for ids in rows if len(set(ids)) == len(ids)]
    assert parsed.rows["action_ids"].to_pylist() == good
    assert len(parsed.dead) == len(rows) - len(good)


@pytest.mark.parametrize(
    "ids", ['["a","b"', '["a",["b"]]', '["a",null]', '[["a","b"]]', '{"a":"b"}', '["a",1]', '"a"', "[]"]
)
def test_raw_action_ids_that_are_no_list_of_texts_are_refused(ids: str) -> None:
    good = encode(decision("e1"))
    bad = good.replace(b'["a","b"]', ids.encode())
    assert bad != good
    parsed = parse(good, bad, good)
    assert (len(parsed.rows), len(parsed.dead)) == (2, 1)


@given(st.lists(st.lists(st.floats(1e-12, 1), min_size=1, max_size=5), min_size=1, max_size=5))
def test_pmfs_are_read_to_the_last_bit(rows: list[list[float]]) -> None:
    pmfs = [[weight / sum(row) for weight in row] for row in rows]
    records = [
        decision(
            "e1",
            action_ids=[str(n) for n in range(len(pmf))],
            pmf=pmf,
            action_index=0,
            propensity=pmf[0],
            actions=msgspec.Raw(msgspec.json.encode([{}] * len(pmf))),
        )
        for pmf in pmfs
    ]
    assert parse(*map(encode, records)).rows["pmf"].to_pylist() == pmfs


@pytest.mark.parametrize(
    "pmf",
    [
        "[0.75,null]",
        '[0.75,"0.25"]',
        "[[0.75,0.25]]",
        "[true,0.25]",
        "[0.75]",
        "[]",
        "0.75",
        "[1e999,0.25]",
        "[0.75,0.25,0]",
    ],
)
def test_raw_pmfs_that_are_no_distribution_over_the_actions_are_refused(pmf: str) -> None:
    good = encode(decision("e1"))
    bad = good.replace(b'"pmf":[0.75,0.25]', f'"pmf":{pmf}'.encode())
    assert bad != good
    parsed = parse(good, bad, good)
    assert (len(parsed.rows), len(parsed.dead)) == (2, 1)


@pytest.mark.parametrize("pmf", ["[0.75 , 0.25]", "[75e-2,2.5E-1]", "[0.750,0.25]", "[1,0]", "[0.0,1]"])
def test_every_way_to_write_a_pmf_is_read(pmf: str) -> None:
    values = json.loads(pmf)
    index = max(range(2), key=values.__getitem__)
    good = encode(decision("e1", pmf=values, action_index=index, propensity=float(values[index])))
    text = good.replace(b'"pmf":' + msgspec.json.encode(values), f'"pmf":{pmf}'.encode())
    assert parse(encode(decision("e1")), text).rows["pmf"].to_pylist() == [[0.75, 0.25], values]


def test_spaces_in_the_json_change_nothing_but_the_raw_texts() -> None:
    spaced, plain = parse(json.dumps(DECISION, indent=2).encode()).rows, parse(encode(decision("e1"))).rows
    for name in plain.schema.names:
        ours, theirs = spaced[name].to_pylist(), plain[name].to_pylist()
        if name in {"context", "actions", "feature_snapshot"}:
            ours, theirs = [json.loads(ours[0])], [json.loads(theirs[0])]
        assert ours == theirs, name
