"""Logs of other systems as interactions: checked, completed to the lake's columns, and kept beside the lake.

An import is one Parquet file of interaction rows beside a note of where it came from. On object storage, where no two
files can be replaced at once, the note says which file is meant, and is the last to be written. It is no part of the
lake: its decisions were not drawn here, so they follow no seed of ours, and often only the propensity of the drawn
action is known. Then `pmf` stays null; nothing is made up to fill it.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from decision.errors import FieldError, Words
from decision.validation import prepared
from pipelines.files import make_home
from pipelines.formats.registry import LEFT_OUT, Reason
from pipelines.formats.rows import check_features, check_rows
from pipelines.lake.features import with_features
from pipelines.lake.schemas import INTERACTIONS
from pipelines.logs import step
from pipelines.progress import Progress, counted, silent
from pipelines.settings import Settings, check_loop_name, list_loops
from pipelines.storage import Storage

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

MAX_BYTES = 64 << 30
_FOLDER, _NOTE, _ROWS = "imports", "import.json", "interactions.parquet"


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What an import holds.

    Attributes:
        name: its name, used like a loop's by `decision replay`.
        format: the format it was read from.
        source: file or folder it was read from, its name alone.
        rows: decisions.
        with_pmf: how many of them come with the whole distribution.
        first: time of the first decision, ISO 8601 UTC; None without rows.
        last: time of the last one.
        attribution: whose data it is and under which licence, when known.
        left_out: rows that were left out.
        reasons: how many of them for which reason.
    """

    name: str
    format: str
    source: str
    rows: int
    with_pmf: int
    first: str | None
    last: str | None
    attribution: str = ""
    left_out: int = 0
    reasons: dict[Reason, int] = {}


@step("imported")
def save_import(
    settings: Settings,
    name: str,
    batches: Iterable[pa.Table],
    *,
    format: str,
    source: str,
    attribution: str = "",
    left_out: Callable[[], Mapping[Reason, int]] = dict,
    progress: Progress = silent,
) -> Imported:
    """Check and keep the rows of an import under `name`, in place of an earlier import of that name.

    Args:
        settings: the installation.
        name: a name that no loop has.
        batches: tables as `complete` returns them; held one at a time.
        format: the format they were read from.
        source: where they were read from.
        attribution: whose data it is.
        left_out: asked at the end how many rows were left out, by reason.
        progress: told of the rows kept, after each batch.

    Raises:
        FieldError: the name is a loop's, or a row does not fit; nothing is kept then.
    """
    if check_loop_name(name) in list_loops(settings):
        raise FieldError("name", wanted="a name that no loop has", got=name)
    make_home(settings.root)
    storage = Storage.of(settings)
    folder = storage.path(_FOLDER) if storage.local else settings.root / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder, prefix=".new-"))
    try:
        batches = counted(batches, progress, "decisions imported", size=len)
        try:
            note = _write(scratch, name, batches, format=format, source=source, attribution=attribution)
        except _Nothing:
            gone = ", ".join(f"{rows} {LEFT_OUT[reason]}" for reason, rows in left_out().items() if rows)
            got = Words(f"{source!r}, of which were left out: {gone}") if gone else source
            raise FieldError("source", wanted="a log of one decision or more", got=got) from None
        reasons = {reason: rows for reason, rows in left_out().items() if rows}
        note = msgspec.structs.replace(note, left_out=sum(reasons.values()), reasons=reasons)
        if storage.local:
            (scratch / "import" / _NOTE).write_bytes(msgspec.json.format(msgspec.json.encode(note)))
            target = folder / name
            if target.exists():
                target.rename(scratch / "replaced")
            (scratch / "import").rename(target)
        else:
            _replace(storage, note, scratch / "import" / _ROWS)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return note


class _Placed(Imported, frozen=True, kw_only=True):
    """A note that says which file beside it holds the rows."""

    file: str = "interactions.parquet"


def _replace(storage: Storage, note: Imported, rows: Path) -> None:
    folder = f"{_FOLDER}/{note.name}"
    before = [found.key for found in storage.list(folder)]
    placed = _Placed(**msgspec.structs.asdict(note), file=f"{uuid.uuid4()}.parquet")
    storage.upload(f"{folder}/{placed.file}", rows)
    storage.write(f"{folder}/{_NOTE}", msgspec.json.format(msgspec.json.encode(placed)))
    storage.delete(*(key for key in before if not key.endswith(_NOTE)))


class _Nothing(Exception):
    """No row is left to keep."""


def _write(scratch: Path, name: str, batches: Iterable[pa.Table], *, format: str, source: str, attribution: str) -> Any:
    folder = scratch / "import"
    folder.mkdir()
    rows = with_pmf = settled = 0
    first: datetime | None = None
    last: datetime | None = None
    with pq.ParquetWriter(folder / _ROWS, INTERACTIONS, compression="zstd") as writer:
        for batch in batches:
            if not len(batch):
                continue
            check_rows(batch, first_row=rows)
            check_features(batch, first_row=rows)
            settled += len(batch) - (pc.sum(pc.equal(batch["state"], "dropped")).as_py() or 0)
            writer.write_table(with_features(_placed(batch, name, rows)))
            rows += len(batch)
            with_pmf += len(batch) - batch["pmf"].null_count
            ends = pc.min_max(batch["ts"]).as_py()
            first = ends["min"] if first is None else min(first, ends["min"])
            last = ends["max"] if last is None else max(last, ends["max"])
    if not rows:
        raise _Nothing
    if not settled:
        wanted = "joined or expired in one row or more"
        raise FieldError("state", wanted=wanted, got=Words("dropped in all"), source=source)
    note = Imported(
        name=name,
        format=format,
        source=source,
        rows=rows,
        with_pmf=with_pmf,
        first=first.astimezone(UTC).isoformat() if first else None,
        last=last.astimezone(UTC).isoformat() if last else None,
        attribution=attribution,
    )
    return note


def load_import(settings: Settings, name: str) -> pa.Table:
    """Return the rows of the import `name`, in the lake's interaction columns.

    Raises:
        FieldError: there is no such import.
    """
    storage = Storage.of(settings)
    return pq.read_table(import_key(settings, name), schema=INTERACTIONS, filesystem=storage.filesystem())


def import_key(settings: Settings, name: str) -> str:
    """Return the key of the rows of the import `name` among an installation's files.

    Raises:
        FieldError: there is no such import.
    """
    folder = f"{_FOLDER}/{check_loop_name(name)}"
    try:
        note = msgspec.json.decode(Storage.of(settings).read(f"{folder}/{_NOTE}"), type=prepared(_Placed))
    except FileNotFoundError:
        known = [entry.name for entry in list_imports(settings)]
        wanted = f"an import, one of {known}" if known else "an import"
        raise FieldError("name", wanted=wanted, got=name) from None
    return f"{folder}/{note.file}"


def forget_subject(settings: Settings, subject_id: str) -> int:
    """Remove a subject's rows from every import and return how many they were."""
    removed = 0
    for note in list_imports(settings):
        rows = load_import(settings, note.name)
        kept = rows.filter(pc.fill_null(pc.not_equal(rows["subject_id"], subject_id), True))
        if len(kept) == len(rows):
            continue
        removed += len(rows) - len(kept)
        if not len(kept):
            remove_import(settings, note.name)
            continue
        save_import(settings, note.name, [kept], format=note.format, source=note.source, attribution=note.attribution)
    return removed


def list_imports(settings: Settings) -> list[Imported]:
    """Return what was imported, by name."""
    storage = Storage.of(settings)
    notes = [found.key for found in storage.list(_FOLDER) if found.key.endswith(f"/{_NOTE}")]
    return [msgspec.json.decode(storage.read(key), type=prepared(Imported)) for key in notes]


def remove_import(settings: Settings, name: str) -> None:
    """Remove an import; one that is gone already is no error.

    Raises:
        StorageError: object storage does not answer.
    """
    storage, folder = Storage.of(settings), f"{_FOLDER}/{check_loop_name(name)}"
    if storage.local:
        shutil.rmtree(storage.path(folder), ignore_errors=True)
    else:
        storage.delete(*(found.key for found in storage.list(folder)))


def _placed(table: pa.Table, name: str, first_row: int) -> pa.Table:
    rows = len(table)
    placed = {
        "loop": pa.array([name], pa.string()).take(pa.array(np.zeros(rows, dtype=np.int64))),
        "partition": pa.array(np.zeros(rows, dtype=np.int32)),
        "offset": pa.array(np.arange(first_row, first_row + rows, dtype=np.int64)),
    }
    for column, values in placed.items():
        at = table.schema.get_field_index(column)
        table = table.set_column(at, INTERACTIONS.field(column), values)
    return table


def check_file(path: Path) -> None:
    """Refuse a path that is no readable file.

    Raises:
        FieldError: it does not exist or is too large.
    """
    if not path.is_file():
        raise FieldError("path", wanted="a file", got=path.name)
    if path.stat().st_size > MAX_BYTES:
        raise FieldError("path", wanted=f"at most {MAX_BYTES} bytes", got=path.stat().st_size)
