"""Which policy answers: a thread looks for new champions, checks them, and swaps one reference.

Requests read the reference once, so no answer mixes two versions. What cannot be loaded leaves the last good one in
charge; without any, the baseline answers with its true probabilities.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from decision.artifact import unpack
from decision.batch import Batch
from decision.contracts import Policy
from decision.errors import DecisionError
from decision.exploration.mix import check_pmf
from decision.policy import baseline_policy
from pipelines.registry import Registry
from pipelines.settings import LoopSettings, Settings, list_loops, load_loop
from serving.decide import Snapshot

_log = logging.getLogger("decision.models")
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
        self._snapshots: dict[str, Snapshot] = {}
        self._errors: dict[str, str] = {}
        self._mtimes: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.reloads = 0

    def start(self, after_refresh: Callable[[], None] = lambda: None) -> None:
        """Load everything once, then keep looking in a thread, which calls `after_refresh` each time."""
        self.refresh()
        self._thread = threading.Thread(target=self._run, args=(after_refresh,), name="models", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def get(self, name: str) -> Snapshot | None:
        """Return what answers in the loop `name` now, or None when there is no such loop."""
        return self._snapshots.get(name)

    def names(self) -> list[str]:
        """Return the loops' names."""
        return sorted(self._snapshots)

    def error(self, name: str) -> str | None:
        """Return why the loop does not run as its settings and registry say, or None."""
        return self._errors.get(name)

    def refresh(self) -> None:
        """Look at every loop once; never raises."""
        for name in list_loops(self._settings):
            try:
                self._refresh(name)
                self._errors.pop(name, None)
            except Exception as error:
                if self._errors.get(name) != str(error):
                    _log.warning("loop %s: %s", name, error)
                self._errors[name] = str(error)

    def _refresh(self, name: str) -> None:
        path = self._settings.loop_path(name)
        mtime = path.stat().st_mtime
        current = self._snapshots.get(name)
        if current is None or self._mtimes.get(name) != mtime:
            loop = load_loop(self._settings, name)
            current = _with_loop(current, loop)
            self._snapshots[name], self._mtimes[name] = current, mtime
        version = self._registry.aliases(name).get("champion")
        if version is None:
            if current.policy is not None:
                self._snapshots[name] = replace(current, policy=None, policy_version=current.baseline_version)
                self.reloads += 1
        elif version != current.policy_version:
            policy = self.load(name, version)
            self._snapshots[name] = replace(current, policy=policy, policy_version=version)
            self.reloads += 1
            _log.info("loop %s: version %s is in charge", name, version)

    def load(self, name: str, version: str) -> Policy:
        """Return a version's policy, verified and tried on a probe.

        Raises:
            DecisionError: its files do not fit, or it gives no distribution.
        """
        policy, manifest = unpack(self._registry.files(name, version))
        if manifest.loop != name:
            raise DecisionError(f"version {version} was trained for loop {manifest.loop!r}, not {name!r}")
        check_pmf(policy.pmf(_PROBE), _PROBE.offsets)
        return policy

    def _run(self, after_refresh: Callable[[], None]) -> None:
        while not self._stop.wait(self._settings.reload_s):
            self.refresh()
            after_refresh()


def _with_loop(current: Snapshot | None, loop: LoopSettings) -> Snapshot:
    baseline, version = baseline_policy(loop.baseline.kind), f"baseline:{loop.baseline.kind}"
    if current is None or current.policy is None:
        return Snapshot(loop, None, version, baseline, version)
    return replace(current, loop=loop, baseline=baseline, baseline_version=version)
