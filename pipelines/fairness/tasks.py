"""The life of a pair: opened, assigned to a panel drawn by rule, judged.

Everything an auditor is told is the task's payload, and what they saw is provable: the judgement holds its hash. Nobody
sees another's judgement before their own, and owners of a model neither audit nor adjudicate it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec
import numpy as np
import sqlalchemy as sa

from decision.errors import FieldError
from decision.fairness.audit_log import canonical, digest
from decision.fairness.rule import Rule
from pipelines.fairness import tables as t
from pipelines.fairness.errors import ForbiddenError, NoTaskError
from pipelines.fairness.people import Person, list_people
from pipelines.fairness.store import Governance, Query, Writing, stamp
from pipelines.fairness.verdicts import check_reason, close, judgements_on, with_rule
from pipelines.logs import step
from pipelines.settings import FairnessSettings

Stream = Literal["mined", "probe", "types", "gold", "appeal"]
Verdict = Literal["unfair", "fair", "cannot_tell"]
VERDICTS = ("unfair", "fair", "cannot_tell")
LIMITS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0)
"""Acceptable gaps an auditor chooses from; 1 accepts any."""


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A pair to be judged.

    Attributes:
        favoured: event id of the better treated person.
        disfavoured: of the other.
        action_id: the action compared.
        high: the favoured person's probability.
        low: the other's.
        distance: how unlike they are, in standard deviations per feature.
        policy_version: whose probabilities these are.
        payload: what auditors see, see `decision.fairness.blinding`.
        favoured_first: whether the left card is the favoured person's.
        rank: place in the mining, from 1; 0 for probes.
        stratum: of a probe.
        inclusion: probability with which the probe was drawn.
        population: pairs it was drawn from.
        expected: known answer of a gold task.
    """

    favoured: str
    disfavoured: str
    action_id: str
    high: float
    low: float
    distance: float
    policy_version: str
    payload: dict[str, Any]
    favoured_first: bool
    rank: int = 0
    stratum: int | None = None
    inclusion: float | None = None
    population: int | None = None
    expected: str | None = None


class Judgement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an auditor says of a pair.

    Attributes:
        verdict: ``unfair``, ``fair`` or ``cannot_tell``.
        acceptable: largest difference of the probabilities that would be acceptable, in [0, 1]; by default 0 for
            ``unfair`` and 1 for ``fair``.
        reason: in their words.
        payload_hash: hash of what they saw, as it came with the task.
    """

    verdict: Verdict
    payload_hash: str
    acceptable: float | None = None
    reason: str = ""


def rule_of(settings: FairnessSettings) -> Rule:
    """Return the panel's rule in a loop's settings; see `Rule` for errors."""
    return Rule(
        auditors=settings.auditors,
        quorum=settings.quorum,
        sensitivity=settings.sensitivity,
        minimum=settings.minimum,
        deadline_s=settings.deadline_s,
    )


def open_tasks(
    store: Governance,
    loop: str,
    rule: Rule,
    pairs: Sequence[tuple[Stream, Pair]],
    *,
    window_id: str,
    now: datetime,
    by: str,
    details: dict[str, Any] | None = None,
) -> list[str]:
    """Open a task for each pair and return their ids; one mining is one transaction.

    Args:
        store: where.
        loop: the loop.
        rule: how the panel decides; written down when it is new.
        pairs: stream and pair of each.
        window_id: name of the mining.
        now: time, UTC.
        by: who asks.
        details: what else the log shall say of the mining.
    """
    made: list[str] = []
    with store.write(now, by) as writing:
        rule_id = _rule_id(writing, loop, rule)
        for stream, pair in pairs:
            task_id = f"t{secrets.token_hex(6)}"
            text = canonical(pair.payload)
            row = {name: getattr(pair, name) for name in pair.__struct_fields__ if name != "payload"}
            row |= {
                "task_id": task_id,
                "loop": loop,
                "rule_id": rule_id,
                "stream": stream,
                "status": "open",
                "gap": pair.high - pair.low,
                "window_id": window_id,
                "payload": text,
                "payload_hash": digest(text),
                "opened_at": writing.at,
            }
            writing.connection.execute(sa.insert(t.tasks).values(**row))
            told = {name: value for name, value in row.items() if name not in ("payload", "task_id", "opened_at")}
            writing.log("opened", task_id, told)
            made.append(task_id)
        writing.log("mined", window_id, {"loop": loop, "tasks": len(made), **(details or {})})
    return made


@step("assigned")
def assign(store: Governance, loop: str, *, now: datetime, by: str, rng: np.random.Generator) -> dict[str, int]:
    """Draw a panel for each open task that has none.

    Members are drawn at random from the active auditors who do not own the loop, those with the fewest open tasks
    first. A task waits while there are fewer auditors than its rule's minimum; the deadline runs from here.

    Returns:
        ``assigned`` and ``waiting`` tasks.
    """
    auditors = [p for p in list_people(store) if p.active and p.may("auditor") and loop not in p.owns]
    counts = {"assigned": 0, "waiting": 0}
    with store.write(now, by) as writing:
        load = dict.fromkeys((p.person_id for p in auditors), 0)
        for row in writing.rows(_unjudged()):
            if row["person_id"] in load:
                load[row["person_id"]] += 1
        query = with_rule().where(t.tasks.c.loop == loop, t.tasks.c.status == "open", t.tasks.c.due_at.is_(None))
        for task in writing.rows(query.order_by(t.tasks.c.opened_at, t.tasks.c.task_id)):
            if len(auditors) < task["minimum"]:
                counts["waiting"] += 1
                continue
            order = sorted(load, key=lambda person: (load[person], rng.random()))
            panel = order[: task["auditors"]]
            due = stamp(now + timedelta(seconds=task["deadline_s"]))
            for person in panel:
                load[person] += 1
                row = {"task_id": task["task_id"], "person_id": person, "assigned_at": writing.at}
                writing.connection.execute(sa.insert(t.assignments).values(**row))
            writing.connection.execute(
                sa.update(t.tasks).where(t.tasks.c.task_id == task["task_id"]).values(due_at=due)
            )
            writing.log("assigned", task["task_id"], {"panel": sorted(panel), "due_at": due})
            counts["assigned"] += 1
    return counts


def queue(store: Governance, person: Person, *, now: datetime) -> list[dict[str, Any]]:
    """Return the open tasks of an auditor that they have not judged, the most urgent first, as they may see them."""
    mine = still_asked(stamp(now)).where(t.assignments.c.person_id == person.person_id).subquery()
    query = sa.select(t.tasks).join(mine, mine.c.task_id == t.tasks.c.task_id)
    query = query.order_by(t.tasks.c.due_at, t.tasks.c.task_id)
    return [_shown(row) for row in store.rows(query)]


def task_for(store: Governance, person: Person, task_id: str, *, now: datetime) -> dict[str, Any]:
    """Return one of an auditor's own tasks.

    Raises:
        NoTaskError: it is not theirs, was judged, is over or does not exist; all four look the same from outside.
    """
    for task in queue(store, person, now=now):
        if task["task_id"] == task_id:
            return task
    raise NoTaskError("there is no such task for you to judge")


def judge(store: Governance, person: Person, task_id: str, said: Judgement, *, now: datetime) -> dict[str, Any]:
    """Take an auditor's judgement, and close the task when it was the panel's last.

    The same judgement again changes nothing, so that a lost answer can be asked for again.

    Returns:
        ``task_id``, ``payload_hash`` and ``judged_at``.

    Raises:
        ForbiddenError: they are no auditor, or own the model.
        NoTaskError: the task is not theirs or is over.
        FieldError: the judgement does not fit, or another one of theirs stands.
    """
    if not person.may("auditor"):
        raise ForbiddenError("only auditors judge pairs")
    with store.write(now, person.person_id) as writing:
        own = t.assignments.c.person_id == person.person_id
        query = with_rule().join(t.assignments, t.assignments.c.task_id == t.tasks.c.task_id)
        found = writing.rows(query.where(own, t.tasks.c.task_id == task_id))
        if not found:
            raise NoTaskError("there is no such task for you to judge")
        task = found[0]
        if task["loop"] in person.owns:
            raise ForbiddenError("the owner of a model does not audit it")
        acceptable = _check(said, task)
        before = writing.rows(judgements_on(task_id).where(t.judgements.c.person_id == person.person_id))
        if before:
            if (before[0]["verdict"], before[0]["acceptable"]) == (said.verdict, acceptable):
                return {name: before[0][name] for name in ("task_id", "payload_hash", "judged_at")}
            raise FieldError("verdict", wanted=f"{before[0]['verdict']}, as judged before", got=said.verdict)
        if task["status"] != "open" or task["due_at"] <= writing.at:
            raise NoTaskError("the task is over")
        row = {
            "person_id": person.person_id,
            "verdict": said.verdict,
            "acceptable": acceptable,
            "reason": said.reason,
            "payload_hash": said.payload_hash,
        }
        values = {"task_id": task_id, "judged_at": writing.at, **row}
        writing.connection.execute(sa.insert(t.judgements).values(**values))
        writing.log("judged", task_id, row)
        close(writing, task, overdue=False)
    return {"task_id": task_id, "payload_hash": said.payload_hash, "judged_at": stamp(now)}


def _check(said: Judgement, task: dict[str, Any]) -> float | None:
    if said.verdict not in VERDICTS:
        raise FieldError.choice("verdict", list(VERDICTS), said.verdict)
    check_reason("reason", said.reason, least=0)
    if said.payload_hash != task["payload_hash"]:
        raise FieldError("payload_hash", wanted="the hash that came with the task", got=said.payload_hash)
    if said.verdict == "cannot_tell":
        if said.acceptable is not None:
            raise FieldError("acceptable", wanted="absent where the verdict is cannot_tell", got=said.acceptable)
        return None
    limit = said.acceptable if said.acceptable is not None else 0.0 if said.verdict == "unfair" else 1.0
    if not 0.0 <= limit <= 1.0:
        raise FieldError("acceptable", wanted="a number in [0, 1]", got=limit)
    # The gap decides a vote, under whatever rule: what is said in words must say the same.
    if (said.verdict == "unfair") != (task["gap"] > limit):
        side = "below" if said.verdict == "unfair" else "at or above"
        raise FieldError("acceptable", wanted=f"a number {side} the gap of {task['gap']:.3f}", got=limit)
    return limit


def _rule_id(writing: Writing, loop: str, rule: Rule) -> int:
    values = {name: getattr(rule, name) for name in ("auditors", "quorum", "sensitivity", "minimum", "deadline_s")}
    last = writing.rows(sa.select(t.rules).where(t.rules.c.loop == loop).order_by(t.rules.c.rule_id.desc()).limit(1))
    if last and all(last[0][name] == value for name, value in values.items()):
        return int(last[0]["rule_id"])
    made = writing.connection.execute(sa.insert(t.rules).values(loop=loop, set_at=writing.at, **values))
    rule_id = int(made.inserted_primary_key[0])  # pyright: ignore[reportOptionalSubscript]
    writing.log("rule_set", loop, values)
    return rule_id


def still_asked(at: str) -> Query:
    """Return the query for assignments whose judgement can still be given at the time `at`, as the store writes it.

    What was due before, pairs of erased people and people without a key are none of them.
    """
    active = _unjudged().join(t.people, t.people.c.person_id == t.assignments.c.person_id)
    return active.where(t.people.c.revoked_at.is_(None), t.tasks.c.due_at > at, t.tasks.c.payload.is_not(None))


def _unjudged() -> Query:
    """Return the query for assignments on open tasks without a judgement."""
    same = sa.and_(
        t.judgements.c.task_id == t.assignments.c.task_id, t.judgements.c.person_id == t.assignments.c.person_id
    )
    return (
        sa.select(t.assignments.c.task_id, t.assignments.c.person_id)
        .join(t.tasks, t.tasks.c.task_id == t.assignments.c.task_id)
        .outerjoin(t.judgements, same)
        .where(t.tasks.c.status == "open", t.judgements.c.task_id.is_(None))
    )


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "task_id": row["task_id"],
        "due_at": row["due_at"],
        "payload": msgspec.json.decode(row["payload"]),
        "payload_hash": row["payload_hash"],
    }
