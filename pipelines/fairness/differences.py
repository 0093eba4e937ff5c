"""Whether the tables say what the audit log tells: a row changed beside the log is found here, not in the chain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from decision.fairness.audit_log import Entry, Fault, digest

Row = dict[str, Any]

_DECIDING = ("closed", "adjudicated", "appealed")
_OF_TASK = (
    "favoured", "disfavoured", "action_id", "high", "low", "gap", "stream", "expected", "stratum", "inclusion",
    "population", "policy_version", "window_id", "payload_hash", "rule_id", "loop",
)  # fmt: skip
_OF_RULE = ("auditors", "quorum", "sensitivity", "minimum", "deadline_s")


class Tables(NamedTuple):
    """Rows of the tables that the log tells of; the rules in the order in which they were set."""

    judgements: Sequence[Row]
    tasks: Sequence[Row]
    rules: Sequence[Row]
    people: Sequence[Row]


class _Told:
    """What the log tells, by table."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.judged: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {}
        self.opened: dict[str, tuple[int, dict[str, Any]]] = {}
        self.decided: dict[str, tuple[int, str]] = {}
        self.people: dict[str, tuple[int, dict[str, Any]]] = {}
        self.revoked: set[str] = set()
        self.rules: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        for entry in entries:
            try:
                body: dict[str, Any] = msgspec.json.decode(entry.body, type=dict[str, Any])
            except msgspec.DecodeError:
                continue  # edited: the chain says so
            if entry.kind == "judged":
                self.judged[entry.subject, str(body.get("person_id"))] = entry.seq, body
            elif entry.kind == "opened":
                self.opened[entry.subject] = entry.seq, body
            elif entry.kind in _DECIDING:
                self.decided[entry.subject] = entry.seq, str(body.get("status"))
            elif entry.kind == "person_added":
                self.people[entry.subject] = entry.seq, body
            elif entry.kind == "person_revoked":
                self.revoked.add(entry.subject)
            elif entry.kind == "rule_set":
                self.rules.setdefault(entry.subject, []).append((entry.seq, body))


def differences(tables: Tables, entries: Iterable[Entry]) -> list[Fault]:
    """Return where judgements, tasks, rules and people are not those that the log tells of.

    Args:
        tables: the rows as they stand.
        entries: the audit log, oldest entry first.
    """
    told = _Told(entries)
    return [
        *_judgements(tables.judgements, told),
        *_tasks(tables.tasks, told),
        *_rules(tables.rules, told),
        *_people(tables.people, told),
    ]


def _judgements(rows: Sequence[Row], told: _Told) -> list[Fault]:
    faults: list[Fault] = []
    left = dict(told.judged)
    for row in rows:
        name = f"judgement of {row['person_id']} on {row['task_id']}"
        found = left.pop((row["task_id"], row["person_id"]), None)
        if found is None:
            faults.append(Fault(0, f"{name} is not in the log"))
        elif any(found[1].get(key) != row[key] for key in ("verdict", "acceptable", "reason", "payload_hash")):
            faults.append(Fault(found[0], f"{name} was edited"))
    return faults + [
        Fault(seq, f"judgement on {task} is no longer in its table") for (task, _), (seq, _) in left.items()
    ]


def _tasks(rows: Sequence[Row], told: _Told) -> list[Fault]:
    faults: list[Fault] = []
    left = dict(told.opened)
    for row in rows:
        found = left.pop(row["task_id"], None)
        if found is None:
            faults.append(Fault(0, f"task {row['task_id']} is not in the log"))
            continue
        changed = [key for key in _OF_TASK if found[1].get(key) != row[key]]
        if row["payload"] is not None and digest(row["payload"]) != row["payload_hash"]:
            changed.append("payload")
        faults += [Fault(found[0], f"task {row['task_id']}: {key} was edited") for key in changed]
        seq, status = told.decided.get(row["task_id"], (0, "open"))
        if row["status"] != status:
            faults.append(Fault(seq, f"task {row['task_id']} says {row['status']}, the log {status}"))
    return faults + [Fault(seq, f"task {task} is no longer in its table") for task, (seq, _) in left.items()]


def _rules(rows: Sequence[Row], told: _Told) -> list[Fault]:
    faults: list[Fault] = []
    by_loop: dict[str, list[Row]] = {}
    for row in rows:
        by_loop.setdefault(row["loop"], []).append(row)
    for loop in {*by_loop, *told.rules}:
        here, there = by_loop.get(loop, []), told.rules.get(loop, [])
        same = len(here) == len(there) and all(
            row[key] == body.get(key) for row, (_, body) in zip(here, there, strict=True) for key in _OF_RULE
        )
        if not same:
            faults.append(Fault(there[0][0] if there else 0, f"the rules of {loop} are not those in the log"))
    return faults


def _people(rows: Sequence[Row], told: _Told) -> list[Fault]:
    faults: list[Fault] = []
    left = dict(told.people)
    for row in rows:
        found = left.pop(row["person_id"], None)
        if found is None:
            faults.append(Fault(0, f"person {row['person_id']} is not in the log"))
            continue
        edited = [key for key in ("roles", "owns") if row[key] != ",".join(found[1].get(key, []))]
        faults += [Fault(found[0], f"{key} of {row['person_id']} were edited") for key in edited]
        if (row["revoked_at"] is not None) != (row["person_id"] in told.revoked):
            faults.append(Fault(found[0], f"the key of {row['person_id']} was revoked or restored beside the log"))
    return faults + [Fault(seq, f"person {name} is no longer in the table") for name, (seq, _) in left.items()]
