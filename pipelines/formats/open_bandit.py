"""The Open Bandit data: feedback logged by two policies of a fashion site, with the true propensity of every choice.

Only the propensity of the chosen item was published, so `pmf` is null in what is read here; whatever needs the whole
distribution has to say that it is unknown. Saito, Aihara, Matsutani and Narita 2021, "Open Bandit Dataset and
Pipeline" (NeurIPS Datasets and Benchmarks), CC BY 4.0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from decision.errors import FieldError, Words
from pipelines.formats.registry import Format, Found
from pipelines.formats.rows import complete
from pipelines.formats.store import check_file
from pipelines.formats.times import Clock

POLICIES = ("random", "bts")
CAMPAIGNS = ("all", "men", "women")
ATTRIBUTION = (
    "Saito, Aihara, Matsutani, Narita: Open Bandit Dataset and Pipeline, NeurIPS 2021 Datasets and Benchmarks; "
    "the small sample of the obp package, CC BY 4.0"
)
_COLUMNS = ("timestamp", "item_id", "position", "click")
_PROPENSITY = ("propensity_score", "action_prob")
_AFFINITY = "user-item_affinity_"


def shipped_sample() -> Path:
    """Return the folder of the sample that comes with this package."""
    return Path(__file__).resolve().parent / "data" / "open_bandit"


def find_logs(root: Path) -> list[tuple[str, str, Path]]:
    """Return (policy, campaign, folder) of every log below `root`, which is laid out as the data set is published.

    Raises:
        FieldError: there is none.
    """
    found = [
        (policy, campaign, root / policy / campaign)
        for campaign in CAMPAIGNS
        for policy in POLICIES
        if _data_file(root / policy / campaign, campaign) is not None
    ]
    if not found:
        wanted = "a folder with {random,bts}/{all,men,women}/<campaign>.{csv,parquet}"
        raise FieldError("path", wanted=wanted, got=root.name)
    return found


def read_open_bandit(folder: Path, *, name: str, rows_per_batch: int = 20_000) -> Iterable[pa.Table]:
    """Yield the interactions of one campaign under one policy.

    The context is the user's features and the position on the page (1-3, as a category); an action has its item's
    features and, where it is not 0, the user's affinity to it. The click is the reward.

    Args:
        folder: ``<policy>/<campaign>`` of the data set.
        name: prefix of the event ids, which the data set does not have.
        rows_per_batch: rows held at a time.

    Raises:
        FieldError: a file or column is missing, or an item is not in the catalogue.
    """
    path = _data_file(folder, folder.name)
    if path is None:
        raise FieldError("path", wanted=f"a folder with {folder.name}.csv or {folder.name}.parquet", got=folder.name)
    data = _read(path)
    items = _items(folder)
    propensity = next((column for column in _PROPENSITY if column in data.schema.names), None)
    for column in _COLUMNS:
        if column not in data.schema.names:
            raise FieldError(column, wanted=f"a column of {path.name}", got=None)
    if propensity is None:
        raise FieldError(_PROPENSITY[0], wanted=f"a column of {path.name}", got=None)
    for start in range(0, len(data), rows_per_batch):
        yield _interactions(data.slice(start, rows_per_batch), items, propensity, name, start, folder.parent.name)


def _interactions(
    data: pa.Table, items: dict[int, dict[str, Any]], propensity: str, name: str, start: int, policy: str
) -> pa.Table:
    n = len(data)
    ids = [str(item) for item in items]
    at = {item: index for index, item in enumerate(items)}
    chosen = data["item_id"].to_pylist()
    for row, item in enumerate(chosen):
        if item not in at:
            raise FieldError(f"row {start + row}: item_id", wanted="an item of the catalogue", got=item)
    users = [column for column in data.schema.names if column.startswith("user_feature_")]
    columns = {column: data[column].to_pylist() for column in ("position", *users)}
    context = [
        msgspec.json.encode({"position": str(columns["position"][row]), **{user: columns[user][row] for user in users}})
        for row in range(n)
    ]
    ts = Clock().read(data["timestamp"], range(start, start + n), field="timestamp")
    return complete(
        {
            "event_id": [f"{name}-{start + row:07d}" for row in range(n)],
            "ts": ts,
            "appended_at": ts,
            "matured_at": ts,
            "context": pa.array(context, pa.binary()).cast(pa.string()),
            "actions": _actions(data, items),
            "action_ids": pa.ListArray.from_arrays(
                pa.array(np.arange(n + 1, dtype=np.int32) * len(ids)), pa.array(ids * n, pa.string())
            ),
            "action_index": [at[item] for item in chosen],
            "propensity": data[propensity],
            "policy_version": [policy] * n,
            "reward": data["click"],
            "offset": np.arange(start, start + n),
        },
        n,
    )


def _actions(data: pa.Table, items: dict[int, dict[str, Any]]) -> pa.DictionaryArray:
    # Affinities are zero but for a few rows: all others share the first text.
    texts = [msgspec.json.encode(list(items.values())).decode()]
    code = np.zeros(len(data), dtype=np.int32)
    names = [f"{_AFFINITY}{item}" for item in items]
    present = [name for name in names if name in data.schema.names]
    if present:
        table = np.column_stack([data[name].to_numpy() for name in present])
        for row in np.flatnonzero((table != 0).any(axis=1)):
            affinity = {name: float(value) for name, value in zip(present, table[row], strict=True) if value}
            offered = [
                {**features, "affinity": affinity[name]} if name in affinity else features
                for name, features in zip(names, items.values(), strict=True)
            ]
            code[row] = len(texts)
            texts.append(msgspec.json.encode(offered).decode())
    return pa.DictionaryArray.from_arrays(pa.array(code), pa.array(texts))


def _items(folder: Path) -> dict[int, dict[str, Any]]:
    path = _data_file(folder, "item_context")
    if path is None:
        raise FieldError("path", wanted="a folder with item_context.csv or item_context.parquet", got=folder.name)
    rows = _read(path).to_pylist()
    for number, row in enumerate(rows):
        if not isinstance(row.get("item_id"), int):
            raise FieldError(f"{path.name}: row {number}: item_id", wanted="a whole number", got=row.get("item_id"))
    items = {row["item_id"]: _features(row) for row in sorted(rows, key=lambda entry: entry["item_id"])}
    if len(items) < len(rows):
        raise FieldError(
            f"{path.name}: item_id", wanted="each item once", got=Words(f"{len(items)} in {len(rows)} rows")
        )
    return items


def _features(row: dict[str, Any]) -> dict[str, Any]:
    features = {key: value for key, value in row.items() if key.startswith("item_feature_") and value is not None}
    return {key: value for key, value in features.items() if not isinstance(value, float) or math.isfinite(value)}


def _read(path: Path) -> pa.Table:
    check_file(path)
    try:
        # By one thread, what is wrong with a row comes with its number.
        one = pa_csv.ReadOptions(use_threads=False)
        return pq.read_table(path) if path.suffix == ".parquet" else pa_csv.read_csv(path, read_options=one)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise FieldError(path.name, wanted="a whole file of the data set", got=error) from error


def _data_file(folder: Path, stem: str) -> Path | None:
    paths = (folder / f"{stem}.{kind}" for kind in ("parquet", "csv"))
    return next((path for path in paths if path.is_file()), None)


def _find(path: Path | None, name: str) -> Iterable[Found]:
    root = path or shipped_sample()
    for policy, campaign, folder in find_logs(root):
        full = f"{name}-{policy}-{campaign}"
        yield Found(full, f"{root.name}/{policy}/{campaign}", read_open_bandit(folder, name=full), ATTRIBUTION)


FORMAT = Format(_find)
