"""Who is in charge, kept in State: the row decides, and MLflow's aliases and tags mirror it, for people.

    loop/NAME/charge             where the aliases stand, and how many verdicts there are
    verdict/NAME/NUMBER          each verdict, in the same change as the move that it explains
    registered/NAME/NUMBER       the versions, as MLflow has them
    registry/adopted             what was known before there was State has been taken over
    registry/mirrored            how many verdicts of each loop MLflow was told of

A move is made from what was read: of two machines that move an alias at once, one does, and the other looks again.
Nobody waits for the seconds that MLflow takes to import before a loop is rolled back, or before somebody sees who is in
charge.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from decision.errors import FieldError
from pipelines.registry.charge import Chosen, MovedError, Version, WrittenVerdict
from pipelines.registry.former import Known, known_of
from pipelines.registry.served import ServedCharge
from pipelines.registry.tracking import RegistryError
from pipelines.state.failures import StaleError, StateError
from pipelines.state.rows import read_json
from pipelines.state.state import Lease, State

_ADOPTED, _MIRRORED = "registry/adopted", "registry/mirrored"
_MIRROR_S = 60.0
_LOOK_S = 0.05


class _Stands(msgspec.Struct, frozen=True):
    aliases: dict[str, str] = {}
    verdicts: int = 0


class StatedCharge:
    """A `Charge` in State.

    Args:
        state: State.
        mlflow: the same in MLflow, the mirror.
        file: State's own file where it is one in the home folder; it is not made before there is something to keep.
        database: an embedded MLflow's file, None for a server. What is known there, or in the file beside it where an
            earlier release kept it, is taken over once.
    """

    def __init__(self, state: State, mlflow: ServedCharge, *, file: Path | None, database: Path | None) -> None:
        self._state, self._mlflow = state, mlflow
        self._file, self._database = file, database
        self._adopted = False

    def versions(self, loop: str) -> list[Version]:
        """Return the versions, oldest first."""
        with self._opened() as there:
            found = self._state.entries(f"registered/{loop}/") if there else {}
            return [read_json(key, found[key].value, Version) for key in sorted(found)]

    def aliases(self, loop: str) -> dict[str, str]:
        """Return where the aliases stand."""
        with self._opened() as there:
            return self._stands(loop)[1].aliases if there else {}

    def verdicts(self, loop: str) -> list[WrittenVerdict]:
        """Return the verdicts, oldest first."""
        with self._opened() as there:
            found = self._state.entries(f"verdict/{loop}/") if there else {}
            return [read_json(key, found[key].value, WrittenVerdict) for key in sorted(found)]

    def write(self, loop: str, written: WrittenVerdict) -> None:
        """Keep a verdict and move its alias, from where it says that the alias stood."""
        with self._opened(make=True):
            version, stands = self._stands(loop)
            if written.number != stands.verdicts + 1:
                raise MovedError(f"{loop} has verdict {written.number} already")
            aliases = dict(stands.aliases)
            if written.alias:
                if aliases.pop(written.alias, None) != written.from_version:
                    raise MovedError(f"{written.alias} of {loop} stands no more at {written.from_version}")
                aliases |= {} if written.to_version is None else {written.alias: written.to_version}
            now = _Stands(aliases, written.number)
            try:
                self._state.put(
                    {
                        charge_key(loop): (version, msgspec.json.encode(now)),
                        _verdict(loop, written.number): (None, msgspec.json.encode(written)),
                    },
                    by=written.by,
                )
            except StaleError as error:
                raise MovedError(f"{loop}: somebody else wrote a verdict") from error

    def registered(self, loop: str) -> None:
        """Take notice of the versions that MLflow has."""
        with self._opened(make=True):
            known = self._state.versions(f"registered/{loop}/")
            for version in self._mlflow.versions(loop):
                if _version(loop, version) not in known:
                    with suppress(StaleError):  # another process took notice of it
                        self._state.put({_version(loop, version): (None, msgspec.json.encode(version))})

    def let_go(self, loop: str, chosen: Chosen) -> list[Version]:
        """Mark versions as going, and return all that are.

        The change hangs on where the aliases stood: who moves one to a version that goes finds out, or this one does.
        """
        with self._opened() as there:
            if not there:
                return []
            at, stands = self._stands(loop)
            rows = self._state.entries(f"registered/{loop}/")
            known = {key: read_json(key, row.value, Version) for key, row in sorted(rows.items())}
            which = set(chosen(list(known.values()), stands.aliases, self.verdicts(loop)))
            marked = {
                key: msgspec.structs.replace(version, kept="going")
                for key, version in known.items()
                if version.version in which and version.kept == "whole"
            }
            if marked:
                changes: dict[str, tuple[int | None, bytes | None]] = {
                    key: (rows[key].version, msgspec.json.encode(version)) for key, version in marked.items()
                }
                try:
                    self._state.put({charge_key(loop): (at, msgspec.json.encode(stands)), **changes}, by="tidied")
                except StaleError as error:
                    raise MovedError(f"{loop}: an alias was moved meanwhile") from error
            return [version for version in (known | marked).values() if version.kept == "going"]

    def gone(self, loop: str, version: str) -> None:
        """Mark a version that was going as gone."""
        with self._opened(), suppress(StaleError):  # another process marked it
            key = _key_of(loop, version)
            row = self._state.get(key)
            if row is not None:
                gone = msgspec.structs.replace(read_json(key, row.value, Version), kept="gone")
                self._state.put({key: (row.version, msgspec.json.encode(gone))}, by="tidied")

    def mirror(self) -> None:
        """Tell MLflow of the verdicts that it does not know, in their order, and where their aliases went."""
        with self._opened() as there:
            if not there or not self._waiting():
                return
            lease = self._turn()
            try:
                for loop, written in self._waiting():
                    self._mlflow.write(loop, written)
                    self._told(loop, written.number)
                    self._state.renew(lease, _MIRROR_S)
            finally:
                self._state.release(lease)

    def _turn(self) -> Lease:
        """Return the lease to mirror: two that told MLflow at once could leave an alias at the earlier of two moves."""
        for _ in range(round(2 * _MIRROR_S / _LOOK_S)):
            lease = self._state.acquire("registry/mirror", _MIRROR_S)
            if lease is not None:
                return lease
            time.sleep(_LOOK_S)
        raise RegistryError("registry/mirror: another process has been telling MLflow for too long")

    def _waiting(self) -> list[tuple[str, WrittenVerdict]]:
        told = self._mirrored()[1]
        found: list[tuple[str, WrittenVerdict]] = []
        for key in self._state.versions("loop/"):
            loop, kind = key.split("/")[1:3]
            if kind == "charge" and self._stands(loop)[1].verdicts > told.get(loop, 0):
                found += [(loop, written) for written in self.verdicts(loop) if written.number > told.get(loop, 0)]
        return found

    def _told(self, loop: str, number: int) -> None:
        version, told = self._mirrored()
        self._state.put({_MIRRORED: (version, msgspec.json.encode({**told, loop: number}))})

    def _mirrored(self) -> tuple[int | None, dict[str, int]]:
        entry = self._state.get(_MIRRORED)
        return (None, {}) if entry is None else (entry.version, read_json(_MIRRORED, entry.value, dict[str, int]))

    def _stands(self, loop: str) -> tuple[int | None, _Stands]:
        entry = self._state.get(charge_key(loop))
        if entry is None:
            return None, _Stands()
        return entry.version, read_json(charge_key(loop), entry.value, _Stands)

    @contextmanager
    def _opened(self, *, make: bool = False) -> Iterator[bool]:
        """Yield whether there is anything to read yet; what was known before there was State is taken over first."""
        try:
            former = self._database is not None and self._database.is_file()
            there = make or self._file is None or self._file.is_file() or former
            if there and self._file is not None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            if there and not self._adopted:
                self._adopt()
            yield there
        except (StateError, FieldError, OSError) as error:
            if isinstance(error, FieldError) and error.field != "state":
                raise
            raise RegistryError(str(error)) from error

    def _adopt(self) -> None:
        if self._state.get(_ADOPTED) is None:
            changes: dict[str, tuple[int | None, bytes | None]] = {_ADOPTED: (None, b"")}
            told: dict[str, int] = {}
            for known in known_of(self._database, self._mlflow):
                changes |= _changes(known)
                told[known.loop] = known.mirrored
            changes[_MIRRORED] = (None, msgspec.json.encode(told))
            with suppress(StaleError):  # another process took it over
                self._state.put(changes, by="taken over")
        self._adopted = True


def aliases_in(loop: str, value: bytes) -> dict[str, str]:
    """Return where the aliases of a loop stand, as is written under its `charge_key`.

    Raises:
        DamagedRowError: that does not fit.
    """
    return read_json(charge_key(loop), value, _Stands).aliases


def _changes(known: Known) -> dict[str, tuple[int | None, bytes | None]]:
    number = max((written.number for written in known.verdicts), default=0)
    found = {charge_key(known.loop): msgspec.json.encode(_Stands(known.aliases, number))}
    found |= {_verdict(known.loop, written.number): msgspec.json.encode(written) for written in known.verdicts}
    found |= {_version(known.loop, version): msgspec.json.encode(version) for version in known.versions}
    return {key: (None, value) for key, value in found.items()}


def charge_key(loop: str) -> str:
    """Return the key of where a loop's aliases stand."""
    return f"loop/{loop}/charge"


def _verdict(loop: str, number: int) -> str:
    return f"verdict/{loop}/{number:09d}"


def _version(loop: str, version: Version) -> str:
    return _key_of(loop, version.version)


def _key_of(loop: str, version: str) -> str:
    return f"registered/{loop}/{int(version):09d}"
