"""An event counts once: what says the same again is left out and counted, what says something else is refused."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from decision.errors import FieldError
from pipelines.formats.once import narrowing, once
from pipelines.formats.registry import Found
from pipelines.formats.rows import complete

AT = datetime(2026, 3, 1, tzinfo=UTC)


def table(events: list[str], **changes: Any) -> pa.Table:
    n = len(events)
    columns: dict[str, Any] = {
        "event_id": events,
        "ts": [AT] * n,
        "action_ids": [["a", "b"]] * n,
        "action_index": [1] * n,
        "propensity": [0.25] * n,
        "reward": [1.0] * n,
        "context": ['{"x":1}'] * n,
    }
    return complete(columns | changes, n)


def log(*tables: pa.Table) -> Found:
    return Found("log", "x", tables, left_out=lambda: {"undrawn": 2})


def events_of(batches: Iterable[pa.Table]) -> list[str]:
    return pa.concat_tables(batches)["event_id"].to_pylist()


def test_a_row_that_comes_again_is_left_out_and_counted_with_the_rest() -> None:
    found = once(log(table(["a", "b", "a"]), table(["c", "b"])))
    assert events_of(found.batches) == ["a", "b", "c"]
    assert found.left_out() == {"undrawn": 2, "repeated": 2}


def test_slots_of_one_event_are_decisions_of_their_own() -> None:
    found = once(log(table(["a", "a", "a"], slot=["top", "side", "top"])))
    assert len(pa.concat_tables(found.batches)) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"reward": [1.0, 0.0]},
        {"propensity": [0.25, 0.5]},
        {"action_index": [1, 0]},
        {"context": ['{"x":1}', '{"x":2}']},
        {"ts": [AT, datetime(2026, 3, 2, tzinfo=UTC)]},
    ],
)
def test_an_event_that_comes_with_another_decision_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FieldError, match=r"^row 1: event_id: 'a' came before with another decision"):
        list(once(log(table(["a", "a"], **change))).batches)


def test_a_row_is_named_by_its_number_in_what_it_was_read_from() -> None:
    first, second = table(["a"], offset=[7]), table(["b", "a"], reward=[0.0, 0.0], offset=[8, 40])
    with pytest.raises(FieldError, match=r"^row 40: event_id"):
        list(once(log(first, second)).batches)


def test_repeats_narrow_an_interval_of_means_by_the_share_that_is_told() -> None:
    rewards = np.random.default_rng(5).normal(size=4_000)
    doubled = np.concatenate([rewards, rewards[:1_000], rewards[:1_000], rewards[:1_000]])
    widths = [each.std() / np.sqrt(len(each)) for each in (rewards, doubled)]
    assert narrowing(4_000, 3_000) == pytest.approx(1.0 - widths[1] / widths[0], abs=0.03)
    assert narrowing(4_000, 0) == 0.0


def test_batches_of_any_size_keep_the_first_of_each_event() -> None:
    rng = np.random.default_rng(11)
    names = [f"e{number}" for number in rng.integers(3_000, size=8_000)]
    cuts = [0, *sorted(rng.integers(8_000, size=40).tolist()), 8_000]
    tables = [table(names[first:last]) for first, last in pairwise(cuts)]
    found = once(log(*tables))
    assert events_of(found.batches) == list(dict.fromkeys(names))
    assert found.left_out()["repeated"] == 8_000 - len(set(names))
