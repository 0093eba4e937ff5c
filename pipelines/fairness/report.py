"""How the panels of a loop stand: tasks, agreement, violation rate, and judgements folded again under another rule."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import numpy as np
import sqlalchemy as sa

from decision.errors import FieldError
from decision.fairness.agreement import Agreement, accuracy, agreement, in_words
from decision.fairness.probe import Probe, Rate, violation_rate
from decision.fairness.resolve import Status, verdict_of
from decision.fairness.rule import Rule
from pipelines.fairness import tables as t
from pipelines.fairness.store import Governance, Query, stamp
from pipelines.fairness.tasks import still_asked

WORST = 10


class Panels(msgspec.Struct, frozen=True, kw_only=True):
    """How a loop's panels stand.

    Attributes:
        loop: the loop.
        tasks: count by status.
        streams: count by stream.
        backlog: judgements that are still asked for and can still be given.
        overdue: open tasks whose deadline is over.
        oldest_open: when the oldest open task was opened; None without.
        judgements: judgements so far.
        auditors: people who judged.
        agreement: how far they agree, in words to be read after "They"; see `decision.fairness.agreement.BANDS`.
        alpha: Krippendorff's alpha over the panels' judgements; adjudicators are none of them.
        pairwise: share of equal pairs of judgements.
        gold: share of right answers to tasks with a known one, by auditor.
        reports: share of ``unfair`` among each auditor's judgements.
        rate: violation rate among near pairs from the random probe, None without one.
        rate_low: lower end of its 95% interval.
        rate_high: upper end.
        probed: judged probe pairs behind it.
        worst: upheld pairs with the largest gaps.
        appeals: appeals that wait.
        head: hash of the audit log's last entry.
        entries: entries of the audit log.
    """

    loop: str
    tasks: dict[str, int]
    streams: dict[str, int]
    backlog: int
    overdue: int
    oldest_open: str | None
    judgements: int
    auditors: int
    agreement: str
    alpha: float | None
    pairwise: float | None
    gold: dict[str, float]
    reports: dict[str, float]
    rate: float | None
    rate_low: float | None
    rate_high: float | None
    probed: int
    worst: list[dict[str, Any]]
    appeals: int
    head: str
    entries: int


def status(store: Governance, loop: str, *, now: datetime) -> Panels:
    """Return how the loop's panels stand at the time `now`; the database counts, so no year of judgements is read."""
    tasks, judged = t.tasks.c, t.judgements.c
    of_loop, at = tasks.loop == loop, stamp(now)
    kinds = store.rows(
        sa.select(tasks.status, tasks.stream, sa.func.count().label("n"))
        .where(of_loop)
        .group_by(tasks.status, tasks.stream)
    )
    said = store.rows(
        sa.select(judged.person_id, judged.verdict, sa.func.count().label("n"))
        .join(t.tasks, tasks.task_id == judged.task_id)
        .where(of_loop)
        .group_by(judged.person_id, judged.verdict)
        .order_by(judged.person_id)
    )
    counts: dict[str, dict[str, int]] = {}
    for row in said:
        counts.setdefault(row["person_id"], {})[row["verdict"]] = row["n"]
    known = sa.select(judged.person_id, judged.verdict, tasks.expected).join(t.tasks, tasks.task_id == judged.task_id)
    gold: dict[str, list[tuple[str, str]]] = {}
    for row in store.rows(known.where(of_loop, tasks.expected.is_not(None)).order_by(judged.person_id)):
        gold.setdefault(row["person_id"], []).append((row["verdict"], row["expected"]))
    due = sa.func.coalesce(sa.func.sum(sa.case((tasks.due_at <= at, 1), else_=0)), 0).label("overdue")
    waits = sa.select(due, sa.func.min(tasks.opened_at).label("oldest")).where(of_loop, tasks.status == "open")
    (waiting,) = store.rows(waits)
    (asked,) = store.rows(sa.select(sa.func.count().label("n")).select_from(still_asked(at).where(of_loop).subquery()))
    open_appeals = sa.select(sa.func.count().label("n")).select_from(t.appeals)
    (appeals,) = store.rows(open_appeals.where(t.appeals.c.loop == loop, t.appeals.c.status == "open"))
    names = ("stream", "status", "window_id", "stratum", "inclusion", "population", "task_id")
    probes = store.rows(
        sa.select(*(tasks[name] for name in names))
        .where(of_loop, tasks.stream == "probe")
        .order_by(tasks.opened_at, tasks.task_id)
    )
    decided = ("upheld", "dismissed")
    rate = rate_of(probes, {row["task_id"]: row["status"] == "upheld" for row in probes if row["status"] in decided})
    told = ("task_id", "gap", "high", "low", "distance", "policy_version", "stream")
    worst = sa.select(*(tasks[name] for name in told)).where(of_loop, tasks.status == "upheld")
    found, head = agreement_of(store, loop), store.head()
    return Panels(
        loop=loop,
        tasks=_summed(kinds, "status"),
        streams=_summed(kinds, "stream"),
        backlog=asked["n"],
        overdue=waiting["overdue"],
        oldest_open=waiting["oldest"],
        judgements=sum(sum(one.values()) for one in counts.values()),
        auditors=len(counts),
        agreement=in_words(found),
        alpha=found.alpha,
        pairwise=found.pairwise,
        gold=accuracy(gold),
        reports={person: one.get("unfair", 0) / sum(one.values()) for person, one in counts.items()},
        rate=None if rate is None else rate.value,
        rate_low=None if rate is None else rate.low,
        rate_high=None if rate is None else rate.high,
        probed=0 if rate is None else rate.pairs,
        worst=store.rows(worst.order_by(tasks.gap.desc(), tasks.opened_at, tasks.task_id).limit(WORST)),
        appeals=appeals["n"],
        head=head.head,
        entries=head.entries,
    )


def agreement_of(store: Governance, loop: str) -> Agreement:
    """Return the panels' agreement on ``unfair`` and ``fair``; tasks with a known answer are left out."""
    judged = t.judgements.c
    votes = [sa.func.sum(sa.case((judged.verdict == which, 1), else_=0)) for which in ("unfair", "fair")]
    each = (
        sa.select(votes[0].label("unfair"), votes[1].label("fair"))
        .join(t.tasks, t.tasks.c.task_id == judged.task_id)
        .where(t.tasks.c.loop == loop, t.tasks.c.stream != "gold")
        .group_by(judged.task_id)
        .subquery()
    )
    alike = sa.select(each.c.unfair, each.c.fair, sa.func.count().label("n")).group_by(each.c.unfair, each.c.fair)
    rows = store.rows(alike.order_by(each.c.unfair, each.c.fair))
    units = [["unfair"] * row["unfair"] + ["fair"] * row["fair"] for row in rows]
    return agreement(units, [row["n"] for row in rows])


def rate_of(tasks: list[dict[str, Any]], violating: Mapping[str, bool]) -> Rate | None:
    """Return the violation rate among near pairs from the probe tasks, None where none of them is judged.

    Args:
        tasks: the loop's tasks; those of other streams do not count.
        violating: whether each judged task violates.
    """
    rows = [row for row in tasks if row["stream"] == "probe" and row["task_id"] in violating]
    if not rows:
        return None
    windows = {name: number for number, name in enumerate(dict.fromkeys(row["window_id"] for row in rows))}
    # Windows were drawn from apart: their strata stay apart, and their populations add up. Tasks without a verdict
    # are taken as missing at random inside their stratum.
    stratum = np.array([windows[row["window_id"]] * 1_000 + row["stratum"] for row in rows], dtype=np.int64)
    drawn = _counts([row for row in tasks if row["stream"] == "probe"], "window_id", "stratum")
    kept = _counts(rows, "window_id", "stratum")
    inclusion = np.array(
        [
            row["inclusion"]
            * kept[f"{row['window_id']}/{row['stratum']}"]
            / drawn[f"{row['window_id']}/{row['stratum']}"]
            for row in rows
        ]
    )
    population = sum({row["window_id"]: row["population"] for row in rows}.values())
    probe = Probe(np.arange(len(rows)), inclusion, stratum)
    seen = np.array([violating[row["task_id"]] for row in rows], dtype=np.float64)
    return violation_rate(seen, probe, population)


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What another rule makes of the stored judgements.

    Attributes:
        quorum: the quorum asked for.
        sensitivity: the sensitivity asked for.
        upheld: pairs upheld under it.
        dismissed: pairs dismissed under it.
        disputed: pairs on which the panel is divided under it.
        added: tasks upheld only under it.
        removed: tasks upheld only as it was.
    """

    quorum: float
    sensitivity: float
    upheld: int
    dismissed: int
    disputed: int
    added: list[str]
    removed: list[str]


def replay(store: Governance, loop: str, *, quorum: float, sensitivity: float) -> Replayed:
    """Fold the loop's judgements again under another quorum and sensitivity; nobody is asked, nothing is changed.

    Raises:
        FieldError: a number is outside its range.
    """
    rule = Rule(quorum=quorum, sensitivity=sensitivity)
    votes = _votes(loop, sensitivity).add_columns(t.tasks.c.task_id).order_by(t.tasks.c.opened_at, t.tasks.c.task_id)
    counts: dict[Status, int] = {"upheld": 0, "dismissed": 0, "disputed": 0, "no_quorum": 0}
    added: list[str] = []
    removed: list[str] = []
    for task in store.rows(votes):
        verdict = _under(rule, task)
        counts[verdict] += 1
        if (verdict == "upheld") != (task["status"] == "upheld"):
            (added if verdict == "upheld" else removed).append(task["task_id"])
    return Replayed(
        quorum=quorum,
        sensitivity=sensitivity,
        upheld=counts["upheld"],
        dismissed=counts["dismissed"],
        disputed=counts["disputed"],
        added=added,
        removed=removed,
    )


class Folded(NamedTuple):
    """How many pairs another quorum would uphold, and on how many its panels would be divided."""

    quorum: float
    upheld: int
    disputed: int


def fold(store: Governance, loop: str, quorums: Sequence[float]) -> list[Folded]:
    """Return the counts of `replay` under each quorum, at a sensitivity of 0, from one look at the judgements."""
    each = _votes(loop, 0.0).subquery()
    names = ("unfair", "fair", "abstained", "minimum")
    columns = [each.c[name] for name in names]
    rows = store.rows(sa.select(*columns, sa.func.count().label("n")).group_by(*columns))
    out: list[Folded] = []
    for quorum in quorums:
        counts: dict[Status, int] = {}
        for row in rows:
            verdict = _under(Rule(quorum=quorum, sensitivity=0.0), row)
            counts[verdict] = counts.get(verdict, 0) + row["n"]
        out.append(Folded(quorum, counts.get("upheld", 0), counts.get("disputed", 0)))
    return out


def _votes(loop: str, sensitivity: float) -> Query:
    """Return the query for each decided task's votes, as its limits and a sensitivity make them."""
    judged, tasks = t.judgements.c, t.tasks.c
    against = sa.func.sum(sa.case((tasks.gap > judged.acceptable + sensitivity, 1), else_=0))
    voted = sa.func.count(judged.acceptable)
    columns = (
        sa.func.min(tasks.status).label("status"),
        sa.func.min(t.rules.c.minimum).label("minimum"),
        against.label("unfair"),
        (voted - against).label("fair"),
        (sa.func.count(judged.person_id) - voted).label("abstained"),
    )
    query = sa.select(*columns).select_from(t.tasks.join(t.rules).outerjoin(t.judgements))
    query = query.where(tasks.loop == loop, tasks.status != "open", tasks.stream != "gold")
    return query.group_by(tasks.task_id)


def _under(rule: Rule, votes: Mapping[str, Any]) -> Status:
    """Return what a panel with these votes finds under another rule; its own says how many have to vote."""
    own = msgspec.structs.replace(rule, minimum=votes["minimum"])
    return verdict_of(votes["unfair"], votes["fair"], own)


def reports(store: Governance, loop: str, *, wanted: str | None = None, limit: int = 200) -> list[dict[str, Any]]:
    """Return the loop's tasks with their votes, newest first, without any auditor's identity or feature of a person.

    Raises:
        FieldError: `wanted` is no status.
    """
    known = ("open", "upheld", "dismissed", "disputed", "no_quorum")
    if wanted is not None and wanted not in known:
        raise FieldError.choice("status", list(known), wanted)
    names = ("task_id", "status", "stream", "gap", "high", "low", "distance", "policy_version", "opened_at", "due_at")
    votes: dict[str, list[str]] = {}
    for row in _said(store, loop):
        votes.setdefault(row["task_id"], []).append(row["verdict"])
    tasks = [row for row in _tasks(store, loop) if wanted is None or row["status"] == wanted]
    out: list[dict[str, Any]] = []
    for row in sorted(tasks, key=lambda row: (row["opened_at"], row["task_id"]), reverse=True)[:limit]:
        said = votes.get(row["task_id"], [])
        # Votes of a pair that is still open would tell later auditors what earlier ones said.
        counted = {v: said.count(v) for v in ("unfair", "fair", "cannot_tell")} if row["status"] != "open" else None
        # Nor does anyone learn which pairs were mined and which are probes before they are judged.
        hidden = {"stream": None} if row["status"] == "open" else {}
        out.append({name: row[name] for name in names} | hidden | {"votes": counted})
    return out


def export(store: Governance) -> Iterator[str]:
    """Yield the audit log as JSON lines, in order; `decision.fairness.audit_log.check` verifies them anywhere."""
    for entry in store.entries():
        yield json.dumps(entry._asdict(), sort_keys=True, ensure_ascii=False)


def _tasks(store: Governance, loop: str) -> list[dict[str, Any]]:
    r = t.rules.c
    query = sa.select(t.tasks, r.quorum, r.sensitivity, r.minimum, r.auditors, r.deadline_s)
    query = query.join(t.rules, r.rule_id == t.tasks.c.rule_id).where(t.tasks.c.loop == loop)
    return store.rows(query.order_by(t.tasks.c.opened_at, t.tasks.c.task_id))


def _said(store: Governance, loop: str) -> list[dict[str, Any]]:
    query = sa.select(t.judgements).join(t.tasks, t.tasks.c.task_id == t.judgements.c.task_id)
    return store.rows(query.where(t.tasks.c.loop == loop).order_by(t.judgements.c.judged_at, t.judgements.c.person_id))


def _summed(rows: list[dict[str, Any]], name: str) -> dict[str, int]:
    out: dict[str, int] = {}
    for row in rows:
        out[row[name]] = out.get(row[name], 0) + row["n"]
    return out


def _counts(rows: list[dict[str, Any]], *names: str) -> dict[str, int]:
    out: dict[str, int] = {}
    for row in rows:
        key = "/".join(str(row[name]) for name in names)
        out[key] = out.get(key, 0) + 1
    return out
