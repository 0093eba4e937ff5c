"""A tracking database that is no database, or none of this MLflow's: every way to it names the file and what to do."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipelines.operations.doctor import Finding, examine
from pipelines.registry.registry import Registry
from pipelines.registry.tracking import RegistryError, Tracking
from pipelines.settings import Settings
from tests.worlds.synthetic import new_settings

KINDS = {
    "a text": ("file is not a database", "restore it from a backup"),
    "an early schema": ("no such table: experiments", "mlflow db upgrade"),
    "a later release": ("Can't locate revision identified by 'ffffffffffff'", "install that release"),
}


def made(kind: str, folder: Path) -> Settings:
    settings = new_settings(folder)
    path = Path(settings.registry_uri.removeprefix("sqlite:///"))
    path.unlink(missing_ok=True)
    if kind == "a text":
        path.write_text("no database at all, " * 100)
        return settings
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        if kind == "an early schema":
            database.execute("INSERT INTO alembic_version VALUES ('451aebb31d03')")
        else:
            for table in ("experiments", "runs", "registered_models", "model_versions"):
                database.execute(f"CREATE TABLE {table} (a)")
            database.execute("INSERT INTO alembic_version VALUES ('ffffffffffff')")
    return settings


def tracking_of(settings: Settings) -> Finding:
    return next(finding for finding in examine(settings) if finding.variable == "DECISION_TRACKING_URI")


@pytest.mark.parametrize("kind", KINDS)
def test_the_doctor_and_whoever_asks_for_versions_say_what_is_wrong_and_what_to_do(kind: str, tmp_path: Path) -> None:
    settings, (wrong, to_do) = made(kind, tmp_path), KINDS[kind]
    finding = tracking_of(settings)
    assert not finding.reachable
    assert wrong in finding.advice
    assert to_do in finding.advice
    with pytest.raises(RegistryError, match=r"mlflow\.db: .*; .*(restore|install)"):
        Tracking(settings).model_names()
    with pytest.raises(RegistryError, match=r"mlflow\.db: .*; .*(restore|install)"):
        Registry(settings).versions("news")


def test_a_whole_database_of_a_later_release_is_not_called_out_of_date(tmp_path: Path) -> None:
    settings = new_settings(tmp_path)
    path = Path(settings.registry_uri.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    assert "install that release" in tracking_of(settings).advice
    with pytest.raises(RegistryError, match=r"Can't locate revision identified by 'ffffffffffff'; a later release"):
        Tracking(settings).new_run("news")


def test_a_database_with_nothing_of_mlflows_is_none_that_is_wrong(tmp_path: Path) -> None:
    settings = new_settings(tmp_path)
    path = Path(settings.registry_uri.removeprefix("sqlite:///"))
    assert tracking_of(settings).reachable  # there is none yet
    path.touch()
    assert tracking_of(settings).reachable
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE mine (a)")
    assert tracking_of(settings).reachable
    assert not tracking_of(settings).advice


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read what is closed")
def test_a_database_that_is_closed_to_this_user_is_said_to_be(tmp_path: Path) -> None:
    settings = new_settings(tmp_path)
    path = Path(settings.registry_uri.removeprefix("sqlite:///"))
    path.touch(mode=0o000)
    assert "closed to the user who runs this" in tracking_of(settings).advice
