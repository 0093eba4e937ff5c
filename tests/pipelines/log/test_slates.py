"""A slate's records come back bit for bit, wherever its messages are cut apart, and write the context once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.errors import FieldError
from decision.records import Decision, encode
from pipelines.ingestion.ingest import Ingester, ingest
from pipelines.ingestion.parse import parse_decisions
from pipelines.log.protocol import DECISIONS, Message, Stretch
from pipelines.log.slates import HEADER, completed, in_slot, is_short, whole, written
from tests.worlds.lake import World, decision

OBJECTS = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), st.none() | st.integers(0, 9) | st.text(max_size=3), max_size=3
)


def slate(context: bytes, slots: list[dict[str, Any]], **changes: Any) -> list[Decision]:
    """Return records of slots after each other, every one without one more of the actions."""
    offered, found = [b'{"x":%d}' % i for i in range(len(slots) + 1)], list[Decision]()
    for i, features in enumerate(slots):
        ids = [f"a{j}" for j in range(len(offered)) if j >= i]
        own = in_slot(context, msgspec.json.encode(features)) if features else context
        found.append(
            decision(
                "e1",
                slot=f"s{i}",
                context=msgspec.Raw(own),
                actions=msgspec.Raw(b"[" + b",".join(offered[i:]) + b"]"),
                action_ids=ids,
                pmf=[1.0 / len(ids)] * len(ids),
                propensity=1.0 / len(ids),
                action_index=0,
                feature_snapshot=msgspec.Raw(b'{"seen":3}'),
                **changes,
            )
        )
    return found


def messages(records: list[Decision], context: bytes) -> list[Message]:
    return [
        Message(DECISIONS, 0, i, b"e1", value, headers, 0)
        for i, (value, headers) in enumerate(written(records, context))
    ]


@given(OBJECTS, st.lists(OBJECTS, min_size=1, max_size=5), st.booleans())
def test_every_record_comes_back_bit_for_bit(context: dict[str, Any], slots: list[Any], spaced: bool) -> None:
    text = msgspec.json.encode(context)
    text = msgspec.json.format(text) if spaced else text
    records = slate(text, slots)
    assert whole(messages(records, text)) == [encode(record) for record in records]
    assert all(map(is_short, [m.headers for m in messages(records, text)][1:]))


def test_fifty_slots_write_the_context_once() -> None:
    context = b'{"text":"' + b"x" * 20_000 + b'"}'
    records = slate(context, [{}] * 50)
    sizes = [len(value) for value, _ in written(records, context)]
    assert sum(sizes) < 1.0 * len(encode(records[0])) + 50 * 4_000
    assert sum(sizes) < 0.2 * sum(len(encode(record)) for record in records)


def test_what_is_not_shared_is_written_whole() -> None:
    first, second = slate(b'{"a":1}', [{}, {}])
    other = msgspec.structs.replace(second, context=msgspec.Raw(b'{"b":2}'))
    assert [value for value, _ in written([first, other], b'{"a":1}')] == [encode(first), encode(other)]
    snapshot = msgspec.structs.replace(second, feature_snapshot=msgspec.Raw(b"{}"))
    assert written([first, snapshot], b'{"a":1}')[1] == (encode(snapshot), ())


@pytest.mark.parametrize("cut", range(1, 6))
def test_a_slate_that_reading_cuts_apart_is_ingested_whole(tmp_path: Path, cut: int) -> None:
    world, context = World(tmp_path), b'{"country": "fr"}'
    records = slate(context, [{"size": 1}, {}, {}, {"size": 2}, {}])
    world.log.append_many(DECISIONS, [(b"e0", encode(decision("e0")), ())])
    world.log.append_many(DECISIONS, [(b"e1", value, headers) for value, headers in written(records, context)])
    ingester = Ingester(world.log, world.lake)
    for _ in range(7):
        ingester.run(max_messages=cut)
    rows = {row["slot"]: row for row in world.lake.decisions("shop").to_pylist() if row["event_id"] == "e1"}
    for record in records:
        row = rows[record.slot]
        assert (row["context"], row["actions"]) == (bytes(record.context).decode(), bytes(record.actions).decode())
        assert row["feature_snapshot"] == '{"seen":3}'
    assert len(world.lake.dead_letters()) == 0


def test_what_is_completed_at_once_is_bounded(tmp_path: Path) -> None:
    context = b'{"text":"' + b"x" * 10_000 + b'"}'
    records = slate(context, [{}] * 20)
    texts = written(records, context)
    fitting = int(np.searchsorted(np.cumsum([len(encode(record)) for record in records]), 55_000))
    values, headers = zip(*texts, strict=True)
    n = len(texts)
    stretch = Stretch(DECISIONS, 0, range(n), [b"e1"] * n, values, headers, [0] * n)
    some = completed(stretch, tuple, max_bytes=55_000)
    assert 1 < len(some) == fitting < n
    assert sum(map(len, some.values)) <= 55_000
    assert len(completed(stretch, tuple, max_bytes=1)) == 1
    world = World(tmp_path)
    world.log.append_many(DECISIONS, [(b"e1", *text) for text in texts])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.ingestion.ingest._BYTES_PER_COMMIT", 30_000)
        assert ingest(world.log, world.lake).decisions == n
    assert {len(text) for text in world.lake.decisions("shop")["context"].to_pylist()} == {len(context)}


def test_a_slot_whose_first_is_gone_is_a_dead_letter_and_says_so(tmp_path: Path) -> None:
    world, context = World(tmp_path), b"{}"
    short = written(slate(context, [{}, {}]), context)[1]
    world.log.append_many(DECISIONS, [(b"e1", *short)])
    assert ingest(world.log, world.lake).dead_letters == 1
    (letter,) = world.lake.dead_letters().to_pylist()
    assert letter["field"] == HEADER
    with pytest.raises(FieldError, match="first slot"):
        whole([Message(DECISIONS, 0, 0, b"e1", *short, 0)])


@pytest.mark.parametrize("mark", [b"", b"x:y", b"-1:%s", b"1e9:%s", b"9999999999:%s", b"3:%s"])
def test_a_header_that_does_not_fit_spoils_nothing_else(mark: bytes) -> None:
    context = b'{"a":1}'
    (first, _), (second, ((_, right),)) = written(slate(context, [{}, {}]), context)
    wrong = mark % right.partition(b":")[2] if b"%s" in mark else mark
    stretch = Stretch(
        DECISIONS, 0, [0, 1, 2], [b"e1"] * 3, [first, second, first], [(), ((HEADER, wrong),), ()], [0] * 3
    )
    parsed = parse_decisions(completed(stretch, tuple, max_bytes=1 << 20), None)
    assert parsed.rows.num_rows == 2
    assert [letter.message.offset for letter in parsed.dead] == [1]
