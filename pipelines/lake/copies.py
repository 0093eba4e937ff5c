"""A copy of the lake's tables as they stood at one moment, for somebody to go on from.

Files of a table never change, so they are copied while others write. Commits up to the moment come along, so versions
keep their numbers and marks their values; files of earlier versions do not.

References:
    Delta transaction log protocol, "Delta Log Entries", "Checkpoints" and "Last Checkpoint File".
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from deltalake import DeltaTable

from pipelines.files import copy_file
from pipelines.lake.moment import at_one_moment
from pipelines.lake.statistics import actions_of
from pipelines.lake.tables import Tables
from pipelines.progress import Progress, counted, silent

if TYPE_CHECKING:
    from pipelines.lake.schemas import Table

_LOG = "_delta_log"
_NUMBERED = re.compile(r"(\d{20})\.(json|checkpoint\.parquet|checkpoint\.\d{10}\.\d{10}\.parquet)")


def copy_tables(tables: Tables, names: Sequence[Table], target: Path, progress: Progress = silent) -> dict[str, int]:
    """Copy tables in a folder to another folder, all of one moment, and return the version of each.

    Begins anew where others took away files that were to be copied; what is in the folder by then is replaced.

    Args:
        tables: the lake's, in a folder.
        names: which of them.
        target: the folder; does not exist, or holds what an earlier attempt left.
        progress: told of the files copied.

    Raises:
        NoMomentError: others kept committing; try again.
        OSError: a file cannot be read or written.
    """

    def copied(opened: Mapping[Table, DeltaTable]) -> dict[str, int]:
        shutil.rmtree(target, ignore_errors=True)
        files = [(name, path) for name, table in opened.items() for path in _files(tables.storage.path(name), table)]
        for name, path in counted(files, progress, "files of the lake copied", total=len(files)):
            with suppress(FileNotFoundError) if path.startswith(_LOG) else nullcontext():  # past its retention
                copy_file(tables.storage.path(name) / path, target / name / path)
        return {name: table.version() for name, table in opened.items()}

    return at_one_moment(tables, names, copied)


def _files(folder: Path, table: DeltaTable) -> list[str]:
    """Return the files that a table's version is made of, by their paths in its folder."""
    version, log = table.version(), folder / _LOG
    found = [action["path"] for action in actions_of(table)]
    numbered = {entry.name: match for entry in log.iterdir() if (match := _NUMBERED.fullmatch(entry.name))}
    found += [f"{_LOG}/{name}" for name, match in numbered.items() if int(match[1]) <= version]
    return found
