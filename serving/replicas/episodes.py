"""What an episode is pinned to: the versions and the weight that were in force at its first decision.

The guard's coin decides once for a whole episode (`decision.guard.coin`), so its later decisions must not see that the
weight rose or the champion changed meanwhile. `serving.replicas.pins` says where pins stand.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from decision.errors import DecisionError
from decision.guard.snapshot import GuardSnapshot, largest_weight_at, segment_of, weight_at
from decision.protocols import Policy
from pipelines.registry.tracking import RegistryError
from serving.deciding.question import Question
from serving.replicas.pins import Pin, Pins
from serving.snapshot import Snapshot

_KEPT, _POLICIES = 100_000, 16


class Episodes:
    """The pins of one process.

    Args:
        pins: those that every process agrees on.
        load: (loop, version) -> policy, for versions that are no longer in force.
    """

    def __init__(self, pins: Pins, load: Callable[[str, str], Policy]) -> None:
        self._pins, self._load = pins, load
        self._known: OrderedDict[tuple[str, str], Pin] = OrderedDict()
        self._policies: OrderedDict[tuple[str, str], Policy] = OrderedDict()

    def pinned(self, snapshot: Snapshot, questions: Sequence[Question], now: float) -> list[Snapshot]:
        """Return `snapshot` as it was when each question's episode began; as it is for a question without one.

        What is stopped, killed or too old takes nothing any more: then the policy in charge now answers alone.

        Args:
            snapshot: as it is now.
            questions: what is asked.
            now: seconds since 1970.
        """
        pins = self._pins_of(snapshot, questions, now)
        return [
            snapshot if asked.episode_id is None else self._as_pinned(snapshot, pins[asked.episode_id], now)
            for asked in questions
        ]

    def _as_pinned(self, snapshot: Snapshot, pin: Pin, now: float) -> Snapshot:
        loop = snapshot.loop
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
        """Close where the pins stand."""
        self._pins.close()

    def _pins_of(self, snapshot: Snapshot, questions: Sequence[Question], now: float) -> dict[str, Pin]:
        loop, found, fresh = snapshot.loop, dict[str, Pin](), dict[str, Pin]()
        for asked in questions:
            episode = asked.episode_id
            if episode is None or episode in found or episode in fresh:
                continue
            known = self._known.get((loop.name, episode))
            if known is None:
                fresh[episode] = _fresh(snapshot, asked, now)
            else:
                found[episode] = known
        if fresh:
            first = self._pins.first(loop.name, list(fresh.items()), kept_s=loop.guard.episode_s)
            found |= zip(fresh, first, strict=True)
            self._known |= {(loop.name, episode): found[episode] for episode in fresh}
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return found

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
    return largest_weight_at(guard, now) > 0.0


def _guard_of(snapshot: Snapshot, pin: Pin) -> GuardSnapshot | None:
    guard = snapshot.guard
    if guard is None:
        return None
    return msgspec.structs.replace(
        guard, guard_version=pin.guard_version, candidate_version=pin.candidate_version, unit="episode"
    )
