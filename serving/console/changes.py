"""What changed in a loop of late, and by whom: settings, verdicts, the guard's moves, cleared alarms, the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import sqlalchemy as sa

from decision.errors import FieldError
from pipelines.evaluation.standing import Cleared
from pipelines.fairness import tables as t
from pipelines.fairness.store import Governance
from pipelines.guard.store import Move
from pipelines.operations.apply import differing
from pipelines.operations.edit import settings_history
from pipelines.registry.charge import WrittenVerdict
from pipelines.settings import LoopSettings, parse_loop
from pipelines.state.state import Change
from serving.console.frame import share, shown
from serving.console.loop import verdict_words
from serving.core import Core

SHOWN = 25
_MOST = 10
_MOVES = {
    "started": "Rollout began",
    "raised": "Share raised",
    "lowered": "Share lowered",
    "excluded": "Stopped in one segment",
    "frozen": "Frozen",
    "drifted": "Went back to the first rung",
    "killed": "Stopped by the guard",
    "promoted": "Promoted by the guard",
    "withdrawn": "Withdrawn",
    "capped": "Share capped",
    "stopped": "Stopped",
    "resumed": "Resumed",
    "failed": "A move failed",
}
_PANELS = {
    "rule_set": "The panels' rule was set",
    "judge_types": "Kinds of auditors were looked for",
    "gate": "The gate asked the panels",
}


class Changed(NamedTuple):
    """One change: when, by whom, what, and the details in words."""

    at: datetime
    by: str
    what: str
    details: list[str]


def changes(
    core: Core,
    loop: str,
    moves: Sequence[Move],
    verdicts: Sequence[WrittenVerdict],
    clearings: Sequence[Cleared],
    governance: Governance | None,
) -> list[Changed]:
    """Return the latest changes of a loop, newest first; blocking.

    Args:
        core: of the service.
        loop: the loop.
        moves: of its guard.
        verdicts: of the registry.
        clearings: alarms that were cleared.
        governance: the panels' store; None for a loop without panels.

    Raises:
        StateError: State cannot be reached.
    """
    found = [*_settings(core, loop), *map(_move, moves[-SHOWN:]), *map(_verdict, verdicts[-SHOWN:])]
    found += [Changed(_utc(one.at), one.by, f"Alarm cleared: {one.key}", [one.text]) for one in clearings]
    if governance is not None:
        of_loop = sa.select(t.audit_log).where(t.audit_log.c.subject == loop)
        for row in governance.rows(of_loop.order_by(t.audit_log.c.seq.desc()).limit(_MOST)):
            what = _PANELS.get(row["kind"], f"Panels: {str(row['kind']).replace('_', ' ')}")
            found.append(Changed(_utc(row["at"]), row["actor"], what, []))
    return sorted(found, key=lambda one: one.at, reverse=True)[:SHOWN]


def _move(one: Move) -> Changed:
    _, by, who = one.reason.partition(" by ")
    operated = one.kind in ("capped", "stopped", "resumed") and by
    moved = f"version {one.candidate_version}: {share(one.from_weight)} → {share(one.to_weight)}"
    details = [moved] if one.candidate_version else []
    if one.kind == "capped" and "cap" in one.numbers:
        details.append(f"cap {share(one.numbers['cap'])}")
    details += [one.reason] if one.reason and not operated else []
    return Changed(_utc(one.at), who if operated else "the guard", _MOVES.get(one.kind, one.kind), details)


def _verdict(one: WrittenVerdict) -> Changed:
    return Changed(
        _utc(one.at), one.by, f"Version {one.version}: {verdict_words(one, one.version).lower()}", one.reasons
    )


def _settings(core: Core, loop: str) -> list[Changed]:
    history = settings_history(core.settings, loop)[-_MOST - 1 :]
    out: list[Changed] = []
    for before, now in zip([None, *history], history, strict=False):
        if before is None and now.version > 1:
            continue  # what it was before is not kept
        first = before is None or before.value is None
        what = "Settings removed" if now.value is None else "First settings" if first else "Settings applied"
        out.append(Changed(now.at, now.by, what, _differences(before, now, loop)))
    return out


def _differences(before: Change | None, now: Change, loop: str) -> list[str]:
    """Return what a change did, setting by setting; first settings are held against the defaults."""
    if now.value is None:
        return []
    try:
        stood = LoopSettings(name=loop) if before is None or before.value is None else _parsed(before.value, loop)
        found = differing(stood, _parsed(now.value, loop))
    except (FieldError, UnicodeDecodeError):  # of another release
        return ["cannot be read by this release"]
    return [f"{path}: {shown(was)} → {shown(is_now)}" for path, (was, is_now) in found.items()] or [
        "no value differs: comments or blanks alone"
    ]


def _parsed(text: bytes, loop: str) -> LoopSettings:
    return parse_loop(text.decode(), loop, {})


def _utc(stamp: str) -> datetime:
    at = datetime.fromisoformat(stamp)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
