"""Policies and who is in charge: versions, aliases, and a written verdict beside every alias that moves.

A registered model of MLflow is a loop; a version is a run whose artifact folder ``policy`` holds the packed files.
Aliases: ``champion`` decides, ``baseline`` is the reference, ``candidate`` is being rolled out. No alias moves without
its reasons. State keeps them, and MLflow's are the mirror; a server of MLflow that several homes share without a State
that they share keeps them itself. Files are held against the digest that State has of their version (`pins.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec

from decision.errors import FieldError, Words
from decision.validation import prepared
from pipelines.registry.cache import ModelCache, manifest_digest, verify
from pipelines.registry.charge import ALIASES, Alias, Charge, Chosen, MovedError, Version, WrittenVerdict
from pipelines.registry.pins import Pins
from pipelines.registry.served import ServedCharge
from pipelines.registry.stated import StatedCharge
from pipelines.registry.tracking import MissingError, RegistryError, Tracking
from pipelines.settings import Settings, check_loop_name
from pipelines.state.state import State

_log = logging.getLogger(__name__)

MAX_VERDICT_CHARS = 90_000  # MLflow keeps 100,000 per tag

_ATTEMPTS = 100
_FOLDER = "policy"
_KEY, _DIGEST = "key", "manifest_sha256"
_ANY = "*"
Said = tuple[str, str]
"""A description of a version in a sentence or two, and its card as Markdown."""


class AliasMovedError(RegistryError):
    """Someone else moved the alias since it was read; look again and decide again."""


class AlteredError(RegistryError):
    """What the registry holds of a version is not what was registered."""


class Registry:
    """Versions, aliases and verdicts of an installation's loops; safe to share between threads.

    MLflow is imported and its tables are made on the first call that needs them: seconds, once. Who is in charge, and
    the versions that this machine has, are answered without it, but for a server that keeps them itself.

    Args:
        settings: the installation.

    Attributes:
        is_stated: whether State keeps who is in charge; else an MLflow server does alone.
    """

    def __init__(self, settings: Settings) -> None:
        self._tracking = Tracking(settings)
        self._cache = ModelCache(settings.root / "cache" / "models")
        state = State(settings.state_url)
        self._charge: Charge = _charge_of(settings, self._tracking, state)
        self._pins = Pins(state, settings.state_file)
        self.is_stated = isinstance(self._charge, StatedCharge)
        self._warned = False

    def warm(self) -> None:
        """Import MLflow if every look at the aliases needs it, and touch nothing else."""
        if not self.is_stated:
            self._tracking.warm()

    def open(self) -> None:
        """Import MLflow and make its tables now: seconds, which the first call that needs them takes otherwise.

        Raises:
            RegistryError: the registry cannot be reached.
        """
        with self._tracking.client():
            pass

    def register(
        self,
        loop: str,
        files: Mapping[str, bytes],
        *,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, Any] | None = None,
        plots: Mapping[str, bytes] | None = None,
        tags: Mapping[str, str] | None = None,
        words: Said | None = None,
        key: str = "",
    ) -> str:
        """Store a packed policy and return its new version.

        Args:
            loop: the loop it decides for.
            files: {name: bytes} with a ``manifest.json`` that names the sha256 of each of the others.
            metrics: numbers about it; those that are not finite are left out.
            params: what it was made with.
            plots: {file name: bytes}, for example ``calibration.png``.
            tags: more about the version, {name: text}.
            words: what it is, as its run's description, and its card in Markdown.
            key: a version that was registered under the same key before is returned instead of a second one.

        Raises:
            FieldError: the files do not fit their manifest, or a name is none.
            RegistryError: the registry cannot be reached, or gave the new version a number that is taken.
        """
        check_loop_name(loop)
        verify(files)
        self._charge.registered(loop)  # a version whose registration a crash cut short is one, too
        if key and (known := next((v.version for v in self.versions(loop) if v.tags.get(_KEY) == key), None)):
            return known
        run_id = self._tracking.new_run(loop)
        self._tracking.upload(run_id, _FOLDER, files)
        self._tracking.describe(run_id, metrics or {}, params or {}, plots or {})
        if words is not None:
            self._tracking.note(run_id, *words)
        digest = manifest_digest(files)
        all_tags = {_DIGEST: digest, **({_KEY: key} if key else {}), **(tags or {})}
        # The version comes last: a crash before leaves a run that nothing refers to.
        version = self._tracking.new_version(loop, run_id, _FOLDER, all_tags)
        if self._pins.keep(loop, version, digest) != digest:
            raise RegistryError(
                f"MLflow calls a new version of {loop} version {version}, and State knows other files by that number: "
                "MLflow was changed or begun anew; restore it from a backup, or start a home or State of its own"
            )
        self._charge.registered(loop)
        self._cache.put(loop, version, files)
        return version

    def describe(
        self,
        loop: str,
        version: str,
        *,
        metrics: Mapping[str, float] | None = None,
        plots: Mapping[str, bytes] | None = None,
        words: Said | None = None,
    ) -> None:
        """Add metrics and plots to a version, and say in other words what it is.

        Raises:
            RegistryError: there is no such version, or the registry cannot be reached.
        """
        run_id = self._run_id(loop, version)
        self._tracking.describe(run_id, metrics or {}, {}, plots or {})
        if words is not None:
            self._tracking.note(run_id, *words)

    def said(self, loop: str, version: str) -> Said:
        """Return what is said of a version: its description and its card, "" where it has none.

        Raises:
            RegistryError: there is no such version, or the registry cannot be reached.
        """
        return self._tracking.noted(self._run_id(loop, version))

    def files(self, loop: str, version: str) -> dict[str, bytes]:
        """Return the packed files of a version, every hash checked.

        When the registry is away the copy on this machine answers, and likewise where the registry was changed since.

        Raises:
            AlteredError: what the registry holds is not what was registered, or passes the limits.
            RegistryError: there is no such version, or neither the registry nor this machine has it.
        """
        cached = self._cache.files(check_loop_name(loop), version)
        copied = None if cached is None else manifest_digest(cached)
        pinned: str | None = None
        try:
            pinned = self._pins.of(loop, version)
            known = self._version(loop, version)
        except MissingError:
            raise
        except RegistryError:
            if cached is None or pinned not in (None, copied):
                raise
            return cached
        told = known.tags.get(_DIGEST, "")
        wanted = pinned or told
        if told != wanted:
            _log.warning("MLflow's tag %s of version %s of %s was changed", _DIGEST, version, loop)
        if cached is None or copied != wanted:
            cached = self._fetched(loop, known, wanted)
            self._cache.put(loop, version, cached)
        if pinned is None:
            self._pins.seen(loop, version, wanted)
        return cached

    def aliases(self, loop: str) -> dict[str, str]:
        """Return where the loop's aliases stand, {alias: version}; a few milliseconds.

        When the registry is away the aliases last seen by this machine answer, with a warning in the log.

        Raises:
            RegistryError: the registry cannot be reached and this machine never saw it.
        """
        try:
            found = self._charge.aliases(check_loop_name(loop))
        except RegistryError as error:
            last = self._cache.aliases(loop)
            if last is None:
                raise
            if not self._warned:
                _log.warning("the registry is away, serving the aliases last seen: %s", error)
            self._warned = True
            return last
        self._warned = False
        if found != (self._cache.aliases(loop) or {}):
            self._cache.put_aliases(loop, found)
        return found

    def set_alias(
        self,
        loop: str,
        alias: Alias,
        version: str | None,
        verdict: Mapping[str, Any],
        *,
        expected: str | None = _ANY,
        mirror: bool = True,
    ) -> WrittenVerdict:
        """Move an alias, with the verdict that says why.

        The comparison with `expected` holds between all machines that share State. Where an MLflow server keeps the
        aliases itself, it holds between the processes of one home folder: promote each loop from one machine.

        Args:
            loop: the loop.
            alias: the alias to move.
            version: where to; None takes the alias away.
            verdict: fields of `WrittenVerdict` (``verdict, reasons, numbers, at, by``); the rest is filled in here.
            expected: where the alias has to stand now (None: nowhere) for the move to happen.
            mirror: tell MLflow, too; without, the next move does, or `mirror`.

        Raises:
            AliasMovedError: the alias stands elsewhere than expected.
            RegistryError: there is no such version, or the registry cannot be reached.
        """
        if alias not in ALIASES:
            raise FieldError.choice("alias", list(ALIASES), alias)

        def move() -> WrittenVerdict:
            stands = self._charge.aliases(check_loop_name(loop)).get(alias)
            if expected not in (_ANY, stands):
                raise AliasMovedError(f"{alias} of {loop}: expected version {expected}, found {stands}")
            on = version or stands
            if on is None:
                raise MissingError(f"{alias} of {loop} stands nowhere already")
            return self._write(loop, on, {**verdict, "alias": alias, "from": stands, "to": version})

        written = self._again(move)
        if mirror:
            self.mirror()
        return written

    def refuse(self, loop: str, version: str, verdict: Mapping[str, Any]) -> WrittenVerdict:
        """Write a verdict that moves nothing.

        Raises:
            RegistryError: there is no such version, or the registry cannot be reached.
        """
        fields = {**verdict, "alias": "", "from": None, "to": None}
        written = self._again(lambda: self._write(check_loop_name(loop), version, fields))
        self.mirror()
        return written

    def mirror(self) -> None:
        """Tell MLflow of moves that it does not know; if it is away, it learns of them by the next that come through.

        On a server, where MLflow itself keeps them, there is nothing to tell.
        """
        if not self.is_stated:
            return
        try:
            with self._tracking.client():  # before the lock: it may take seconds
                pass
            with self._tracking.lock("registry"):
                self._charge.mirror()
        except RegistryError as error:
            _log.warning("MLflow does not show the last moves yet: %s", error)

    def versions(self, loop: str) -> list[Version]:
        """Return the loop's versions, oldest first; none for a loop that was never trained.

        Raises:
            RegistryError: the registry cannot be reached.
        """
        return self._charge.versions(check_loop_name(loop))

    def let_go(self, loop: str, chosen: Chosen) -> list[Version]:
        """Mark versions as going, which nobody can load or put in charge from then on; return all that are going.

        Where an MLflow server keeps the aliases itself none goes.

        Args:
            loop: the loop.
            chosen: which, by number; those that aliases stand at stay in any case.

        Raises:
            AliasMovedError: somebody moved an alias meanwhile; nothing was marked.
            RegistryError: State does not answer.
        """

        def free(known: list[Version], aliases: dict[str, str], verdicts: list[WrittenVerdict]) -> set[str]:
            return set(chosen(known, aliases, verdicts)) - set(aliases.values())

        try:
            return self._charge.let_go(check_loop_name(loop), free)
        except MovedError as error:
            raise AliasMovedError(str(error)) from error

    def size(self, loop: str, version: Version) -> int:
        """Return the bytes of a version's files and plots in MLflow; 0 where they are gone.

        Raises:
            RegistryError: MLflow does not answer.
        """
        return self._tracking.size(version.run_id)

    def remove(self, loop: str, version: Version) -> None:
        """Remove a version that is going: files, plots and numbers. Its tags and verdicts stay in State.

        Raises:
            RegistryError: MLflow does not answer; call again.
        """
        self._tracking.remove(loop, version.version, version.run_id)
        self._cache.drop(loop, version.version)
        self._charge.gone(loop, version.version)

    def metrics(self, loop: str, version: str) -> dict[str, float]:
        """Return the latest value of each metric of a version.

        Raises:
            RegistryError: there is no such version, or the registry cannot be reached.
        """
        with self._tracking.client() as client:
            return dict(client.get_run(self._run_id(loop, version)).data.metrics)

    def verdicts(self, loop: str) -> list[WrittenVerdict]:
        """Return the loop's verdicts, oldest first.

        Raises:
            RegistryError: the registry cannot be reached.
        """
        return self._charge.verdicts(check_loop_name(loop))

    def _again(self, write: Callable[[], WrittenVerdict]) -> WrittenVerdict:
        """Return what `write` wrote, which looks and decides again where another machine was faster."""
        for _ in range(_ATTEMPTS):
            with self._tracking.lock("registry"), suppress(MovedError):
                return write()
        raise RegistryError("other machines kept writing verdicts; ask again")

    def _write(self, loop: str, version: str, verdict: Mapping[str, Any]) -> WrittenVerdict:
        number = max((written.number for written in self.verdicts(loop)), default=0) + 1
        fields = {"at": datetime.now(UTC).isoformat(), **verdict, "number": number, "version": version}
        written = msgspec.convert(fields, prepared(WrittenVerdict))
        text = msgspec.json.encode(written).decode()
        if len(text) > MAX_VERDICT_CHARS:
            raise FieldError("verdict", wanted=f"at most {MAX_VERDICT_CHARS} characters", got=len(text))
        self._version(loop, version)
        self._charge.write(loop, written)
        return written

    def _fetched(self, loop: str, known: Version, wanted: str) -> dict[str, bytes]:
        """Return the files that MLflow has of a version, whose manifest has to have the digest `wanted`."""
        try:
            files = self._tracking.download(known.run_id, _FOLDER)
            verify(files)
            if manifest_digest(files) != wanted:
                raise FieldError("manifest.json", wanted=f"sha256 {wanted}", got=Words(manifest_digest(files)))
        except FieldError as error:
            raise AlteredError(
                f"version {known.version} of {loop} is not what was registered: {error}; restore the artifacts of run "
                f"{known.run_id} in MLflow from a backup, or leave the version with `decision rollback {loop}`, and "
                "find out who can write to MLflow's files"
            ) from error
        return files

    def _run_id(self, loop: str, version: str) -> str:
        return self._version(check_loop_name(loop), version).run_id

    def _version(self, loop: str, version: str) -> Version:
        for known in reversed(self._charge.versions(loop)):
            if known.version != version:
                continue
            if known.kept != "whole":
                raise MissingError(f"version {version} of {loop} is gone: it was older than retention.versions_days")
            return known
        raise MissingError(f"version {version} of {loop} not found")


def _charge_of(settings: Settings, tracking: Tracking, state: State) -> Charge:
    mlflow, database = ServedCharge(tracking), tracking.database
    if not settings.state and database is None:
        return mlflow
    return StatedCharge(state, mlflow, file=settings.state_file, database=database)
