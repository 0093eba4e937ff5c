"""What an auditor judged and what became of it, and whether they took the tour.

Votes are told once a panel has decided, and only as counts: while a pair is open nobody learns what others said, and
never who said it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from decision.fairness.agreement import Agreement
from decision.fairness.pair_name import pair_name
from pipelines.fairness import tables as t
from pipelines.fairness.errors import NoTaskError
from pipelines.fairness.people import Person
from pipelines.fairness.report import agreement_of
from pipelines.fairness.store import Governance, Query

PAGE = 25
TOURED = "tour_taken"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict on a pair.

    Attributes:
        status: ``upheld``, ``dismissed``, ``disputed`` or ``no_quorum``.
        by: ``panel``, or the id of who adjudicated or appealed.
        kind: ``panel``, ``adjudicated`` or ``appealed``.
        unfair: votes for a violation.
        fair: votes against.
        abstained: members who could not tell.
        needed: votes that uphold.
        note: reasons of who adjudicated or appealed.
        decided_at: when, ISO 8601 UTC.
    """

    status: str
    by: str
    kind: str
    unfair: int
    fair: int
    abstained: int
    needed: int
    note: str
    decided_at: str


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A judgement and what became of its pair.

    Attributes:
        task_id: the pair.
        name: its name for people.
        loop: the loop.
        verdict: what they said.
        acceptable: largest difference they would accept, in [0, 1]; None where they could not tell.
        reason: why they said it.
        judged_at: when, ISO 8601 UTC.
        gap: the pair's difference.
        status: of the pair: ``open``, or as in `Verdict`.
        verdicts: on the pair, oldest first; none while it is open.
        payload: what they were shown; None once its subject was erased.
        payload_hash: its hash.
        may_appeal: the verdict stands, and they have not appealed the pair before.
    """

    task_id: str
    name: str
    loop: str
    verdict: str
    acceptable: float | None
    reason: str
    judged_at: str
    gap: float
    status: str
    verdicts: list[Verdict]
    payload: dict[str, Any] | None
    payload_hash: str
    may_appeal: bool


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """How an auditor's loop agrees, and the auditor with its panels.

    Attributes:
        loop: the loop.
        auditors: people who judged its pairs.
        agreement: over all of its judgements.
        decided: pairs of theirs that a panel upheld or dismissed, and on which they said fair or unfair.
        with_panel: of these, those on which the panel found as they did.
    """

    loop: str
    auditors: int
    agreement: Agreement
    decided: int
    with_panel: int


def judged_by(store: Governance, person: Person, *, first: int = 0, limit: int = PAGE) -> list[Judged]:
    """Return what a person judged, the latest judgement first, from place `first` on."""
    query = _own(person).order_by(t.judgements.c.judged_at.desc(), t.tasks.c.task_id)
    return _told(store, store.rows(query.offset(first).limit(limit)), person)


def count_judged(store: Governance, person: Person) -> int:
    """Return how many pairs a person judged."""
    query = sa.select(sa.func.count()).select_from(t.judgements).where(t.judgements.c.person_id == person.person_id)
    with store.read() as connection:
        return int(connection.execute(query).scalar() or 0)


def judged_pair(store: Governance, person: Person, task_id: str) -> Judged:
    """Return one pair that a person judged.

    Raises:
        NoTaskError: they judged no such pair.
    """
    found = _told(store, store.rows(_own(person).where(t.tasks.c.task_id == task_id)), person)
    if not found:
        raise NoTaskError("you judged no such pair")
    return found[0]


def shares(store: Governance, person: Person) -> list[Share]:
    """Return, for each loop whose pairs a person judged, how far its auditors agree."""
    j, tasks, verdicts = t.judgements.c, t.tasks.c, t.verdicts.c
    own = (
        sa.select(tasks.loop, j.verdict, verdicts.status, sa.func.count().label("n"))
        .select_from(
            t.judgements.join(t.tasks, j.task_id == tasks.task_id).outerjoin(
                t.verdicts, sa.and_(verdicts.task_id == j.task_id, verdicts.by == "panel")
            )
        )
        .where(j.person_id == person.person_id)
        .group_by(tasks.loop, j.verdict, verdicts.status)
        .order_by(tasks.loop)
    )
    counts: dict[str, list[dict[str, Any]]] = {}
    for row in store.rows(own):
        counts.setdefault(row["loop"], []).append(row)
    out: list[Share] = []
    for loop, rows in counts.items():
        clear = [row for row in rows if row["verdict"] != "cannot_tell" and row["status"] in ("upheld", "dismissed")]
        people = sa.select(sa.func.count(j.person_id.distinct()).label("n")).join(t.tasks, j.task_id == tasks.task_id)
        out.append(
            Share(
                loop=loop,
                auditors=store.rows(people.where(tasks.loop == loop))[0]["n"],
                agreement=agreement_of(store, loop),
                decided=sum(row["n"] for row in clear),
                with_panel=sum(
                    row["n"] for row in clear if (row["verdict"] == "unfair") == (row["status"] == "upheld")
                ),
            )
        )
    return out


def verdicts_of(store: Governance, task_ids: list[str]) -> dict[str, list[Verdict]]:
    """Return the verdicts on each pair, oldest first; pairs without one are left out."""
    found: dict[str, list[Verdict]] = {}
    query = sa.select(t.verdicts).where(t.verdicts.c.task_id.in_(task_ids)).order_by(t.verdicts.c.verdict_id)
    for row in store.rows(query):
        # an appeal makes a verdict a dispute again; the panel's own disputes are the panel's
        kind = "panel" if row["by"] == "panel" else "appealed" if row["status"] == "disputed" else "adjudicated"
        values = {name: row[name] for name in Verdict.__struct_fields__ if name != "kind"}
        found.setdefault(row["task_id"], []).append(Verdict(kind=kind, **values))
    return found


def is_new(store: Governance, person: Person) -> bool:
    """Return whether an auditor has neither judged nor taken the tour."""
    return not count_judged(store, person) and not any(store.entries(kind=TOURED, subject=person.person_id))


def take_tour(store: Governance, person: Person, *, now: datetime) -> None:
    """Remember that an auditor took the tour; once is enough."""
    if any(store.entries(kind=TOURED, subject=person.person_id)):
        return
    with store.write(now, person.person_id) as writing:
        writing.log(TOURED, person.person_id, {})


def _own(person: Person) -> Query:
    j = t.judgements.c
    columns = (j.verdict, j.acceptable, j.reason, j.judged_at)
    query = sa.select(t.tasks, *columns).join(t.judgements, j.task_id == t.tasks.c.task_id)
    return query.where(j.person_id == person.person_id)


def _told(store: Governance, rows: list[dict[str, Any]], person: Person) -> list[Judged]:
    decided = verdicts_of(store, [row["task_id"] for row in rows])
    out: list[Judged] = []
    for row in rows:
        verdicts = decided.get(row["task_id"], [])
        appealed = any(one.kind == "appealed" and one.by == person.person_id for one in verdicts)
        keys = ("task_id", "loop", "verdict", "acceptable", "reason", "judged_at", "gap", "status", "payload_hash")
        out.append(
            Judged(
                **{key: row[key] for key in keys},
                name=pair_name(row["task_id"]),
                verdicts=verdicts,
                payload=None if row["payload"] is None else msgspec.json.decode(row["payload"]),
                may_appeal=row["status"] in ("upheld", "dismissed") and not appealed,
            )
        )
    return out
