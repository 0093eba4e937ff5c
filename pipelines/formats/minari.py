"""Minari data sets with discrete actions in Minari's Arrow layout: one folder an episode, `metadata.json` beside them.

Minari has no field for propensities; they are read from ``infos["propensity"]``, and without them there is nothing that
importance sampling could use. An episode of n steps has n + 1 infos: its data collector stores what `reset` returned
first, and what `step` returned one row after the action. Where a logger filled the infos itself, a step's may stand in
the action's own row. Which of the two it is shows by the row without a propensity, the first or the last (NaN, None or
0); an episode that has one in every row, and not always the same, is refused. Observations become features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from decision.errors import FieldError
from decision.records import MAX_ACTIONS
from pipelines.formats.npz import times, whole_numbers
from pipelines.formats.registry import Format, one_log
from pipelines.formats.rows import complete

PROPENSITY = "propensity"
_MAX_METADATA = 64 << 20


def read_minari(path: Path, *, name: str) -> Iterable[pa.Table]:
    """Yield the interactions of a data set, an episode at a time.

    Args:
        path: folder of the data set, or its folder ``data``.
        name: prefix of the event and episode ids.

    Raises:
        FieldError: it is no such folder, actions are not discrete, or propensities are missing.
    """
    folder = path / "data" if (path / "data").is_dir() else path
    metadata = _metadata(folder)
    k, first = _action_space(metadata)
    ids, offered = [str(number) for number in range(k)], msgspec.json.encode([{}] * k).decode()
    done = 0
    for episode in _episodes(folder):
        place = f"episode {episode}: "
        rows = _rows(folder / str(episode), place)
        # The last row holds the observation after the last action.
        n = len(rows) - 1
        if n < 1:
            continue
        try:
            action = whole_numbers("actions", rows["actions"].to_numpy()[:n] - first, k)
            propensity = _propensities(rows, n)
        except FieldError as error:
            raise error.under(place) from error
        columns: dict[str, Any] = {
            "event_id": [f"{name}-{episode}-{step}" for step in range(n)],
            "ts": times(done, n),
            "episode_id": [f"{name}-{episode}"] * n,
            "step": np.arange(n),
            "context": [_features(value) for value in rows["observations"].slice(0, n).to_pylist()],
            "actions": [offered] * n,
            "action_ids": [ids] * n,
            "action_index": action,
            "propensity": propensity,
            "reward": rows["rewards"].to_numpy()[:n].astype(np.float64),
            "offset": np.arange(done, done + n),
        }
        done += n
        yield complete(columns, n)
    if metadata.get("total_steps", done) != done:
        raise FieldError("total_steps", wanted=f"{done}, the steps of its episodes", got=metadata["total_steps"])


def _rows(folder: Path, place: str) -> pa.Table:
    try:
        rows = ds.dataset(folder, format="arrow", ignore_prefixes=["_", ".", "metadata.json"]).to_table()
    except (pa.ArrowInvalid, OSError) as error:
        raise FieldError(f"{place}rows", wanted="an Arrow file of Minari", got=error) from error
    for column in ("observations", "actions", "rewards"):
        if column not in rows.column_names:
            raise FieldError(f"{place}{column}", wanted="a column", got=None)
    return rows


def _episodes(folder: Path) -> Iterator[int]:
    yield from sorted(int(entry.name) for entry in folder.iterdir() if entry.is_dir() and entry.name.isdigit())


def _metadata(folder: Path) -> dict[str, Any]:
    path = folder / "metadata.json"
    if not path.is_file() or path.stat().st_size > _MAX_METADATA:
        hint = "a data set in Minari's Arrow layout (data_format='arrow'), with data/metadata.json"
        raise FieldError("path", wanted=hint, got=folder.name)
    try:
        metadata = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        if isinstance(metadata.get("action_space"), str):
            metadata["action_space"] = msgspec.json.decode(metadata["action_space"])
    except msgspec.DecodeError as error:
        raise FieldError("metadata.json", wanted="Minari's metadata", got=error) from error
    if metadata.get("data_format", "arrow") != "arrow":
        wanted = 'arrow: write it again with minari.create_dataset_from_buffers(..., data_format="arrow")'
        raise FieldError("data_format", wanted=wanted, got=metadata["data_format"])
    return metadata


def _action_space(metadata: dict[str, Any]) -> tuple[int, int]:
    """Return how many actions there are, and the number of the first."""
    space = metadata.get("action_space")
    if not isinstance(space, dict) or space.get("type") != "Discrete":
        kind = space.get("type") if isinstance(space, dict) else None
        raise FieldError("action_space", wanted="a Discrete space", got=kind)
    k, first = space.get("n"), space.get("start", 0)
    if not isinstance(k, int) or not isinstance(first, int) or not 1 <= k <= MAX_ACTIONS:
        raise FieldError("action_space", wanted=f"1 to {MAX_ACTIONS} actions", got=k)
    return k, first


def _propensities(rows: pa.Table, n: int) -> list[float]:
    field = f"infos.{PROPENSITY}"
    if "infos" not in rows.column_names:
        raise FieldError(field, wanted="a number for every step", got=None)
    values = [_propensity(info) for info in rows["infos"].to_pylist()]
    known = [isinstance(value, int | float) and 0 < value <= 1 for value in values]
    if all(known) and len(set(values)) > 1:
        wanted = "NaN in the row of the reset, the first of an episode, or in the last, where there is no action"
        raise FieldError(field, wanted=wanted, got=values[0])
    at = 0 if known[0] else 1
    for step, (value, there) in enumerate(zip(values[at : at + n], known[at : at + n], strict=True)):
        if not there:
            raise FieldError(f"step {step}: {field}", wanted="a number in (0, 1]", got=value)
    return values[at : at + n]


def _propensity(info: Any) -> Any:
    """Return what an info, or its JSON, holds as the propensity; Minari makes lists of one of numbers."""
    try:
        found = msgspec.json.decode(info) if isinstance(info, str) else info
    except msgspec.DecodeError as error:
        raise FieldError("infos", wanted="JSON", got=error) from error
    value = found.get(PROPENSITY) if isinstance(found, dict) else None
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _features(value: Any) -> str:
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    if isinstance(value, list):
        return msgspec.json.encode({f"s{column}": entry for column, entry in enumerate(value)}).decode()
    return msgspec.json.encode({"state": str(value)}).decode()


FORMAT = Format(one_log(lambda path, name: read_minari(path, name=name)))
