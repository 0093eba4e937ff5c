"""dsjson: the decision log of VW's reinforcement learning library and of Azure Personalizer, read and written.

One JSON object per line: what was asked (``c``), the ranked actions (``a``, 1-based) with their probabilities (``p``),
and the cost of the first of them, which is minus its reward. An action has no id of its own there; its ``_tag`` is
taken, as Personalizer writes it, or else its number.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from decision.errors import FieldError, Words
from decision.records import MAX_RECORD_BYTES
from decision.validation import field_error
from pipelines.formats.registry import Format, one_log
from pipelines.formats.rows import SUM_TOLERANCE, complete
from pipelines.formats.store import check_file
from pipelines.progress import Progress, counted, silent

_SPECIAL = ("_multi", "_slots")


class DsjsonLine(msgspec.Struct, kw_only=True):
    """The fields of a line that mean something here; VW ignores others as this does.

    Attributes:
        label_cost: minus the reward.
        label_probability: probability of the drawn action.
        label_action: 1-based number of the drawn action.
        label_index: the same, 0-based.
        outcomes: what was reported, in order.
        timestamp: when it was decided.
        version: of the format.
        event_id: the decision's id.
        a: 1-based numbers of the actions, the drawn one first.
        p: their probabilities.
        c: context features; ``_multi`` is the list of the actions' features.
        model: ``VWState.m`` names the policy's version.
        pdrop: probability with which this line was left out of the log.
        skip_learn: deferred and never activated.
    """

    label_cost: float = msgspec.field(name="_label_cost")
    label_probability: float = msgspec.field(name="_label_probability")
    label_action: int = msgspec.field(name="_label_Action")
    label_index: int = msgspec.field(name="_labelIndex")
    outcomes: list[dict[str, Any]] = msgspec.field(name="o", default_factory=list)
    timestamp: datetime = msgspec.field(name="Timestamp")
    version: str = msgspec.field(name="Version", default="1")
    event_id: str = msgspec.field(name="EventId")
    a: list[int]
    c: dict[str, Any]
    p: list[float]
    model: dict[str, str] = msgspec.field(name="VWState", default_factory=dict)
    pdrop: float | None = None
    skip_learn: bool | None = msgspec.field(name="_skipLearn", default=None)


_decoder = msgspec.json.Decoder(DsjsonLine)
_encoder = msgspec.json.Encoder()


def read_dsjson(path: Path, *, rows_per_batch: int = 10_000) -> Iterable[pa.Table]:
    """Yield the decisions of a dsjson file in the lake's interaction columns.

    Raises:
        FieldError: a line that is no single-action decision, named by its number.
    """
    check_file(path)
    rows: list[dict[str, Any]] = []
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_RECORD_BYTES + 1):
            number += 1
            if len(line) > MAX_RECORD_BYTES:
                raise FieldError(f"line {number}", wanted=f"at most {MAX_RECORD_BYTES} bytes", got=Words("longer"))
            if not line.strip():
                continue
            rows.append(_row(line, number))
            if len(rows) == rows_per_batch:
                yield _table(rows)
                rows = []
    if rows:
        yield _table(rows)


def write_dsjson(table: pa.Table, path: Path, progress: Progress = silent) -> tuple[int, int]:
    """Write interactions as dsjson, whole or not at all.

    Features that were looked up appear in the context under ``feature``. The format has one line per single decision
    with a known distribution, so rows without one and decisions of several slots are left out and counted.

    Args:
        table: rows with the lake's interaction columns.
        path: the file to write.
        progress: told of the rows gone through.

    Returns:
        (written, left out).

    Raises:
        FieldError: a context feature has a name that the format reserves.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    written = left_out = 0
    try:
        with scratch.open("wb") as file:
            batches = table.to_batches(max_chunksize=10_000)
            for batch in counted(batches, progress, "decisions exported", total=len(table), size=len):
                for row in batch.to_pylist():
                    if row["slot"] or row["pmf"] is None:
                        left_out += 1
                        continue
                    file.write(_encoder.encode(_line(row)) + b"\n")
                    written += 1
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return written, left_out


def _row(text: bytes, number: int) -> dict[str, Any]:
    try:
        line = _decoder.decode(text)
    except msgspec.DecodeError as error:
        raise field_error(error, DsjsonLine, whole="").under(f"line {number}: ") from error

    def refuse(field: str, wanted: str, got: object) -> FieldError:
        return FieldError(f"line {number}: {field}", wanted=wanted, got=got)

    actions = line.c.get("_multi")
    if "_slots" in line.c or not isinstance(actions, list) or not all(isinstance(entry, dict) for entry in actions):
        raise refuse("c._multi", "a list of actions, and no slots", "none")
    k = len(actions)
    if sorted(line.a) != list(range(1, k + 1)):
        raise refuse("a", f"the numbers 1 to {k}, each once", line.a)
    if len(line.p) != k:
        raise refuse("p", f"{k} probabilities", len(line.p))
    index = line.label_index
    if not line.a[0] == line.label_action == index + 1:
        raise refuse("_labelIndex", f"the first action of a less 1, {line.a[0] - 1}", index)
    if abs(line.label_probability - line.p[0]) > SUM_TOLERANCE:
        raise refuse("_label_probability", f"the first of p, {line.p[0]}", line.label_probability)
    if line.timestamp.tzinfo is None:
        line.timestamp = line.timestamp.replace(tzinfo=UTC)
    pmf = [0.0] * k
    for action, p in zip(line.a, line.p, strict=True):
        pmf[action - 1] = p
    features = [{name: value for name, value in entry.items() if name != "_tag"} for entry in actions]
    context = {name: value for name, value in line.c.items() if name not in _SPECIAL}
    return {
        "event_id": line.event_id,
        "ts": line.timestamp,
        "appended_at": line.timestamp,
        "matured_at": line.timestamp,
        "context": _encoder.encode(context).decode(),
        "actions": _encoder.encode(features).decode(),
        "action_ids": _ids(actions),
        "pmf": pmf,
        "action_index": index,
        "propensity": pmf[index],
        "policy_version": line.model.get("m", ""),
        "pass_probability": 1.0 - (line.pdrop or 0.0),
        "state": "dropped" if line.skip_learn else "joined",
        "reason": "not_activated" if line.skip_learn else None,
        "deferred": bool(line.skip_learn),
        "reward": None if line.skip_learn else -line.label_cost + 0.0,
        "outcomes": [
            {"name": "reward", "value": float(entry["v"]), "ts": line.timestamp, "offset": -1}
            for entry in line.outcomes
            if isinstance(entry.get("v"), int | float) and not isinstance(entry["v"], bool)
        ],
    }


def _ids(actions: list[dict[str, Any]]) -> list[str]:
    tags = [entry.get("_tag") for entry in actions]
    texts = [tag for tag in tags if isinstance(tag, str) and tag]
    if len(texts) == len(tags) == len(set(texts)):
        return texts
    return [str(number) for number in range(1, len(actions) + 1)]


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    return complete({name: [row[name] for row in rows] for name in rows[0]}, len(rows))


def _line(row: dict[str, Any]) -> dict[str, Any]:
    context: dict[str, Any] = msgspec.json.decode(row["context"])
    for name in context:
        if name.startswith("_"):
            raise FieldError(f"context.{name}", wanted='a name that does not begin with "_" for dsjson', got=name)
    if looked_up := msgspec.json.decode(row["feature_snapshot"]):
        if "feature" in context:
            raise FieldError("context.feature", wanted="another name beside looked-up features", got="feature")
        context["feature"] = looked_up
    features: list[dict[str, Any]] = msgspec.json.decode(row["actions"])
    multi = [{"_tag": tag, **entry} for tag, entry in zip(row["action_ids"], features, strict=True)]
    index, pmf = row["action_index"], row["pmf"]
    others = [other for other in range(len(pmf)) if other != index]
    order = [index, *sorted(others, key=lambda other: -pmf[other])]
    cost = 0.0 if row["reward"] is None else -row["reward"] + 0.0
    counted = row["outcomes"] or []
    line: dict[str, Any] = {
        "_label_cost": cost,
        "_label_probability": row["propensity"],
        "_label_Action": index + 1,
        "_labelIndex": index,
    }
    if counted:
        line["o"] = [{"v": outcome["value"], "EventId": row["event_id"], "ActionTaken": False} for outcome in counted]
    line |= {
        "Timestamp": row["ts"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "Version": "1",
        "EventId": row["event_id"],
        "a": [action + 1 for action in order],
        "c": {**context, "_multi": multi},
        "p": [pmf[action] for action in order],
        "VWState": {"m": row["policy_version"]},
        "_original_label_cost": cost,
    }
    if row["pass_probability"] < 1:
        line["pdrop"] = 1.0 - row["pass_probability"]
    if row["state"] == "dropped":
        line["_skipLearn"] = True
    return line


FORMAT = Format(one_log(lambda path, name: read_dsjson(path)), write_dsjson)
