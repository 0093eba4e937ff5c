"""Whether the tables say what the audit log tells: a row changed beside the log is found here, not in the chain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from decision.fairness.audit_log import Entry, Fault, digest
from pipelines.access.keys import Key

Row = dict[str, Any]
SESSION = timedelta(hours=12)
"""How long a session in the browser is good for."""
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"

_DECIDING = ("closed", "adjudicated", "appealed")
_OF_TASK = (
    "favoured", "disfavoured", "action_id", "high", "low", "gap", "stream", "expected", "stratum", "inclusion",
    "population", "policy_version", "window_id", "payload_hash", "rule_id", "loop", "distance", "rank",
    "favoured_first",
)  # fmt: skip
_OF_JUDGEMENT = ("verdict", "acceptable", "reason", "payload_hash")
_OF_VERDICT = ("status", "note", "unfair", "fair", "abstained", "needed")
_OF_APPEAL = ("loop", "event_id", "task_id")
_OF_RULE = ("auditors", "quorum", "sensitivity", "minimum", "deadline_s")


class Tables(NamedTuple):
    """Rows of the tables that the log tells of; rules and verdicts in the order in which they were made."""

    judgements: Sequence[Row]
    tasks: Sequence[Row]
    rules: Sequence[Row]
    people: Sequence[Row]
    verdicts: Sequence[Row]
    assignments: Sequence[Row]
    appeals: Sequence[Row]
    sessions: Sequence[Row]
    api_keys: Sequence[Key] = ()


class _Said(NamedTuple):
    """An entry with its body read."""

    seq: int
    at: str
    actor: str
    kind: str
    body: dict[str, Any]


class _Told:
    """What the log tells, by table."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.judged: dict[tuple[str, str], _Said] = {}
        self.opened: dict[str, _Said] = {}
        self.assigned: dict[str, _Said] = {}
        self.decided: dict[str, list[_Said]] = {}
        self.people: dict[str, _Said] = {}
        self.revoked: dict[str, _Said] = {}
        self.rules: dict[str, list[_Said]] = {}
        self.appeals: dict[str, _Said] = {}
        self.paired: dict[str, str] = {}
        self.sessions: dict[tuple[str, str], _Said] = {}
        self.former_sessions: set[tuple[str, str]] = set()
        self.closed: set[str] = set()
        self.api_keys: dict[str, _Said] = {}
        self.api_keys_revoked: set[str] = set()
        for entry in entries:
            try:
                body: dict[str, Any] = msgspec.json.decode(entry.body, type=dict[str, Any])
            except msgspec.DecodeError:
                continue  # edited: the chain says so
            self._take(entry.subject, _Said(entry.seq, entry.at, entry.actor, entry.kind, body))

    def _take(self, subject: str, said: _Said) -> None:
        kind, body = said.kind, said.body
        if kind == "judged":
            self.judged[subject, str(body.get("person_id"))] = said
        elif kind == "opened":
            self.opened[subject] = said
        elif kind == "assigned":
            self.assigned[subject] = said
        elif kind in _DECIDING:
            self.decided.setdefault(subject, []).append(said)
        elif kind == "person_added":
            self.people[subject] = said
        elif kind == "person_revoked":
            self.revoked[subject] = said
        elif kind == "rule_set":
            self.rules.setdefault(subject, []).append(said)
        elif kind == "appeal":
            self.appeals[subject] = said
        elif kind == "appeal_paired":
            self.paired[subject] = str(body.get("outcome"))
        elif kind == "session_opened" and "token" in body:
            self.sessions[str(body["token"]), str(body.get("expires_at"))] = said
        elif kind == "session_opened":
            self.former_sessions.add((subject, said.at))
        elif kind == "session_closed":
            self.closed.add(str(body.get("token")))
        elif kind == "api_key_added":
            self.api_keys[subject] = said
        elif kind == "api_key_revoked":
            self.api_keys_revoked.add(subject)


def differences(tables: Tables, entries: Iterable[Entry]) -> list[Fault]:
    """Return where the tables are not those that the log tells of.

    Args:
        tables: the rows as they stand.
        entries: the audit log, oldest entry first.
    """
    told = _Told(entries)
    return [
        *_judgements(tables.judgements, told),
        *_tasks(tables.tasks, told),
        *_verdicts(tables.verdicts, told),
        *_assignments(tables.assignments, told),
        *_appeals(tables.appeals, told),
        *_rules(tables.rules, told),
        *_people(tables.people, told),
        *_sessions(tables.sessions, told),
        *_api_keys(tables.api_keys, told),
    ]


def key_told(key: Key) -> Row:
    """Return what the log tells of an API key; what opens is there as the hash of a hash."""
    told = {name: getattr(key, name) for name in ("roles", "loops", "tenant", "per_second", "per_day")}
    expires_at = None if key.expires_at is None else key.expires_at.isoformat()
    return {**told, "expires_at": expires_at, "key": digest(key.digest.hex())}


def _judgements(rows: Sequence[Row], told: _Told) -> list[Fault]:
    faults: list[Fault] = []
    left = dict(told.judged)
    for row in rows:
        name = f"judgement of {row['person_id']} on {row['task_id']}"
        found = left.pop((row["task_id"], row["person_id"]), None)
        if found is None:
            faults.append(Fault(0, f"{name} is not in the log"))
        elif found.at != row["judged_at"] or _differs(row, found.body, _OF_JUDGEMENT):
            faults.append(Fault(found.seq, f"{name} was edited"))
    return faults + [
        Fault(said.seq, f"judgement on {task} is no longer in its table") for (task, _), said in left.items()
    ]


def _tasks(rows: Sequence[Row], told: _Told) -> list[Fault]:
    faults: list[Fault] = []
    left = dict(told.opened)
    for row in rows:
        found = left.pop(row["task_id"], None)
        if found is None:
            faults.append(Fault(0, f"task {row['task_id']} is not in the log"))
            continue
        changed = _differs(row, found.body, [key for key in _OF_TASK if key in found.body])
        changed += _differs(row, {"opened_at": found.at, "due_at": _due(told, row["task_id"])}, ("opened_at", "due_at"))
        if row["payload"] is not None and digest(row["payload"]) != row["payload_hash"]:
            changed.append("payload")
        faults += [Fault(found.seq, f"task {row['task_id']}: {key} was edited") for key in changed]
        last = told.decided.get(row["task_id"], [])[-1:]
        seq, status = (last[0].seq, str(last[0].body.get("status"))) if last else (0, "open")
        if row["status"] != status:
            faults.append(Fault(seq, f"task {row['task_id']} says {row['status']}, the log {status}"))
    return faults + [Fault(said.seq, f"task {task} is no longer in its table") for task, said in left.items()]


def _due(told: _Told, task_id: str) -> str | None:
    said = told.assigned.get(task_id)
    return None if said is None else said.body.get("due_at")


def _verdicts(rows: Sequence[Row], told: _Told) -> list[Fault]:
    faults: list[Fault] = []
    by_task: dict[str, list[Row]] = {}
    for row in rows:
        by_task.setdefault(row["task_id"], []).append(row)
    for task_id in {*by_task, *told.decided}:
        here, there = by_task.get(task_id, []), told.decided.get(task_id, [])
        if len(here) != len(there):
            seq = there[-1].seq if there else 0
            faults.append(Fault(seq, f"task {task_id} has {len(here)} verdicts, in the log {len(there)}"))
            continue
        for row, said in zip(here, there, strict=True):
            by = "panel" if said.kind == "closed" else said.actor
            if _differs(row, {**said.body, "by": by, "decided_at": said.at}, (*_OF_VERDICT, "by", "decided_at")):
                faults.append(Fault(said.seq, f"a verdict on task {task_id} was edited"))
    return faults


def _assignments(rows: Sequence[Row], told: _Told) -> list[Fault]:
    faults: list[Fault] = []
    here: dict[str, dict[str, str]] = {}
    for row in rows:
        here.setdefault(row["task_id"], {})[row["person_id"]] = row["assigned_at"]
    for task_id in {*here, *told.assigned}:
        said = told.assigned.get(task_id)
        panel = {} if said is None else dict.fromkeys(said.body.get("panel", []), said.at)
        if here.get(task_id, {}) != panel:
            faults.append(
                Fault(0 if said is None else said.seq, f"the panel of task {task_id} is not the one in the log")
            )
    return faults


def _appeals(rows: Sequence[Row], told: _Told) -> list[Fault]:
    faults: list[Fault] = []
    left = dict(told.appeals)
    for row in rows:
        said = left.pop(row["appeal_id"], None)
        if said is None:
            faults.append(Fault(0, f"appeal {row['appeal_id']} is not in the log"))
            continue
        status = told.paired.get(row["appeal_id"], "reviewed" if row["task_id"] else "open")
        wanted = {key: said.body.get(key) or None for key in _OF_APPEAL} | {"made_at": said.at, "status": status}
        changed = _differs(row, wanted, tuple(wanted))
        if said.body.get("reason", digest(row["reason"])) != digest(row["reason"]):
            changed.append("reason")
        if changed:
            faults.append(Fault(said.seq, f"appeal {row['appeal_id']}: {', '.join(changed)} edited"))
    return faults + [Fault(said.seq, f"appeal {name} is no longer in its table") for name, said in left.items()]


def _rules(rows: Sequence[Row], told: _Told) -> list[Fault]:
    faults: list[Fault] = []
    by_loop: dict[str, list[Row]] = {}
    for row in rows:
        by_loop.setdefault(row["loop"], []).append(row)
    for loop in {*by_loop, *told.rules}:
        here, there = by_loop.get(loop, []), told.rules.get(loop, [])
        same = len(here) == len(there) and not any(
            _differs(row, {**said.body, "set_at": said.at}, (*_OF_RULE, "set_at"))
            for row, said in zip(here, there, strict=True)
        )
        if not same:
            faults.append(Fault(there[0].seq if there else 0, f"the rules of {loop} are not those in the log"))
    return faults


def _people(rows: Sequence[Row], told: _Told) -> list[Fault]:
    faults: list[Fault] = []
    left = dict(told.people)
    for row in rows:
        found = left.pop(row["person_id"], None)
        if found is None:
            faults.append(Fault(0, f"person {row['person_id']} is not in the log"))
            continue
        edited = [key for key in ("roles", "owns") if row[key] != ",".join(found.body.get(key, []))]
        faults += [Fault(found.seq, f"{key} of {row['person_id']} were edited") for key in edited]
        if "key" in found.body and found.body["key"] != digest(row["key_hash"]):
            faults.append(Fault(found.seq, f"the key of {row['person_id']} was replaced beside the log"))
        if row["added_at"] != found.at:
            faults.append(Fault(found.seq, f"the time at which {row['person_id']} was added was edited"))
        revoked = told.revoked.get(row["person_id"])
        if row["revoked_at"] != (None if revoked is None else revoked.at):
            faults.append(Fault(found.seq, f"the key of {row['person_id']} was revoked or restored beside the log"))
    return faults + [Fault(said.seq, f"person {name} is no longer in the table") for name, said in left.items()]


def _sessions(rows: Sequence[Row], told: _Told) -> list[Fault]:
    """Return the sessions that nobody opened; one that is over may be there or not."""
    faults: list[Fault] = []
    for row in rows:
        token = digest(row["token_hash"])
        said = told.sessions.get((token, row["expires_at"]))
        if said is not None and said.actor == row["person_id"]:
            if token in told.closed:
                faults.append(Fault(said.seq, f"a session of {row['person_id']} is open that the log says was closed"))
        elif (row["person_id"], _opened_at(row["expires_at"])) not in told.former_sessions:
            faults.append(Fault(0, f"a session of {row['person_id']} is not in the log"))
    return faults


def _api_keys(keys: Sequence[Key], told: _Told) -> list[Fault]:
    """Return the API keys that are not those in the log; nothing where it tells of none yet."""
    faults: list[Fault] = []
    left = dict(told.api_keys)
    for key in keys if told.api_keys else ():
        said = left.pop(key.id, None)
        if said is None:
            faults.append(Fault(0, f"API key {key.id} is not in the log"))
            continue
        wanted = key_told(key)
        if changed := _differs(wanted, said.body, tuple(wanted)):
            faults.append(Fault(said.seq, f"API key {key.id}: {', '.join(changed)} edited"))
        if (key.revoked_at is not None) != (key.id in told.api_keys_revoked):
            faults.append(Fault(said.seq, f"API key {key.id} was revoked or restored beside the log"))
    return faults + [Fault(said.seq, f"API key {name} is no longer in State") for name, said in left.items()]


def _opened_at(expires_at: str) -> str:
    """Return when a session of an earlier release, whose entry does not hold its token, was opened."""
    try:
        return (datetime.strptime(expires_at, _TIME).replace(tzinfo=UTC) - SESSION).strftime(_TIME)
    except ValueError:
        return ""


def _differs(row: Row, said: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """Return which of `keys` the row does not hold as it was said."""
    return [key for key in keys if said.get(key) != row[key]]
