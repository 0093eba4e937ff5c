"""The shapes of what the panels' endpoints take and answer; unknown fields are refused."""

from __future__ import annotations

from typing import Any

import msgspec

from pipelines.fairness.people import Person


class Adjudication(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An adjudicator's verdict on a disputed pair, and why."""

    verdict: str
    note: str


class Replay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another rule for the stored judgements."""

    loop: str
    quorum: float = 0.6
    sensitivity: float = 0.0


class Appeal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An appeal against a decision or a verdict."""

    loop: str
    reason: str
    event_id: str = ""
    task_id: str = ""


class NewPerson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Someone to add."""

    name: str
    roles: list[str]
    owns: list[str] = []


class Task(msgspec.Struct):
    """A pair to judge, as an auditor may see it."""

    task_id: str
    due_at: str
    payload: dict[str, Any]
    payload_hash: str


class Tasks(msgspec.Struct):
    """Open tasks, the most urgent first."""

    tasks: list[Task]


class NextTask(Task):
    """The most urgent task, and how many are left."""

    left: int


class Judged(msgspec.Struct):
    """A judgement that was taken."""

    task_id: str
    payload_hash: str
    judged_at: str


class Reports(msgspec.Struct):
    """Pairs with their votes, without identities."""

    reports: list[dict[str, Any]]


class Decided(msgspec.Struct):
    """A dispute that was decided."""

    task_id: str
    status: str
    decided_at: str


class Lineage(msgspec.Struct):
    """Where a pair comes from, and the audit log's entries on it."""

    task_id: str
    loop: str
    status: str
    log: list[dict[str, Any]]


class Appealed(msgspec.Struct):
    """An appeal that was taken."""

    appeal_id: str


class Fault(msgspec.Struct):
    """An entry of the audit log that is not as it was written."""

    entry: int
    what: str


class Verified(msgspec.Struct):
    """Whether the audit log is whole."""

    ok: bool
    entries: int
    head: str
    faults: list[Fault]


class People(msgspec.Struct):
    """Everyone."""

    people: list[Person]


class AddedPerson(msgspec.Struct):
    """Someone who was added, with the key that is told this once."""

    person_id: str
    name: str
    roles: list[str]
    owns: list[str]
    active: bool
    key: str
