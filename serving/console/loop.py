"""What a loop's page shows: its versions and verdicts, the ladder, exploration's health, what changed, its nights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from markupsafe import Markup

from decision.errors import FieldError
from decision.guard.snapshot import GuardSnapshot, decode_snapshot
from pipelines.evaluation.rewards import running
from pipelines.guard.keys import snapshot_key
from pipelines.guard.report import GuardReport, report
from pipelines.guard.store import GuardStore
from pipelines.registry.charge import WrittenVerdict
from pipelines.reports.lines import Point, against, band
from pipelines.settings import LoopSettings
from pipelines.state.state import State
from serving.console.nights import Night, Number
from serving.console.overview import value_of
from serving.core import Core

SHOWN_VERSIONS, SHOWN_NIGHTS, SHOWN_ACTIONS, SHOWN_POINTS = 20, 14, 12, 45
_VERDICTS = {
    "promoted": "Promoted: it decides",
    "candidate": "Passed the gate: rolled out under the guard",
    "refused": "Refused by the gate",
    "rolled_back": "Rolled back",
    "killed": "Stopped by the guard: it is worse",
    "set": "Set by hand",
}
_LEGS = {
    "futility": ("It is worse", "the candidate is stopped"),
    "promotion": ("It is better", "the candidate is promoted"),
    "drift": ("The world changed", "the rollout goes back to its first rung"),
}


class VersionRow(NamedTuple):
    """A version.

    Attributes:
        version: its number.
        made: when it was registered.
        place: ``in charge``, ``rolled out`` or "".
        verdict: the latest on it, in words; "" without one.
        by: who passed it.
        reasons: why.
        value: what it is worth by the latest night that judged it.
    """

    version: str
    made: Any
    place: str
    verdict: str
    by: str
    reasons: list[str]
    value: Number | None


class RungRow(NamedTuple):
    """A weight of the ladder: how far the evidence has come that it is safe, and whether it is served now."""

    weight: float
    share: float
    certified: bool
    served: bool


class LegRow(NamedTuple):
    """A test of the rollout in words: what it asks, how far its evidence has come, and what happens then."""

    asks: str
    share: float
    then: str


def versions_of(core: Core, loop: str, nights: Sequence[Night], verdicts: Sequence[WrittenVerdict]) -> list[VersionRow]:
    """Return the latest versions, newest first; blocking.

    Raises:
        RegistryError: the registry cannot be reached.
    """
    registry = core.registry
    aliases, latest = registry.aliases(loop), dict[str, WrittenVerdict]()
    for written in verdicts:
        if _ends_rollout(written) and written.version in latest:
            continue  # the verdict before it says why
        latest[written.version] = written
        if written.from_version is not None:  # who lost its place hears of it, too
            latest[written.from_version] = written
    places = {aliases.get("candidate"): "rolled out", aliases.get("champion"): "in charge"}
    rows: list[VersionRow] = []
    for known in registry.versions(loop)[: -SHOWN_VERSIONS - 1 : -1]:
        said = latest.get(known.version)
        rows.append(
            VersionRow(
                known.version,
                known.created_at,
                places.get(known.version, ""),
                "" if said is None else verdict_words(said, known.version),
                "" if said is None else said.by,
                [] if said is None else said.reasons,
                value_of(list(nights), known.version),
            )
        )
    return rows


def verdict_words(written: WrittenVerdict, version: str) -> str:
    """Return what a verdict means for a version."""
    if written.from_version == version and written.to_version != version and written.alias == "champion":
        gone = {"rolled_back": "Rolled back", "killed": "Stopped by the guard: it is worse"}.get(written.verdict)
        return gone or f"Replaced by {f'version {written.to_version}' if written.to_version else 'the baseline'}"
    if _ends_rollout(written):
        return "Rollout ended"
    if written.verdict == "rolled_back":
        return "Decides again after a rollback"
    if written.verdict == "promoted" and not written.alias:
        return "Passed the gate"
    return _VERDICTS.get(written.verdict, written.verdict.replace("_", " ").capitalize())


def _ends_rollout(written: WrittenVerdict) -> bool:
    return written.verdict == "set" and written.alias == "candidate" and written.to_version is None


def guard_of(core: Core, loop: str) -> GuardReport:
    """Return the guard's report; blocking.

    Raises:
        StateError: State cannot be reached.
    """
    store = GuardStore(core.settings, loop)
    try:
        return report(store.load(), store.moves(latest=50))
    finally:
        store.close()


def published_of(state: State, loop: str) -> GuardSnapshot | None:
    """Return what the loop's guard published last; None for nothing, or what cannot be read; blocking.

    Raises:
        StateError: State cannot be reached.
    """
    entry = state.get(snapshot_key(loop))
    try:
        return None if entry is None else decode_snapshot(entry.value)
    except FieldError:  # the loop's error says so
        return None


def rungs_of(seen: GuardReport) -> list[RungRow]:
    """Return the ladder, the smallest weight first."""
    needed = next((leg.needed for leg in seen.legs if leg.name == "futility"), 1.0)  # the ladder has the same
    return [
        RungRow(
            rung.weight,
            1.0 if rung.certified else min(max(rung.log_wealth / needed, 0.0), 1.0),
            rung.certified,
            math.isclose(rung.weight, seen.weight),
        )
        for rung in seen.rungs
    ]


def legs_of(seen: GuardReport) -> list[LegRow]:
    """Return the rollout's tests in words."""
    rows: list[LegRow] = []
    for leg in seen.legs:
        asks, then = _LEGS[leg.name]
        reached = 0.0 if leg.log_wealth is None else leg.log_wealth / leg.needed
        rows.append(LegRow(asks, min(max(reached, 0.0), 1.0), then))
    return rows


def value_chart(nights: Sequence[Night], loop: LoopSettings) -> str:
    """Return the mean reward so far with its interval, and each night's own mean, drawn; "" before a night."""
    kept = [(night, night.rewards) for night in nights if night.rewards is not None and night.rewards.n]
    every = [sums for _, sums in kept]
    so_far = running(every, loop.reward.minimum, loop.reward.maximum, latest=SHOWN_POINTS)
    points = [
        Point(night.started_at.strftime("%-d %b"), at.mean, at.low, at.high, sums.total / sums.n)
        for (night, sums), at in zip(kept[-SHOWN_POINTS:], so_far, strict=True)
    ]
    if not points:
        return ""
    last = so_far[-1]
    return band(
        points,
        f"Mean reward over {last.n:,} decisions of {len(kept)} nights: {last.mean:.4g}, "
        f"between {last.low:.4g} and {last.high:.4g}",
    )


class HealthView(msgspec.Struct, frozen=True, kw_only=True):
    """Exploration's health as the latest night that looked found it.

    Attributes:
        night: when.
        version: of which version.
        entropy: as a share of the uniform policy's.
        logged_entropy: of what drew the log; None where nobody knows.
        ess: effective rows, as a share of the rows.
        rows: rows looked at.
        smallest: smallest probability of a drawn action.
        calibration_error: None without predictions.
        calibration: drawn; "" without predictions.
        actions: distinct actions offered.
        untried: those of them that were never drawn.
        support: the most offered actions.
        alarms: in words.
    """

    night: Any
    version: str
    entropy: float
    logged_entropy: float | None
    ess: float
    rows: int
    smallest: float
    calibration_error: float | None
    calibration: str
    actions: int
    untried: int
    support: list[dict[str, Any]]
    alarms: list[str]


def health_of(nights: Sequence[Night]) -> HealthView | None:
    """Return the health that the latest night found; None where none looked."""
    for night in reversed(nights):
        found = night.health
        if found is None:
            continue
        bins = [(one["predicted"], one["observed"], one["error"]) for one in found["calibration"]]
        return HealthView(
            night=night.started_at,
            version=night.version,
            entropy=found["entropy"],
            logged_entropy=found["logged_entropy"],
            ess=found["effective_sample_size"],
            rows=found["rows"],
            smallest=found["smallest_propensity"],
            calibration_error=found["calibration_error"],
            calibration=Markup(  # noqa: S704 - drawn here, its text escaped
                against(bins, f"Observed against predicted reward in {len(bins)} groups of decisions")
            ),
            actions=found["actions"],
            untried=found["actions_never_chosen"],
            support=found["support"][:SHOWN_ACTIONS],
            alarms=found["alarms"],
        )
    return None
