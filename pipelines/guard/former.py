"""What a guard's files of an earlier release say; taken over into State once, and left where they are."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from pipelines.guard.keys import attempt_key, fold_key, guard_key, move_key, snapshot_key
from pipelines.settings import Settings
from pipelines.state.failures import StaleError
from pipelines.state.state import State

_AT_ONCE = 5_000


def adopt(settings: Settings, state: State, loop: str) -> None:
    """Take over the guard of `loop` from the home folder unless State has one."""
    path = settings.root / "guard" / f"{loop}.db"
    if not path.is_file() or state.get(guard_key(loop)) is not None:
        return
    changes = list(_read(path, loop).items())
    published = path.with_suffix(".json")
    if published.is_file():
        changes.append((snapshot_key(loop), published.read_bytes()))
    # The state goes last: what stands there says that all was taken over.
    last = [change for change in changes if change[0] == guard_key(loop)]
    rest = [change for change in changes if change[0] != guard_key(loop)]
    known = state.versions(f"guard/{loop}/")
    rest = [change for change in rest if change[0] not in known]
    with suppress(StaleError):  # another process takes it over
        for start in range(0, len(rest), _AT_ONCE):
            state.put({key: (None, body) for key, body in rest[start : start + _AT_ONCE]}, by="taken over")
        state.put({key: (None, body) for key, body in last}, by="taken over")


def _read(path: Path, loop: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with closing(sqlite3.connect(path)) as file:
        found |= {guard_key(loop): body for (body,) in file.execute("SELECT body FROM state")}
        attempts = file.execute("SELECT number, body FROM attempts")
        found |= {attempt_key(loop, number): body for number, body in attempts}
        folds = file.execute("SELECT number, attempt, until FROM folds")
        found |= {fold_key(loop, attempt, 0, number): until for number, attempt, until in folds}
        moves = file.execute("SELECT number, body FROM moves")
        found |= {move_key(loop, 0, number): body for number, body in moves}
    return found
