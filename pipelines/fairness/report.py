"""How the panels of a loop stand: tasks, agreement, violation rate, and judgements folded again under another rule."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa

from decision.errors import FieldError
from decision.fairness.agreement import Agreement, accuracy, agreement, in_words
from decision.fairness.probe import Probe, Rate, violation_rate
from decision.fairness.resolve import tally
from decision.fairness.rule import Rule
from pipelines.fairness import tables as t
from pipelines.fairness.standing import Standing, limits
from pipelines.fairness.store import Governance, stamp
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
    """Return how the loop's panels stand at the time `now`."""
    tasks = _tasks(store, loop)
    said = _said(store, loop)
    own = {row["task_id"] for row in tasks}
    open_tasks = [row for row in tasks if row["status"] == "open"]
    asked = store.rows(still_asked(stamp(now)).where(t.tasks.c.loop == loop))
    judged = [row for row in said if row["task_id"] in own]
    found = agreement_of(tasks, judged)
    by_task = {row["task_id"]: row for row in tasks}
    gold: dict[str, list[tuple[str, str]]] = {}
    unfair: dict[str, list[bool]] = {}
    for row in judged:
        unfair.setdefault(row["person_id"], []).append(row["verdict"] == "unfair")
        if by_task[row["task_id"]]["expected"]:
            gold.setdefault(row["person_id"], []).append((row["verdict"], by_task[row["task_id"]]["expected"]))
    rate = rate_of(tasks, limits(store, [row for row in tasks if row["status"] in ("upheld", "dismissed")]))
    worst = sorted((row for row in tasks if row["status"] == "upheld"), key=lambda row: -row["gap"])[:WORST]
    appeals = store.rows(sa.select(t.appeals).where(t.appeals.c.loop == loop, t.appeals.c.status == "open"))
    head = store.head()
    return Panels(
        loop=loop,
        tasks=_counts(tasks, "status"),
        streams=_counts(tasks, "stream"),
        backlog=len(asked),
        overdue=sum(row["due_at"] is not None and row["due_at"] <= stamp(now) for row in open_tasks),
        oldest_open=min((row["opened_at"] for row in open_tasks), default=None),
        judgements=len(judged),
        auditors=len(unfair),
        agreement=in_words(found),
        alpha=found.alpha,
        pairwise=found.pairwise,
        gold=accuracy(gold),
        reports={person: float(np.mean(votes)) for person, votes in sorted(unfair.items())},
        rate=None if rate is None else rate.value,
        rate_low=None if rate is None else rate.low,
        rate_high=None if rate is None else rate.high,
        probed=0 if rate is None else rate.pairs,
        worst=[
            {name: row[name] for name in ("task_id", "gap", "high", "low", "distance", "policy_version", "stream")}
            for row in worst
        ],
        appeals=len(appeals),
        head=head.head,
        entries=head.entries,
    )


def agreement_of(tasks: list[dict[str, Any]], said: list[dict[str, Any]]) -> Agreement:
    """Return the panels' agreement on ``unfair`` and ``fair``; tasks with a known answer are left out."""
    gold = {row["task_id"] for row in tasks if row["stream"] == "gold"}
    units: dict[str, list[str]] = {}
    for row in said:
        if row["verdict"] != "cannot_tell" and row["task_id"] not in gold:
            units.setdefault(row["task_id"], []).append(row["verdict"])
    return agreement(units.values())


def rate_of(tasks: list[dict[str, Any]], decided: list[Standing], gaps: dict[str, float] | None = None) -> Rate | None:
    """Return the violation rate among near pairs from the decided probe tasks, None without one.

    Args:
        tasks: the loop's tasks.
        decided: judged tasks with their panels' limits.
        gaps: gap of each task under another policy; those it was judged with where not given.
    """
    by_id = {pair.task_id: pair for pair in decided}
    rows = [row for row in tasks if row["stream"] == "probe" and row["task_id"] in by_id]
    if gaps is not None:
        rows = [row for row in rows if row["task_id"] in gaps]
    if not rows:
        return None
    windows = {name: number for number, name in enumerate(dict.fromkeys(row["window_id"] for row in rows))}
    violating = [
        (row["status"] == "upheld") if gaps is None else abs(gaps[row["task_id"]]) > by_id[row["task_id"]].limit
        for row in rows
    ]
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
    return violation_rate(np.array(violating, dtype=np.float64), probe, population)


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
    Rule(quorum=quorum, sensitivity=sensitivity)
    said: dict[str, list[float | None]] = {}
    for row in _said(store, loop):
        said.setdefault(row["task_id"], []).append(row["acceptable"])
    counts = {"upheld": 0, "dismissed": 0, "disputed": 0, "no_quorum": 0}
    added: list[str] = []
    removed: list[str] = []
    for task in _tasks(store, loop):
        if task["status"] == "open" or task["stream"] == "gold":
            continue
        rule = Rule(
            auditors=task["auditors"],
            minimum=task["minimum"],
            deadline_s=task["deadline_s"],
            quorum=quorum,
            sensitivity=sensitivity,
        )
        verdict = tally(task["gap"], said.get(task["task_id"], []), rule, complete=True).status
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


def _counts(rows: list[dict[str, Any]], *names: str) -> dict[str, int]:
    out: dict[str, int] = {}
    for row in rows:
        key = "/".join(str(row[name]) for name in names)
        out[key] = out.get(key, 0) + 1
    return out
