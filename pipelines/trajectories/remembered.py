"""A user's records as they lie in Redis, one field each, and the memories that policies make of them.

What is read is a function of the fields alone: neither the order in which they were written nor who wrote them counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from decision.memory import Mark, Report, Turn, first_of, gone_on, known_at, mark_before
from decision.records import Decision, Outcome
from pipelines.trajectories.memories import Remembering, micros

VERSION, BEFORE, BOUND, TURN, REPORT = b"v", b"b", b"x", b"t:", b"r:"
"""Fields, or what their names begin with: a mark that every change replaces; how many turns were forgotten, and the
time and id of the last of them; a decision; a report."""

encode = msgspec.msgpack.Encoder().encode
_turn_of = msgspec.msgpack.Decoder(tuple[int, str, bool, int]).decode
_report_of = msgspec.msgpack.Decoder(tuple[str, float, int, int, str | None, str, int]).decode
_bound_of = msgspec.msgpack.Decoder(tuple[int, str]).decode

Field = tuple[bytes, bytes]
"""Name and value."""


def turn_field(record: Decision, appended_ms: int) -> Field:
    """Return the field of a decision that came to its log at `appended_ms`."""
    action = record.action_ids[record.action_index]
    turn = (micros(record.ts), action, record.deferred, appended_ms * 1000)
    return TURN + record.event_id.encode(), encode(turn)


def report_field(record: Outcome, arrived_ms: int, origin: str, offset: int) -> Field:
    """Return the field of an outcome that came at `arrived_ms`: message `offset` of the log `origin`, without ":"."""
    row = (record.name, record.value, micros(record.ts), arrived_ms * 1000, record.idempotency_key, origin, offset)
    return REPORT + b"%d:%s:%s" % (offset, origin.encode(), record.event_id.encode()), encode(row)


class _Found(NamedTuple):
    state: list[float] | None
    since_us: int
    until_us: int


class User:
    """What was read of a user, and what was made of it.

    Args:
        version: the mark of what was read.
        before: how many turns were forgotten.
        turns: the others, in order of time.
    """

    def __init__(self, version: bytes | None, before: int, turns: list[Turn]) -> None:
        self.version, self.before, self.turns = version, before, turns
        self.marks: dict[str, tuple[int, tuple[Mark, ...]]] = {}
        self.found: dict[str, _Found] = {}

    def going_on_from(self, earlier: User | None) -> User:
        """Return the same with those marks of an earlier reading before which nothing has changed."""
        if earlier is not None and earlier.before == self.before:
            same = next((n for n, (a, b) in enumerate(zip(earlier.turns, self.turns, strict=False)) if a != b), None)
            same = min(len(earlier.turns), len(self.turns)) if same is None else same
            places = [(turn.ts_us, turn.event_id) for turn in (earlier.turns[same : same + 1] + self.turns[same:][:1])]
            for digest, (first, marks) in earlier.marks.items():
                kept = tuple(mark for mark in marks if all(mark.after < place for place in places))
                self.marks[digest] = (first, kept)
        return self

    def memory(self, used: Remembering, at_us: int) -> list[float] | None:
        """Return the [f + h] numbers that `used` makes of the user at `at_us`; None when nothing is known."""
        found = self.found.get(used.digest)
        if found is None or not found.since_us <= at_us < found.until_us:
            turns = [turn for turn in self.turns if turn.ts_us < at_us]
            first = first_of(self.before + len(turns))
            begun, marks = self.marks.get(used.digest, (first, ()))
            marks = marks if begun == first else ()
            mark = mark_before(marks, at_us)
            after = (-1, "") if mark is None else mark.after
            latest = [t for t in turns[max(0, first - self.before) :] if (t.ts_us, t.event_id) > after]
            going = gone_on(used.oracle, marks, latest, used.rule, at_us)
            self.marks[used.digest] = (first, going.marks)
            found = _Found(None if going.state is None else going.state.tolist(), at_us, going.until_us)
            self.found[used.digest] = found
        return found.state


def read_user(fields: Mapping[bytes, bytes]) -> tuple[int, list[Turn]]:
    """Return how many turns were forgotten, and those that are there, in order of time."""
    bound = _bound_of(fields[BOUND]) if BOUND in fields else (-1, "")
    reports: dict[bytes, list[tuple[Any, ...]]] = {}
    for field, value in fields.items():
        if field.startswith(REPORT):
            reports.setdefault(event_of(field), []).append(_report_of(value))
    turns: list[Turn] = []
    for field, value in fields.items():
        if not field.startswith(TURN):
            continue
        event = event_of(field)
        ts, action, deferred, appended = _turn_of(value)
        if (ts, event.decode()) > bound:
            came = sorted(reports.get(event, ()), key=lambda row: (row[3], row[5], row[6]))
            told = [
                Report(name, amount, happened, known_at(ts, appended, happened, arrived), key)
                for name, amount, happened, arrived, key, _, _ in came
            ]
            turns.append(Turn(ts, event.decode(), action, deferred, told))
    turns.sort(key=lambda turn: (turn.ts_us, turn.event_id))
    return int(fields.get(BEFORE, b"0")), turns


def event_of(field: bytes) -> bytes:
    """Return the event id in a field's name: what follows the offset and the log of a report, which have no colon."""
    return field.split(b":", 1)[1] if field.startswith(TURN) else field.split(b":", 3)[3]
