"""The nights of a loop as the console shows them: State's manifests, read once each and kept as a few numbers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from decision.validation import prepared
from pipelines.evaluation.drift import Drifted
from pipelines.evaluation.rewards import Rewards
from pipelines.runs import Run
from pipelines.settings import check_loop_name
from pipelines.state.rows import read_json
from pipelines.state.state import State
from serving.console.drifting import DriftView, drift_view

MOST = 90
"""Nights of a loop that are shown, the latest."""


class Number(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate with its 95% interval."""

    value: float
    low: float
    high: float


class Night(msgspec.Struct, frozen=True, kw_only=True):
    """A night.

    Attributes:
        run_id: its id.
        started_at: when it began.
        status: ``running``, ``failed`` or ``done``.
        error: the step that failed and why, "" without.
        verdict: what came of it, see `Run.verdict`.
        finished: its finished steps.
        rewards: what its settled rewards add up to; None of a night before they were kept.
        join_rate: share of its decisions that met an outcome; None where it was not looked at.
        entropy: of what was drawn from, as a share of the uniform policy's; None likewise.
        version: the version that it trained; "" for none.
        values: what policies are worth on its holdout, by the version; "" for the baseline.
        lift: of its version over the policy in charge then.
        against: that policy, in words.
        health: of its version, see `pipelines.evaluation.health.Health`.
        skipped: why nothing was trained or judged, "" where it was.
        reasons: of its verdict.
        looked: whether it looked for alarms and drift.
    """

    run_id: str
    started_at: datetime
    status: str
    error: str
    verdict: str
    finished: list[str]
    rewards: Rewards | None = None
    join_rate: float | None = None
    entropy: float | None = None
    version: str = ""
    values: dict[str, Number] = {}
    lift: Number | None = None
    against: str = ""
    health: dict[str, Any] | None = None
    skipped: str = ""
    reasons: list[str] = []
    looked: bool = False


class Nights:
    """The nights of all loops, as of the last look; safe to share between threads.

    Args:
        state: State.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._held: dict[str, tuple[int, Night]] = {}
        self._drift: dict[str, tuple[str, Drifted | None]] = {}
        self._looking = threading.Lock()

    def of(self, loop: str) -> list[Night]:
        """Return the loop's latest nights, oldest first; manifests that did not change are not read again.

        Raises:
            StateError: State cannot be reached.
        """
        prefix = _run_key(loop, "")
        with self._looking:
            versions = self._state.versions(prefix)
            latest = sorted(versions)[-MOST:]  # ids begin with the time, but for those that somebody chose
            for key in [key for key in self._held if key.startswith(prefix) and key not in versions]:
                del self._held[key]
            for key in latest:
                held = self._held.get(key)
                if held is None or held[0] != versions[key]:
                    entry = self._state.get(key)
                    if entry is not None:
                        self._held[key] = (
                            entry.version,
                            night_of(read_json(key, entry.value, Run)),
                        )
            found = [self._held[key][1] for key in latest if key in self._held]
        return sorted(found, key=lambda night: (night.started_at, night.run_id))

    def drift(self, loop: str, nights: Sequence[Night]) -> DriftView | None:
        """Return the drift that the latest of a loop's `nights` found which looked; None where none can tell.

        Raises:
            StateError: State cannot be reached.
        """
        night = next((night for night in reversed(nights) if night.looked), None)
        if night is None:
            return None
        kept = self._drift.get(loop)
        if kept is None or kept[0] != night.run_id:
            run = self.run(loop, night.run_id)
            kept = self._drift[loop] = (night.run_id, None if run is None else _drift_of(run))
        return None if kept[1] is None else drift_view(kept[1], night.started_at, night.run_id)

    def run(self, loop: str, run_id: str) -> Run | None:
        """Return the manifest of a night, None where none is kept under this id.

        Raises:
            StateError: State cannot be reached.
        """
        key = _run_key(loop, run_id)
        entry = self._state.get(key)
        return None if entry is None else read_json(key, entry.value, Run)


def _run_key(loop: str, run_id: str) -> str:
    return f"run/{check_loop_name(loop)}/{run_id}"


def night_of(run: Run) -> Night:
    """Return what is shown of a run."""
    alarms, evaluated = run.result("alarms") or {}, run.result("evaluate") or {}
    rewards = alarms.get("rewards")
    skipped = evaluated.get("skipped", "")
    versions = {"version": evaluated.get("version"), "against": evaluated.get("against_version"), "baseline": ""}
    versions["proven"] = evaluated.get("proven_version")
    values: dict[str, Number] = {}
    for value in evaluated.get("values", []):
        version = versions.get(value["role"])
        if version is not None and (number := _number(value["dr"])) is not None:
            values[version] = number
    return Night(
        run_id=run.run_id,
        started_at=run.started_at,
        status=run.status,
        error=run.error,
        verdict=run.verdict,
        finished=[step.name for step in run.steps],
        rewards=None if rewards is None else msgspec.convert(rewards, prepared(Rewards)),
        join_rate=alarms.get("join_rate"),
        entropy=alarms.get("entropy"),
        version=evaluated.get("version", "") or (run.result("train") or {}).get("version", ""),
        values=values,
        lift=_number(evaluated.get("lift_estimate")),
        against=evaluated.get("against", ""),
        health=evaluated.get("health"),
        skipped=skipped,
        reasons=(run.result("promote") or {}).get("reasons", []),
        looked=bool(alarms),
    )


def _drift_of(run: Run) -> Drifted | None:
    """Return what a night's manifest says of drift; None of one of another release."""
    try:
        return msgspec.convert((run.result("alarms") or {}).get("drift"), prepared(Drifted))
    except msgspec.ValidationError:
        return None


def _number(estimate: dict[str, Any] | None) -> Number | None:
    """Return an estimate of a manifest; None where it has none, or one whose interval JSON cannot hold."""
    if estimate is None or None in (estimate["value"], estimate["low"], estimate["high"]):
        return None
    return Number(value=estimate["value"], low=estimate["low"], high=estimate["high"])
