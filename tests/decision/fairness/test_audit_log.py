"""Any change of a chain is found: edits, deletions, moves, and with an anchor a cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.errors import FieldError
from decision.fairness.audit_log import GENESIS, Anchor, Entry, canonical, check, follow


def chain(length: int) -> list[Entry]:
    entries: list[Entry] = []
    for number in range(length):
        last = Anchor(number, entries[-1].hash) if entries else Anchor(0, GENESIS)
        entries.append(
            follow(last, at="2026", actor="a", kind="k", subject=str(number % 2), body={"x": [number, None, "é"]})
        )
    return entries


lengths = st.integers(2, 12)


@given(lengths)
def test_an_untouched_chain_is_whole(length: int) -> None:
    entries = chain(length)
    anchors = [Anchor(entry.seq, entry.hash) for entry in entries]
    assert check(entries, anchors) == (length, entries[-1].hash, ())


@given(lengths, st.data())
def test_any_edit_is_found_at_its_place(length: int, data: st.DataObject) -> None:
    entries = chain(length)
    place = data.draw(st.integers(0, length - 1))
    field = data.draw(st.sampled_from(["at", "actor", "kind", "subject", "body", "previous", "hash"]))
    entries[place] = entries[place]._replace(**{field: getattr(entries[place], field) + " "})
    assert any(fault.seq == place + 1 for fault in check(entries).faults)


@given(lengths, st.data())
def test_any_deletion_before_the_end_is_found(length: int, data: st.DataObject) -> None:
    entries = chain(length)
    del entries[data.draw(st.integers(0, length - 2))]
    assert check(entries).faults


@given(lengths, st.data())
def test_any_swap_is_found(length: int, data: st.DataObject) -> None:
    entries = chain(length)
    i, j = sorted(data.draw(st.lists(st.integers(0, length - 1), min_size=2, max_size=2, unique=True)))
    entries[i], entries[j] = entries[j], entries[i]
    assert check(entries).faults
    renumbered = [entry._replace(seq=number) for number, entry in enumerate(entries, 1)]
    assert check(renumbered).faults


@given(lengths, st.data())
def test_any_cut_is_found_by_an_anchor_and_only_by_one(length: int, data: st.DataObject) -> None:
    entries = chain(length)
    anchor = Anchor(entries[-1].seq, entries[-1].hash)
    kept = data.draw(st.integers(0, length - 1))
    assert check(entries[:kept]).faults == ()
    assert "truncated" in check(entries[:kept], [anchor]).faults[-1].what


def test_a_chain_rewritten_from_the_start_does_not_fit_its_anchor() -> None:
    true, forged = chain(5), []
    for entry in true:
        last = Anchor(len(forged), forged[-1].hash) if forged else Anchor(0, GENESIS)
        forged.append(follow(last, at="2026", actor="b", kind="k", subject=entry.subject, body={}))
    assert check(forged).faults == ()
    assert check(forged, [Anchor(3, true[2].hash)]).faults == ((3, "not what was anchored"),)


def test_canonical_text_does_not_depend_on_order_and_refuses_nan() -> None:
    assert canonical({"b": 1, "a": 2}) == canonical({"a": 2, "b": 1}) == '{"a":2,"b":1}'
    with pytest.raises(FieldError):
        canonical({"a": float("nan")})
