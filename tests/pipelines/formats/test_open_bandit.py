"""Open Bandit as it is published, in CSV: what is damaged or does not belong together is named by file and row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from decision.errors import FieldError
from pipelines.formats.open_bandit import read_open_bandit, shipped_sample


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty rows of the men's campaign, written by pandas with its index, as the data set is."""
    shipped, there = shipped_sample() / "random" / "men", tmp_path / "random" / "men"
    there.mkdir(parents=True)
    pd.read_parquet(shipped / "men.parquet").head(20).to_csv(there / "men.csv")
    pd.read_parquet(shipped / "item_context.parquet").to_csv(there / "item_context.csv")
    return there


def read(folder: Path) -> pa.Table:
    return pa.concat_tables(read_open_bandit(folder, name="men", rows_per_batch=8))


def rewritten(file: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        change(pd.read_csv(folder / file, index_col=0, dtype=object)).to_csv(folder / file)

    return work


def test_rows_of_csv_are_the_rows_shipped(folder: Path) -> None:
    shipped = next(iter(read_open_bandit(shipped_sample() / "random" / "men", name="men", rows_per_batch=20)))
    for column in ("ts", "context", "action_ids", "action_index", "propensity", "reward"):
        assert read(folder)[column].to_pylist() == shipped[column].to_pylist()


def test_times_in_seconds_are_those_seconds(folder: Path) -> None:
    before = read(folder)["ts"].to_pylist()
    seconds = [str(int(ts.timestamp())) for ts in before]
    rewritten("men.csv", lambda rows: rows.assign(timestamp=seconds))(folder)
    assert [ts.timestamp() for ts in read(folder)["ts"].to_pylist()] == [float(text) for text in seconds]


def cut(folder: Path) -> None:
    whole = (folder / "men.csv").read_text()
    (folder / "men.csv").write_text(f"{whole}20,2019")


def put(column: str, row: int, value: Any) -> Callable[[Any], Any]:
    def change(rows: Any) -> Any:
        rows.loc[row, column] = value
        return rows

    return change


@pytest.mark.parametrize(
    ("work", "match"),
    [
        (rewritten("men.csv", put("item_id", 11, "999")), r"^row 11: item_id: must be an item of the catalogue"),
        (rewritten("men.csv", put("timestamp", 17, "yesterday")), r"^row 17: timestamp: .*'yesterday'"),
        (rewritten("men.csv", put("click", 3, "maybe")), r"^reward: must be a column of double.*'maybe'"),
        (rewritten("item_context.csv", put("item_id", 2, "0")), r"^item_context\.csv: item_id: must be each item once"),
        (
            rewritten("item_context.csv", put("item_id", 2, None)),
            r"^item_context\.csv: row 2: item_id: must be a whole",
        ),
        (rewritten("item_context.csv", lambda rows: rows.drop(columns="item_id")), r"row 0: item_id: .*missing"),
        (lambda folder: (folder / "item_context.csv").write_bytes(b""), r"^item_context\.csv: must be a whole file"),
        (lambda folder: (folder / "men.parquet").write_bytes(b"PAR1"), r"^men\.parquet: must be a whole file"),
        (cut, r"^men\.csv: must be a whole.*Row #22"),
    ],
)
def test_what_does_not_fit_is_named(folder: Path, work: Callable[[Path], None], match: str) -> None:
    work(folder)
    with pytest.raises(FieldError, match=match):
        read(folder)
