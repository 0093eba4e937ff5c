"""What is too old goes: versions of the lake, nights, imports and scratch; wherever tidying was stopped, it goes on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest

import pipelines.lake.files as files
from decision.errors import FieldError
from decision.records import encode
from pipelines.formats.store import list_imports
from pipelines.interactions.counters import counters
from pipelines.interactions.join import join
from pipelines.log.protocol import DECISIONS
from pipelines.log.sqlite.log import LocalLog
from pipelines.operations.erase import digest_of, erase
from pipelines.retention.tidy import Part, Tidied, tidy
from pipelines.runs import KEPT_RUNS, open_night, runs
from pipelines.settings import Settings, parse_loop
from pipelines.state.state import State
from tests.pipelines.retention.test_messages import BEGIN, Shop
from tests.worlds.killed import Killed
from tests.worlds.lake import LATER, decision

DAY_S = 86_400


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path, "[retention]\nlog_days = 3\nlake_days = 5\nruns_days = 10\nimports_days = 20")
    yield made
    made.log.close()


def all_of(shop: Shop, *, day: float = 0, dry_run: bool = False) -> Tidied:
    return tidy(shop.settings, shop.log, shop.lake, now=BEGIN + timedelta(days=day), dry_run=dry_run)


def numbers(done: Tidied) -> dict[str, int]:
    return {part.part: part.number for part in done.parts}


def aged(shop: Shop, monkeypatch: pytest.MonkeyPatch, days: float) -> int:
    """Ingest in four commits and merge their files, all of it `days` ago; return the version before merging."""
    then = time.time() - days * DAY_S
    monkeypatch.setattr(files, "_now_ms", lambda: int(then * 1000))
    for first in range(0, 20, 5):
        shop.decide(first, 5, day=0)
        shop.ingest()
    version = shop.lake.version("decisions")
    shop.lake.compact("decisions")
    monkeypatch.undo()
    for path in Path(shop.lake.path).rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))
    return version


def parquet(shop: Shop) -> set[str]:
    return {str(path) for path in Path(shop.lake.path, "decisions").glob("loop=*/**/*.parquet")}


def test_files_of_versions_older_than_their_days_go_and_the_rows_stay(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, before = aged(shop, monkeypatch, days=6), parquet(shop)
    rows = shop.lake.decisions("shop")
    assert shop.lake.decisions("shop", version=version).equals(rows)
    done = all_of(shop)
    gone = before - parquet(shop)
    lake = next(part for part in done.parts if part.part == "lake")
    assert (len(gone), lake.number) == (8, 8)
    assert lake.bytes > 8 * 1_000
    assert shop.lake.decisions("shop").equals(rows)
    with pytest.raises(FieldError, match="kept"):
        shop.lake.decisions("shop", version=version)


def test_a_version_that_is_younger_can_still_be_read(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    version, before = aged(shop, monkeypatch, days=4), parquet(shop)
    assert numbers(all_of(shop))["lake"] == 0
    assert parquet(shop) == before
    assert len(shop.lake.decisions("shop", version=version)) == 20


def test_delta_is_told_the_age_and_told_it_once(shop: Shop) -> None:
    all_of(shop)
    kept = shop.lake.table("outcomes").metadata().configuration
    ages = {kept[f"delta.{name}RetentionDuration"] for name in ("log", "deletedFile")}
    assert ages == {"interval 5 days"}
    version = shop.lake.version("outcomes")
    all_of(shop)
    assert shop.lake.version("outcomes") == version


def test_a_proof_of_erasure_stays_true(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    aged(shop, monkeypatch, days=6)
    shop.log.append(DECISIONS, b"cy", encode(decision("cy", subject_id="cy")))
    shop.ingest()
    proof = erase(shop.lake, "cy", forget=shop.log.redact, now=LATER)
    all_of(shop, day=90)
    assert proof.rows["decisions"] == 1
    assert digest_of(proof) == proof.digest
    assert "cy" not in shop.lake.decisions("shop")["subject_id"].to_pylist()
    assert shop.ingest() == 0


def nights(settings: Settings, n: int, *, first: datetime, apart: timedelta) -> list[str]:
    made = []
    for number in range(n):
        with open_night(settings, "shop", f"n{number:03d}", first + number * apart, 1) as night:
            night.run.status = "done"
            night.save()
            made.append(night.run.run_id)
    return made


def test_nights_older_than_their_days_go_with_all_that_state_keeps_of_them_and_the_latest_stay(shop: Shop) -> None:
    made = nights(shop.settings, 45, first=BEGIN, apart=timedelta(days=1))
    assert numbers(all_of(shop, day=20))["runs"] == 10  # n000 to n009 are more than ten days old
    assert numbers(all_of(shop, day=400))["runs"] == 45 - KEPT_RUNS - 10
    left = made[-KEPT_RUNS:]
    assert [run.run_id for run in runs(shop.settings, "shop")] == left
    folder = shop.settings.root / "runs" / "shop"
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == left
    with State(shop.settings.state_url) as state:
        assert state.history("run/shop/n003") == []
        assert len(state.history(f"run/shop/{left[0]}")) == 2


def test_imports_older_than_their_days_go_and_for_ever_is_for_ever(shop: Shop) -> None:
    note = {"format": "csv", "source": "x", "rows": 1, "with_pmf": 0, "first": None, "last": None}
    for name, days in (("old", 21), ("young", 19)):
        folder = shop.settings.root / "imports" / name
        folder.mkdir(parents=True)
        (folder / "interactions.parquet").write_bytes(b"x" * 50)
        (folder / "import.json").write_text(json.dumps({"name": name, **note}))
        at = (BEGIN - timedelta(days=days)).timestamp()
        for path in folder.iterdir():
            os.utime(path, (at, at))
    shop.loop("[retention]\nimports_days = 0", "news")
    assert numbers(all_of(shop))["imports"] == 0
    shop.loop("[retention]\nimports_days = 3", "news")
    done = all_of(shop)
    assert numbers(done)["imports"] == 1
    assert [note.name for note in list_imports(shop.settings)] == ["young"]


def test_what_killed_processes_left_goes_after_a_day_and_files_of_people_stay(shop: Shop) -> None:
    root = shop.settings.root
    left = [
        root / "imports/.new-ab12cd_9/import/rows",
        root / ".state.json-q1w2e3r4",
        root / "runs/shop/n1/.m-abcdefgh",
    ]
    mine = [
        root / ".env",
        root / ".gitignore",
        root / "imports/news/.keep-this-one-please",
        root / "models/.new-ab12cd_9",
    ]
    for path in (*left, *mine):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10)
    now = datetime.now(UTC)
    assert all(part.number == 0 for part in tidy(shop.settings, shop.log, shop.lake, now=now).parts)
    done = tidy(shop.settings, shop.log, shop.lake, now=now + timedelta(hours=25))
    scratch = next(part for part in done.parts if part.part == "scratch")
    assert (scratch.number, scratch.bytes) == (3, 30)
    assert [path.exists() for path in (*left, *mine)] == [False] * 3 + [True] * 4


def test_a_dry_run_says_what_goes_and_changes_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    aged(shop, monkeypatch, days=6)
    shop.decide(20, 5, day=40)
    shop.ingest()
    nights(shop.settings, 33, first=BEGIN, apart=timedelta(hours=1))
    shop.log.close()
    shop.log = LocalLog(shop.settings.spool_path)
    all_of(shop, day=40, dry_run=True)  # opens what was never opened
    before = tree(shop.settings.root)
    said = all_of(shop, day=40, dry_run=True)
    assert tree(shop.settings.root) == before
    done = all_of(shop, day=40)
    gone = {"log": 40, "lake": 8, "runs": 3}
    assert numbers(said) == numbers(done) == dict.fromkeys(get_args(Part), 0) | gone
    assert said.bytes == done.bytes > 0


def tree(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_size for path in root.rglob("*") if path.is_file() and "-shm" not in path.name}


PREPARED = """
from datetime import datetime
import pipelines.retention.tidy as module
import pipelines.runs
from pipelines.lake.lake import Lake
from pipelines.log.sqlite import log
from pipelines.settings import load_settings

log._TRIM_PER_TRANSACTION = 7
log.SqliteFile.transaction = counted(log.SqliteFile.transaction)
Lake.keep, Lake.vacuum = counted(Lake.keep), counted(Lake.vacuum)
pipelines.runs.shutil.rmtree = counted(pipelines.runs.shutil.rmtree)
"""
WORK = """
settings = load_settings({{}}, home={home!r})
opened = log.LocalLog(settings.spool_path)
module.tidy(settings, opened, Lake(settings.lake_url), now=datetime.fromisoformat({now!r}))
"""


def test_wherever_it_is_killed_nothing_is_lost_and_the_next_call_goes_on(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    aged(shop, monkeypatch, days=6)
    nights(shop.settings, 33, first=BEGIN, apart=timedelta(hours=1))
    shop.decide(20, 30, day=40)
    nth, ended = 2, False
    with Killed(PREPARED, WORK.format(home=str(shop.settings.root), now=str(BEGIN + timedelta(days=40)))) as killed:
        while not ended:
            ended = killed.at(nth)
            assert len(shop.lake.decisions("shop")) == 20
            assert sum(shop.log.watermarks("decisions", partition)[1] for partition in range(2)) == 50
            nth += 3
    assert nth > 12
    assert numbers(all_of(shop, day=40)) == dict.fromkeys(get_args(Part), 0)
    assert shop.ingest() == 60
    loop = parse_loop("", "shop", {})
    join(shop.lake, loop, LATER)
    counted = counters(shop.lake, loop, LATER, in_full=True)
    assert (counted.decided, counted.joined, counted.duplicates_seen, counted.balanced) == (50, 50, 0, True)
    assert len(runs(shop.settings, "shop")) == KEPT_RUNS
