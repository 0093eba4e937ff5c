"""A panel that is at work: auditors of different strictness judge pairs, and what is divided or appealed waits.

All of it goes through the store as people's own judgements do, with past times, so a page cannot tell the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa

from pipelines.fairness import tables as t
from pipelines.fairness.people import Person, add_person
from pipelines.fairness.store import Governance
from pipelines.fairness.tasks import LIMITS, Judgement, Verdict, judge, queue
from pipelines.fairness.verdicts import adjudicate, appeal

AUDITORS = 4
"""Two against two is the least that divides a panel."""

_APART = timedelta(seconds=30)
_WHY: dict[Verdict, str] = {
    "unfair": "They are nearly alike. Nothing that I see explains so large a difference.",
    "fair": "They differ in what matters for a discount, so a difference of this size is all right.",
    "cannot_tell": "I would have to know what either of them bought before.",
}


class Seated(NamedTuple):
    """Somebody of the panel: who they are, and the key that they sign in with."""

    person: Person
    key: str


class Panel(NamedTuple):
    """The people of a loop's panel."""

    auditors: list[Seated]
    adjudicator: Seated
    administrator: Seated
    owner: Seated


def seat(store: Governance, loop: str, *, now: datetime, by: str) -> Panel:
    """Add the people of a panel: `AUDITORS` auditors, an adjudicator, an administrator and the loop's owner."""
    auditors = [
        Seated(*add_person(store, name=f"Auditor {number + 1}", roles=["auditor"], now=now, by=by))
        for number in range(AUDITORS)
    ]
    adjudicator = Seated(*add_person(store, name="Adjudicator", roles=["adjudicator"], now=now, by=by))
    administrator = Seated(*add_person(store, name="Administrator", roles=["administrator"], now=now, by=by))
    owner = Seated(*add_person(store, name="Owner", roles=["owner"], owns=[loop], now=now, by=by))
    return Panel(auditors, adjudicator, administrator, owner)


def work(store: Governance, loop: str, panel: Panel, *, now: datetime) -> datetime:
    """Let a panel judge all that waits, and return when it was done.

    Of n auditors the k-th calls a share of k / (n + 1) unfair, the largest differences: the panel upholds the largest
    ones, is divided over those in the middle, and dismisses the smallest. On the smallest the strictest cannot tell.
    The adjudicator decides one half of the disputes and leaves the others. The strictest was outvoted, and appeals.

    Args:
        store: where; panels are drawn.
        loop: the loop.
        panel: its people.
        now: when the first one judges, UTC; the others follow half a minute apart.
    """
    query = sa.select(t.tasks.c.task_id, t.tasks.c.gap).where(t.tasks.c.loop == loop, t.tasks.c.status == "open")
    gaps = {row["task_id"]: float(row["gap"]) for row in store.rows(query.order_by(t.tasks.c.gap.desc()))}
    place = {task: number for number, task in enumerate(gaps)}
    for number, (person, _) in enumerate(panel.auditors, 1):
        most = number * len(gaps) / (len(panel.auditors) + 1)
        for task in queue(store, person, now=now):
            name = task["task_id"]
            last = place[name] == len(gaps) - 1 and number == len(panel.auditors)
            verdict: Verdict = "cannot_tell" if last else "unfair" if place[name] < most else "fair"
            judge(store, person, name, _said(verdict, gaps[name], task["payload_hash"]), now=now)
            now += _APART
    return _settle(store, loop, panel, list(gaps), now)


def _said(verdict: Verdict, gap: float, shown: str) -> Judgement:
    """Return a judgement; who calls a difference unfair would accept half of it at most."""
    accepted = {
        "unfair": max(limit for limit in LIMITS if limit <= gap / 2.0),
        "fair": min(limit for limit in LIMITS if limit >= gap),
        "cannot_tell": None,
    }
    return Judgement(verdict=verdict, payload_hash=shown, acceptable=accepted[verdict], reason=_WHY[verdict])


def _settle(store: Governance, loop: str, panel: Panel, tasks: Sequence[str], now: datetime) -> datetime:
    of_loop = sa.select(t.tasks.c.task_id, t.tasks.c.status).where(t.tasks.c.loop == loop)
    stands = {row["task_id"]: row["status"] for row in store.rows(of_loop)}
    disputed = [task for task in tasks if stands[task] == "disputed"]
    judge_of, by = panel.adjudicator.person, panel.adjudicator.person.person_id
    for number, task in enumerate(disputed[: len(disputed) // 2]):
        status = "upheld" if number % 2 == 0 else "dismissed"
        note = "Half of the panel is right: the two are too alike." if number % 2 == 0 else "The difference is small."
        adjudicate(store, task, status, note=note, now=now, by=by, person=judge_of)
        now += _APART
    outvoted = panel.auditors[-1].person  # alone against the others
    dismissed = next((task for task in tasks if stands[task] == "dismissed"), None)
    if dismissed is not None:
        reason = "The others looked at the income alone. In all else the two are alike."
        appeal(store, loop, reason=reason, now=now, by=outvoted.person_id, task_id=dismissed, person=outvoted)
    return now
