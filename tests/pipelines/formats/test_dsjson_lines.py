"""Real logs: folders, compressed files, lines that Vowpal Wabbit skips, and lines of several slots."""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from decision.errors import FieldError
from decision.features import flatten, merged
from pipelines.formats.dsjson.read import read_dsjson
from pipelines.formats.repeats import Repeats
from pipelines.formats.rows import check_features, check_rows

SEATS = ("aisle", "window", "exit")


def line(number: int, **changes: Any) -> dict[str, Any]:
    """A line in the shape of a retired service's storage."""
    k = number % 3
    event = f"event-{number}"
    multi = [
        {"_tag": name, "i": {"constant": 1, "id": name}, "j": [{"row": at}, {"legs": {"room": at % 2 == 0}}]}
        for at, name in enumerate(SEATS)
    ]
    found = {
        "_label_cost": -float(number % 2),
        "_label_probability": 0.5,
        "_label_Action": k + 1,
        "_labelIndex": k,
        "o": [{"v": float(number % 2), "EventId": event, "ActionTaken": False}],
        "Timestamp": f"2026-03-01T10:{number % 60:02}:00.1230000Z",
        "Version": "1",
        "EventId": event,
        "a": [k + 1, *(at + 1 for at in range(3) if at != k)],
        "c": {"FromUrl": [{"day": "mon"}, {"bags": number}], "_multi": multi},
        "p": [0.5, 0.25, 0.25],
        "VWState": {"m": "one/two"},
    }
    return found | changes


def slotted(**changes: Any) -> dict[str, Any]:
    """A line of two slots; the first takes the third action, the second one of the others."""
    outcomes = [
        {"_label_cost": -1.0, "_id": "top", "_a": [2, 0, 1], "_p": [0.5, 0.3, 0.2], "_o": [{"v": 1.0}]},
        {"_label_cost": 0.0, "_id": "side", "_a": [1, 0], "_p": [0.6, 0.4], "_o": []},
    ]
    c = line(0)["c"] | {"_slots": [{"_id": "top", "sj": [{"size": "large"}]}, {"_id": "side", "sj": []}]}
    return {"EventId": "slots", "Timestamp": "2026-03-01T10:00:00Z", "c": c, "_outcomes": outcomes} | changes


def text(*lines: Any) -> bytes:
    return b"".join((each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in lines)


def read(path: Path, **how: Any) -> tuple[pa.Table, dict[str, int]]:
    left_out = Counter[Any]()
    table = pa.concat_tables(read_dsjson(path, left_out, **how))
    check_rows(table)
    check_features(table)
    return table, dict(left_out)


def test_a_folder_is_its_files_in_order_compressed_or_not(tmp_path: Path) -> None:
    parts = [text(*(line(n) for n in range(start, start + 5))) for start in range(0, 20, 5)]
    whole = tmp_path / "whole.txt"  # a single file is read whatever its name
    whole.write_bytes(b"".join(parts))
    logs = tmp_path / "logs" / "2026" / "03"
    logs.mkdir(parents=True)
    (logs / "01_10.json").write_bytes(parts[0])
    (logs / "01_11.json.gz").write_bytes(gzip.compress(parts[1][:400]) + gzip.compress(parts[1][400:]))
    with pa.CompressedOutputStream(str(logs / "01_12.json.zst"), "zstd") as file:
        file.write(parts[2])
    (logs / "01_13.dsjson").write_bytes(parts[3])
    (logs / ".01_14.json").write_bytes(b"hidden")
    (logs / "notes.txt").write_bytes(b"not ours")
    want = read(whole)[0]
    assert read(tmp_path / "logs")[0].equals(want)
    assert read(tmp_path / "logs" / "2026" / "*" / "01_1*.*s*")[0].equals(want)
    assert want["event_id"].to_pylist() == [f"event-{n}" for n in range(20)]


def test_standard_input_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(text(line(1), line(2)))

    monkeypatch.setattr("sys.stdin", Stdin)
    assert read(Path("-"))[0]["event_id"].to_pylist() == ["event-1", "event-2"]


@pytest.mark.parametrize(("name", "got"), [("logs", "logs"), ("logs/*.json", "logs")])
def test_a_place_without_logs_is_refused(tmp_path: Path, name: str, got: str) -> None:
    (tmp_path / "logs").mkdir()
    with pytest.raises(FieldError, match=f"path: must be .*{got}"):
        read(tmp_path / name)


def test_a_joined_binary_file_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_bytes(b"VWFB\x01\x00\x00\x00UUUU" + bytes(64))
    with pytest.raises(FieldError, match="VWFB"):
        read(tmp_path)


def test_a_file_that_was_cut_in_its_compression_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    data = text(*(line(n, noise=rng.random(20).tolist()) for n in range(50)))
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(data)[:-200])
    with pytest.raises(FieldError, match=r"a\.json\.gz: .*damaged after line"):
        read(tmp_path)


SKIPPED: list[tuple[str, Any]] = [
    ("checkpoint", b"[checkpoint of a model]"),
    ("dangling", {"RewardValue": 1.0, "EnqueuedTimeUtc": "2026-03-01T10:00:00Z", "EventId": "x", "Observations": []}),
    ("malformed", b'{"_label_cost":-1,"a":[1,2'),
    ("not_a_number", line(1, _label_cost="NaN")),
    ("not_a_number", line(1, p=[0.5, "nan", 0.5])),
    ("not_a_number", b'{"_label_cost":NaN,"a":[1]}'),
    ("no_actions", line(1, a=[], p=[])),
    ("no_actions", line(1, c={"FromUrl": [], "_multi": []}, a=[], p=[])),
    ("no_label", {name: value for name, value in line(1).items() if name[:6] != "_label"}),
    ("no_label", slotted(_outcomes=[])),
    ("always_dropped", line(1, pdrop=1.0)),
    ("repeated", line(0, _label_cost=-9.0)),
]


@pytest.mark.parametrize(("reason", "skipped"), SKIPPED, ids=[f"{n}-{reason}" for n, (reason, _) in enumerate(SKIPPED)])
def test_what_is_no_decision_is_counted_by_its_reason_and_refused_if_asked(
    tmp_path: Path, reason: str, skipped: Any
) -> None:
    path = tmp_path / "log.json"
    path.write_bytes(text(line(0), skipped, b"", line(2)))
    table, left_out = read(path)
    assert table["event_id"].to_pylist() == ["event-0", "event-2"]
    assert table["reward"].to_pylist() == [0.0, 0.0]
    assert left_out == {reason: 1}
    with pytest.raises(FieldError, match="line 2"):
        read(path, strict=True)


def test_a_last_line_that_ends_in_the_middle_is_told_from_a_broken_one(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_bytes(text(line(0)) + text(line(1))[:-40])
    assert read(path)[1] == {"truncated": 1}
    path.write_bytes(text(line(0)) + text(line(1))[:-1])  # whole, and only the newline is missing
    assert read(path)[1] == {}


REFUSED: list[tuple[str, Any]] = [
    ("CATS", {"_label_ca": {"action": 2.5, "cost": 1.0, "pdf_value": 0.1}, "c": {"bags": 1}}),
    ("slates", line(1, c={"_multi": [{"_slot_id": 0}, {"_slot_id": 1}], "_slots": [{}, {}]})),
    ("UTF-8", text(line(1))[:-1].replace(b"mon", b"m\xff")),
    ("_outcomes: must be one for each of 2 slots", slotted(_outcomes=slotted()["_outcomes"][:1])),
    (r"_outcomes\[0\]._p", slotted(_outcomes=[{**slotted()["_outcomes"][0], "_p": [1.0]}] * 2)),
    (r"_outcomes\[0\]._a", slotted(_outcomes=[{**slotted()["_outcomes"][0], "_a": [3, 0, 1]}] * 2)),
    ("_labelIndex", line(1, _labelIndex=2)),
    ("_label_Action", line(1, _label_Action=3)),
    ("a: ", line(1, a=[0, 2, 3])),
    ("p: ", line(1, p=[0.5, 0.25, 0.5])),
    ("p: ", line(1, p=[0.0, 0.5, 0.5], _label_probability=0.0)),
    ("_label_probability", line(1, p=None, _label_probability=1.5)),
]


@pytest.mark.parametrize(("says", "refused"), REFUSED, ids=[str(n) for n in range(len(REFUSED))])
def test_a_decision_that_cannot_be_read_right_is_refused_by_name(tmp_path: Path, says: str, refused: Any) -> None:
    (tmp_path / "b.json").write_bytes(text(line(0), refused))
    with pytest.raises(FieldError, match=f"b.json line 2.*{says}"):
        read(tmp_path)


def test_each_slot_is_a_decision_among_what_the_slots_before_left(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_bytes(text(slotted()))
    top, side = read(path)[0].to_pylist()
    assert (top["event_id"], top["slot"], side["slot"]) == ("slots", "top", "side")
    assert (top["action_ids"], top["pmf"]) == (["aisle", "window", "exit"], [0.3, 0.2, 0.5])
    assert (top["action_index"], top["propensity"], top["reward"]) == (2, 0.5, 1.0)
    assert (side["action_ids"], side["pmf"]) == (["aisle", "window"], [0.4, 0.6])
    assert (side["action_index"], side["propensity"], side["reward"]) == (1, 0.6, 0.0)
    assert json.loads(top["context"]) == {"day": "mon", "bags": 0, "slot": {"size": "large"}}
    assert json.loads(side["context"]) == {"day": "mon", "bags": 0}
    assert len(json.loads(side["actions"])) == 2


def test_numbers_from_zero_and_lines_without_time_or_id_are_read_as_vowpal_wabbit_does(tmp_path: Path) -> None:
    bare = {name: value for name, value in line(4).items() if name not in ("Timestamp", "EventId")}
    (tmp_path / "log.json").write_bytes(text(line(3), bare | {"a": [at - 1 for at in bare["a"]]}, bare))
    table, left_out = read(tmp_path)
    assert table["event_id"].to_pylist() == ["event-3", "log.json line 2", "log.json line 3"]
    assert len(set(table["ts"].to_pylist())) == 1  # the time of the one before
    assert table["action_index"].to_pylist() == [0, 1, 1]
    assert not left_out


def test_a_sampled_log_and_a_deferred_decision_keep_what_they_say(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_bytes(text(slotted(pdrop=0.75), line(1, _skipLearn=True)))
    table, _ = read(path)
    assert table["pass_probability"].to_pylist() == [0.25, 0.25, 1.0]
    assert table["state"].to_pylist() == ["joined", "joined", "dropped"]


def test_features_have_the_shape_of_the_requests_that_they_were_logged_from(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = [{"day": "mon", "user": {"age": 3}}, {"user": {"vip": True}}, {"day": "tue"}]
    c = {"FromUrl": asked, "_multi": line(0)["c"]["_multi"]}
    path = tmp_path / "log.json"
    path.write_bytes(text(line(0, c=c)))
    (row,) = read(path)[0].to_pylist()
    want = flatten(merged(asked), field="context")
    assert flatten(json.loads(row["context"]), field="context") == want
    assert want == {"day=mon": 1.0, "user.age": 3.0, "user.vip": 1.0, "day=tue": 1.0}
    first = json.loads(row["actions"])[0]
    assert first == merged([{"row": 0}, {"legs": {"room": True}}])  # the constant and the id are no features


def test_namespaces_of_other_applications_stay_as_they_are(tmp_path: Path) -> None:
    multi = [{"_tag": "x", "i": {"constant": 2}, "j": [{"f": 1}]}, {"_tag": "y", "g": {"h": 1}}]
    c = {"user": {"age": 1}, "_multi": multi}
    changes: dict[str, Any] = {"c": c, "a": [2, 1], "p": [0.5, 0.5], "_label_Action": 2, "_labelIndex": 1}
    path = tmp_path / "log.json"
    path.write_bytes(text(line(0, **changes)))
    (row,) = read(path)[0].to_pylist()
    assert json.loads(row["context"]) == {"user": {"age": 1}}
    assert json.loads(row["actions"]) == [{"i": {"constant": 2}, "j": [{"f": 1}]}, {"g": {"h": 1}}]


def test_events_are_remembered_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.formats.repeats._NEW", 64)
    rng, seen, repeats = np.random.default_rng(3), set[int](), Repeats()
    for number in rng.integers(0, 2_000, 5_000).tolist():
        assert repeats.first(f"e{number}") == (number not in seen)
        seen.add(number)


def test_as_many_decisions_are_read_as_vowpal_wabbit_learns_from(tmp_path: Path) -> None:
    from vowpalwabbit import Workspace

    rng, path = np.random.default_rng(11), tmp_path / "log.json"
    # it learns from an event as often as it comes, and from a draw without a number; both are counted apart here
    strange = [
        skipped for reason, skipped in SKIPPED if reason in ("checkpoint", "dangling", "malformed", "no_actions")
    ]
    lines: list[Any] = [line(n, pdrop=[0.0, 0.5][n % 2]) for n in range(60)]
    for at in rng.integers(0, 60, 12).tolist():
        lines.insert(at, strange[at % len(strange)])
    path.write_bytes(text(*lines))
    table, left_out = read(path)
    with Workspace(f"--dsjson --cb_explore_adf --quiet -d {path}", enable_logging=False) as vw:
        assert vw.get_weighted_examples() == pytest.approx((1.0 / table["pass_probability"].to_numpy()).sum())
    assert (len(table), sum(left_out.values())) == (60, 12)
