"""Slots that leave as lines of CCB: Vowpal Wabbit's driver and our own import read them as what they were."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.formats.dsjson.read import read_dsjson
from pipelines.formats.dsjson.write import write_dsjson
from pipelines.formats.rows import check_rows, complete

KEPT = ("event_id", "slot", "ts", "context", "actions", "action_ids", "pmf", "action_index", "propensity", "reward")
SHELVES, FRUIT = ("window", "counter"), ("apple", "pear", "plum", "fig")


def slotted(rng: np.random.Generator, number: int) -> dict[str, Any]:
    """A line of two slots as Vowpal Wabbit's library writes it: namespaces of its application, ``_id``, no tags."""
    left, outcomes = list(range(4)), list[dict[str, Any]]()
    for shelf in SHELVES:
        ranked = rng.permutation(left).tolist()
        p = rng.dirichlet(np.full(len(left), 3.0)).tolist()
        cost = -float(rng.random() < 0.2 + 0.2 * ranked[0])
        outcomes.append({"_label_cost": cost, "_id": shelf, "_a": ranked, "_p": p, "_o": [{"v": -cost}]})
        left.remove(ranked[0])
    multi = [{"fruit": {name: 1, "ripe": (at + number) % 3}} for at, name in enumerate(FRUIT)]
    slots = [{"_id": shelf, "place": {"height": at}} for at, shelf in enumerate(SHELVES)]
    return {
        "Timestamp": f"2026-05-01T08:{number % 60:02}:00.0000000Z",
        "EventId": f"visit-{number}",
        "c": {"shop": {"open": number % 2}, "_multi": multi, "_slots": slots},
        "_outcomes": outcomes,
        "VWState": {"m": "first/one"},
    }


def single(rng: np.random.Generator, number: int) -> dict[str, Any]:
    """A line of one decision in the same shape."""
    ranked = rng.permutation(4).tolist()
    p = rng.dirichlet(np.full(4, 3.0)).tolist()
    cost = -float(rng.random() < 0.2 + 0.2 * ranked[0])
    line = slotted(rng, number)
    del line["_outcomes"], line["c"]["_slots"]
    label = {"_label_cost": cost, "_label_probability": p[0], "_label_Action": ranked[0] + 1, "_labelIndex": ranked[0]}
    return {**label, **line, "a": [at + 1 for at in ranked], "p": p}


def average_loss(path: Path, learner: str) -> tuple[float, float]:
    """Return what Vowpal Wabbit's driver says of a file: its average loss, and how many examples it learned from."""
    from vowpalwabbit import Workspace

    with Workspace(f"--dsjson {learner} --quiet -d {path}", enable_logging=False) as vw:
        return vw.get_sum_loss() / vw.get_weighted_examples(), vw.get_weighted_examples()


@pytest.mark.parametrize(("line", "learner"), [(single, "--cb_explore_adf"), (slotted, "--ccb_explore_adf")])
def test_vowpal_wabbit_has_the_same_average_loss_on_what_is_written_as_on_what_was_read(
    tmp_path: Path, line: Any, learner: str
) -> None:
    rng, log, out = np.random.default_rng(23), tmp_path / "log.json", tmp_path / "out.dsjson"
    log.write_text("".join(json.dumps(line(rng, number)) + "\n" for number in range(300)))
    rows = pa.concat_tables(read_dsjson(log))
    assert write_dsjson(rows, out) == (len(rows), 0)
    loss, examples = average_loss(log, learner)
    assert average_loss(out, learner) == (pytest.approx(loss, rel=1e-5), examples)
    assert (examples, abs(loss) > 0.1) == (300, True)


def test_slots_are_read_back_as_they_were(tmp_path: Path) -> None:
    rng, log, out = np.random.default_rng(5), tmp_path / "log.json", tmp_path / "out.dsjson"
    lines = [(slotted, single)[number % 3 == 2](rng, number) for number in range(90)]
    lines[4]["_skipLearn"], lines[6]["pdrop"] = True, 0.5
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = pa.concat_tables(read_dsjson(log))
    # a lake sorts by the slots' names, and knows their order by the places on the log
    placed = rows.set_column(rows.schema.get_field_index("offset"), "offset", pa.array(range(len(rows)), pa.int64()))
    mixed = placed.sort_by([("ts", "ascending"), ("event_id", "ascending"), ("slot", "ascending")])
    assert write_dsjson(mixed, out) == (len(rows), 0)
    back = pa.concat_tables(read_dsjson(out))
    check_rows(back)
    assert back["slot"].to_pylist()[:2] == list(SHELVES)
    for name in (*KEPT, "state", "pass_probability", "policy_version"):
        mine, theirs = (dict(zip(keys(table), table[name].to_pylist(), strict=True)) for table in (rows, back))
        if name in ("context", "actions"):
            mine, theirs = ({at: json.loads(text) for at, text in each.items()} for each in (mine, theirs))
        assert mine == theirs, name


def keys(table: pa.Table) -> list[tuple[str, str]]:
    return list(zip(table["event_id"].to_pylist(), table["slot"].to_pylist(), strict=True))


def slots_of(*offered: list[str], **changes: Any) -> pa.Table:
    """The rows of an event whose slots are offered these actions, each taking the last of its own."""
    rows = len(offered)
    columns: dict[str, Any] = {
        "event_id": ["asked"] * rows,
        "slot": [f"s{at}" for at in range(rows)],
        "ts": [datetime(2026, 6, 1, tzinfo=UTC)] * rows,
        "context": ['{"day":1,"slot":{"wide":true}}', *['{"day":1}'] * (rows - 1)],
        "actions": [json.dumps([{"name": each} for each in names]) for names in offered],
        "action_ids": list(offered),
        "action_index": [len(names) - 1 for names in offered],
        "pmf": [[1 / len(names)] * len(names) for names in offered],
        "propensity": [1 / len(names) for names in offered],
        "reward": [1.0] * rows,
        "offset": list(range(rows)),
    }
    return complete(columns | changes, rows)


def test_a_slot_that_excluded_actions_says_which_it_had(tmp_path: Path) -> None:
    rows, out = slots_of(["a", "d"], ["b", "c"], ["a", "b"]), tmp_path / "out.dsjson"
    assert write_dsjson(rows, out) == (3, 0)
    (line,) = map(json.loads, out.read_text().splitlines())
    names = [entry["_tag"] for entry in line["c"]["_multi"]]
    said = [slot.get("_inc") for slot in line["c"]["_slots"]]
    assert [[names[at] for at in each] for each in said[:2]] == rows["action_ids"].to_pylist()[:2]
    assert said[2] is None  # what the slots before left
    assert line["c"]["_slots"][0] == {"wide": True, "_id": "s0", "_inc": line["c"]["_slots"][0]["_inc"]}
    back = pa.concat_tables(read_dsjson(out))
    assert [back[name].to_pylist() for name in KEPT[5:]] == [rows[name].to_pylist() for name in KEPT[5:]]
    assert [json.loads(text) for text in back["context"].to_pylist()] == [
        json.loads(text) for text in rows["context"].to_pylist()
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"pmf": [[0.5, 0.5], None]},
        {"context": ['{"day":1}', '{"day":2}']},
        {"actions": ['[{"name":"a"},{"name":"b"}]', '[{"name":"a","price":2}]']},
        {"state": ["joined", "dropped"], "reward": [1.0, None]},
    ],
)
def test_slots_that_fit_into_no_line_are_left_out_together(tmp_path: Path, changes: dict[str, Any]) -> None:
    rows = slots_of(["a", "b"], ["a"], **changes)
    assert write_dsjson(rows, tmp_path / "out.dsjson") == (0, 2)
