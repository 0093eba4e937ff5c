"""Every fault of an installation that a disk, a file or a lock can have: what it does to callers and nights.

The table of `infra/docs/faults.md` has a row for each, by its name.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.faults.site import Site
from tests.worlds.disk import Disk

FEATURES = "[gate]\nminimum_ess = 5\nmargin = 0.0\n[features]\nenabled = true\nhalf_life_s = 60.0\n"
Breaking = Callable[[Site, Disk], AbstractContextManager[None]]


class Fault(NamedTuple):
    """A fault.

    Attributes:
        name: as the table of the documentation has it.
        broken: breaks the installation, and mends it when the block ends.
        decides: a service that was started before goes on deciding, else it says 503; None where it stays stopped.
        starts: what a service says that is started meanwhile and does not decide, a pattern; "" for one that decides,
            None where that is another fault's.
        step: of the night that ends it; "" for one that goes through as if nothing were, None where it cannot begin.
        says: what the night's error has in it, a pattern.
        settings: of the loop, where it is not the default.
    """

    name: str
    broken: Breaking
    decides: bool | None = True
    step: str | None = ""
    says: str = ""
    settings: str = ""
    starts: str | None = ""


def full(free: int = 0) -> Breaking:
    """Leave so much room on the disk."""

    @contextmanager
    def broken(site: Site, disk: Disk) -> Iterator[None]:
        disk.fill(free)
        try:
            yield
        finally:
            disk.empty()

    return broken


def full_at(step: str) -> Breaking:
    """Fill the disk when a step of the night begins."""

    @contextmanager
    def broken(site: Site, disk: Disk) -> Iterator[None]:
        site.before = {step: disk.fill}
        try:
            yield
        finally:
            site.before = {}
            disk.empty()

    return broken


@contextmanager
def read_only(site: Site, disk: Disk) -> Iterator[None]:
    """Let nothing of the disk be opened for writing."""
    disk.write_protect()
    try:
        yield
    finally:
        disk.unprotect()


def moved(name: str) -> Breaking:
    """Take a file or folder of the home away, and bring it back in place of what was made there since."""

    @contextmanager
    def broken(site: Site, disk: Disk) -> Iterator[None]:
        path = site.settings.root / name
        away = path.rename(disk.path / "away")
        try:
            yield
        finally:
            if path.is_dir():
                shutil.rmtree(path)
            away.replace(path)

    return broken


def dropped(*names: str) -> Breaking:
    """Take files or folders of the home away for good, as a message says; `changed` broke them before."""

    @contextmanager
    def broken(site: Site, disk: Disk) -> Iterator[None]:
        yield
        for name in names:
            shutil.rmtree(site.settings.root / name)

    return broken


def after_a_night(breaking: Breaking) -> Breaking:
    """Break in that way once this process has run a night, and so has open what nights open."""

    @contextmanager
    def broken(site: Site, disk: Disk) -> Iterator[None]:
        assert site.night().status == "done"
        with breaking(site, disk):
            yield

    return broken


def changed(*patterns: str, data: bytes | None = None, restored: bool = True) -> Breaking:
    """Change every byte of the files that fit, or make them `data`."""

    @contextmanager
    def broken(site: Site, disk: Disk) -> Iterator[None]:
        kept: dict[Path, bytes] = {}
        for pattern in patterns:
            found = [path for path in sorted(site.settings.root.glob(pattern)) if path.is_file()]
            assert found, f"no file fits {pattern}"
            for path in found:
                kept[path] = path.read_bytes()
                path.write_bytes(bytes(byte ^ 0x5A for byte in kept[path]) if data is None else data)
        try:
            yield
        finally:
            _restore(kept if restored else {})

    return broken


def removed(pattern: str) -> Breaking:
    """Take the files away that fit."""

    @contextmanager
    def broken(site: Site, disk: Disk) -> Iterator[None]:
        kept = {path: path.read_bytes() for path in sorted(site.settings.root.glob(pattern))}
        assert kept, f"no file fits {pattern}"
        for path in kept:
            path.unlink()
        try:
            yield
        finally:
            _restore(kept)

    return broken


def cut_back(folder: str, commits: int = 2) -> Breaking:
    """Take the latest commits of a table's log away."""

    @contextmanager
    def broken(site: Site, disk: Disk) -> Iterator[None]:
        kept = {path: path.read_bytes() for path in _commits(site, folder)[-commits:]}
        for path in kept:
            path.unlink()
        try:
            yield
        finally:
            _restore(kept)

    return broken


def last_changed(folder: str) -> Breaking:
    """Change the latest commit of a table's log to another one that Delta reads as well."""

    @contextmanager
    def broken(site: Site, disk: Disk) -> Iterator[None]:
        last = _commits(site, folder)[-1]
        kept = {last: last.read_bytes()}
        last.write_bytes(kept[last].replace(b'"timestamp":1', b'"timestamp":2'))
        assert last.read_bytes() != kept[last]
        try:
            yield
        finally:
            _restore(kept)

    return broken


def _commits(site: Site, folder: str) -> list[Path]:
    return sorted(path for path in (site.settings.root / folder).iterdir() if path.suffix == ".json")


def held(name: str) -> Breaking:
    """Lock a database as another process would."""

    @contextmanager
    def broken(site: Site, disk: Disk) -> Iterator[None]:
        with closing(sqlite3.connect(site.settings.root / name, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield

    return broken


def altered(name: str, *statements: str) -> Breaking:
    """Run statements of SQL on a SQLite database of the home, and bring it back."""

    @contextmanager
    def broken(site: Site, disk: Disk) -> Iterator[None]:
        path = site.settings.root / name
        with closing(sqlite3.connect(path)) as database, database:
            kept = database.serialize()
            for statement in statements:
                database.execute(statement)
        try:
            yield
        finally:
            _restore({path: kept})

    return broken


def both(first: Breaking, second: Breaking) -> Breaking:
    """Break in one way inside the other."""

    @contextmanager
    def broken(site: Site, disk: Disk) -> Iterator[None]:
        with second(site, disk), first(site, disk):
            yield

    return broken


def _restore(kept: Mapping[Path, bytes]) -> None:
    for path, data in kept.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


_ROOM = r"the disk of \S+ is full: make room on it"
_READ_ONLY = "is on a read-only file system: mount it for writing"
_TABLE = r"a table in \S+/lake is damaged: restore its folder from a backup, or move it away"
_FEATURES = r"a file in \S+/features is damaged: restore the folder from a backup, or move it away"
_ARTIFACTS = ("models/**/artifacts/policy/*", "cache/models/**/*.json")

FAULTS = (
    Fault("disk full", full(), decides=False, step=None, says=_ROOM, starts=None),
    Fault("disk full at the start", full(), None, None, _ROOM, starts=_ROOM),
    Fault("disk full at ingest", full_at("ingest"), None, "ingest", _ROOM, starts=None),
    Fault("disk full at the join", full_at("join"), None, "join", _ROOM, starts=None),
    Fault("disk full at training and registration", full_at("train"), None, "train", _ROOM, starts=None),
    Fault("disk full at promotion", full_at("promote"), None, "promote", _ROOM, starts=None),
    Fault("disk full at compaction", full_at("compact"), None, "compact", _ROOM, starts=None),
    Fault("home read-only", read_only, step=None, says=_READ_ONLY, starts=_READ_ONLY),
    Fault(
        "MLflow's database gone",
        after_a_night(moved("mlflow.db")),
        step="train",
        says="the file is gone: restore it from a backup|the file was replaced or moved while it was open",
    ),
    Fault("MLflow's database damaged", changed("mlflow.db"), step="train", says="restore it from a backup"),
    Fault("MLflow's database locked", held("mlflow.db"), step="train", says="is locked; end what holds it"),
    Fault(
        "MLflow's database of a later release",
        altered("mlflow.db", "UPDATE alembic_version SET version_num = 'ffffffffffff'"),
        step="train",
        says="a later release of MLflow made its tables: install that release",
    ),
    Fault(
        "MLflow's database without its tables",
        altered("mlflow.db", "ALTER TABLE experiments RENAME TO lost"),
        step="train",
        says="its tables are not those of the MLflow that is installed: restore it from a backup",
    ),
    Fault("model files of MLflow gone", moved("models")),
    Fault(
        "model files changed, copies too",
        changed(*_ARTIFACTS),
        step="watch",
        says=r"version 1 of shop is not what was registered: .* `decision rollback shop`",
    ),
    Fault("State locked", held("state.db"), step=None, says="is locked for .* s; end what holds it"),
    Fault(
        "State damaged",
        changed("state.db"),
        step=None,
        says="restore it from a backup, or move it away",
        starts="the keys are not known yet",
    ),
    Fault("State gone", moved("state.db")),
    Fault("a table's files changed", changed("lake/interactions/**/*.parquet"), step="alarms", says=_TABLE),
    Fault("a table's files gone", removed("lake/interactions/**/*.parquet"), step="alarms", says=_TABLE),
    Fault(
        "a table's files cut short", changed("lake/decisions/**/*.parquet", data=b"PAR1"), step="ingest", says=_TABLE
    ),
    Fault("a table's log changed", changed("lake/interactions/_delta_log/*.json"), step="ingest", says=_TABLE),
    Fault("a table's log cut back", cut_back("lake/decisions/_delta_log"), step="ingest", says="its log was cut back"),
    Fault(
        "a table's log replaced",
        last_changed("lake/decisions/_delta_log"),
        step="ingest",
        says="its log was replaced: .*--accept-lake",
    ),
    Fault("a table's log gone", removed("lake/interactions/_delta_log/*.json")),
    Fault(
        "a damaged lake moved away",
        both(changed("lake/decisions/**/*.parquet", restored=False), dropped("lake")),
        step="ingest",
        says=_TABLE,
    ),
    Fault("the lake gone", moved("lake")),
    Fault(
        "the loop's settings broken",
        changed("loops/*/loop.toml", data=b"[[["),
        step=None,
        says="must be valid TOML",
        starts="must be valid TOML",
    ),
    Fault("the loop's settings gone", moved("loops/shop/loop.toml"), step=None, says="there is no loop", starts=None),
    Fault("manifests of nights broken", changed("runs/**/manifest.json", data=b"{")),
    Fault(
        "Feast's online store damaged",
        changed("features/online_store.db"),
        decides=None,
        step="features",
        says=_FEATURES,
        settings=FEATURES,
    ),
    Fault(
        "Feast's registry damaged", changed("features/registry.db"), step="features", says=_FEATURES, settings=FEATURES
    ),
    Fault(
        "the stream's state damaged",
        changed("features/shop/stream.db"),
        step="features",
        says=_FEATURES,
        settings=FEATURES,
    ),
    Fault("Feast's files gone", moved("features"), settings=FEATURES),
    Fault(
        "damaged features moved away",
        both(changed("features/*.db", restored=False), dropped("features")),
        step="features",
        says=_FEATURES,
        settings=FEATURES,
    ),
)
