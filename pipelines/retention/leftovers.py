"""What lies in the home folder, and among the files, longer than anybody looks at it: nights, imports, scratch."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from pipelines.settings import Settings
from pipelines.storage import Storage

LOCK = "tidy.lock"
"""File of the home folder that whoever removes, or copies what must not be removed meanwhile, holds."""
SCRATCH = re.compile(r"\.new-[a-z0-9_]{8}|\..+-[a-z0-9_]{8}")
"""Names that `tempfile` gives to what takes another's place once it is whole."""
_ROOMS = ("", "cache", "erasures", "fairness", "features", "imports", "loops", "runs")
_ABANDONED = timedelta(days=1)
"""What is written takes less: whoever left it was killed."""


def abandoned(settings: Settings, now: datetime) -> Iterator[tuple[Path, int]]:
    """Yield the files and folders that killed processes left in the home folder, with their bytes."""
    before = (now - _ABANDONED).timestamp()
    for room in _ROOMS:
        folder = settings.root / room
        found = folder.rglob(".*-*") if room else folder.glob(".*-*")
        for path in sorted(found):
            if SCRATCH.fullmatch(path.name) and _newest(path) < before:
                yield path, size_of(path)


def remove(path: Path) -> None:
    """Remove a file, or a folder with what is in it; others may do so at the same time."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    return sum(each.lstat().st_size for each in _files(path))


def _newest(path: Path) -> float:
    return max((each.lstat().st_mtime for each in [path, *_files(path)]), default=0.0)


def _files(path: Path) -> list[Path]:
    return [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]


def old_imports(settings: Settings, days: int, now: datetime) -> dict[str, int]:
    """Return the imports made more than `days` ago, with their bytes."""
    before = (now - timedelta(days=days)).timestamp()
    newest: dict[str, float] = {}
    sizes: dict[str, int] = {}
    for found in Storage.of(settings).list("imports"):
        name = found.key.split("/")[1]
        newest[name] = max(newest.get(name, 0.0), found.modified)
        sizes[name] = sizes.get(name, 0) + found.size
    return {name: sizes[name] for name, at in newest.items() if at < before}
