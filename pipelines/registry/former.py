"""What a registry knew before State kept it: in the file of an earlier release, else in MLflow itself."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec

from decision.validation import prepared
from pipelines.registry.charge import Version, WrittenVerdict
from pipelines.registry.served import ServedCharge
from pipelines.registry.tracking import RegistryError


class Known(NamedTuple):
    """What is known of a loop.

    Attributes:
        loop: its name.
        aliases: where they stand.
        versions: oldest first.
        verdicts: oldest first.
        mirrored: number of the last verdict that MLflow has.
    """

    loop: str
    aliases: dict[str, str]
    versions: list[Version]
    verdicts: list[WrittenVerdict]
    mirrored: int


def known_of(database: Path | None, mlflow: ServedCharge) -> list[Known]:
    """Return what is known of every loop.

    Args:
        database: an embedded MLflow's file, None for a server.
        mlflow: MLflow.

    Raises:
        RegistryError: it cannot be read.
    """
    file = None if database is None else database.with_suffix(".charge.db")
    if file is not None and file.is_file():
        return _in_file(file)
    if database is not None and not database.is_file():
        return []
    return [_in_mlflow(loop, mlflow) for loop in mlflow.loops()]


def _in_mlflow(loop: str, mlflow: ServedCharge) -> Known:
    verdicts = mlflow.verdicts(loop)
    last = verdicts[-1].number if verdicts else 0
    return Known(loop, mlflow.aliases(loop), mlflow.versions(loop), verdicts, last)


def _in_file(path: Path) -> list[Known]:
    try:
        with closing(sqlite3.connect(path)) as connection:
            names = [row[0] for row in connection.execute("SELECT loop FROM versions UNION SELECT loop FROM verdicts")]
            return [_of(connection, loop) for loop in sorted(names)]
    except (sqlite3.Error, msgspec.DecodeError) as error:
        raise RegistryError(f"{path}: {error}") from error


def _of(connection: sqlite3.Connection, loop: str) -> Known:
    aliases = dict(connection.execute("SELECT alias, version FROM aliases WHERE loop = ?", (loop,)).fetchall())
    versions = connection.execute("SELECT body FROM versions WHERE loop = ? ORDER BY version", (loop,)).fetchall()
    verdicts = connection.execute(
        "SELECT body, mirrored FROM verdicts WHERE loop = ? ORDER BY number", (loop,)
    ).fetchall()
    written = [msgspec.json.decode(body, type=prepared(WrittenVerdict)) for body, _ in verdicts]
    # Told in their order: the first that MLflow was not told of is followed by none that it was.
    told = [entry.number for entry, (_, mirrored) in zip(written, verdicts, strict=True) if mirrored]
    known = [msgspec.json.decode(body, type=prepared(Version)) for (body,) in versions]
    return Known(loop, aliases, known, written, max(told, default=0))
