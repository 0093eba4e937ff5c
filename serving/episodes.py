"""What an episode is pinned to: the versions and the weight that were in force at its first decision.

The guard's coin decides once for a whole episode (`decision.guard.coin`), so its later decisions must not see that the
weight rose or the champion changed meanwhile. Pins stand in one SQLite file of the home folder, so that all workers
agree and a restart forgets none. A pin that is lost costs an episode of evidence, never a wrong propensity: rows of
one episode that tell of different weights are left out by the guard.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec

from decision.errors import DecisionError
from decision.guard.snapshot import GuardSnapshot, segment_of, weight_at
from decision.protocols import Policy
from pipelines.files import open_sqlite
from pipelines.registry.tracking import RegistryError
from serving.deciding.question import Question
from serving.snapshot import Snapshot

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pins (
    loop TEXT, episode TEXT, policy TEXT, candidate TEXT, weight REAL, guard_version INTEGER, at REAL,
    PRIMARY KEY (loop, episode)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pins_at ON pins (at);
"""
_KEPT, _POLICIES = 100_000, 16
_BUSY_S = 5.0
_OLDEST_S = 7 * 86_400.0


class Pin(NamedTuple):
    """What an episode began with: versions, the candidate's weight and when, seconds since 1970."""

    policy_version: str
    candidate_version: str
    weight: float
    guard_version: int
    at: float


class Episodes:
    """The pins of one process.

    Args:
        path: the file.
        load: (loop, version) -> policy, for versions that are no longer in force.
    """

    def __init__(self, path: Path, load: Callable[[str, str], Policy]) -> None:
        self._path, self._load = path, load
        self._pins: OrderedDict[tuple[str, str], Pin] = OrderedDict()
        self._policies: OrderedDict[tuple[str, str], Policy] = OrderedDict()
        self._connection: sqlite3.Connection | None = None

    def pinned(self, snapshot: Snapshot, question: Question, now: float) -> Snapshot:
        """Return `snapshot` as it was when the question's episode began.

        What is stopped, killed or too old takes nothing any more: then the policy in charge now answers alone.

        Args:
            snapshot: as it is now.
            question: with an episode.
            now: seconds since 1970.
        """
        if question.episode_id is None:
            return snapshot
        loop = snapshot.loop
        pin = self._pin(snapshot, question, question.episode_id, now)
        alone = replace(snapshot, candidate=None)
        if now > pin.at + loop.guard.episode_s:
            return alone
        try:
            policy = self._policy(snapshot, pin.policy_version)
            began = replace(alone, policy=policy, policy_version=pin.policy_version)
            if not pin.candidate_version or not _alive(snapshot, pin, now):
                return began
            guard = _guard_of(snapshot, pin)
            candidate = self._policy(snapshot, pin.candidate_version)
        except (DecisionError, RegistryError, OSError, RuntimeError):
            return alone
        return replace(began, candidate=candidate, guard=guard, pinned=pin.weight)

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _pin(self, snapshot: Snapshot, question: Question, episode: str, now: float) -> Pin:
        key = (snapshot.loop.name, episode)
        pin = self._pins.get(key)
        if pin is None:
            pin = self._kept(key, _fresh(snapshot, question, now))
            self._pins[key] = pin
            if len(self._pins) > _KEPT:
                self._pins.popitem(last=False)
        return pin

    def _kept(self, key: tuple[str, str], fresh: Pin) -> Pin:
        """Return the pin on file, which is `fresh` if there was none."""
        connection = self._open()
        connection.execute("INSERT OR IGNORE INTO pins VALUES (?, ?, ?, ?, ?, ?, ?)", (*key, *fresh))
        where = "SELECT policy, candidate, weight, guard_version, at FROM pins WHERE loop = ? AND episode = ?"
        return Pin(*connection.execute(where, key).fetchone())

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = open_sqlite(self._path, busy_s=_BUSY_S, synchronous="NORMAL", schema=_SCHEMA)
            with closing(connection.execute("SELECT MAX(at) FROM pins")) as found:
                (latest,) = found.fetchone()
            if latest is not None:
                connection.execute("DELETE FROM pins WHERE at < ?", (latest - _OLDEST_S,))
            self._connection = connection
        return self._connection

    def _policy(self, snapshot: Snapshot, version: str) -> Policy | None:
        """Return the policy of a version, None for the loop's baseline."""
        if version == snapshot.policy_version:
            return snapshot.policy
        if version == snapshot.candidate_version:
            return snapshot.candidate
        if version.startswith("baseline:"):
            if version != snapshot.baseline_version:
                raise DecisionError(f"{version} is no longer the baseline")
            return None
        key = (snapshot.loop.name, version)
        if key not in self._policies:
            self._policies[key] = self._load(*key)
            if len(self._policies) > _POLICIES:
                self._policies.popitem(last=False)
        self._policies.move_to_end(key)
        return self._policies[key]


def _fresh(snapshot: Snapshot, question: Question, now: float) -> Pin:
    guard = snapshot.guard
    if snapshot.candidate is None or guard is None:
        return Pin(snapshot.policy_version, "", 0.0, snapshot.guard_version, now)
    weight = weight_at(guard, now, segment_of(question.context, guard.segment, guard.weights))
    return Pin(snapshot.policy_version, snapshot.candidate_version, weight, guard.guard_version, now)


def _alive(snapshot: Snapshot, pin: Pin, now: float) -> bool:
    """Return whether the candidate of a pin may still answer: it is being rolled out, or was promoted."""
    if snapshot.policy_version == pin.candidate_version:
        return True
    guard = snapshot.guard
    if snapshot.candidate is None or guard is None or guard.candidate_version != pin.candidate_version:
        return False
    return max(weight_at(guard, now, value) for value in ("", *guard.weights)) > 0.0


def _guard_of(snapshot: Snapshot, pin: Pin) -> GuardSnapshot | None:
    guard = snapshot.guard
    if guard is None:
        return None
    return msgspec.structs.replace(
        guard, guard_version=pin.guard_version, candidate_version=pin.candidate_version, unit="episode"
    )
