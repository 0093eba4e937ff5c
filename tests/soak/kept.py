"""What a long run found, kept in files, so that a run that was cut short goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def kept(folder: Path | None, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what an earlier run kept under `name`, else what `work` finds, kept; nothing is kept without a folder."""
    path = None if folder is None else folder / f"{name}.json"
    if path is not None and path.exists():
        return json.loads(path.read_text())
    found = work()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
    return found
