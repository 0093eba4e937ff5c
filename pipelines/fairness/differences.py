"""Whether the tables say what the audit log tells: a row changed beside the log is found here, not in the chain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from decision.fairness.audit_log import Fault, digest
from pipelines.fairness import tables as t

if TYPE_CHECKING:
    from pipelines.fairness.store import Governance

_DECIDING = ("closed", "adjudicated", "appealed")
_OF_TASK = (
    "favoured", "disfavoured", "action_id", "high", "low", "gap", "stream", "expected", "stratum", "inclusion",
    "population", "policy_version", "window_id", "payload_hash", "rule_id", "loop",
)  # fmt: skip
_OF_RULE = ("auditors", "quorum", "sensitivity", "minimum", "deadline_s")


class _Told:
    """What the log tells, by table."""

    def __init__(self, store: Governance) -> None:
        self.judged: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {}
        self.opened: dict[str, tuple[int, dict[str, Any]]] = {}
        self.decided: dict[str, tuple[int, str]] = {}
        self.people: dict[str, tuple[int, dict[str, Any]]] = {}
        self.revoked: set[str] = set()
        self.rules: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        for entry in store.entries():
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


def differences(store: Governance) -> list[Fault]:
    """Return where judgements, tasks, rules and people are not those that the log tells of."""
    told = _Told(store)
    return [*_judgements(store, told), *_tasks(store, told), *_rules(store, told), *_people(store, told)]


def _judgements(store: Governance, told: _Told) -> list[Fault]:
    faults: list[Fault] = []
    left = dict(told.judged)
    for row in store.rows(sa.select(t.judgements)):
        name = f"judgement of {row['person_id']} on {row['task_id']}"
        found = left.pop((row["task_id"], row["person_id"]), None)
        if found is None:
            faults.append(Fault(0, f"{name} is not in the log"))
        elif any(found[1].get(key) != row[key] for key in ("verdict", "acceptable", "reason", "payload_hash")):
            faults.append(Fault(found[0], f"{name} was edited"))
    return faults + [
        Fault(seq, f"judgement on {task} is no longer in its table") for (task, _), (seq, _) in left.items()
    ]


def _tasks(store: Governance, told: _Told) -> list[Fault]:
    faults: list[Fault] = []
    left = dict(told.opened)
    for row in store.rows(sa.select(t.tasks)):
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


def _rules(store: Governance, told: _Told) -> list[Fault]:
    faults: list[Fault] = []
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in store.rows(sa.select(t.rules).order_by(t.rules.c.rule_id)):
        rows.setdefault(row["loop"], []).append(row)
    for loop in {*rows, *told.rules}:
        here, there = rows.get(loop, []), told.rules.get(loop, [])
        same = len(here) == len(there) and all(
            row[key] == body.get(key) for row, (_, body) in zip(here, there, strict=True) for key in _OF_RULE
        )
        if not same:
            faults.append(Fault(there[0][0] if there else 0, f"the rules of {loop} are not those in the log"))
    return faults


def _people(store: Governance, told: _Told) -> list[Fault]:
    faults: list[Fault] = []
    left = dict(told.people)
    for row in store.rows(sa.select(t.people)):
        found = left.pop(row["person_id"], None)
        if found is None:
            faults.append(Fault(0, f"person {row['person_id']} is not in the log"))
            continue
        edited = [key for key in ("roles", "owns") if row[key] != ",".join(found[1].get(key, []))]
        faults += [Fault(found[0], f"{key} of {row['person_id']} were edited") for key in edited]
        if (row["revoked_at"] is not None) != (row["person_id"] in told.revoked):
            faults.append(Fault(found[0], f"the key of {row['person_id']} was revoked or restored beside the log"))
    return faults + [Fault(seq, f"person {name} is no longer in the table") for name, (seq, _) in left.items()]
