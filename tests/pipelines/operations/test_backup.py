"""A copy of a running installation is one that another installation goes on from, or there is none."""

from __future__ import annotations

import errno
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec
import pytest

import pipelines.operations.backup as module
from decision.errors import FieldError
from decision.records import encode
from pipelines.access.keys import new_key
from pipelines.fairness.people import add_key
from pipelines.fairness.store import Governance
from pipelines.fairness.verify import verify
from pipelines.files import locked
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.counters import counters
from pipelines.interactions.join import join
from pipelines.lake.lake import Lake
from pipelines.log.protocol import DECISIONS, OUTCOMES
from pipelines.log.sqlite.log import LocalLog
from pipelines.operations.backup import HOME, NOTE, backup, elsewhere_of
from pipelines.operations.erase import erase
from pipelines.operations.restore import RestoreError, restore
from pipelines.registry.registry import Registry
from pipelines.registry.tracking import Tracking
from pipelines.retention.leftovers import LOCK
from pipelines.retention.tidy import tidy
from pipelines.runs import open_night, runs
from pipelines.settings import Settings, load_settings, parse_loop
from pipelines.state.state import State
from pipelines.trajectories.memories import MEMORIES, Memories, positions_in
from tests.contracts.registry import packed
from tests.pipelines.retention.test_messages import Shop
from tests.worlds.disk import own_disk
from tests.worlds.killed import Killed
from tests.worlds.lake import LATER, decision
from tests.worlds.panels import Panel, pair
from tests.worlds.synthetic import new_settings

LOOP = parse_loop("", "shop", {})
NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    (tmp_path / "home").mkdir(mode=0o700)
    new_settings(tmp_path / "home")
    made = Shop(tmp_path / "home", "[retention]\nlog_days = 1")
    made.decide(0, 30, day=0)
    made.ingest()
    join(made.lake, LOOP, LATER)
    made.decide(30, 8, day=0)
    yield made
    made.log.close()


def at(home: Path) -> Settings:
    return load_settings({}, home=str(home))


def gone_on(home: Path) -> tuple[int, int, int]:
    """Ingest and join in a restored home; return what was ingested, decided and repeated."""
    settings = at(home)
    log, lake = LocalLog(settings.spool_path), Lake(settings.lake_url)
    messages = ingest(log, lake, loops={"shop"}).messages
    join(lake, LOOP, LATER)
    log.close()
    counted = counters(lake, LOOP, LATER, in_full=True)
    assert counted.balanced
    return messages, counted.decided, counted.duplicates_seen


def test_a_restored_home_has_the_books_of_the_backup_and_goes_on_from_the_log(shop: Shop, tmp_path: Path) -> None:
    taken = backup(shop.settings, tmp_path / "copy", now=NOW)
    shutil.rmtree(shop.settings.root)
    done = restore(at(tmp_path / "new"), tmp_path / "copy")
    assert taken.loops == done.loops
    assert (done.loops["shop"]["decided"], done.loops["shop"]["joined"]) == (30, 30)
    assert (done.to_ingest, done.nights, done.elsewhere) == (16, [], {})
    assert gone_on(tmp_path / "new") == (16, 38, 0)


@pytest.mark.parametrize("free", [4_096, 60_000, 250_000])
def test_a_disk_without_room_for_a_backup_is_named_and_has_nothing_of_it_left(
    shop: Shop, tmp_path: Path, free: int
) -> None:
    copy = backup(shop.settings, tmp_path / "copy", now=NOW)
    assert copy.bytes > free
    with own_disk(tmp_path) as disk:
        disk.fill(free)
        for part in (
            lambda: backup(shop.settings, disk.path / "another", now=NOW),
            lambda: restore(at(disk.path / "another"), tmp_path / "copy"),
        ):
            with pytest.raises(
                OSError, match=f"{disk.path / 'another'}: the disk has no room for it; make room on it"
            ) as error:
                part()
            assert error.value.errno == errno.ENOSPC
            assert not [each for each in disk.path.iterdir() if each.is_dir()]
        disk.empty()
        backup(shop.settings, disk.path / "another", now=NOW)


def test_backups_under_load_lose_nothing_that_was_acknowledged_and_double_nothing(shop: Shop, tmp_path: Path) -> None:
    ended, failures, acknowledged = threading.Event(), list[BaseException](), [38]

    def going_on(work: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                while not ended.is_set():
                    work()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def answer() -> None:
        first = acknowledged[0]
        shop.decide(first, 10, day=first / 1e6)
        acknowledged[0] = first + 10

    memories = Memories(shop.settings.loop_path("shop").parent / MEMORIES, "shop")

    def night() -> None:
        ingest(shop.log, shop.lake, loops={"shop"})
        join(shop.lake, LOOP, LATER)
        shop.lake.compact("decisions")
        tidy(shop.settings, shop.log, shop.lake, now=NOW)

    threads = [going_on(answer), going_on(night), going_on(lambda: memories.follow(shop.log, NOW))]
    held: list[int] = []
    try:
        for number in range(4):
            held.append(acknowledged[0])
            backup(shop.settings, tmp_path / f"copy{number}", now=NOW)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        memories.close()
    assert failures == []
    for number, at_least in enumerate(held):
        home = tmp_path / f"new{number}"
        restore(at(home), tmp_path / f"copy{number}")
        log = LocalLog(at(home).spool_path)
        ends = {(topic, p): log.watermarks(topic, p)[1] for topic in (DECISIONS, OUTCOMES) for p in range(2)}
        read = positions_in(at(home).loop_path("shop").parent / MEMORIES)
        log.close()
        assert all(position <= ends[place] for place, position in read.items())
        _, decided, repeated = gone_on(home)
        assert (decided >= at_least, repeated) == (True, 0)


def test_whatever_happens_between_two_parts_the_copy_fits_together(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, memories = Registry(shop.settings), Memories(shop.settings.loop_path("shop").parent / MEMORIES, "shop")
    happened = [0]

    def happens() -> None:
        number = happened[0] = happened[0] + 1
        shop.decide(1000 * number, 3, day=0)
        shop.ingest()
        join(shop.lake, LOOP, LATER)
        memories.follow(shop.log, NOW)
        version = registry.register("shop", packed(model_vw=b"%d" % number))
        registry.set_alias("shop", "champion", version, {"verdict": "promoted", "at": NOW.isoformat(), "by": "ann"})

    for name in ("_copy", "copy_tables"):
        work = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, work=work: (happens(), work(*given), happens())[1])
    happens()
    backup(shop.settings, tmp_path / "copy", now=NOW)
    memories.close()
    assert happened[0] > 10
    restore(at(tmp_path / "new"), tmp_path / "copy")
    settings = at(tmp_path / "new")
    log = LocalLog(settings.spool_path)
    ends = {(topic, p): log.watermarks(topic, p)[1] for topic in (DECISIONS, OUTCOMES) for p in range(2)}
    log.close()
    read = positions_in(settings.loop_path("shop").parent / MEMORIES)
    assert all(position <= ends[place] for place, position in read.items())
    champion = Registry(settings).aliases("shop")["champion"]
    assert Registry(settings).files("shop", champion)["model.vw"].isdigit()
    assert gone_on(tmp_path / "new")[2] == 0


def test_versions_are_read_and_made_in_the_restored_home_and_not_where_they_were(shop: Shop, tmp_path: Path) -> None:
    first, second = packed(model_vw=b"first"), packed(model_vw=b"second")
    version = Registry(shop.settings).register("shop", first)
    backup(shop.settings, tmp_path / "copy", now=NOW)
    restore(at(tmp_path / "new"), tmp_path / "copy")
    kept = sorted(path for path in shop.settings.root.glob("models/**/*"))
    registry = Registry(at(tmp_path / "new"))
    assert registry.files("shop", version) == first
    newer = registry.register("shop", second)
    assert int(newer) == int(version) + 1
    assert sorted(path for path in shop.settings.root.glob("models/**/*")) == kept
    database = sqlite3.connect(tmp_path / "new" / "mlflow.db")
    for table, column in (("runs", "artifact_uri"), ("model_versions", "source"), ("experiments", "artifact_location")):
        found = [uri for (uri,) in database.execute(f"SELECT {column} FROM {table}") if uri.startswith("file:")]
        assert found
        assert all(uri.startswith((tmp_path / "new" / "models").as_uri()) for uri in found), table
    database.close()


def test_a_night_that_was_under_way_begins_anew_and_finished_ones_are_kept(shop: Shop, tmp_path: Path) -> None:
    statuses: dict[str, Literal["done", "failed"]] = {"done": "done", "open": "failed"}
    for run_id, status in statuses.items():
        with open_night(shop.settings, "shop", run_id, NOW - timedelta(hours=2), 1) as night:
            night.run.status = status
            night.save()
    backup(shop.settings, tmp_path / "copy", now=NOW)
    assert restore(at(tmp_path / "new"), tmp_path / "copy").nights == ["shop/open"]
    assert [run.run_id for run in runs(at(tmp_path / "new"), "shop")] == ["done"]
    assert [run.run_id for run in runs(shop.settings, "shop")] == ["done", "open"]


def test_everything_in_a_backup_and_in_a_restored_home_is_its_owners_alone(shop: Shop, tmp_path: Path) -> None:
    (shop.settings.root / "loops" / "shop" / "loop.toml").chmod(0o644)
    backup(shop.settings, tmp_path / "copy", now=NOW)
    restore(at(tmp_path / "new"), tmp_path / "copy")
    for top in ("copy", "new"):
        assert (tmp_path / top).stat().st_mode & 0o077 == 0
        files = [path for path in (tmp_path / top).rglob("*") if path.is_file()]
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_caches_and_what_is_half_written_are_left_out(shop: Shop, tmp_path: Path) -> None:
    for name in ("cache/models/shop/1/x", "metrics/run/y", "imports/.new-abcdefgh/z", ".m-abcdefgh"):
        path = shop.settings.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (shop.settings.root / "mine.txt").write_text("notes of a person")
    taken = backup(shop.settings, tmp_path / "copy", now=NOW)
    assert not [name for name in taken.files if "cache" in name or "metrics" in name or "abcdefgh" in name]
    assert not [name for name in taken.files if name.endswith(("-wal", "-shm"))]
    assert "mine.txt" in taken.files


def test_who_is_erased_while_a_backup_is_taken_is_not_in_it(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.log.append(DECISIONS, b"cy", encode(decision("cy", subject_id="cy")))
    shop.ingest()
    copied, erased = module.copy_tables, list[str]()

    def after_the_lake(*args: object) -> dict[str, int]:
        versions = copied(*args)  # type: ignore[arg-type]
        if not erased:
            proof = erase(shop.lake, "cy", forget=shop.log.redact, now=NOW)
            (shop.settings.root / "erasures").mkdir()
            (shop.settings.root / "erasures" / f"{proof.digest}.json").write_bytes(msgspec.json.encode(proof))
            erased.append(proof.digest)
        return versions

    monkeypatch.setattr(module, "copy_tables", after_the_lake)
    taken = backup(shop.settings, tmp_path / "copy", now=NOW)
    assert f"erasures/{erased[0]}.json" in taken.files
    restore(at(tmp_path / "new"), tmp_path / "copy")
    assert "cy" not in Lake(at(tmp_path / "new").lake_url).decisions("shop")["subject_id"].to_pylist()
    assert all(b'"cy"' not in path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file())


def test_an_audit_log_that_is_written_to_meanwhile_is_whole_where_it_is_restored_and_goes_on(
    shop: Shop, tmp_path: Path
) -> None:
    begun, ended = threading.Event(), threading.Event()

    def audited() -> None:
        with Governance.at(shop.settings) as store, State(shop.settings.state_url) as state:
            while not ended.is_set():
                Panel(store, auditors=1)
                key, _ = new_key(roles=["decide"], loops=[], tenant="", now=NOW, by="test", expires_at=None)
                add_key(store, state, key, now=NOW, by="test")
                begun.set()

    with Governance.at(shop.settings) as store:
        panel = Panel(store)
        judged, _ = panel.open(pair(), pair())
        panel.judge(judged, "unfair", "unfair", "unfair")
        before = store.sign_head(NOW)
        writing = threading.Thread(target=audited)
        writing.start()
        begun.wait()
        backup(shop.settings, tmp_path / "copy", now=NOW)
        ended.set()
        writing.join()
        after = store.sign_head(NOW)
        assert verify(store).faults == ()
    restore(at(tmp_path / "new"), tmp_path / "copy")
    with Governance.at(at(tmp_path / "new")) as store:
        found = verify(store, heads=[before])
        assert found.faults == ()
        # Between the commit of an entry and the note of its head a copy may be made: it then says what it cannot know.
        *unnoted, names, rewritten = found.unknown
        assert (names[:15], rewritten[:24]) == ("names of people", "a history written anew b")
        assert len(unnoted) <= 1
        assert all(what.startswith("whether the entries after ") for what in unnoted)
        noted = max(head.entries for head in store.noted_in_file().heads)  # pyright: ignore[reportOptionalMemberAccess]
        assert before.entries < noted <= found.entries
        assert found.entries > before.entries
        lost = verify(store, heads=[after]).faults
        assert [fault.what for fault in lost] == [
            f"truncated: {after.entries} entries were anchored, {found.entries} are here"
        ]
        Panel(store, auditors=2).open(pair(), window="w2")
        assert verify(store).faults == ()


def test_a_panels_database_that_somebody_holds_is_an_error_and_leaves_no_backup(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BUSY_S", 0.0)
    with (
        Governance.at(shop.settings) as store,
        store.write(NOW, "test"),
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        backup(shop.settings, tmp_path / "copy", now=NOW)
    assert not (tmp_path / "copy").exists()


def test_tidying_waits_for_a_backup_and_a_dry_run_does_not(shop: Shop) -> None:
    begun, ended = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        tidy(shop.settings, shop.log, shop.lake, now=NOW)
        ended.set()

    with locked(shop.settings.root / LOCK):
        thread = threading.Thread(target=work)
        thread.start()
        begun.wait()
        tidy(shop.settings, shop.log, shop.lake, now=NOW, dry_run=True)
        assert not ended.is_set()
    thread.join()
    assert ended.is_set()


def test_a_database_whose_writer_was_killed_in_a_commit_is_copied_as_it_was_before(shop: Shop, tmp_path: Path) -> None:
    """MLflow's keeps a rollback journal, which only who may write can take back."""
    database = shop.settings.root / "mlflow.db"
    killed = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.executescript('CREATE TABLE kept (row TEXT); INSERT INTO kept VALUES (1); PRAGMA cache_size = 1; BEGIN');"
        "[c.execute('INSERT INTO kept VALUES (?)', ('x' * 9_000,)) for _ in range(100)]; os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", killed, str(database)], check=True)
    assert database.with_name("mlflow.db-journal").stat().st_size
    Tracking(shop.settings).examine()
    backup(shop.settings, tmp_path / "copy", now=NOW)
    with closing(sqlite3.connect(tmp_path / "copy" / "home" / "mlflow.db")) as copied:
        assert copied.execute("SELECT COUNT(*) FROM kept").fetchall() == [(1,)]


def test_a_damaged_database_is_an_error_and_leaves_no_backup(shop: Shop, tmp_path: Path) -> None:
    with State(shop.settings.state_url) as state:
        state.put({f"key{number}": (None, b"x" * 5000) for number in range(50)})
    file = shop.settings.root / "state.db"
    data = bytearray(file.read_bytes())
    data[9 * 4096 : 14 * 4096] = b"\xff" * (5 * 4096)
    file.write_bytes(data)
    with pytest.raises(sqlite3.DatabaseError):
        backup(shop.settings, tmp_path / "copy", now=NOW)
    assert not (tmp_path / "copy").exists()


def test_a_backup_goes_into_a_new_folder_outside_of_the_home(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(shop.settings.root)
    for path in (tmp_path / "there", shop.settings.root / "copy", tmp_path / "link" / "copy"):
        with pytest.raises(FieldError, match="path: must be a folder"):
            backup(shop.settings, path, now=NOW)
    with pytest.raises(FieldError, match="home: must be"):
        backup(at(tmp_path / "none"), tmp_path / "copy", now=NOW)


@pytest.mark.parametrize("wrong", ["altered", "missing", "books", "outside", "absolute", "unfinished"])
def test_what_is_not_the_backup_that_was_taken_makes_no_home(shop: Shop, tmp_path: Path, wrong: str) -> None:
    backup(shop.settings, tmp_path / "copy", now=NOW)
    note = tmp_path / "copy" / NOTE
    said = msgspec.json.decode(note.read_bytes())
    some = next(name for name in said["files"] if name.endswith(".parquet"))
    if wrong == "altered":
        file = tmp_path / "copy" / HOME / some
        file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    elif wrong == "missing":
        (tmp_path / "copy" / HOME / some).unlink()
    elif wrong == "books":
        said["loops"]["shop"]["joined"] -= 1
    elif wrong in ("outside", "absolute"):
        (tmp_path / "secret").write_bytes(b"")
        empty = {"size": 0, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
        said["files"]["../../secret" if wrong == "outside" else str(tmp_path / "secret")] = empty
    note.write_bytes(msgspec.json.encode(said))
    if wrong == "unfinished":
        note.unlink()
    with pytest.raises((FieldError, RestoreError, FileNotFoundError)):
        restore(at(tmp_path / "new"), tmp_path / "copy")
    assert not (tmp_path / "new").exists()


def test_a_home_that_holds_something_is_left_alone(shop: Shop, tmp_path: Path) -> None:
    backup(shop.settings, tmp_path / "copy", now=NOW)
    with pytest.raises(FieldError, match="home: must be a folder that does not exist yet or is empty"):
        restore(shop.settings, tmp_path / "copy")
    (tmp_path / "empty").mkdir()
    restore(at(tmp_path / "empty"), tmp_path / "copy")
    assert gone_on(tmp_path / "empty") == (16, 38, 0)


def test_what_has_an_address_of_its_own_is_named_and_the_spool_of_a_broker_stays_out(
    shop: Shop, tmp_path: Path
) -> None:
    apart = msgspec.structs.replace(
        shop.settings,
        log="kafka://broker:9092",
        files="s3://bucket/decision",
        state="postgresql://db/decision",
        tracking_uri="http://mlflow:5000",
        online="redis://redis:6379/0",
    )
    assert set(elsewhere_of(apart)) == {"log", "files", "state", "tracking_uri", "online"}
    assert elsewhere_of(msgspec.structs.replace(shop.settings, tracking_uri="sqlite:////srv/mlflow.db")).keys() == {
        "state",
        "tracking_uri",
    }
    broker = msgspec.structs.replace(shop.settings, log="kafka://broker:9092")
    taken = backup(broker, tmp_path / "copy", now=NOW)
    assert "log.db" not in taken.files
    assert list(taken.elsewhere) == ["log"]
    with pytest.raises(FieldError, match="log: must be the address that it had"):
        restore(at(tmp_path / "new"), tmp_path / "copy")
    there = msgspec.structs.replace(at(tmp_path / "new"), log="kafka://other:9092")
    assert restore(there, tmp_path / "copy").to_ingest is None


KILLS = """
from datetime import datetime
from pathlib import Path
import pipelines.files
import pipelines.operations.backup as backups
import pipelines.operations.restore as restores
from pipelines.lake import copies
from pipelines.settings import load_settings

for where in (backups, restores, copies):
    where.copy_file = counted(where.copy_file)
backups.copy_database, backups.books = counted(backups.copy_database), counted(backups.books)
restores.books = counted(restores.books)
backups.os.rename = counted(backups.os.rename)
"""


def test_a_backup_or_restore_that_is_killed_leaves_nothing_and_the_next_one_is_whole(
    shop: Shop, tmp_path: Path
) -> None:
    home, copy, new = shop.settings.root, tmp_path / "copy", tmp_path / "new"
    at_now = f"now=datetime.fromisoformat({str(NOW)!r})"
    taking = f"backups.backup(load_settings({{}}, home={str(home)!r}), Path({str(copy)!r}), {at_now})"
    coming = f"restores.restore(load_settings({{}}, home={str(new)!r}), Path({str(copy)!r}))"
    for work, made in ((taking, copy), (coming, new)):
        with Killed(KILLS, work) as killed:
            nth, ended = 1, False
            while not ended:
                ended = killed.at(nth)
                assert made.exists() == ended
                nth += 6
        assert nth > 12
    assert gone_on(new) == (16, 38, 0)
    assert shop.ingest() == 16
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["copy", "home", "new"]
