"""Interactions written as dsjson, one line for each single decision whose distribution is known."""

from __future__ import annotations

import os
from datetime import UTC
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from decision.errors import FieldError
from pipelines.progress import Progress, counted, silent

_encoder = msgspec.json.Encoder()


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
