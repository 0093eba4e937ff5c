"""Interactions written as dsjson: a line for each event whose distributions are known; several slots are one (CCB)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from decision.errors import FieldError
from pipelines.formats.dsjson.slots import outcomes_of, slate_of
from pipelines.progress import Progress, counted, silent

_encoder = msgspec.json.Encoder()
_ROWS = 10_000
"""Rows that are made dictionaries at a time."""


def write_dsjson(table: pa.Table, path: Path, progress: Progress = silent) -> tuple[int, int]:
    """Write interactions as dsjson, whole or not at all.

    Features that were looked up appear in the context under ``feature``. The format has one line per event, so the rows
    of several slots become one, where the first of them stands. Rows without a known distribution are left out and
    counted, and so are those of an event whose slots do not fit into a line, see `slate_of`.

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
            for rows in counted(_events(table), progress, "decisions exported", total=len(table), size=len):
                line = _line(rows[0]) if len(rows) == 1 and not rows[0]["slot"] else _slate_line(rows)
                if line is None:
                    left_out += len(rows)
                    continue
                file.write(_encoder.encode(line) + b"\n")
                written += len(rows)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return written, left_out


def _events(table: pa.Table) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each event, in the order of the log; an event stands where its first row does."""
    order = np.arange(len(table))
    if table["slot"].combine_chunks().fill_null("").unique().to_pylist() not in ([], [""]):
        codes = table["event_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        order = np.lexsort((table["offset"].fill_null(0).to_numpy(), codes))
    held: list[dict[str, Any]] = []
    for first in range(0, len(table), _ROWS):
        for row in table.take(order[first : first + _ROWS]).to_pylist():
            if held and not (row["slot"] and held[-1]["slot"] and row["event_id"] == held[-1]["event_id"]):
                yield held
                held = []
            held.append(row)
    if held:
        yield held


def _line(row: dict[str, Any]) -> dict[str, Any] | None:
    if row["pmf"] is None:
        return None
    context = _context(msgspec.json.decode(row["context"]), row)
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
        **_head(row),
        "a": [action + 1 for action in order],
        "c": {**context, "_multi": multi},
        "p": [pmf[action] for action in order],
        "VWState": {"m": row["policy_version"]},
        "_original_label_cost": cost,
    }
    return line | _tail(row)


def _slate_line(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    slate = slate_of(rows)
    if slate is None:
        return None
    slots, outcomes = outcomes_of(rows, slate)
    multi = [{"_tag": tag, **entry} for tag, entry in slate.actions.items()]
    return {
        **_head(rows[0]),
        "c": {**_context(slate.context, rows[0]), "_multi": multi, "_slots": slots},
        "_outcomes": outcomes,
        "VWState": {"m": rows[0]["policy_version"]},
        **_tail(rows[0]),
    }


def _context(context: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    for name in context:
        if name.startswith("_"):
            raise FieldError(f"context.{name}", wanted='a name that does not begin with "_" for dsjson', got=name)
    looked_up = msgspec.json.decode(row["feature_snapshot"])
    if looked_up and "feature" in context:
        raise FieldError("context.feature", wanted="another name beside looked-up features", got="feature")
    return {**context, "feature": looked_up} if looked_up else context


def _head(row: dict[str, Any]) -> dict[str, Any]:
    ts = row["ts"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {"Timestamp": ts, "Version": "1", "EventId": row["event_id"]}


def _tail(row: dict[str, Any]) -> dict[str, Any]:
    dropped = {"pdrop": 1.0 - row["pass_probability"]} if row["pass_probability"] < 1 else {}
    return {**dropped, **({"_skipLearn": True} if row["state"] == "dropped" else {})}
