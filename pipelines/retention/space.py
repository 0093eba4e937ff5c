"""How much space an installation's parts take on this machine's disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from pipelines.settings import Settings

Room = Literal["log", "lake", "runs", "imports", "features", "models", "state", "other"]
ROOMS: tuple[Room, ...] = ("log", "lake", "runs", "imports", "features", "models", "state", "other")
_FOLDERS: dict[str, Room] = {"lake": "lake", "runs": "runs", "imports": "imports", "features": "features"}
_MODELS = ("models", "cache", "mlflow.db")
_TOGETHER = 500


def disk_bytes(settings: Settings, beat: Callable[[], object] = lambda: None) -> dict[Room, int]:
    """Return the bytes of the files in the home folder, by part; what is on servers is not among them.

    Args:
        settings: the installation.
        beat: called after some files each; whoever must not be in the way of others waits there.
    """
    found = dict.fromkeys(ROOMS, 0)
    state = [file.name for file in [settings.state_file] if file is not None]
    for number, (name, size) in enumerate(_sizes(settings.root), 1):
        found[_room(name, settings.spool_path.name, state)] += size
        if number % _TOGETHER == 0:
            beat()
    return found


def _room(name: str, log: str, state: list[str]) -> Room:
    if name.startswith(log):
        return "log"
    if any(name.startswith(file) for file in state):
        return "state"
    return "models" if name.startswith(_MODELS) else _FOLDERS.get(name, "other")


def _sizes(root: Path) -> Iterator[tuple[str, int]]:
    """Yield the bytes of each file below `root`, with the first part of its path; files may go meanwhile."""
    left = [(str(root), "")]
    while left:
        folder, name = left.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    top = name or entry.name
                    if entry.is_dir(follow_symlinks=False):
                        left.append((entry.path, top))
                    elif entry.is_file(follow_symlinks=False):
                        yield top, entry.stat(follow_symlinks=False).st_size
        except OSError:  # others write and tidy up here
            continue
