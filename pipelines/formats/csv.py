"""Session logs as CSV, whatever their columns are called: a map says which column is what.

A row is a decision. Rows without a propensity are left out and counted: what drew them is not known, so no estimate can
be made of them. Of a randomised trial it is known without a column: every action offered was as probable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute

from decision.errors import FieldError
from pipelines.formats.columns import BETWEEN, CONTEXT, CsvFile, contexts_of, lists_of, numbers_of
from pipelines.formats.registry import Format, Found
from pipelines.formats.rows import complete
from pipelines.formats.times import Clock, Unit

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

NEEDED = ("ts", "action", "actions", "propensity", "reward")
FIELDS = (*NEEDED, "event", "subject", "episode", "step", "version")
JSON = ("context", "features")
"""Fields that hold JSON, so they are taken from columns that are mapped to them and from no others."""
_COLUMNS = {"subject": "subject_id", "episode": "episode_id", "version": "policy_version", "features": "actions"}


def find(
    path: Path | None,
    name: str,
    columns: Mapping[str, str] | None = None,
    *,
    uniform: bool = False,
    time_unit: Unit | None = None,
) -> list[Found]:
    """Return the log in the CSV file `path`.

    Args:
        path: of the file, with a line of names.
        name: of the import, and prefix of event ids where no column has them.
        columns: {field: column}; a field that is not given is the column of its own name, where there is one.
        uniform: every action offered was as probable; then no column holds the propensity.
        time_unit: of times that are numbers; without it, the file's first number has to be certain.

    Raises:
        FieldError: there is no such file, field or column, or one that is needed is missing.
    """
    if path is None:
        raise FieldError("path", wanted="the file to read", got=None)
    file, given = CsvFile(path), dict(columns or {})
    for field, column in given.items():
        if field not in (*FIELDS, *JSON) and not field.startswith(CONTEXT):
            raise FieldError.choice("map", [*FIELDS, *JSON, f"{CONTEXT}NAME"], field)
        if column not in file.names:
            raise FieldError.choice(f"map.{field}", file.names, column)
        if field.startswith(CONTEXT) and "context" in given:
            raise FieldError("map.context", wanted=f"the whole context, without {field}", got=given["context"])
    known = {field: field for field in FIELDS if field in file.names and field not in given} | given
    if uniform and "propensity" in given:
        raise FieldError("map.propensity", wanted="left out with --uniform, which says it", got=given["propensity"])
    if uniform:
        known.pop("propensity", None)
    for field in NEEDED:
        if field not in known and not (uniform and field == "propensity"):
            raise FieldError(
                f"map.{field}", wanted=f"the column that holds it, one of {', '.join(file.names)}", got=None
            )
    left_out = [0]
    batches = _tables(file, name, known, left_out, Clock(time_unit))
    return [Found(name, path.name, batches, left_out=lambda: {"undrawn": left_out[0]})]


def _tables(
    file: CsvFile, name: str, known: Mapping[str, str], left_out: list[int], clock: Clock
) -> Iterator[pa.Table]:
    kinds = kinds_of(file, known)
    for rows in file.numbered(known):
        drawn = rows.filter(rows["propensity"].is_valid()) if "propensity" in known else rows
        left_out[0] += len(rows) - len(drawn)
        if len(drawn):
            yield _table(drawn, name, kinds, clock)


def kinds_of(file: CsvFile, known: Mapping[str, str]) -> dict[str, str]:
    """Return {field: what its column holds} of the fields ``context.NAME`` among `known`, {field: column}."""
    columns = {field: column for field, column in known.items() if field.startswith(CONTEXT)}
    kinds = file.kinds(sorted(set(columns.values())))
    return {field: kinds[column] for field, column in columns.items()}


def _table(rows: pa.Table, name: str, kinds: Mapping[str, str], clock: Clock) -> pa.Table:
    number = rows["#"].to_pylist()
    offered = lists_of(rows["actions"])
    columns: dict[str, Any] = {
        "event_id": rows["event"] if "event" in rows.column_names else [f"{name}-{at}" for at in number],
        "ts": clock.read(rows["ts"], number),
        "action_ids": offered,
        "action_index": _drawn(rows["action"], offered, number),
        "reward": numbers_of(rows["reward"], number, "reward"),
        "context": rows["context"] if "context" in rows.column_names else contexts_of(rows, kinds),
        "offset": rows["#"],
    }
    if "propensity" in rows.column_names:
        columns["propensity"] = numbers_of(rows["propensity"], number, "propensity")
    else:
        columns["propensity"] = [1.0 / len(ids) for ids in offered if ids]
    if "step" in rows.column_names:
        columns["step"] = numbers_of(rows["step"], number, "step")
    columns |= {column: rows[field] for field, column in _COLUMNS.items() if field in rows.column_names}
    return complete(columns, len(rows))


def _drawn(actions: pa.ChunkedArray, offered: Sequence[list[str] | None], number: Sequence[int]) -> list[int]:
    """Return [n] which of the actions offered each row chose."""
    index = list[int]()
    for row, shown, ids in zip(number, actions.to_pylist(), offered, strict=True):
        if ids is None:
            wanted = f"the ids offered, with {BETWEEN} between them or as a JSON list"
            raise FieldError(f"row {row}: actions", wanted=wanted, got=None)
        if shown not in ids:
            raise FieldError(f"row {row}: action", wanted=f"one of the actions offered, {ids}", got=shown)
        index.append(ids.index(shown))
    return index


FORMAT = Format(find)
