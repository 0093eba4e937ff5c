"""Files with bytes changed, missing or added, and columns of any type: read, or refused by a `FieldError`."""

from __future__ import annotations

import datetime as dt
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from decision.errors import FieldError
from pipelines.formats.once import once
from pipelines.formats.registry import format_of
from pipelines.formats.rows import check_features, check_rows
from pipelines.interactions.arrays import to_interactions
from pipelines.lake.schemas import INTERACTIONS

MUTATIONS = 120
COLUMNS: dict[str, Any] = {
    "event_id": ["a", "b"],
    "ts": pd.date_range("2026-03-01", periods=2, tz="UTC"),
    "action_ids": [["x", "y"]] * 2,
    "action_index": [0, 1],
    "propensity": [0.5, 0.5],
    "reward": [1.0, 0.0],
    "context": [{"age": 3}, {"tab": "home"}],
    "pmf": [[0.5, 0.5]] * 2,
}
ODD: list[Any] = [
    -1,
    2**62,
    float("nan"),
    float("inf"),
    "",
    "x",
    b"\xff",
    True,
    dt.date(2026, 3, 1),
    dt.timedelta(1),
    Decimal("1.5"),
    [],
    [None],
    [0.5, 0.5],
    ["x"],
    {"a": {"b": [1]}},
    [{"a": 1}],
    [[1]],
]


def written(folder: Path, format: str) -> Path:
    path = folder / f"whole.{format}"
    if format == "parquet":
        pd.DataFrame(COLUMNS, index=pd.Index([3, 8])).to_parquet(path)
    elif format == "csv":
        path.write_text("ts,action,actions,propensity,reward,event\n" + "1772323200,x,\"['x', 'y']\",0.5,1,a\n" * 3)
    else:
        with path.open("wb") as file:
            both: Any = {"n_actions": 2, "action": np.array([0, 1]), "reward": np.ones(2), "pscore": np.full(2, 0.5)}
            np.savez(file, **both | {"position": None, "state": np.ones((2, 1)), "done": np.array([0, 1])})
    return path


def use(format: str, path: Path) -> None:
    """Take the way of an import, and of the replay after it."""
    for found in format_of(format).find(path, "n"):
        for batch in once(found).batches:
            check_rows(batch)
            check_features(batch)
            to_interactions(batch)


@pytest.mark.parametrize("format", ["parquet", "csv", "obp", "scope-rl"])
def test_damaged_bytes_are_read_or_refused(tmp_path: Path, format: str) -> None:
    whole = written(tmp_path, format)
    use(format, whole)
    rng = np.random.default_rng(17)
    for _ in range(MUTATIONS):
        data = bytearray(whole.read_bytes())
        at, length = int(rng.integers(len(data))), int(rng.integers(1, 20))
        kind = rng.integers(3)
        if kind == 0:
            data[at] = int(rng.integers(256))
        elif kind == 1:
            del data[at : at + length]
        else:
            data[at:at] = rng.bytes(length)
        (tmp_path / "damaged").write_bytes(data)
        with suppress(FieldError):
            use(format, tmp_path / "damaged")


@pytest.mark.parametrize("column", INTERACTIONS.names)
def test_columns_of_any_type_are_read_or_refused(tmp_path: Path, column: str) -> None:
    others = pd.DataFrame({name: values for name, values in COLUMNS.items() if name != column})
    for odd in ODD:
        for values in ([odd, odd], [odd, None], [None, None]):
            table = pa.Table.from_pandas(others).append_column(column, pa.array(values))
            with suppress(pa.ArrowNotImplementedError):  # Parquet has no such type
                pq.write_table(table, tmp_path / "odd")
            with suppress(FieldError):
                use("parquet", tmp_path / "odd")


@pytest.mark.parametrize("name", ["n_actions", "action", "reward", "pscore", "context", "action_context", "pi_b"])
def test_arrays_of_any_type_and_shape_are_read_or_refused(tmp_path: Path, name: str) -> None:
    fitting: Any = {"n_actions": 2, "action": np.array([0, 1]), "reward": np.ones(2), "pscore": np.full(2, 0.5)}
    for odd in (0, -1, 2**63 - 1, 1.5, np.nan, np.inf, "x", b"x", True, 1j, np.datetime64("2026-03-01")):
        for shape in ((), (0,), (1,), (2,), (2, 2), (2, 0), (2, 2, 0), (2, 2, 1)):
            np.savez(tmp_path / "odd.npz", **fitting | {name: np.full(shape, odd)})
            with suppress(FieldError):
                use("obp", tmp_path / "odd.npz")
