"""The contract of a lake: what ingestion, the join and erasure rely on, in a folder and at an address alike.

Each check gets a way to open the lake; every call gives a new handle on the same tables.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from decision.errors import FieldError
from pipelines.lake.lake import REWRITES, ConflictError, Lake
from pipelines.lake.schemas import DEAD_LETTERS, SCHEMAS
from pipelines.lake.tables import mark_of

Open = Callable[[], Lake]
NAME = "dead_letters"
AT = datetime(2026, 1, 1, tzinfo=UTC)


def letters(*offsets: int) -> pa.Table:
    """Return dead letters at `offsets`, in two partitions."""
    rows = [
        {"topic": "decisions", "partition": n % 2, "offset": n, "appended_at": AT, "key": b"k", "value": b"v"}
        for n in offsets
    ]
    return pa.Table.from_pylist(rows, schema=DEAD_LETTERS)


def append(lake: Lake, *offsets: int, **marks: int) -> int:
    """Commit dead letters with marks, and return the table's version."""
    return lake.commit(NAME, lake.table(NAME), lake.write(NAME, letters(*offsets)), marks)


def held(lake: Lake) -> list[int]:
    """Return the offsets of the dead letters that can be read, in order."""
    return sorted(lake.dead_letters()["offset"].to_pylist())


def check_a_table_exists_when_it_is_first_asked_for(open_lake: Open) -> None:
    lake = open_lake()
    for name, schema in SCHEMAS.items():
        assert lake.version(name) == 0
        assert lake.table(name).to_pyarrow_dataset().schema.names == schema.names


def check_many_may_create_a_table_at_once(open_lake: Open) -> None:
    versions: list[int] = []
    threads = [threading.Thread(target=lambda: versions.append(open_lake().version("decisions"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert versions == [0] * 8


def check_files_are_invisible_until_they_are_committed(open_lake: Open) -> None:
    lake = open_lake()
    table = lake.table(NAME)
    files = lake.write(NAME, letters(0, 1, 2))
    assert len(files) == 2
    assert held(lake) == []
    assert lake.commit(NAME, table, files, {"a": 3}) == 1
    assert lake.dead_letters()["offset"].to_pylist() == [0, 2, 1]
    assert mark_of(lake.table(NAME), "a") == 3
    assert mark_of(lake.table(NAME), "b") is None


def check_of_two_commits_on_the_same_mark_one_wins_and_the_other_shows_nothing(open_lake: Open) -> None:
    one, other = open_lake(), open_lake()
    append(one, 0, a=1)
    seen = [lake.table(NAME) for lake in (one, other)]
    one.commit(NAME, seen[0], one.write(NAME, letters(1)), {"a": 2})
    with pytest.raises(ConflictError):
        other.commit(NAME, seen[1], other.write(NAME, letters(2)), {"a": 2})
    assert held(open_lake()) == [0, 1]
    assert mark_of(other.table(NAME), "a") == 2


def check_earlier_versions_stay_readable(open_lake: Open) -> None:
    lake = open_lake()
    first, second = append(lake, 0), append(lake, 1)
    assert len(lake.dead_letters(version=first)) == 1
    assert len(lake.dead_letters(version=second)) == 2
    with pytest.raises(FieldError, match="version"):
        lake.dead_letters(version=999)


def check_every_handle_sees_what_was_committed(open_lake: Open) -> None:
    one, other = open_lake(), open_lake()
    append(one, 0)
    append(other, 1)
    assert held(one) == held(other) == held(open_lake()) == [0, 1]


def check_compaction_keeps_rows_and_marks(open_lake: Open) -> None:
    lake = open_lake()
    past = 12 if "://" in lake.path else 60  # a checkpoint
    for n in range(past):
        append(lake, n, **{f"m{n % 5}": n, "a": n})
        assert mark_of(lake.table(NAME), "a") == n
    lake.compact(NAME)
    assert held(open_lake()) == list(range(past))
    for again in (lake.table(NAME), open_lake().table(NAME)):
        assert mark_of(again, "a") == past - 1
        names = ["a", "m0", "m1", "m4", "none", REWRITES]
        assert [mark_of(again, name) for name in names] == [again.transaction_version(name) for name in names]
        assert len(again.file_uris()) == 2


def check_deleting_keeps_rows_whose_column_is_null(open_lake: Open) -> None:
    lake = open_lake()
    rows = letters(0, 2, 4)
    rows = rows.set_column(6, "reason", pa.array([None, "gone", "kept"]))
    lake.commit(NAME, lake.table(NAME), lake.write(NAME, rows), {"a": 1})
    assert lake.delete(NAME, pc.field("reason") == "gone", {"a": 2}) == 1
    assert lake.dead_letters()["reason"].to_pylist() == [None, "kept"]
    assert lake.delete(NAME, pc.field("reason") == "nothing", {"a": 3}) == 0
    assert mark_of(lake.table(NAME), "a") == 3


def check_compactions_deletions_and_appends_at_once_neither_lose_nor_repeat_a_row(open_lake: Open) -> None:
    lake = open_lake()
    for n in range(12):
        append(lake, n)

    def add() -> None:
        for n in range(100, 108):
            files = lake.write(NAME, letters(n))
            while True:
                with contextlib.suppress(ConflictError):  # a deletion went first
                    lake.commit(NAME, lake.table(NAME), files, {})
                    break

    deleted: list[int] = []
    work = [
        lambda: lake.compact(NAME),
        lambda: lake.compact(NAME),
        lambda: deleted.append(lake.delete(NAME, pc.field("offset") < 4)),
        add,
    ]
    threads = [threading.Thread(target=step) for step in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert deleted == [4]
    assert held(lake) == [*range(4, 12), *range(100, 108)]


def check_vacuum_removes_what_a_crash_left_behind(open_lake: Open) -> None:
    lake = open_lake()
    append(lake, 0)
    lake.write(NAME, letters(2))
    assert lake.vacuum(NAME) == 0  # young files may belong to a writer at work
    assert lake.vacuum(NAME, retention_hours=0) == 1
    assert held(lake) == [0]


def check_an_age_is_told_beside_writers_and_told_once(open_lake: Open) -> None:
    lake, other = open_lake(), open_lake()
    append(lake, 0, position=1)
    behind = other.table(NAME)
    lake.keep(NAME, 9)
    kept = lake.table(NAME).metadata().configuration
    assert {kept[f"delta.{name}RetentionDuration"] for name in ("log", "deletedFile")} == {"interval 9 days"}
    with contextlib.suppress(ConflictError):  # who read the table before may have to look again
        other.commit(NAME, behind, other.write(NAME, letters(1)), {"position": 2})
    if held(lake) == [0]:
        append(other, 1, position=2)
    version = lake.version(NAME)
    other.keep(NAME, 9)
    assert lake.version(NAME) == version
    assert held(open_lake()) == [0, 1]
    assert mark_of(open_lake().table(NAME), "position") == 2


def check_what_vacuum_would_delete_is_named_and_stays(open_lake: Open) -> None:
    lake = open_lake()
    append(lake, 0)
    append(lake, 2)
    lake.compact(NAME)
    assert lake.unneeded(NAME, retention_hours=48) == []
    named = lake.unneeded(NAME, retention_hours=0)
    there = {found.key for found in lake.storage.list(NAME)}
    assert {f"{NAME}/{path}" for path in named} <= there
    assert lake.vacuum(NAME, retention_hours=0) == len(named) == 2
    assert held(lake) == [0, 2]


CHECKS = [check for name, check in sorted(globals().items()) if name.startswith("check_")]
