"""Verdicts: a panel's when it is complete or overdue, an adjudicator's on a dispute, and appeals that reopen one."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from decision.errors import FieldError, Words
from decision.fairness.audit_log import digest
from decision.fairness.resolve import Tally, tally
from decision.fairness.rule import Rule
from decision.records import MAX_ID_CHARS
from pipelines.fairness import tables as t
from pipelines.fairness.errors import ForbiddenError, NoTaskError
from pipelines.fairness.people import Person
from pipelines.fairness.store import Governance, Query, Writing, stamp
from pipelines.logs import step

MAX_REASON = 2_000
MOST_WAITING = 5
"""Appeals of one person on one loop that wait for an adjudicator: a pair lies still meanwhile, and so might all."""


def close_overdue(store: Governance, *, now: datetime, by: str) -> int:
    """Close the open tasks whose deadline is over, on the judgements there are, and return how many."""
    closed = 0
    with store.write(now, by) as writing:
        query = with_rule().where(t.tasks.c.status == "open", t.tasks.c.due_at <= writing.at)
        for task in writing.rows(query):
            closed += close(writing, task, overdue=True)
    return closed


@step("adjudicated")
def adjudicate(
    store: Governance,
    task_id: str,
    status: str,
    *,
    note: str,
    now: datetime,
    by: str,
    person: Person | None = None,
) -> dict[str, Any]:
    """Decide a disputed pair. The panel's judgements stay as they are, and an adjudicator's is none of them.

    Args:
        store: where.
        task_id: the pair.
        status: ``upheld`` or ``dismissed``.
        note: why; an adjudicator gives reasons.
        now: time, UTC.
        by: who, for the log.
        person: the adjudicator, where known; checked for the role and for conflicts of interest.

    Raises:
        FieldError: the verdict is none, no reason is given, or the task is not disputed.
        ForbiddenError: they are no adjudicator, own the model or sat on the panel.
        NoTaskError: there is no such task.
    """
    if status not in ("upheld", "dismissed"):
        raise FieldError("verdict", wanted="upheld or dismissed", got=status)
    check_reason("note", note)
    if person is not None and not person.may("adjudicator"):
        raise ForbiddenError("only adjudicators decide disputes")
    with store.write(now, by) as writing:
        found = writing.rows(with_rule().where(t.tasks.c.task_id == task_id))
        if not found:
            raise NoTaskError(f"there is no task {task_id[:40]!r}")
        task = found[0]
        if person is not None:
            if task["loop"] in person.owns:
                raise ForbiddenError("the owner of a model does not adjudicate it")
            sat = judgements_on(task_id).where(t.judgements.c.person_id == person.person_id)
            if writing.rows(sat):
                raise ForbiddenError("a member of the panel does not adjudicate its dispute")
        if task["status"] != "disputed":
            raise FieldError("task", wanted="a disputed pair", got=task["status"])
        counted = _counted(writing, task)
        _decide(writing, task, status, "adjudicated", by, note.strip(), counted)
    return {"task_id": task_id, "status": status, "decided_at": stamp(now)}


def appeal(
    store: Governance,
    loop: str,
    *,
    reason: str,
    now: datetime,
    by: str,
    event_id: str = "",
    task_id: str = "",
    person: Person | None = None,
) -> str:
    """Take an appeal against a decision, which the next mining pairs, or a verdict, which becomes a dispute again.

    Args:
        store: where.
        loop: the loop.
        reason: why.
        now: time, UTC.
        by: who, for the log.
        event_id: the decision,
        task_id: or the pair.
        person: the one who appeals, where known; a member of the panel, an owner or an administrator, and once a pair.

    Raises:
        FieldError: not exactly one of `event_id` and `task_id` is given, the id is none, there is no reason, the
            verdict cannot be appealed, they appealed it before, or too many appeals of theirs wait.
        ForbiddenError: they neither sat on the panel nor own the model, nor are administrators.
    """
    if bool(event_id) == bool(task_id):
        raise FieldError("event_id", wanted="either event_id or task_id", got=event_id)
    if len(event_id) > MAX_ID_CHARS or not event_id.isprintable():
        raise FieldError("event_id", wanted=f"1 to {MAX_ID_CHARS} printable characters", got=event_id)
    check_reason("reason", reason)
    appeal_id = f"a{secrets.token_hex(6)}"
    with store.write(now, by) as writing:
        if task_id:
            found = writing.rows(with_rule().where(t.tasks.c.task_id == task_id, t.tasks.c.loop == loop))
            if not found or found[0]["status"] not in ("upheld", "dismissed"):
                raise FieldError("task_id", wanted="a pair that was upheld or dismissed", got=task_id)
            if person is not None:
                _check_appeal(writing, found[0], person)
            _decide(writing, found[0], "disputed", "appealed", by, reason.strip(), _counted(writing, found[0]))
        writing.connection.execute(
            sa.insert(t.appeals).values(
                appeal_id=appeal_id,
                loop=loop,
                event_id=event_id or None,
                task_id=task_id or None,
                reason=reason.strip(),
                status="reviewed" if task_id else "open",
                made_at=writing.at,
            )
        )
        told = {"loop": loop, "event_id": event_id, "task_id": task_id}
        writing.log("appeal", appeal_id, {**told, "reason": digest(reason.strip())})
    return appeal_id


def check_reason(field: str, text: str, *, least: int = 1) -> None:
    """Refuse what is no reason.

    Raises:
        FieldError: naming `field`.
    """
    if not least <= len(text.strip()) or len(text) > MAX_REASON or "\0" in text:  # PostgreSQL keeps no NUL
        raise FieldError(field, wanted=f"a reason of {least} to {MAX_REASON} characters, none of them NUL", got=text)


def _check_appeal(writing: Writing, task: dict[str, Any], person: Person) -> None:
    sat = judgements_on(task["task_id"]).where(t.judgements.c.person_id == person.person_id)
    if not (person.may("administrator") or task["loop"] in person.owns or writing.rows(sat)):
        raise ForbiddenError("only the panel, the owner and administrators appeal a verdict")
    of_pair = t.verdicts.c.task_id == task["task_id"], t.verdicts.c.status == "disputed"
    if writing.rows(sa.select(t.verdicts).where(*of_pair, t.verdicts.c.by == person.person_id)):
        raise FieldError("task_id", wanted="a pair that you have not appealed before", got=task["task_id"])
    waits = sa.select(sa.func.count(t.tasks.c.task_id.distinct())).select_from(t.tasks.join(t.verdicts))
    waits = waits.where(t.tasks.c.loop == task["loop"], t.tasks.c.status == "disputed")
    waits = waits.where(t.verdicts.c.status == "disputed", t.verdicts.c.by == person.person_id)
    if (writing.connection.execute(waits).scalar() or 0) >= MOST_WAITING:
        told = f"at most {MOST_WAITING} appeals of yours on this loop that wait for an adjudicator"
        raise FieldError("task_id", wanted=told, got=Words("one more"))


def close(writing: Writing, task: dict[str, Any], *, overdue: bool) -> bool:
    """Close a task that is complete or overdue, and return whether it was."""
    said = writing.rows(judgements_on(task["task_id"]))
    sent = sa.select(sa.func.count()).select_from(t.assignments).where(t.assignments.c.task_id == task["task_id"])
    complete = overdue or len(said) >= (writing.connection.execute(sent).scalar() or 0)
    counted = tally(task["gap"], [row["acceptable"] for row in said], _rule(task), complete=complete)
    if counted.status == "open":
        return False
    _decide(writing, task, counted.status, "closed", "panel", "", counted)
    return True


def _counted(writing: Writing, task: dict[str, Any]) -> Tally:
    said = writing.rows(judgements_on(task["task_id"]))
    return tally(task["gap"], [row["acceptable"] for row in said], _rule(task), complete=True)


def _decide(writing: Writing, task: dict[str, Any], status: str, kind: str, by: str, note: str, counted: Tally) -> None:
    votes = {name: getattr(counted, name) for name in ("unfair", "fair", "abstained", "needed")}
    values = {"task_id": task["task_id"], "status": status, "by": by, "note": note, "decided_at": writing.at, **votes}
    writing.connection.execute(sa.insert(t.verdicts).values(**values))
    writing.connection.execute(sa.update(t.tasks).where(t.tasks.c.task_id == task["task_id"]).values(status=status))
    writing.log(kind, task["task_id"], {"status": status, "note": note, **votes})


def with_rule() -> Query:
    """Return the query for tasks with the numbers of their rules."""
    r = t.rules.c
    columns = (r.auditors, r.quorum, r.sensitivity, r.minimum, r.deadline_s)
    return sa.select(t.tasks, *columns).join(t.rules, r.rule_id == t.tasks.c.rule_id)


def judgements_on(task_id: str) -> Query:
    """Return the query for the judgements of a task, in their order."""
    order = (t.judgements.c.judged_at, t.judgements.c.person_id)
    return sa.select(t.judgements).where(t.judgements.c.task_id == task_id).order_by(*order)


def _rule(task: dict[str, Any]) -> Rule:
    return Rule(**{name: task[name] for name in ("auditors", "quorum", "sensitivity", "minimum", "deadline_s")})
