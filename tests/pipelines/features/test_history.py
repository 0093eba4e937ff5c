from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.features.copies import Copies
from pipelines.features.history import FILES_PER_MERGE, History
from pipelines.features.store import Features
from pipelines.settings import Settings, parse_loop
from pipelines.state.failures import StateError
from pipelines.state.holding import holding
from pipelines.state.state import State
from pipelines.storage import Storage
from tests.worlds.s3 import BUCKET, S3

START = datetime(2026, 3, 1, tzinfo=UTC)
SCHEMA = pa.schema([("subject_id", pa.string()), ("event_timestamp", pa.timestamp("us", "UTC")), ("x", pa.float64())])


def push(number: int, *subjects: str) -> pa.Table:
    n = len(subjects)
    return pa.table([list(subjects), [START + timedelta(seconds=number)] * n, [float(number)] * n], schema=SCHEMA)


@pytest.fixture
def history(tmp_path: Path) -> History:
    found = History(Copies(Settings(home=str(tmp_path)), "shop"), SCHEMA)
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


@pytest.mark.connected
def test_homes_that_share_storage_share_the_history_and_an_erasure(tmp_path: Path, s3: S3) -> None:
    homes = [Settings(home=str(tmp_path / name), files=f"s3://{BUCKET}/history") for name in ("a", "b")]
    here, there = (History(Copies(settings, "shop"), SCHEMA) for settings in homes)
    for number in range(1, FILES_PER_MERGE + 1):
        here.append(number, push(number, "a"))
    there.append(1, push(100, "a", "b"))  # it took over, and begins to count
    for history in (here, there):
        assert history.read()["x"].to_pylist() == [*map(float, range(1, FILES_PER_MERGE + 1)), 100.0, 100.0]
    assert there.erase("a") == FILES_PER_MERGE + 1
    assert [history.read()["subject_id"].to_pylist() for history in (here, there)] == [["b"]] * 2
    for path in tmp_path.rglob("*.parquet"):  # no copy holds it any more, merged or not
        assert "a" not in pq.read_table(path)["subject_id"].to_pylist()
    here.append(FILES_PER_MERGE + 1, push(200, "c"))
    s3.asked()
    assert there.read()["subject_id"].to_pylist() == ["b", "c"]
    assert len(s3.asked()) == 2  # what is there, and what is new
    assert {found.key.rpartition(".")[2] for found in Storage(homes[0].files_url).list("features")} == {"parquet"}


@pytest.mark.connected
def test_homes_that_share_storage_trim_what_either_wrote_one_at_a_time(tmp_path: Path, s3: S3) -> None:
    homes = [
        Settings(home=str(tmp_path / name), files=f"s3://{BUCKET}/trim", state=f"sqlite:///{tmp_path / 'state.db'}")
        for name in ("a", "b")
    ]
    here, there = (History(Copies(settings, "shop", lease_s=0.4), SCHEMA) for settings in homes)
    for number in range(1, 6):
        here.append(number, push(number, "a"))
        there.append(number, push(10 + number, "a"))
    with State(homes[0].state_url) as state, holding(state, "features/shop"):
        for rewrite in (lambda: there.trim(START + timedelta(days=1)), lambda: there.erase("a")):
            with pytest.raises(StateError, match="features/shop: another machine"):
                rewrite()
    assert there.trim(START + timedelta(days=1))[0] == 4 + 4  # each home's latest file stays: it may be pushed again
    assert [history.read()["x"].to_pylist() for history in (here, there)] == [[5.0, 15.0]] * 2
    assert len(Storage(homes[0].files_url).list("features")) == 10


@pytest.mark.connected
def test_an_upload_at_one_home_is_training_data_at_another(tmp_path: Path, s3: S3) -> None:
    loop = parse_loop("[features]\nenabled = true\nstream = false", "shop", {})
    (tmp_path / "subjects.csv").write_text("subject_id,ts,age\nann,2026-03-01T00:00:00Z,7\n")
    homes = [Settings(home=str(tmp_path / name), files=f"s3://{BUCKET}/uploads") for name in ("a", "b")]
    here, there = (Features(settings, loop) for settings in homes)
    try:
        here.load_subjects(tmp_path / "subjects.csv", now=START)
        asked = pa.table({"subject_id": ["ann"], "ts": pa.array([START], pa.timestamp("us", "UTC"))})
        assert there.historical(asked)["age"].to_pylist() == [7.0]
        assert there.materialize(START) == 1
        assert there.online("ann", START) == {"age": 7.0}
        assert there.erase("ann") >= 1
        assert here.historical(asked)["age"].to_pylist() == [None]
    finally:
        here.close()
        there.close()


def asked(history: History, subject: str, second: int) -> float | None:
    """Return what held of a subject at a time."""
    rows = [row for row in history.read().to_pylist() if row["subject_id"] == subject]
    held = [row["x"] for row in rows if row["event_timestamp"] <= START + timedelta(seconds=second)]
    return held[-1] if held else None


def test_what_was_replaced_before_a_time_goes_and_every_later_question_has_its_answer(history: History) -> None:
    for number in range(1, 2 * FILES_PER_MERGE + 5):  # merged files, and single ones
        history.append(
            number, push(number, "a", *(["b"] if number in (3, 70) else []), *(["c"] if number > 90 else []))
        )
    cut, late = 100, range(100, 2 * FILES_PER_MERGE + 6)
    before = {(subject, second): asked(history, subject, second) for subject in "abc" for second in late}
    rows = len(history.read())
    assert history.trim(START + timedelta(seconds=cut), dry_run=True)[0] == 98 + 1 + 8
    assert len(history.read()) == rows
    gone, size = history.trim(START + timedelta(seconds=cut))
    assert (gone, len(history.read())) == (98 + 1 + 8, rows - gone)
    assert size > 0
    assert {(subject, second): asked(history, subject, second) for subject in "abc" for second in late} == before
    assert asked(history, "b", 100) == 70.0
    assert history.trim(START + timedelta(seconds=cut)) == (0, 0)
    history.append(2 * FILES_PER_MERGE + 5, push(2 * FILES_PER_MERGE + 5, "a"))
    assert history.erase("b") == 1


def test_a_history_without_files_is_left_alone(tmp_path: Path) -> None:
    assert History(Copies(Settings(home=str(tmp_path)), "shop"), SCHEMA).trim(START) == (0, 0)
    assert not (tmp_path / "features").exists()
