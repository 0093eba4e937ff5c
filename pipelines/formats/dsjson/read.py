"""Logs of dsjson, read line by line: what is no decision is counted by its reason, and a repeated event counts once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from decision.errors import FieldError, Words
from pipelines.formats.dsjson.line import Row, Skipped, rows_of
from pipelines.formats.lines import lines_of
from pipelines.formats.registry import LEFT_OUT, Reason
from pipelines.formats.repeats import Repeats
from pipelines.formats.rows import complete

SUFFIXES = (".json", ".dsjson", ".jsonl")


def read_dsjson(
    path: Path, left_out: Counter[Reason] | None = None, *, strict: bool = False, rows_per_batch: int = 10_000
) -> Iterator[pa.Table]:
    """Yield the decisions of a log in the lake's interaction columns; one of several slots has a row for each.

    Args:
        path: a file, a folder, a pattern, or ``-``, see `lines_of`.
        left_out: is told how many lines were left out, by reason.
        strict: refuse a line rather than leave it out.
        rows_per_batch: rows of a table, at least.

    Raises:
        FieldError: a line that is a decision and contradicts itself, or with `strict` one that would be left out; named
            by file and number.
    """
    left_out = Counter() if left_out is None else left_out
    rows, seen, before = list[Row](), Repeats(), None
    for line in lines_of(path, SUFFIXES):
        if not line.text.strip():
            continue
        try:
            found = rows_of(line.text, line.place, ended=line.ended, before=before)
        except Skipped as error:
            if strict:
                says = f"must be a decision: {LEFT_OUT[error.reason]} are refused by --strict"
                raise FieldError(line.place, wanted="a decision", got=Words(error.reason), says=says) from error
            left_out[error.reason] += 1
            continue
        before = found[0]["ts"]
        if not seen.first(found[0]["event_id"]):
            if strict:
                raise FieldError(f"{line.place}: EventId", wanted="each event once", got=found[0]["event_id"])
            left_out["repeated"] += 1
            continue
        rows += found
        if len(rows) >= rows_per_batch:
            yield table_of(rows)
            rows = []
    if rows:
        yield table_of(rows)


def table_of(rows: list[Row]) -> pa.Table:
    """Return one row or more, as `rows_of` makes them, in the lake's interaction columns."""
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    columns["appended_at"] = columns["matured_at"] = columns["ts"]
    columns["outcomes"] = [
        [{"name": "reward", "value": value, "ts": row["ts"], "offset": -1} for value in row["outcomes"]] for row in rows
    ]
    return complete(columns, len(rows))
