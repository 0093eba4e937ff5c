"""What a loop has: its model and its logs."""

from __future__ import annotations

import asyncio
import hashlib
import io
import zipfile
import zlib
from datetime import UTC, datetime
from typing import Any

import msgspec

from decision.artifact import MANIFEST_FILE, MAX_BYTES, unpack
from decision.errors import FieldError
from decision.oracles.files.vw_head import read_head
from pipelines.lake.statistics import actions_of
from pipelines.lake.tables import Tables
from pipelines.registry.registry import AliasMovedError, Registry
from pipelines.registry.tracking import RegistryError
from pipelines.settings import LoopSettings
from serving.http.personalizer.addresses import loop_of, operation, query
from serving.http.personalizer.configuration import BY
from serving.http.personalizer.errors import RefusedError
from serving.problems import unavailable
from serving.routes import Call, Query, Route, read_body

VW_FILE = "model.vw"
MAX_FILES = 100
MAX_ARCHIVE = 64 << 20
"""Bytes of an archive as it is sent."""
_ZIP = b"PK"
"""How an archive begins."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Of the files in an archive: equal versions make equal archives."""


class ModelProperties(msgspec.Struct, rename="camel"):
    """The version in charge.

    Attributes:
        creation_time: when it was trained.
        last_modified_time: when it was put in charge.
    """

    creation_time: datetime
    last_modified_time: datetime


class DateRange(msgspec.Struct, rename={"since": "from", "until": "to"}):
    """From the first decision to the last one, as far as they are in the lake.

    Attributes:
        since: time of the first.
        until: time of the last.
    """

    since: datetime
    until: datetime


class LogsProperties(msgspec.Struct, rename="camel"):
    """What is logged."""

    date_range: DateRange


async def _model_properties(call: Call) -> bytes:
    loop = loop_of(call)
    return msgspec.json.encode(await asyncio.to_thread(_properties, call.core.registry, loop))


async def _model(call: Call) -> bytes:
    loop = loop_of(call)
    signed = query(call).get("signed", "false").lower() == "true"
    return await asyncio.to_thread(_file, call.core.registry, loop, signed=signed)


async def _imports_model(call: Call) -> bytes:
    loop = loop_of(call)
    body = await read_body(call.scope, call.receive, MAX_ARCHIVE)
    now = datetime.fromtimestamp(call.core.clock(), UTC)
    settings = call.core.snapshot(loop).loop
    await asyncio.to_thread(_imported, call.core.registry, settings, body, now)
    return b""


async def _resets_model(call: Call) -> bytes:
    loop = loop_of(call)
    await asyncio.to_thread(_reset, call.core.registry, loop, datetime.fromtimestamp(call.core.clock(), UTC))
    return b""


async def _logs_properties(call: Call) -> bytes:
    loop = loop_of(call)
    return msgspec.json.encode(await asyncio.to_thread(_logged, Tables(call.core.settings.lake_url), loop))


def _champion(registry: Registry, loop: str) -> str:
    champion = registry.aliases(loop).get("champion")
    if champion is None:
        raise RefusedError(404, "ResourceNotFound", "model: no version is in charge yet; the baseline answers")
    return champion


def _properties(registry: Registry, loop: str) -> ModelProperties:
    try:
        champion = _champion(registry, loop)
        made = next(one.created_at for one in registry.versions(loop) if one.version == champion)
        moved = [one.at for one in registry.verdicts(loop) if one.alias == "champion" and one.to_version == champion]
    except RegistryError as error:
        raise unavailable(f"the versions cannot be read: {error}") from error
    return ModelProperties(made, datetime.fromisoformat(moved[-1]) if moved and moved[-1] else made)


def _file(registry: Registry, loop: str, *, signed: bool) -> bytes:
    """Return VW's own file where the version in charge is VW's; of others, and signed, an archive with all hashes."""
    try:
        files = registry.files(loop, _champion(registry, loop))
    except RegistryError as error:
        raise unavailable(f"the version in charge cannot be read: {error}") from error
    if VW_FILE in files and not signed:
        return files[VW_FILE]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    return packed.getvalue()


def _imported(registry: Registry, loop: LoopSettings, body: bytes, now: datetime) -> None:
    """Register a file that was exported, and put it in charge, as an operator's rollback does."""
    from pipelines.training.vw_model import put_in_charge, register_vw_model  # trainers' libraries: seconds

    try:
        if body.startswith(_ZIP):
            version = _archived(registry, loop.name, body)
        else:
            _check_vw(body)
            version = register_vw_model(registry, loop, body, name="model", now=now).version
        put_in_charge(registry, loop.name, version, by=BY, now=now, reason="model imported")
    except FieldError as error:
        raise RefusedError(400, "InvalidModelImportFormat", str(error)) from error
    except RegistryError as error:
        raise unavailable(f"the version cannot be registered: {error}") from error


def _archived(registry: Registry, loop: str, body: bytes) -> str:
    files = _unpacked(body)
    try:
        unpack(files)
    except FieldError as error:
        raise RefusedError(400, "InvalidModelImportSignature", f"model: {error}") from error
    return registry.register(loop, files, key=hashlib.sha256(files[MANIFEST_FILE]).hexdigest())


def _check_vw(body: bytes) -> None:
    try:
        read_head("model", body)
    except FieldError as error:
        raise _no_archive("a VW model file, or an archive that `GET model?signed=true` gave") from error


def _unpacked(body: bytes) -> dict[str, bytes]:
    """Return the files of an exported archive, read no further than a version may be large.

    Raises:
        RefusedError: it is none.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_FILES or sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise _no_archive(f"at most {MAX_FILES} files of {MAX_BYTES} bytes together")
            files: dict[str, bytes] = {}
            for entry in entries:
                with archive.open(entry) as file:  # no further than it says, whatever unpacks from it
                    files[entry.filename] = file.read(entry.file_size)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise _no_archive("an archive that `GET model?signed=true` gave") from error
    if MANIFEST_FILE not in files:
        raise _no_archive(f"an archive with {MANIFEST_FILE}")
    return files


def _no_archive(wanted: str) -> RefusedError:
    message = (
        f"model: must be {wanted}. History makes a version, too: `decision import dsjson LOGS --into LOOP`, "
        "`decision train` and `decision promote`"
    )
    return RefusedError(400, "InvalidModelImportFormat", message)


def _reset(registry: Registry, loop: str, now: datetime) -> None:
    """Take the champion out of charge; the baseline answers until a night promotes a version."""
    champion = registry.aliases(loop).get("champion")
    if champion is None:
        return
    verdict = {"verdict": "rolled_back", "reasons": ["model reset", "back to the baseline"], "by": BY}
    try:
        registry.set_alias(loop, "champion", None, {**verdict, "at": now.isoformat()}, expected=champion)
    except AliasMovedError as error:
        raise RefusedError(409, "ModelResetFailed", f"{error}; send the request again") from error
    except RegistryError as error:
        raise unavailable(f"the version in charge cannot be changed: {error}") from error


def _logged(tables: Tables, loop: str) -> LogsProperties:
    try:
        files = [one for one in actions_of(tables.table("decisions")) if one.get("partition.loop") == loop]
    except (FieldError, FileNotFoundError, OSError):
        files = []
    first: list[Any] = [one["min.ts"] for one in files if one.get("min.ts") is not None]
    last: list[Any] = [one["max.ts"] for one in files if one.get("max.ts") is not None]
    if not first or not last:
        message = "logs: no decision of the loop is in the lake yet; `decision ingest` brings them there"
        raise RefusedError(404, "LogsPropertiesNotFound", message)
    return LogsProperties(DateRange(min(first).astimezone(UTC), max(last).astimezone(UTC)))


_SIGNED = Query(name="signed", text="`true` for an archive with the hashes of all files, whatever the learner is")

ROUTES: tuple[Route, ...] = (
    operation(
        "/model/properties",
        "readModelProperties",
        "Tell when the version in charge was trained and promoted",
        _model_properties,
        method="GET",
        role="read",
        response=ModelProperties,
        answers={"creationTime": "2026-10-01T08:00:00Z", "lastModifiedTime": "2026-10-01T08:05:00Z"},
    ),
    operation(
        "/model",
        "exportModel",
        "Take the version in charge out as a file",
        _model,
        method="GET",
        role="admin",
        response=bytes,
        content="application/octet-stream",
        parameters=(_SIGNED,),
        answers="UEsDBA==",
    ),
    operation(
        "/model",
        "importModel",
        "Put an exported version in charge",
        _imports_model,
        method="PUT",
        role="admin",
        since="v1.1-preview.3",
        status=204,
        errors=(400, 413),
    ),
    operation(
        "/model",
        "resetModel",
        "Take the version in charge out of it; the baseline answers",
        _resets_model,
        method="DELETE",
        role="admin",
        status=204,
        errors=(409,),
    ),
    operation(
        "/logs/properties",
        "readLogsProperties",
        "Tell from when to when decisions were logged",
        _logs_properties,
        method="GET",
        role="read",
        response=LogsProperties,
        answers={"dateRange": {"from": "2026-10-01T08:00:00Z", "to": "2026-11-01T08:00:00Z"}},
    ),
)
