"""Minari data sets with discrete actions in Minari's Arrow layout: one folder an episode, `metadata.json` beside them.

Minari has no field for propensities; they are read from ``infos["propensity"]``, one number a step, and without them
there is nothing that importance sampling could use. Observations become features, an episode an episode.
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
    k, first = _action_space(folder)
    ids, offered = [str(number) for number in range(k)], msgspec.json.encode([{}] * k).decode()
    done = 0
    for episode in _episodes(folder):
        rows = ds.dataset(folder / str(episode), format="arrow", ignore_prefixes=["_", ".", "metadata.json"]).to_table()
        # The last row holds the observation after the last action.
        n = len(rows) - 1
        if n < 1:
            continue
        action = whole_numbers("actions", rows["actions"].to_numpy()[:n] - first, k)
        columns: dict[str, Any] = {
            "event_id": [f"{name}-{episode}-{step}" for step in range(n)],
            "ts": times(done, n),
            "episode_id": [f"{name}-{episode}"] * n,
            "step": np.arange(n),
            "context": [_features(value) for value in rows["observations"].slice(0, n).to_pylist()],
            "actions": [offered] * n,
            "action_ids": [ids] * n,
            "action_index": action,
            "propensity": _propensities(rows, n),
            "reward": rows["rewards"].to_numpy()[:n].astype(np.float64),
        }
        done += n
        yield complete(columns, n)


def _episodes(folder: Path) -> Iterator[int]:
    yield from sorted(int(entry.name) for entry in folder.iterdir() if entry.is_dir() and entry.name.isdigit())


def _action_space(folder: Path) -> tuple[int, int]:
    path = folder / "metadata.json"
    if not path.is_file() or path.stat().st_size > _MAX_METADATA:
        hint = "a data set in Minari's Arrow layout (data_format='arrow'), with data/metadata.json"
        raise FieldError("path", wanted=hint, got=folder.name)
    try:
        space: Any = msgspec.json.decode(path.read_bytes()).get("action_space")
        space = msgspec.json.decode(space) if isinstance(space, str) else space
    except (msgspec.DecodeError, AttributeError) as error:
        raise FieldError("metadata.json", wanted="Minari's metadata", got=error) from error
    if not isinstance(space, dict) or space.get("type") != "Discrete":
        kind = space.get("type") if isinstance(space, dict) else None
        raise FieldError("action_space", wanted="a Discrete space", got=kind)
    k = int(space.get("n", 0))
    if not 1 <= k <= MAX_ACTIONS:
        raise FieldError("action_space", wanted=f"1 to {MAX_ACTIONS} actions", got=k)
    return k, int(space.get("start", 0))


def _propensities(rows: pa.Table, n: int) -> list[float]:
    if "infos" not in rows.column_names:
        raise FieldError(f"infos.{PROPENSITY}", wanted="a number for every step", got=None)
    out: list[float] = []
    for info in rows["infos"].slice(0, n).to_pylist():
        found = msgspec.json.decode(info) if isinstance(info, str) else info
        value = found.get(PROPENSITY) if isinstance(found, dict) else None
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if not isinstance(value, int | float):
            raise FieldError(f"infos.{PROPENSITY}", wanted="a number for every step", got=value)
        out.append(float(value))
    return out


def _features(value: Any) -> str:
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    if isinstance(value, list):
        return msgspec.json.encode({f"s{column}": entry for column, entry in enumerate(value)}).decode()
    return msgspec.json.encode({"state": str(value)}).decode()


FORMAT = Format(one_log(lambda path, name: read_minari(path, name=name)))
