"""Who is in charge, kept in a SQLite file beside an embedded MLflow's own.

This file decides; MLflow's aliases and tags mirror it, for people. A verdict and the move of its alias are one
transaction, and nobody waits for the seconds that MLflow takes to import before a loop is rolled back, or before
somebody sees who is in charge. What the mirror was not told is kept until it was.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from pipelines.files import locked, open_sqlite, transaction
from pipelines.registry.charge import Version, WrittenVerdict
from pipelines.registry.served import ServedCharge
from pipelines.registry.tracking import RegistryError

_SCHEMA = """
CREATE TABLE versions (loop TEXT, version INTEGER, body BLOB NOT NULL, PRIMARY KEY (loop, version));
CREATE TABLE aliases (loop TEXT, alias TEXT, version TEXT NOT NULL, PRIMARY KEY (loop, alias));
CREATE TABLE verdicts (
    loop TEXT, number INTEGER, body BLOB NOT NULL, mirrored INTEGER NOT NULL, PRIMARY KEY (loop, number));
"""
_BUSY_S = 30.0


class EmbeddedCharge:
    """A `Charge` in a file.

    Args:
        database: MLflow's SQLite file; ours stands beside it. What an MLflow from before knows is taken over once.
        mlflow: the same in MLflow, the mirror.
    """

    def __init__(self, database: Path, mlflow: ServedCharge) -> None:
        self._database, self._mlflow = database, mlflow
        self._path = database.with_suffix(".charge.db")

    def versions(self, loop: str) -> list[Version]:
        """Return the versions, oldest first."""
        found = self._bodies("SELECT body FROM versions WHERE loop = ? ORDER BY version", loop)
        return [msgspec.json.decode(body, type=Version) for body in found]

    def aliases(self, loop: str) -> dict[str, str]:
        """Return where the aliases stand."""
        if not self._exists:
            return {}
        with self._open() as connection:
            return dict(connection.execute("SELECT alias, version FROM aliases WHERE loop = ?", (loop,)).fetchall())

    def verdicts(self, loop: str) -> list[WrittenVerdict]:
        """Return the verdicts, oldest first."""
        found = self._bodies("SELECT body FROM verdicts WHERE loop = ? ORDER BY number", loop)
        return [msgspec.json.decode(body, type=WrittenVerdict) for body in found]

    def write(self, loop: str, written: WrittenVerdict) -> None:
        """Keep a verdict and move its alias."""
        with self._open() as connection, transaction(connection):
            _keep(connection, loop, written, mirrored=False)
            if written.alias:
                _point(connection, loop, written.alias, written.to_version)

    def registered(self, loop: str) -> None:
        """Take notice of the versions that MLflow has."""
        versions = self._mlflow.versions(loop)
        with self._open() as connection, transaction(connection):
            for version in versions:
                _enter(connection, loop, version)

    def mirror(self) -> None:
        """Tell MLflow of the verdicts that it does not know, in their order, and where their aliases went."""
        if not self._exists:
            return
        with self._open() as connection:
            waiting = connection.execute(
                "SELECT loop, number, body FROM verdicts WHERE NOT mirrored ORDER BY loop, number"
            ).fetchall()
            for loop, number, body in waiting:
                self._mlflow.write(loop, msgspec.json.decode(body, type=WrittenVerdict))
                connection.execute("UPDATE verdicts SET mirrored = 1 WHERE loop = ? AND number = ?", (loop, number))

    @property
    def _exists(self) -> bool:
        return self._path.is_file() or self._database.is_file()

    def _bodies(self, query: str, loop: str) -> list[bytes]:
        if not self._exists:
            return []
        with self._open() as connection:
            return [body for (body,) in connection.execute(query, (loop,))]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            if not self._path.is_file():
                self._make()
            with closing(open_sqlite(self._path, busy_s=_BUSY_S, synchronous="FULL")) as connection:
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise RegistryError(f"{self._path}: {error}") from error

    def _make(self) -> None:
        """Make the file, whole or not at all, with what MLflow knows by now."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._path.with_suffix(".lock")):
            if self._path.is_file():
                return
            new = self._path.with_suffix(".new")
            new.unlink(missing_ok=True)
            with closing(open_sqlite(new, busy_s=_BUSY_S, synchronous="FULL", schema=_SCHEMA)) as connection:
                for loop in self._mlflow.loops() if self._database.is_file() else []:
                    for version in self._mlflow.versions(loop):
                        _enter(connection, loop, version)
                    for written in self._mlflow.verdicts(loop):
                        _keep(connection, loop, written, mirrored=True)
                    for alias, version in self._mlflow.aliases(loop).items():
                        _point(connection, loop, alias, version)
            os.replace(new, self._path)


def _enter(connection: sqlite3.Connection, loop: str, version: Version) -> None:
    row = (loop, int(version.version), msgspec.json.encode(version))
    connection.execute("INSERT OR REPLACE INTO versions VALUES (?, ?, ?)", row)


def _keep(connection: sqlite3.Connection, loop: str, written: WrittenVerdict, *, mirrored: bool) -> None:
    row: tuple[Any, ...] = (loop, written.number, msgspec.json.encode(written), mirrored)
    connection.execute("INSERT INTO verdicts VALUES (?, ?, ?, ?)", row)


def _point(connection: sqlite3.Connection, loop: str, alias: str, version: str | None) -> None:
    if version is None:
        connection.execute("DELETE FROM aliases WHERE loop = ? AND alias = ?", (loop, alias))
    else:
        connection.execute("INSERT OR REPLACE INTO aliases VALUES (?, ?, ?)", (loop, alias, version))
