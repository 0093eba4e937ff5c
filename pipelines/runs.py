"""The nights of the loops: the manifest of each, and who runs one now.

    run/LOOP/ID          the manifest, in State: any machine goes on with a run that another one left
    night/LOOP           the lease of who runs a night of the loop, where machines share State

A copy of each manifest lies below ``runs/`` of the home folder that ran it, for people; nothing reads it but for the
runs of an earlier release, which had no other.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec

from decision.errors import FieldError, Words
from decision.validation import prepared
from pipelines.files import locked, write_atomically
from pipelines.settings import Settings, check_loop_name
from pipelines.state.holding import holding
from pipelines.state.rows import read_json
from pipelines.state.state import Lease, State

RESUMED_FOR = timedelta(hours=24)
"""An unfinished run older than this is left alone; the next one starts anew."""

KEPT_RUNS = 30
"""So many of a loop's latest runs stay however old they are: alarms compare a night with those before."""

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A finished step: its name, when it was finished (ISO 8601 UTC) and its result."""

    name: str
    finished_at: str
    result: dict[str, Any]


class Run(msgspec.Struct, kw_only=True):
    """The manifest of a run.

    Attributes:
        run_id: its id, unique in the loop.
        loop: the loop.
        started_at: when it was first started; the "now" of every step, also of those that are done later.
        seed: seed of the training.
        status: ``running`` until the last step is finished, then ``done``; ``failed`` after an error, and resumable.
        error: the step that failed last and its error, "" without.
        steps: the finished steps in order.
    """

    run_id: str
    loop: str
    started_at: datetime
    seed: int
    status: Literal["running", "failed", "done"] = "running"
    error: str = ""
    steps: list[Step] = []

    def result(self, step: str) -> dict[str, Any] | None:
        """Return the result of a finished step, None for one that is not."""
        return next((entry.result for entry in self.steps if entry.name == step), None)

    @property
    def verdict(self) -> Literal["promoted", "rolling_out", "waiting", "refused", "skipped", "open"]:
        """What came of the night.

        ``rolling_out`` when the guard has the new version now, ``waiting`` when it still has an earlier one,
        ``skipped`` when there was too little to learn from, ``open`` before the end.
        """
        result = self.result("promote")
        if result is None:
            return "open"
        if "skipped" in result:
            return "skipped"
        if result["promoted"]:
            return "promoted"
        if (candidate := result.get("candidate")) is not None:
            return "rolling_out" if candidate == result["version"] else "waiting"
        return "refused"


class Night:
    """A run that this process goes on with; nobody else does meanwhile.

    Attributes:
        run: its manifest.
    """

    def __init__(self, settings: Settings, state: State, run: Run, lease: Lease | None) -> None:
        self._settings, self._state, self._lease = settings, state, lease
        self.run = run

    def save(self) -> None:
        """Write the manifest.

        Raises:
            FencedError: another machine took the night over, since nobody heard of this one.
            StateError: State cannot be reached.
        """
        key = _key(self.run.loop, self.run.run_id)
        entry = self._state.get(key)
        body = msgspec.json.encode(self.run)
        self._state.put({key: (None if entry is None else entry.version, body)}, by="nightly", fence=self._lease)
        path = _folder(self._settings, self.run.loop) / self.run.run_id / "manifest.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, msgspec.json.format(body))


@contextmanager
def open_night(settings: Settings, loop: str, run_id: str | None, now: datetime, seed: int) -> Iterator[Night]:
    """Open a run, to start it or to go on with it, as the only one of the loop.

    Args:
        settings: the installation.
        loop: the loop.
        run_id: the run; None for the loop's last if that is unfinished and young, else one named after `now`.
        now: when a new run is started, UTC.
        seed: seed of a new run.

    Raises:
        FieldError: `run_id` is none, or another run of the loop is going on.
        StateError: State cannot be reached.
    """
    folder = _folder(settings, loop)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as opened:
        try:
            opened.enter_context(locked(folder / "lock", wait=False))  # whoever is killed leaves it at once
        except BlockingIOError:
            raise _taken() from None
        state = opened.enter_context(State(settings.state_url))
        lease = opened.enter_context(_leased(state, loop)) if settings.state else None
        yield Night(settings, state, _found(settings, state, loop, run_id, now, seed), lease)


def runs(settings: Settings, loop: str) -> list[Run]:
    """Return the loop's runs, oldest first.

    Raises:
        StateError: State cannot be reached.
    """
    with State(settings.state_url) as state:
        return _runs(settings, state, loop)


def old_runs(settings: Settings, loop: str, days: int, now: datetime) -> list[Run]:
    """Return the loop's runs that began more than `days` ago, oldest first, without the latest `KEPT_RUNS`.

    Raises:
        StateError: State cannot be reached.
    """
    return [run for run in runs(settings, loop)[:-KEPT_RUNS] if now - run.started_at > timedelta(days=days)]


def forget_runs(settings: Settings, gone: Iterable[Run]) -> None:
    """Remove runs, with what State keeps of their changes.

    Raises:
        StateError: State cannot be reached.
    """
    with State(settings.state_url) as state:
        for run in gone:  # the folder first: what State holds alone is found again
            shutil.rmtree(_folder(settings, run.loop) / run.run_id, ignore_errors=True)
            state.forget([_key(run.loop, run.run_id)])


def _runs(settings: Settings, state: State, loop: str) -> list[Run]:
    entries = state.entries(_key(loop, ""))
    found = [read_json(key, entry.value, Run) for key, entry in entries.items()]
    known = {run.run_id for run in found}
    former = _folder(settings, loop).glob("*/manifest.json")
    found += [_load(path) for path in former if path.parent.name not in known]
    return sorted(found, key=lambda run: (run.started_at, run.run_id))


def _found(settings: Settings, state: State, loop: str, run_id: str | None, now: datetime, seed: int) -> Run:
    known = _runs(settings, state, loop)
    if run_id is None:
        last = known[-1] if known else None
        if last is not None and last.status != "done" and now - last.started_at < RESUMED_FOR:
            return last
        run_id = now.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%f")
    if not _RUN_ID.fullmatch(run_id):
        raise FieldError("run_id", wanted='1 to 64 letters, digits, ".", "_" or "-"', got=run_id)
    for run in known:
        if run.run_id == run_id:
            return run
    run = Run(run_id=run_id, loop=loop, started_at=now, seed=seed)
    Night(settings, state, run, None).save()
    return run


@contextmanager
def _leased(state: State, loop: str) -> Iterator[Lease]:
    with holding(state, f"night/{loop}") as lease:
        if lease is None:
            raise _taken()
        yield lease


def _taken() -> FieldError:
    return FieldError("run_id", wanted="the only run of this loop at a time", got=Words("beside another one"))


def _load(path: Path) -> Run:
    try:
        return msgspec.json.decode(path.read_bytes(), type=prepared(Run))
    except msgspec.DecodeError as error:
        raise FieldError("manifest.json", wanted=f"the manifest of run {path.parent.name}", got=error) from error


def _folder(settings: Settings, loop: str) -> Path:
    return settings.root / "runs" / check_loop_name(loop)


def _key(loop: str, run_id: str) -> str:
    return f"run/{check_loop_name(loop)}/{run_id}"
