"""Policies and who is in charge: versions, aliases, and a written verdict beside every alias that moves.

A registered model of MLflow is a loop; a version is a run whose artifact folder ``policy`` holds the packed files.
Aliases: ``champion`` decides, ``baseline`` is the reference, ``candidate`` is being rolled out. A verdict is written
first and the alias moved after it, under one lock, so that no move is without its reasons; a verdict whose move a
crash prevented is recognised by `moves`, because the next one does not start from it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from decision.errors import FieldError
from pipelines.registry.cache import ModelCache, manifest_digest, verify
from pipelines.registry.tracking import MissingError, RegistryError, Tracking
from pipelines.settings import Settings, check_loop_name

_log = logging.getLogger(__name__)

Alias = Literal["champion", "candidate", "baseline"]
ALIASES = ("champion", "candidate", "baseline")
MAX_VERDICT_CHARS = 90_000  # MLflow keeps 100,000 per tag

_FOLDER = "policy"
_KEY, _DIGEST = "key", "manifest_sha256"
_VERDICT = re.compile(r"verdict\.(\d{6})")
_ANY = "*"


class AliasMovedError(RegistryError):
    """Someone else moved the alias since it was read; look again and decide again."""


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One registered version.

    Attributes:
        version: its number, as text.
        run_id: MLflow's run with its files, metrics and plots.
        created_at: when it was registered, UTC.
        tags: its tags without the verdicts.
    """

    version: str
    run_id: str
    created_at: datetime
    tags: dict[str, str]


class WrittenVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One verdict as it stands in the registry.

    Attributes:
        number: position in the loop's history, from 1.
        version: the version it was passed on.
        alias: the alias that was to move; "" for a refusal.
        verdict: ``promoted``, ``refused``, ``rolled_back`` or ``set``.
        reasons: why, in words.
        numbers: the numbers it rests on.
        from_version: where the alias stood (JSON key ``from``); None for nowhere.
        to_version: where it went (``to``); None for nowhere.
        at: when, ISO 8601 UTC.
        by: who asked.
    """

    number: int
    version: str
    alias: str = ""
    verdict: str = "set"
    reasons: list[str] = []
    numbers: dict[str, float | None] = {}
    from_version: str | None = msgspec.field(default=None, name="from")
    to_version: str | None = msgspec.field(default=None, name="to")
    at: str = ""
    by: str = ""


class Registry:
    """Versions, aliases and verdicts of an installation's loops; safe to share between threads.

    MLflow is imported and its tables are made on the first call that needs them: seconds, once.

    Args:
        settings: the installation.
    """

    def __init__(self, settings: Settings) -> None:
        self._tracking = Tracking(settings)
        self._cache = ModelCache(settings.root / "cache" / "models")
        self._warned = False

    def warm(self) -> None:
        """Import MLflow, and touch nothing else."""
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
            key: a version that was registered under the same key before is returned instead of a second one.

        Raises:
            FieldError: the files do not fit their manifest, or a name is none.
            RegistryError: the registry cannot be reached.
        """
        check_loop_name(loop)
        verify(files)
        if key and (known := next((v.version for v in self.versions(loop) if v.tags.get(_KEY) == key), None)):
            return known
        run_id = self._tracking.new_run(loop)
        self._tracking.upload(run_id, _FOLDER, files)
        self._tracking.describe(run_id, metrics or {}, params or {}, plots or {})
        all_tags = {_DIGEST: manifest_digest(files), **({_KEY: key} if key else {}), **(tags or {})}
        # The version comes last: a crash before leaves a run that nothing refers to.
        version = self._tracking.new_version(loop, run_id, _FOLDER, all_tags)
        self._cache.put(loop, version, files)
        return version

    def describe(
        self,
        loop: str,
        version: str,
        *,
        metrics: Mapping[str, float] | None = None,
        plots: Mapping[str, bytes] | None = None,
    ) -> None:
        """Add metrics and plots to a version.

        Raises:
            RegistryError: there is no such version, or the registry cannot be reached.
        """
        self._tracking.describe(self._run_id(loop, version), metrics or {}, {}, plots or {})

    def files(self, loop: str, version: str) -> dict[str, bytes]:
        """Return the packed files of a version, every hash checked.

        When the registry is away the copy on this machine answers.

        Raises:
            FieldError: what the registry holds does not fit its manifest or the limits.
            RegistryError: there is no such version, or neither the registry nor this machine has it.
        """
        cached = self._cache.files(check_loop_name(loop), version)
        try:
            with self._tracking.client() as client:
                model = client.get_model_version(loop, version)
            digest = model.tags.get(_DIGEST, "")
            if cached is not None and manifest_digest(cached) == digest:
                return cached
            files = self._tracking.download(str(model.run_id), _FOLDER)
        except MissingError:
            raise
        except RegistryError:
            if cached is None:
                raise
            return cached
        verify(files)
        if manifest_digest(files) != digest:
            raise FieldError("manifest.json", wanted=f"sha256 {digest}", got=manifest_digest(files))
        self._cache.put(loop, version, files)
        return files

    def aliases(self, loop: str) -> dict[str, str]:
        """Return where the loop's aliases stand, {alias: version}; a few milliseconds.

        When the registry is away the aliases last seen by this machine answer, with a warning in the log.

        Raises:
            RegistryError: the registry cannot be reached and this machine never saw it.
        """
        try:
            found = self._aliases(check_loop_name(loop))
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
    ) -> WrittenVerdict:
        """Move an alias, with the verdict that says why.

        The comparison with `expected` holds between the processes of one home folder; with a shared MLflow server,
        promote each loop from one machine.

        Args:
            loop: the loop.
            alias: the alias to move.
            version: where to; None takes the alias away.
            verdict: fields of `WrittenVerdict` (``verdict, reasons, numbers, at, by``); the rest is filled in here.
            expected: where the alias has to stand now (None: nowhere) for the move to happen.

        Raises:
            AliasMovedError: the alias stands elsewhere than expected.
            RegistryError: there is no such version, or the registry cannot be reached.
        """
        if alias not in ALIASES:
            raise FieldError.choice("alias", list(ALIASES), alias)
        with self._tracking.lock("registry"):
            stands = self._aliases(check_loop_name(loop)).get(alias)
            if expected not in (_ANY, stands):
                raise AliasMovedError(f"{alias} of {loop}: expected version {expected}, found {stands}")
            on = version or stands
            if on is None:
                raise MissingError(f"{alias} of {loop} stands nowhere already")
            written = self._write(loop, on, {**verdict, "alias": alias, "from": stands, "to": version})
            with self._tracking.client() as client:
                if version is None:
                    client.delete_registered_model_alias(loop, alias)
                else:
                    client.set_registered_model_alias(loop, alias, version)
        return written

    def refuse(self, loop: str, version: str, verdict: Mapping[str, Any]) -> WrittenVerdict:
        """Write a verdict that moves nothing.

        Raises:
            RegistryError: there is no such version, or the registry cannot be reached.
        """
        with self._tracking.lock("registry"):
            return self._write(check_loop_name(loop), version, {**verdict, "alias": "", "from": None, "to": None})

    def versions(self, loop: str) -> list[Version]:
        """Return the loop's versions, oldest first; none for a loop that was never trained.

        Raises:
            RegistryError: the registry cannot be reached.
        """
        return [
            Version(
                version=str(model.version),
                run_id=model.run_id or "",
                created_at=datetime.fromtimestamp(model.creation_timestamp / 1000, UTC),
                tags={name: text for name, text in model.tags.items() if not _VERDICT.fullmatch(name)},
            )
            for model in self._tracking.models(check_loop_name(loop))
        ]

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
        found = [
            msgspec.json.decode(text, type=WrittenVerdict)
            for model in self._tracking.models(check_loop_name(loop))
            for name, text in model.tags.items()
            if _VERDICT.fullmatch(name)
        ]
        return sorted(found, key=lambda verdict: verdict.number)

    def _write(self, loop: str, version: str, verdict: Mapping[str, Any]) -> WrittenVerdict:
        number = max((written.number for written in self.verdicts(loop)), default=0) + 1
        fields = {"at": datetime.now(UTC).isoformat(), **verdict, "number": number, "version": version}
        written = msgspec.convert(fields, WrittenVerdict)
        text = msgspec.json.encode(written).decode()
        if len(text) > MAX_VERDICT_CHARS:
            raise FieldError("verdict", wanted=f"at most {MAX_VERDICT_CHARS} characters", got=len(text))
        self._tracking.upload(self._run_id(loop, version), "verdicts", {f"{number:06d}.json": text.encode()})
        with self._tracking.client() as client:
            client.set_model_version_tag(loop, version, f"verdict.{number:06d}", text)
        return written

    def _run_id(self, loop: str, version: str) -> str:
        with self._tracking.client() as client:
            return str(client.get_model_version(check_loop_name(loop), version).run_id)

    def _aliases(self, loop: str) -> dict[str, str]:
        if not self._tracking.exists:
            return {}
        try:
            with self._tracking.client() as client:
                found = client.get_registered_model(loop).aliases
        except MissingError:
            return {}
        return {name: str(version) for name, version in found.items() if name in ALIASES}


def moves(verdicts: list[WrittenVerdict], alias: Alias, stands: str | None) -> list[WrittenVerdict]:
    """Return the moves of `alias` that happened, oldest first.

    Args:
        verdicts: a loop's history, oldest first.
        alias: the alias followed.
        stands: where it stands now.

    Returns:
        The verdicts that lead to `stands`; one that was written before a crash and never carried out is left out.
    """
    chain: list[WrittenVerdict] = []
    for written in reversed(verdicts):
        if written.alias == alias and written.to_version == stands:
            chain.append(written)
            stands = written.from_version
    return chain[::-1]
