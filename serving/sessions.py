"""Memories of users for policies with memory: kept up with the log by a thread, looked up at decision time.

Each policy of a snapshot finds its own: the one in charge under ``session``, a candidate under its own name, so that a
version is rolled out with the memory that the gate judged it with. `decision.memory` says what a memory is,
`pipelines.trajectories.memories` holds them on disk, `shared_memories` beside it those that machines share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from decision.oracles.session import NAME, SessionOracle
from pipelines.interactions.window import rule_of
from pipelines.log.protocol import EventLog, LogUnavailable
from pipelines.online.connection import Online
from pipelines.settings import LoopSettings, Settings
from pipelines.trajectories.memories import MEMORIES, Memories, Remembering, memory_of, remembering
from pipelines.trajectories.shared_memories import SharedMemories
from serving.loops import Loops
from serving.refresher import Refresher
from serving.snapshot import OnlineFeatures, Snapshot

_PAUSE_S, _SHARED_PAUSE_S = 0.05, 0.25
_LATE_S = 10.0
_KNOWN = 64


class Sessions:
    """Memories for every loop whose policy in charge has one, kept up to date by a thread.

    Args:
        settings: the installation, whose loops' folders hold the memories.
        loops: what answers in each loop.
        log: where decisions and outcomes arrive.
        inner: the other features of a loop, which its memories join.
        online: a Redis where all machines share the memories; None for a file in the loop's folder.
        pause_s: seconds between looks at the log; fewer where it is this machine's when None.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        settings: Settings,
        loops: Loops,
        log: EventLog,
        inner: Callable[[Snapshot], OnlineFeatures | None],
        *,
        online: Online | None = None,
        pause_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._loops, self._log, self._inner, self._clock = settings, loops, log, inner, clock
        self._online = online
        self._memories: dict[str, Memories | SharedMemories] = {}
        self._used: dict[str, list[Remembering]] = {}
        self._known: list[tuple[LoopSettings, SessionOracle, Remembering]] = []
        # It looks often for the sake of fresh memories; a busy machine may pause it for longer than ten such looks.
        pause_s = pause_s or (_PAUSE_S if settings.ack == "disk" else _SHARED_PAUSE_S)
        self.refresher = Refresher("sessions", self.refresh, period_s=pause_s, late_after_s=max(_LATE_S, 10 * pause_s))
        with suppress(LogUnavailable):  # of several machines; the thread goes on trying
            self.refresh()

    def start(self) -> None:
        """Keep up with the log in a thread."""
        self.refresher.start()

    def close(self) -> None:
        """Stop, and close the files; does nothing when it was closed before."""
        self.refresher.close()
        memories, self._memories = self._memories, {}
        for each in memories.values():
            each.close()

    def source(self, snapshot: Snapshot) -> OnlineFeatures | None:
        """Return where the features of the snapshot's loop are looked up, the memories of its policies among them."""
        inner, memories = self._inner(snapshot), self._memories.get(snapshot.loop.name)
        wanted = self._wanted(snapshot) if memories is not None else {}
        return inner if memories is None or not wanted else _Joined(inner, memories, wanted)

    def refresh(self) -> int:
        """Take note of new policies and read the log once; return the number of records that counted."""
        counted = 0
        for name in self._loops.names():
            snapshot = self._loops.get(name)
            wanted = [] if snapshot is None else list(self._wanted(snapshot).values())
            memories = self._memories.get(name)
            if memories is None:
                if snapshot is None or not wanted:
                    continue
                memories = self._memories[name] = self._opened(snapshot.loop)
            if self._used.get(name) != wanted:
                memories.use(wanted)
                self._used[name] = wanted
            counted += memories.follow(self._log, datetime.fromtimestamp(self._clock(), UTC), self.refresher.beat)
        return counted

    def _opened(self, loop: LoopSettings) -> Memories | SharedMemories:
        if self._online is not None:
            everybodys = self._settings.ack != "disk"
            return SharedMemories(self._online, loop.name, loop.reward.window_s, everybodys=everybodys)
        return Memories(self._settings.loop_path(loop.name).parent / MEMORIES, loop.name)

    def _wanted(self, snapshot: Snapshot) -> dict[str, Remembering]:
        """Return who remembers in a snapshot, by the name under which it looks."""
        found: dict[str, Remembering] = {}
        for policy, name in ((snapshot.policy, NAME), (snapshot.candidate, "")):
            oracle = memory_of(policy)
            if oracle is not None:
                found[name or oracle.name] = self._remembering(snapshot.loop, oracle)
        return found

    def _remembering(self, loop: LoopSettings, oracle: SessionOracle) -> Remembering:
        for settings, known, made in self._known:
            if settings is loop and known is oracle:
                return made
        made = remembering(oracle, rule_of(loop))
        self._known = [*self._known[-_KNOWN + 1 :], (loop, oracle, made)]
        return made


class _Joined:
    """Features of both sources; memories by the names under which policies look."""

    def __init__(
        self, inner: OnlineFeatures | None, memories: Memories | SharedMemories, wanted: dict[str, Remembering]
    ) -> None:
        self._inner, self._memories, self._wanted = inner, memories, wanted

    def online_many(self, subject_ids: Sequence[str], at: datetime) -> list[dict[str, Any]]:
        """Return each subject's features and memories."""
        found = [{}] * len(subject_ids) if self._inner is None else self._inner.online_many(subject_ids, at)
        held = self._memories.online_many(subject_ids, at, self._wanted)
        return [features | states for features, states in zip(found, held, strict=True)]
