"""Which policy answers: a thread looks for new champions, checks them, and swaps one reference.

Requests read the reference once, so no answer mixes two versions. What cannot be loaded leaves the last good one in
charge; without any, the baseline answers with its true probabilities.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np

from decision.artifact import unpack
from decision.batch import Batch
from decision.errors import DecisionError, FieldError
from decision.exploration.mix import check_pmf
from decision.fairness.clamp import Anchor, ClampedPolicy
from decision.guard.snapshot import GuardSnapshot, decode_snapshot, largest_weight, newest
from decision.policy import baseline_policy
from decision.protocols import Policy
from pipelines.fairness.anchors import anchors_key, former_stamp, published
from pipelines.guard.former import adopt
from pipelines.guard.keys import snapshot_key
from pipelines.logs import tell
from pipelines.registry.registry import Registry
from pipelines.registry.stated import aliases_in, charge_key
from pipelines.settings import (
    LOOPS,
    LoopSettings,
    Settings,
    applied_loops,
    list_loops,
    load_loop,
    parse_applied,
    settings_key,
)
from pipelines.state.failures import StateError
from pipelines.state.state import State
from pipelines.state.watch import Watch
from serving.refresher import Refresher
from serving.snapshot import Snapshot

_log = logging.getLogger(__name__)
_PERIODS = 3.0
"""So many looks may fail before State counts as silent, however short ``guard.fresh_s`` is."""
_GONE = "its settings are gone; what was read last holds until the service ends: put them back"
_PROBE = Batch([{"probe": 1.0}, {}], [{}, {"probe=a": 1.0}, {"x": 2.0}], ["a", "b", "c"], np.array([0, 1, 3]))


class Loops:
    """The installation's loops and what answers in each.

    Args:
        settings: the installation.
        registry: where versions come from.
    """

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings = settings
        self._registry = registry
        self._state = State(settings.state_url)
        self._watch = Watch(self._state, LOOPS)
        self._known: set[str] = set()
        self._snapshots: dict[str, Snapshot] = {}
        self._errors: dict[str, str] = {}
        self._stamps: dict[str, float] = {}
        self._guards: dict[str, GuardSnapshot] = {}
        self._anchors: dict[str, list[Anchor]] = {}
        self._anchored: dict[str, bytes] = {}
        self._after_refresh: Callable[[], None] = lambda: None
        self._silent: str | None = None
        self._warm = False
        self.reloads = 0
        self.refresher = Refresher("models", self._run, period_s=settings.reload_s)

    def start(self, after_refresh: Callable[[], None] = lambda: None) -> None:
        """Load everything once, then keep looking in a thread, which calls `after_refresh` each time."""
        self._after_refresh = after_refresh
        try:
            self.refresh()
        except StateError as error:  # not ready, until it answers
            _log.warning("no loop is known yet", extra={"fields": {"error": error}})
        self.refresher.start()

    def close(self) -> None:
        """Stop looking; does nothing when it was closed before."""
        self.refresher.close()
        self._state.close()

    def get(self, name: str) -> Snapshot | None:
        """Return what answers in the loop `name` now, or None when there is no such loop.

        A candidate is left out while State is silent for longer than ``guard.fresh_s``: it may have been stopped.
        """
        found = self._snapshots.get(name)
        if found is None or found.candidate is None:
            return found
        fresh_s = max(found.loop.guard.fresh_s, _PERIODS * self._settings.reload_s)
        return found if self._watch.age_s <= fresh_s else replace(found, candidate=None)

    def seen(self, key: str) -> bytes | None:
        """Return what stood under a key of State at the last look."""
        entry = self._watch.get(key)
        return None if entry is None else entry.value

    def names(self) -> list[str]:
        """Return the loops' names."""
        return sorted(self._snapshots)

    def error(self, name: str) -> str | None:
        """Return why the loop does not run as its settings and registry say, or is not known, or None."""
        return self._errors.get(name, self._silent)

    def errors(self) -> dict[str, str]:
        """Return the errors of all loops that do not run as their settings and registry say."""
        return dict(self._errors)

    def refresh(self) -> None:
        """Look at every loop once; what is wrong with one is kept as its error and stops none of the others.

        Raises:
            OSError: the loops cannot be listed.
            StateError: State has not been reached yet, and no loop is known.
        """
        silent = self._look()
        names = applied_loops(self._watch.keys()) if self._settings.state else list_loops(self._settings)
        self._adopt(names)
        if silent is not None and not names:
            raise silent
        self._errors = {name: error for name, error in self._errors.items() if name in names or name in self._snapshots}
        for name in names:
            self.refresher.beat()
            try:
                self._refresh(name)
                if silent is not None:
                    raise silent
                self._errors.pop(name, None)
            except Exception as error:
                if self._errors.get(name) != str(error):
                    _log.warning(
                        "the loop does not run as configured", extra={"fields": {"loop": name, "error": error}}
                    )
                self._errors[name] = str(error)
        for name in self._snapshots.keys() - set(names):
            if self._errors.get(name) != _GONE:
                _log.warning("the loop goes on without its settings", extra={"fields": {"loop": name, "error": _GONE}})
            self._errors[name] = _GONE

    def _look(self) -> StateError | None:
        """Ask State for what changed; what it said last holds while it is silent, and the loops say that it is."""
        try:
            self._watch.look()
        except StateError as error:
            if self._settings.state:  # it has the loops, so nobody can say that there is none of a name
                self._silent = str(error)
            return error
        self._silent = None
        return None

    def _adopt(self, names: list[str]) -> None:
        """Take over what an earlier release kept of these loops' guards."""
        new = set(names) - self._known
        with suppress(StateError):  # at the next look
            for name in new:
                adopt(self._settings, self._state, name)
            self._known |= new
            if new:
                self._watch.look()

    def _refresh(self, name: str) -> None:
        entry = self._watch.get(settings_key(name)) if self._settings.state else None
        stamp = self._settings.loop_path(name).stat().st_mtime if entry is None else float(entry.version)
        current = self._snapshots.get(name)
        if current is None or self._stamps.get(name) != stamp:
            applied = None if entry is None else parse_applied(entry.value, name, os.environ)
            loop, version = applied or load_loop(self._settings, name), 0 if entry is None else entry.version
            current = replace(_with_loop(current, loop), settings_version=version)
            self._snapshots[name], self._stamps[name] = current, stamp
        self._refresh_anchors(name)
        self._refresh_guard(name)  # first: an emergency stop does not wait for the registry
        self._refresh_champion(name)

    def _refresh_anchors(self, name: str) -> None:
        """Take the upheld pairs that were published, and load the policies anew when they changed."""
        current, value = self._snapshots[name], self.seen(anchors_key(name))
        clamps = current.loop.fairness.enabled and current.loop.fairness.clamp
        stamp = (value or former_stamp(self._settings, name)) if clamps else b""
        if self._anchored.get(name, b"") != stamp:
            self._anchors[name] = published(self._settings, name, value) if stamp else []
            self._anchored[name] = stamp
            policy = None if current.policy is None else self.load(name, current.policy_version)
            self._snapshots[name] = replace(current, policy=policy, candidate=None)

    def _refresh_champion(self, name: str) -> None:
        current = self._snapshots[name]
        entry = self._watch.get(charge_key(name))
        aliases = self._registry.aliases(name) if entry is None else aliases_in(name, entry.value)
        version = aliases.get("champion")
        if version is None:
            if current.policy is not None:
                self._snapshots[name] = replace(
                    current, policy=None, policy_version=current.baseline_version, candidate=None
                )
                self.reloads += 1
                self._refresh_guard(name)
        elif version != current.policy_version:
            policy = self.load(name, version)
            self._snapshots[name] = replace(current, policy=policy, policy_version=version, candidate=None)
            self.reloads += 1
            tell(_log, "version in charge", {"loop": name, "version": version})
            self._refresh_guard(name)

    def _refresh_guard(self, name: str) -> None:
        """Take what the guard published; whatever is wrong with it, or its candidate, leaves the candidate out.

        Raises:
            DecisionError: the snapshot is damaged, or the candidate cannot be loaded.
        """
        current = self._snapshots[name]
        alone = replace(current, candidate=None, guard=None)
        if not current.loop.guard.enabled:
            self._guards.pop(name, None)
            self._snapshots[name] = alone
            return
        entry = self._watch.get(snapshot_key(name))
        if entry is None:
            self._snapshots[name] = alone
            return
        try:
            found = decode_snapshot(entry.value)
            if found.loop != name:
                raise FieldError("guard.loop", wanted=name, got=found.loop)
        except DecisionError:
            self._snapshots[name] = alone
            raise
        guard = self._guards[name] = newest(self._guards.get(name), found)
        # A snapshot about another policy in charge says nothing about a mixture with this one.
        served = not guard.killed and largest_weight(guard) > 0.0 and guard.baseline_version == current.policy_version
        if not served or not guard.candidate_version:
            self._snapshots[name] = replace(alone, guard=guard)
        elif current.candidate is not None and current.candidate_version == guard.candidate_version:
            self._snapshots[name] = replace(current, guard=guard)
        else:
            self._snapshots[name] = replace(alone, guard=guard)
            candidate = self.load(name, guard.candidate_version)
            self._snapshots[name] = replace(current, candidate=candidate, guard=guard)
            tell(_log, "version rolled out", {"loop": name, "version": guard.candidate_version})

    def load(self, name: str, version: str) -> Policy:
        """Return a version's policy, verified and tried on a probe.

        Raises:
            DecisionError: its files do not fit, or it gives no distribution.
        """
        files = self._registry.files(name, version)
        self.refresher.beat()
        policy, manifest = unpack(files)
        if manifest.loop != name:
            raise DecisionError(f"version {version} was trained for loop {manifest.loop!r}, not {name!r}")
        check_pmf(policy.pmf(_PROBE), _PROBE.offsets)
        if anchors := self._anchors.get(name):
            return ClampedPolicy(policy, anchors, self._snapshots[name].loop.fairness.protected)
        return policy

    def _run(self) -> None:
        if not self._warm:
            self._registry.warm()  # seconds of imports: in the first round, not in the middle of a promotion
            self._warm = True
        self.refresh()
        self._after_refresh()


def _with_loop(current: Snapshot | None, loop: LoopSettings) -> Snapshot:
    baseline, version = baseline_policy(loop.reference, steepness=loop.steepness), f"baseline:{loop.reference}"
    if current is None or current.policy is None:
        return Snapshot(loop, None, version, baseline, version)
    return replace(current, loop=loop, baseline=baseline, baseline_version=version)
