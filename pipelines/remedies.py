"""What went wrong with an installation and not with what was asked of it, in words that say what to do.

Databases, logs and the registry say it themselves where they fail. Here is what libraries raise through many hands:
systems' errors of a disk that takes nothing, and what readers of Parquet and of Delta's log say of damaged files.
"""

from __future__ import annotations

import errno
import re
import sqlite3
from collections.abc import Iterator

from pipelines.fairness.errors import StoreError
from pipelines.files import hindrance
from pipelines.log.protocol import LogError
from pipelines.registry.tracking import RegistryError
from pipelines.settings import Settings
from pipelines.state.failures import StateError

_TAKES_NOTHING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}
_FRAME = re.compile(r"\s*(\d+: |at )")
_COLOUR = re.compile(r"\x1b\[\d*m")
_IN_TEXT = re.compile(r"\(os error (\d+)\)")
_OF_TABLES = ("pyarrow", "deltalake", "_internal")
_FILES_OF_TABLES = (".parquet", "_delta_log")
_MOST = 2_000
_WITH_WORDS = (StateError, LogError, RegistryError, StoreError)
"""Errors that say themselves what to do about their files."""


def told(error: BaseException, settings: Settings | None) -> str:
    """Return kind and text of an error, and what to do about it where that is known.

    Args:
        error: what was raised.
        settings: the installation; None where it could not be read.
    """
    lines = [line for line in str(error).splitlines() if not _FRAME.match(line)]  # engines add the frames of their own
    text = f"{type(error).__name__}: {' '.join(_COLOUR.sub('', ' '.join(lines)).split()) or 'no message'}"
    remedy = "" if settings is None else _remedy(error, settings)
    return f"{text[:_MOST]}; {remedy}" if remedy and remedy not in text else text[:_MOST]


def _remedy(error: BaseException, settings: Settings) -> str:
    causes = list(_causes(error))
    if any(_number(cause) in _TAKES_NOTHING for cause in causes):
        return hindrance(settings.root)
    if any(isinstance(cause, _WITH_WORDS) for cause in causes):
        return ""
    if any(_is_of_features(cause) for cause in causes):
        return (
            f"a file in {settings.root / 'features'} is damaged: restore the folder from a backup, or move it away, "
            "and all but uploaded tables is filled anew from the lake"
        )
    if any(_is_of_a_table(cause) for cause in causes):
        return (
            f"a table in {settings.lake_url} is damaged: restore its folder from a backup, or move it away, "
            "and what the log still holds is brought in anew"
        )
    return ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _number(error: BaseException) -> int | None:
    """Return the system's number of an error, which engines of their own tell in its text alone."""
    if not isinstance(error, OSError):
        return None
    found = _IN_TEXT.search(str(error))
    return error.errno if error.errno is not None or found is None else int(found[1])


def _is_of_features(error: BaseException) -> bool:
    damaged = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return damaged or type(error).__module__.startswith("google.protobuf")


def _is_of_a_table(error: BaseException) -> bool:
    if type(error).__module__.partition(".")[0] in _OF_TABLES:
        return True
    return isinstance(error, OSError) and any(part in str(error) for part in _FILES_OF_TABLES)
