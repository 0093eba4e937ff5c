"""Drift in words: how the decisions of the latest night that looked differ from those that a version was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from decision.drift.compare import MOVED, Changed, Moved
from pipelines.evaluation.drift import Drifted
from serving.console.frame import percent

SHOWN_FEATURES, SHOWN_REWARDS = 15, 8
_FEW = 3
_POINTS = 0.01


class MovedRow(NamedTuple):
    """A feature, or the offer of actions.

    Attributes:
        name: of it.
        of: what has it: ``context``, ``actions`` or ``offers``.
        state: ``alarm``, ``differs`` (no more than chance or single days allow) or ``same``.
        says: what is different, in words.
        psi: its population stability index.
    """

    name: str
    of: str
    state: str
    says: list[str]
    psi: float


class ChangedRow(NamedTuple):
    """Rewards of some decisions, drawn blindly: of which, now and in training, their share, and whether it alarms."""

    of: str
    mean: float
    before: float
    share: float
    alarmed: bool


class DriftView(NamedTuple):
    """What a loop's page says of drift.

    Attributes:
        night: when the night began that looked.
        run_id: its id.
        version: whose training data the decisions were held against.
        rows: decisions of the night.
        before: decisions of the training data.
        skipped: why nothing was compared; "" where it was.
        features: what moved, worst first.
        more: how many others are as in training, or not shown.
        rewards: what changed, worst first.
    """

    night: datetime
    run_id: str
    version: str
    rows: int
    before: int
    skipped: str
    features: list[MovedRow]
    more: int
    rewards: list[ChangedRow]


def drift_view(found: Drifted, night: datetime, run_id: str) -> DriftView:
    """Return the drift that a night found, in words."""
    if found.found is None:
        return DriftView(night, run_id, found.version, 0, 0, found.skipped, [], 0, [])
    drift = found.found
    rows = [
        *_rows(drift.features, "context"),
        *_rows(drift.actions, "actions"),
        *([] if drift.offers is None else _rows([drift.offers], "offers")),
    ]
    rows.sort(key=lambda row: (row.state != "alarm", -row.psi))
    changed = [_changed(one) for one in drift.rewards if one.alarmed or not one.of][:SHOWN_REWARDS]
    return DriftView(
        night,
        run_id,
        found.version,
        drift.rows,
        drift.before,
        "",
        rows[:SHOWN_FEATURES],
        len(rows[SHOWN_FEATURES:]),
        changed,
    )


def _rows(moved: Sequence[Moved], of: str) -> list[MovedRow]:
    return [MovedRow(one.name, of, _state(one), _words(one), one.psi) for one in moved]


def _state(one: Moved) -> str:
    return "alarm" if one.alarmed else "differs" if one.psi >= MOVED else "same"


def _words(one: Moved) -> list[str]:
    says: list[str] = []
    if one.new:
        shown = [f"“{value}” ({percent(share)})" for value, share in list(one.new.items())[:_FEW]]
        says.append(f"new: {', '.join(shown)}")
    if one.gone:
        shown = [f"“{value}” ({percent(share)} in training)" for value, share in list(one.gone.items())[:_FEW]]
        says.append(f"gone: {', '.join(shown)}")
    if abs(one.missing - one.missing_before) >= _POINTS:
        says.append(f"missing in {percent(one.missing)}, {percent(one.missing_before)} in training")
    if one.cell != "missing":
        says.append(f"{one.cell}: {percent(one.share)}, {percent(one.share_before)} in training")
    return says or ["as in training"]


def _changed(one: Changed) -> ChangedRow:
    return ChangedRow(one.of or "all decisions", one.mean, one.mean_before, one.share, one.alarmed)
