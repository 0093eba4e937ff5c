from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.features.history import FILES_PER_MERGE, History

START = datetime(2026, 3, 1, tzinfo=UTC)
SCHEMA = pa.schema([("subject_id", pa.string()), ("event_timestamp", pa.timestamp("us", "UTC")), ("x", pa.float64())])


def push(number: int, *subjects: str) -> pa.Table:
    n = len(subjects)
    return pa.table([list(subjects), [START + timedelta(seconds=number)] * n, [float(number)] * n], schema=SCHEMA)


@pytest.fixture
def history(tmp_path: Path) -> History:
    found = History(tmp_path / "stream", SCHEMA)
    found.create()
    return found


def test_a_push_that_is_repeated_is_there_once(history: History) -> None:
    history.append(1, push(1, "a"))
    history.append(2, push(2, "a", "b"))
    history.append(2, push(2, "a", "b"))
    assert history.read().to_pylist() == pa.concat_tables([push(1, "a"), push(2, "a", "b")]).to_pylist()


@pytest.mark.parametrize("pushes", [FILES_PER_MERGE - 1, FILES_PER_MERGE, 2 * FILES_PER_MERGE + 3])
def test_merging_loses_and_repeats_no_row(history: History, pushes: int) -> None:
    for number in range(1, pushes + 1):
        history.append(number, push(number, "a"))
    assert history.read()["x"].to_pylist() == [float(number) for number in range(1, pushes + 1)]


def test_merged_files_stay_for_those_who_read_them_and_go_later(history: History) -> None:
    for number in range(1, FILES_PER_MERGE + 1):
        history.append(number, push(number, "a"))
    folder = Path(history.pattern).parent
    assert len(list(folder.glob("*.parquet"))) == FILES_PER_MERGE + 2  # the merged one, and the empty first one
    for path in folder.glob("*.parquet"):
        os.utime(path, (0, 0))
    for number in range(FILES_PER_MERGE + 1, 2 * FILES_PER_MERGE + 1):
        history.append(number, push(number, "a"))
    assert len(list(folder.glob("*.parquet"))) == FILES_PER_MERGE + 3  # two merged ones, and the latest sixty-four
    assert len(history.read()) == 2 * FILES_PER_MERGE


def test_erasing_a_subject_removes_it_from_every_file(history: History) -> None:
    for number in range(1, FILES_PER_MERGE + 3):
        history.append(number, push(number, "ann", "bob"))
    assert history.erase("ann") == FILES_PER_MERGE + 2
    assert set(history.read()["subject_id"].to_pylist()) == {"bob"}
    for path in Path(history.pattern).parent.iterdir():
        assert b"ann" not in path.read_bytes()
    assert history.erase("ann") == 0
